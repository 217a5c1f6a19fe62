//! Tags of words: F1 of whole entities as seqeval counts them, or of each tag where tags spell no entities.

use phyla_data::supervised::records::Tagged;
use phyla_data::supervised::table::Table;
use phyla_metrics::classification::{Classes, ConfusionMatrix};
use phyla_metrics::entities::EntityCounts;
use phyla_metrics::tags::{Scheme, entities};

use super::{Class, Confusion, Evaluation, Metric, Mistake, Options, Progress, Unknown, Worst, averages, named, note};
use crate::task::tag::{Passage, Tag};
use crate::task::{Runner, predict};
use crate::{Error, Session};

/// Evaluates a tagger of words.
///
/// # Errors
/// Another head; sentences that cannot be read or have no tags; tags that the model does not know.
pub fn tags(
    session: &Session,
    table: &Table,
    scheme: Scheme,
    options: &Options,
    progress: Progress,
) -> Result<Evaluation, Error> {
    let head = Tag::new(session, options.max_len)?;
    let labels = named(head.labels(), options)?;
    let (mut total, mut unknown) = (0, Unknown::default());
    for record in table.records::<Tagged>() {
        let record = record?;
        if record.tags.is_empty() {
            return Err(Error::Task("the data has no tags to compare with".into()));
        }
        record.tags.iter().for_each(|tag| unknown.note(&labels, tag));
        total += 1;
    }
    unknown.check(&labels)?;
    let spells = labels.names().iter().all(|name| entities(&[name], scheme).is_ok());
    let (mut counts, mut confusion) = (EntityCounts::new(scheme), ConfusionMatrix::new(labels.len()));
    let mut worst = Worst::new(options.mistakes);
    let (mut done, mut words, mut silent) = (0, 0, 0);
    let runner = Runner::new(&session.model, session.tokenizer.as_ref(), options.batches);
    let records = table.records::<Tagged>().map(|record| record.map(Passage::Words));
    predict(&head, &runner, records, |item| {
        let (passage, said) = item?;
        let Passage::Words(record) = passage else { return Ok(()) };
        // A word that no token stands for is outside of everything.
        let outside = labels.id("O").filter(|_| labels.names().iter().any(|name| name == "O")).unwrap_or(0);
        let found: Vec<usize> = said.iter().map(|word| word.tag.unwrap_or(outside) as usize).collect();
        silent += said.iter().filter(|word| word.tag.is_none()).count() as u64;
        words += said.len() as u64;
        let class = |tag: &String| labels.id(tag).unwrap_or(outside) as usize;
        let expected: Vec<usize> = record.tags.iter().map(class).collect();
        let spell =
            |tags: &[usize]| -> Vec<&str> { tags.iter().map(|&tag| labels.name(tag as u32).unwrap_or("O")).collect() };
        if spells {
            counts.add(&spell(&expected), &spell(&found))?;
        } else {
            confusion.extend(&expected, &found)?;
        }
        let wrong = expected.iter().zip(&found).filter(|(a, b)| a != b).count();
        if wrong > 0 {
            let share = wrong as f64 / expected.len() as f64;
            let shown = |tags: &[usize]| shown(&record.tokens, &spell(tags), spells.then_some(scheme));
            worst.add(share, || Mistake {
                input: record.tokens.join(" "),
                expected: shown(&expected),
                found: shown(&found),
                score: share,
            });
        }
        done += 1;
        progress(done, Some(total));
        Ok::<_, Error>(())
    })?;
    let mut made = Evaluation { task: "token_classification", unit: "sentences", count: done, ..Evaluation::default() };
    if spells {
        let report = counts.report()?;
        let micro = report.averages.micro;
        made.metrics = vec![
            Metric::fraction("f1", micro.f1),
            Metric::fraction("precision", micro.precision),
            Metric::fraction("recall", micro.recall),
            Metric::fraction("f1_macro", report.averages.macro_.f1),
            Metric::fraction("f1_weighted", report.averages.weighted.f1),
            Metric::fraction("accuracy", report.accuracy),
        ];
        made.classes = report.kinds.into_iter().map(|(name, scores)| Class { name, scores }).collect();
        made.notes.push("f1, precision and recall are of whole entities, accuracy is of tags".into());
    } else {
        let report = confusion.report(Classes::Seen)?;
        made.metrics.push(Metric::fraction("accuracy", report.accuracy));
        made.metrics.extend(averages(&report.averages));
        let name = |class: usize| labels.name(class as u32).unwrap_or_default().to_owned();
        made.classes = report.classes.iter().map(|&(class, scores)| Class { name: name(class), scores }).collect();
        made.confusion =
            (labels.len() <= 64).then(|| Confusion { labels: labels.names().to_vec(), counts: confusion.rows() });
    }
    note(&mut made.notes, silent, words, "words have no token of their own and count as outside");
    note(&mut made.notes, table.faults().count, done + table.faults().count, "sentences could not be used");
    made.mistakes = worst.take();
    Ok(made)
}

/// What tags say: the entities, or each word with its tag.
fn shown(words: &[String], tags: &[&str], scheme: Option<Scheme>) -> String {
    let Some(Ok(found)) = scheme.map(|scheme| entities(tags, scheme)) else {
        return words.iter().zip(tags).map(|(word, tag)| format!("{word}/{tag}")).collect::<Vec<_>>().join(" ");
    };
    let said = found
        .iter()
        .map(|one| format!("{}: {}", one.kind, words.get(one.start..one.end).unwrap_or_default().join(" ")));
    said.collect::<Vec<_>>().join("; ")
}

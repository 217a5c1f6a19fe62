//! Multiple choice: how often the right one is taken.

use phyla_data::supervised::records::Choice;
use phyla_data::supervised::table::Table;
use phyla_metrics::classification::accuracy;

use super::{Evaluation, Metric, Mistake, Options, Progress, Worst, note};
use crate::task::choose::Choose;
use crate::task::{Runner, highest, predict};
use crate::{Error, Session};

/// Evaluates a model that chooses.
///
/// # Errors
/// Another head; questions that cannot be read, or whose answer is not known.
pub fn choices(session: &Session, table: &Table, options: &Options, progress: Progress) -> Result<Evaluation, Error> {
    let head = Choose::new(session, options.max_len)?;
    let (mut total, mut chance) = (0, 0.);
    for question in table.records::<Choice>() {
        let question = question?;
        if question.answer.is_none() {
            return Err(Error::Task("the data does not say which choices are right".into()));
        }
        chance += 1. / question.choices.len() as f64;
        total += 1;
    }
    let (mut expected, mut found) = (vec![], vec![]);
    let mut worst = Worst::new(options.mistakes);
    let (mut done, mut cut) = (0, 0);
    let runner = Runner::new(&session.model, session.tokenizer.as_ref(), options.batches);
    predict(&head, &runner, table.records::<Choice>(), |item| {
        let (question, (scores, was_cut)) = item?;
        cut += u64::from(was_cut);
        let (right, best) = (question.answer.unwrap_or_default(), highest(&scores));
        if right != best {
            let score = f64::from(scores.get(best).copied().unwrap_or_default());
            let text = |choice: usize| question.choices.get(choice).cloned().unwrap_or_default();
            let context = question.context.iter().map(String::as_str);
            worst.add(score, || Mistake {
                input: context.chain([question.question.as_str()]).collect::<Vec<_>>().join(" / "),
                expected: text(right),
                found: text(best),
                score,
            });
        }
        expected.push(right);
        found.push(best);
        done += 1;
        progress(done, Some(total));
        Ok::<_, Error>(())
    })?;
    let mut made = Evaluation { task: "multiple_choice", unit: "questions", count: done, ..Evaluation::default() };
    made.metrics = vec![
        Metric::fraction("accuracy", accuracy(&expected, &found)?),
        Metric::fraction("chance", chance / total.max(1) as f64),
    ];
    note(&mut made.notes, cut, done, "questions were cut, since the model reads no more");
    note(&mut made.notes, table.faults().count, done + table.faults().count, "questions could not be used");
    made.mistakes = worst.take();
    Ok(made)
}

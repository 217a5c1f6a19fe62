//! Texts for texts: BLEU and chrF equal to sacrebleu's, and how many are right to the letter.

use phyla_data::supervised::records::Parallel;
use phyla_data::supervised::table::Table;
use phyla_generate::GenerationConfig;
use phyla_metrics::bleu::{self, Bleu};
use phyla_metrics::chrf::{self, Chrf};

use super::{Evaluation, Metric, Mistake, Options, Progress, Scale, Worst, note};
use crate::task::translate::Translate;
use crate::{Error, Session};

/// What a translation asks for besides [`Options`].
#[derive(Clone, Debug, Default)]
pub struct TranslateOptions {
    /// Put before every source.
    pub prefix: String,
    /// How to decode; goes before the model's own settings.
    pub settings: GenerationConfig,
    /// Seed of draws, if there are any.
    pub seed: u64,
    /// How BLEU is computed.
    pub bleu: bleu::Options,
    /// How chrF is computed.
    pub chrf: chrf::Options,
}

/// Evaluates an encoder-decoder on sources with a reference each.
///
/// # Errors
/// Another kind of model; pairs that cannot be read or have no reference; settings out of range.
pub fn translation(
    session: &Session,
    table: &Table,
    how: &TranslateOptions,
    options: &Options,
    progress: Progress,
) -> Result<Evaluation, Error> {
    let mut head = Translate::new(session, options.max_len)?;
    (head.prefix, head.settings, head.seed) = (how.prefix.clone(), how.settings.clone(), how.seed);
    let mut total = 0;
    for pair in table.records::<Parallel>() {
        if pair?.target.is_none() {
            return Err(Error::Task("the data has sources alone, and no references to compare with".into()));
        }
        total += 1;
    }
    let (mut bleu, mut chrf) = (Bleu::new(how.bleu)?, Chrf::new(how.chrf)?);
    let mut worst = Worst::new(options.mistakes);
    let (mut done, mut exact, mut cut, mut unfinished) = (0, 0, 0, 0);
    let pairs = table.records::<Parallel>();
    head.stream(
        &options.batches,
        pairs,
        |pair| &pair.source,
        |item| {
            let (pair, made) = item?;
            let reference = pair.target.unwrap_or_default();
            bleu.add(&made.text, &[&reference])?;
            chrf.add(&made.text, &[&reference])?;
            exact += u64::from(made.text.trim() == reference.trim());
            (cut, unfinished) = (cut + u64::from(made.cut), unfinished + u64::from(made.unfinished));
            let near = chrf::sentence(&made.text, &[&reference], how.chrf)?.score;
            if made.text.trim() != reference.trim() {
                worst.add(-near, || Mistake { input: pair.source, expected: reference, found: made.text, score: near });
            }
            done += 1;
            progress(done, Some(total));
            Ok::<_, Error>(())
        },
    )?;
    let mut made = Evaluation { task: "translation", unit: "sentences", count: done, ..Evaluation::default() };
    let (score, near) = (bleu.score()?, chrf.score()?);
    made.metrics = vec![
        Metric::new("bleu", score.score, Scale::Percent),
        Metric::new(near.name.to_lowercase(), near.score, Scale::Percent),
        Metric::fraction("exact_match", exact as f64 / done.max(1) as f64),
    ];
    for (order, precision) in score.precisions.iter().enumerate() {
        made.metrics.push(Metric::new(format!("bleu_precision_{}", order + 1), *precision, Scale::Percent));
    }
    made.metrics.push(Metric::fraction("brevity_penalty", score.brevity_penalty));
    made.metrics.push(Metric::new("words", score.sys_len as f64, Scale::Count));
    made.metrics.push(Metric::new("reference_words", score.ref_len as f64, Scale::Count));
    made.signatures = vec![format!("BLEU|{}", bleu.signature()), format!("{}|{}", near.name, chrf.signature())];
    note(&mut made.notes, cut, done, "sources were cut, since the model reads no more");
    note(&mut made.notes, unfinished, done, "translations ended at the limit of tokens");
    note(&mut made.notes, table.faults().count, done + table.faults().count, "pairs could not be used");
    made.mistakes = worst.take();
    Ok(made)
}

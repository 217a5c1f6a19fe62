//! How well a language model predicts texts: perplexity of tokens, bits for each byte.

use phyla_metrics::likelihood::Likelihood;

use super::{Evaluation, Metric, Options, Progress, Scale};
use crate::task::Runner;
use crate::task::likelihood::{Measure, Window};
use crate::{Error, Session};

/// A text, or why there is none.
pub type Text = Result<String, Error>;

/// Evaluates a causal or masked language model on texts, each by itself; see [`Measure`] for windows.
///
/// # Errors
/// Texts that cannot be read; a failure of the model; nothing to predict.
pub fn perplexity(
    session: &Session,
    texts: impl Iterator<Item = Text>,
    measure: &Measure,
    options: &Options,
    progress: Progress,
) -> Result<Evaluation, Error> {
    let runner = Runner::new(&session.model, session.tokenizer.as_ref(), options.batches);
    let (mut sum, mut waiting, mut count, mut read) = (Likelihood::default(), Vec::<Window>::new(), 0, 0);
    let mut run = |windows: Vec<Window>, sum: &mut Likelihood| -> Result<(), Error> {
        for chunk in windows.chunks(options.batches.chunk.max(1)) {
            sum.add(measure.nats(&runner, chunk)?, 0, 0)?;
            read += chunk.len() as u64;
            progress(read, None);
        }
        Ok(())
    };
    for text in texts {
        let (windows, counted) = measure.windows(&text?)?;
        (sum.tokens, sum.bytes, count) = (sum.tokens + counted.tokens, sum.bytes + counted.bytes, count + 1);
        waiting.extend(windows);
        if waiting.len() >= options.batches.chunk {
            run(std::mem::take(&mut waiting), &mut sum)?;
        }
    }
    run(waiting, &mut sum)?;
    let mut made = Evaluation { task: "perplexity", unit: "texts", count, ..Evaluation::default() };
    made.metrics = vec![
        Metric::new("perplexity", sum.perplexity()?, Scale::Number),
        Metric::new("bits_per_byte", sum.bits_per_byte()?, Scale::Number),
        Metric::new("loss", sum.nats / sum.tokens.max(1) as f64, Scale::Number),
        Metric::new("tokens", sum.tokens as f64, Scale::Count),
        Metric::new("bytes", sum.bytes as f64, Scale::Count),
    ];
    let (window, stride) = measure.sizes();
    made.notes.push(format!("windows of {window} tokens, {stride} apart"));
    Ok(made)
}

//! What heads are for: texts in, labels, entities, answers, words, vectors out; each task one file, all over one runner.
//!
//! A [`Head`] turns an input into rows of token ids and what the model says of them into an answer; a [`Runner`] puts
//! rows of like length together; [`predict`] does both over a stream, a chunk at a time, in the order of the inputs.

pub mod answer;
pub mod choose;
pub mod classify;
pub mod embed;
pub mod fill;
pub mod likelihood;
pub mod prediction;
mod rows;
pub mod tag;
pub mod translate;

use phyla_data::supervised::labels::LabelSet;
use phyla_data::tokenizer::Tokenizer;
use phyla_models::{Model, Task};
use rayon::prelude::*;
use serde_json::Value;

pub use rows::{Row, Runner, Scores};

use crate::{Error, Session};

/// One task, between its inputs and a model's numbers.
pub trait Head: Sync {
    /// What is asked.
    type Input: Send + Sync;
    /// What is kept of an input until the model has read its rows.
    type Prepared: Send;
    /// What is answered.
    type Output;

    /// The rows that an input becomes, at least one.
    ///
    /// # Errors
    /// An input that cannot be used.
    fn rows(&self, input: &Self::Input) -> phyla_data::Result<(Vec<Row>, Self::Prepared)>;

    /// The answer, from what the model said of each row.
    ///
    /// # Errors
    /// Numbers that no answer can be made of.
    fn answer(
        &self,
        input: &Self::Input,
        prepared: Self::Prepared,
        scores: Vec<Scores>,
    ) -> phyla_data::Result<Self::Output>;
}

/// Puts a stream of inputs through a model, in order: each input with its answer, or why there is none.
///
/// A record that cannot be read or encoded is handed to `give` in its place, and the rest goes on. At most a chunk of
/// inputs (see `LengthBatches::chunk`) is in memory.
///
/// # Errors
/// Inputs that cannot be read on, failures of the model, and the first error of `give`.
pub fn predict<H: Head, E: From<Error>>(
    head: &H,
    runner: &Runner,
    inputs: impl Iterator<Item = phyla_data::Result<H::Input>>,
    mut give: impl FnMut(phyla_data::Result<(H::Input, H::Output)>) -> Result<(), E>,
) -> Result<(), E> {
    let mut inputs = inputs.fuse();
    loop {
        let chunk: Vec<_> = inputs.by_ref().take(runner.batches.chunk.max(1)).collect();
        if chunk.is_empty() {
            return Ok(());
        }
        let prepare = |item: phyla_data::Result<H::Input>| {
            item.and_then(|input| head.rows(&input).map(|(rows, prepared)| (input, rows, prepared)))
        };
        let mut items: Vec<_> = chunk.into_par_iter().map(prepare).collect();
        // What stands before a fault of the file is answered before the fault is reported.
        let fatal = items.iter().position(|item| matches!(item, Err(error) if !of_one_record(error)));
        let after = fatal.map(|at| items.split_off(at));
        let rows: Vec<&Row> = items.iter().flatten().flat_map(|(_, rows, _)| rows).collect();
        let mut scores = runner.scores(&rows).map_err(Error::from)?.into_iter();
        for item in items {
            let answered = item.and_then(|(input, rows, prepared)| {
                let scores = scores.by_ref().take(rows.len()).collect();
                head.answer(&input, prepared, scores).map(|output| (input, output))
            });
            give(answered)?;
        }
        if let Some(Err(error)) = after.and_then(|after| after.into_iter().next()) {
            return Err(Error::from(error).into());
        }
    }
}

/// Whether the inputs after this error may be well.
fn of_one_record(error: &phyla_data::Error) -> bool {
    matches!(error, phyla_data::Error::Record { .. } | phyla_data::Error::Tokenizer(_) | phyla_data::Error::Settings(_))
}

/// The model and its tokenizer, or the error that names what is missing.
pub(crate) fn parts(session: &Session) -> Result<(&Model, &Tokenizer), Error> {
    match &session.tokenizer {
        Some(tokenizer) => Ok((&session.model, tokenizer)),
        None => Err(Error::NoTokenizer),
    }
}

/// An error unless the model's head is one of these.
pub(crate) fn expect(model: &Model, tasks: &[Task], what: &str) -> Result<(), Error> {
    if tasks.contains(&model.arch.task) {
        return Ok(());
    }
    Err(Error::Task(format!("{what} needs another head: this model is for {}", model.arch.task.describe())))
}

/// The names of a classifier's labels: `id2label`, or `LABEL_0`, `LABEL_1`, … as transformers calls them.
///
/// # Errors
/// An `id2label` with holes, or that names another number of labels than the head gives.
pub fn labels(model: &Model) -> Result<LabelSet, Error> {
    let count = model.arch.heads.iter().rev().find_map(|head| match head.output {
        phyla_nn::Output::Own(linear) | phyla_nn::Output::Buffered(linear) => Some(linear.output),
        phyla_nn::Output::Tied { .. } => None,
    });
    let count = count.unwrap_or(0);
    let set = match model.config.get("id2label").and_then(Value::as_object).filter(|map| !map.is_empty()) {
        Some(map) => LabelSet::from_id2label(map)?,
        None => LabelSet::new((0..count).map(|id| format!("LABEL_{id}")).collect())?,
    };
    if set.len() != count {
        return Err(Error::Task(format!("config.json names {} labels, and the head gives {count}", set.len())));
    }
    Ok(set)
}

/// Tokens of a row at most: what was asked for, within what model and tokenizer can take.
///
/// # Errors
/// More than the model has positions for.
pub fn max_len(model: &Model, tokenizer: &Tokenizer, asked: Option<usize>) -> Result<usize, Error> {
    let hard = model.arch.context_is_hard.then_some(model.arch.context);
    match (asked, hard) {
        (Some(asked), Some(hard)) if asked > hard => {
            Err(Error::Task(format!("rows of {asked} tokens are asked for, and the model has positions for {hard}")))
        }
        (Some(asked), _) => Ok(asked),
        (None, _) => Ok(model.arch.context.min(tokenizer.model_max_length().unwrap_or(usize::MAX)).max(1)),
    }
}

/// `exp(x - max)` over its sum.
pub(crate) fn softmax(scores: &[f32]) -> Vec<f32> {
    let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponents: Vec<f32> = scores.iter().map(|score| (score - highest).exp()).collect();
    let sum: f32 = exponents.iter().sum();
    exponents.into_iter().map(|exponent| exponent / sum).collect()
}

/// The place of the highest score; of equal ones the first.
pub(crate) fn highest(scores: &[f32]) -> usize {
    let better = |best: usize, at: usize| if scores[at] > scores[best] { at } else { best };
    (0..scores.len()).reduce(better).unwrap_or(0)
}

//! A text for a text: sentences through an encoder-decoder, those of like length together, given back in their order.

use phyla_data::supervised::encode;
use phyla_data::supervised::lengths::LengthBatches;
use phyla_data::tokenizer::Tokenizer;
use phyla_generate::{FinishReason, GenerationConfig};
use phyla_models::Task;
use rayon::prelude::*;

use super::{expect, of_one_record};
use crate::{Error, Session};

/// What came of a text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Translation {
    /// The text.
    pub text: String,
    /// Of a search for the likeliest: its score.
    pub score: Option<f32>,
    /// Ids that were written.
    pub tokens: usize,
    /// The source was longer than the model can read, and was cut.
    pub cut: bool,
    /// It ended at the limit of tokens, not where the model ended it.
    pub unfinished: bool,
}

/// An input, the ids of its source, and whether these were cut.
type Item<T> = phyla_data::Result<(T, Vec<u32>, bool)>;

/// Translation, summary, correction: whatever the model was trained for.
#[derive(Debug)]
pub struct Translate<'a> {
    session: &'a Session,
    tokenizer: &'a Tokenizer,
    max_len: usize,
    /// Put before every text (T5: `translate English to German: `).
    pub prefix: String,
    /// Settings that go before the model's own.
    pub settings: GenerationConfig,
    /// Seed of draws, if there are any.
    pub seed: u64,
}

impl<'a> Translate<'a> {
    /// The task of an encoder-decoder; `max_len` bounds sources, as in [`super::max_len`].
    ///
    /// # Errors
    /// Another kind of model.
    pub fn new(session: &'a Session, max_len: Option<usize>) -> Result<Self, Error> {
        let (model, tokenizer) = super::parts(session)?;
        expect(model, &[Task::Seq2SeqLm], "translating")?;
        let max_len = super::max_len(model, tokenizer, max_len)?;
        Ok(Self { session, tokenizer, max_len, prefix: String::new(), settings: GenerationConfig::default(), seed: 0 })
    }

    /// Puts a stream of texts through the model and gives each with what came of it, in order; what cannot be read or
    /// encoded is given in its place. A blank text becomes an empty one, so that lines stay beside each other.
    ///
    /// # Errors
    /// Settings out of range, failures of the model, and the first error of `give`.
    pub fn stream<T: Send + Sync, E: From<Error>>(
        &self,
        batches: &LengthBatches,
        inputs: impl Iterator<Item = phyla_data::Result<T>>,
        text: impl Fn(&T) -> &str + Sync,
        mut give: impl FnMut(phyla_data::Result<(T, Translation)>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut inputs = inputs.fuse();
        loop {
            let chunk: Vec<_> = inputs.by_ref().take(batches.chunk.max(1)).collect();
            if chunk.is_empty() {
                return Ok(());
            }
            let mut items: Vec<Item<T>> =
                chunk.into_par_iter().map(|item| item.and_then(|input| self.source(input, &text))).collect();
            let fatal = items.iter().position(|item| matches!(item, Err(error) if !of_one_record(error)));
            let after = fatal.map(|at| items.split_off(at));
            let sources: Vec<&[u32]> = items.iter().flatten().map(|(_, ids, _)| ids.as_slice()).collect();
            let mut made = self.translate(batches, &sources)?.into_iter();
            for item in items {
                let translated =
                    item.map(|(input, _, cut)| (input, Translation { cut, ..made.next().unwrap_or_default() }));
                give(translated)?;
            }
            if let Some(Err(error)) = after.and_then(|after| after.into_iter().next()) {
                return Err(Error::from(error).into());
            }
        }
    }

    /// An input with its ids, and whether it was cut.
    fn source<T>(&self, input: T, text: impl Fn(&T) -> &str) -> Item<T> {
        let said = text(&input);
        if said.trim().is_empty() {
            return Ok((input, vec![], false));
        }
        let (ids, _, cut) = encode(self.tokenizer, &format!("{}{said}", self.prefix), None, self.max_len)?;
        Ok((input, ids, cut))
    }

    /// What comes of these sources; of those without ids, nothing.
    fn translate(&self, batches: &LengthBatches, sources: &[&[u32]]) -> Result<Vec<Translation>, Error> {
        let mut made = vec![Translation::default(); sources.len()];
        let some: Vec<usize> = (0..sources.len()).filter(|&at| !sources[at].is_empty()).collect();
        let lengths: Vec<usize> = some.iter().map(|&at| sources[at].len()).collect();
        for batch in batches.plan(&lengths) {
            let prompts: Vec<Vec<u32>> = batch.iter().map(|&at| sources[some[at]].to_vec()).collect();
            // One answer each, whatever the model's own settings say.
            let settings = GenerationConfig { num_return_sequences: Some(1), ..self.settings.clone() };
            let generation = self.session.generate_ids(&prompts, settings, self.seed, &mut |_| {})?;
            for sequence in generation.sequences {
                made[some[batch[sequence.prompt]]] = Translation {
                    text: sequence.text.unwrap_or_default().trim().to_owned(),
                    score: sequence.score,
                    tokens: sequence.ids.len(),
                    cut: false,
                    unfinished: sequence.finish_reason == FinishReason::Length,
                };
            }
        }
        Ok(made)
    }
}

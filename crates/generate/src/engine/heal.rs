//! Token healing: the last token of a prompt is replaced by the likeliest one that begins with its text. A prompt that ends in the
//! middle of a word ends in a token that models have hardly seen before the rest of that word.

use phyla_data::tokenizer::Tokenizer;
use phyla_ops::cpu;

use super::Generator;
use super::batch::Batch;
use crate::{Error, Result, Settings, sampler};

/// The token itself has this advantage over those that it begins, so that a whole word is left alone; as in transformers.
const ITSELF: f32 = 1.;

/// A prompt, and the text that it has gained at its end.
pub(super) struct Healed {
    pub ids: Vec<u32>,
    pub more: String,
}

impl Generator<'_> {
    /// Heals prompts.
    pub(super) fn healed(&self, prompts: &[Vec<u32>], settings: &Settings) -> Result<Vec<Healed>> {
        if self.model.arch.source().is_some() {
            return Err(Error::Settings(format!(
                "token_healing: for prompts that are continued, and {} answers them",
                self.model.family.model_type
            )));
        }
        let Some(tokenizer) = self.tokenizer else {
            return Err(Error::Settings("token_healing needs a tokenizer, and there is none".into()));
        };
        let vocabulary = tokenizer.vocabulary();
        prompts.iter().map(|prompt| self.heal(prompt, tokenizer, &vocabulary, settings)).collect()
    }

    fn heal(
        &self,
        prompt: &[u32],
        tokenizer: &Tokenizer,
        vocabulary: &[(String, u32)],
        settings: &Settings,
    ) -> Result<Healed> {
        // White space at the end is no word to be completed.
        let mut ids = tokenizer.encode(tokenizer.decode(prompt, true)?.trim(), true)?;
        let whole = |ids| Ok(Healed { ids, more: String::new() });
        let Some((&tail, before)) = ids.split_last() else { return whole(ids) };
        let (bos, vocab) = (tokenizer.bos(), self.model.arch.vocab());
        let Some(token) = tokenizer.id_to_token(tail).filter(|_| !tokenizer.is_special(tail)) else {
            return whole(ids);
        };
        let begins = |(text, id): &&(String, u32)| text.starts_with(&token) && (*id as usize) < vocab;
        let longer: Vec<u32> = vocabulary.iter().filter(begins).map(|(_, id)| *id).collect();
        // As transformers, which does not let the beginning of sequence count where there is more.
        let mut context: Vec<u32> = before.iter().copied().filter(|&id| Some(id) != bos).collect();
        if context.is_empty() {
            context.extend(bos.filter(|_| !before.is_empty()));
        }
        if context.is_empty() || longer.len() < 2 {
            return whole(ids);
        }
        let mut batch = Batch::new(self.model, 1, settings.cache.spec(context.len()));
        let Some(logits) = batch.prefill(0, &context, || self.cancelled())? else { return whole(ids) };
        let mut row = vec![f32::NEG_INFINITY; vocab];
        let logits = cpu::view::<f32>(&logits)?;
        for id in longer {
            row[id as usize] = logits[id as usize] + if id == tail { ITSELF } else { 0. };
        }
        let best = sampler::greedy(&row)?;
        let last = ids.len() - 1;
        let text = |ids: &[u32]| tokenizer.decode(ids, true);
        let short = text(&ids)?;
        ids[last] = best;
        let more = text(&ids)?.strip_prefix(&short).unwrap_or_default().to_owned();
        Ok(Healed { ids, more })
    }
}

//! What happens to the logits of a step before an id is picked, in the order of transformers.

mod min_p;
mod repetition;
mod suppress;
mod temperature;
mod top_k;
mod top_p;

pub use min_p::MinP;
pub use repetition::RepetitionPenalty;
pub use suppress::{MinLength, Suppress};
pub use temperature::Temperature;
pub use top_k::TopK;
pub use top_p::TopP;

use crate::Settings;

/// Changes the logits of one sequence in place; minus infinity rules an id out.
pub trait Processor {
    /// `row` holds one logit for each id of the vocabulary.
    fn apply(&self, row: &mut [f32], history: &History);
}

/// The ids of a sequence so far.
#[derive(Clone, Debug, Default)]
pub struct History {
    ids: Vec<u32>,
    prompt: usize,
    distinct: Vec<u32>,
    /// One bit for each id of the vocabulary.
    seen: Vec<u64>,
}

impl History {
    /// A sequence that begins with `prompt`.
    pub fn new(prompt: &[u32]) -> Self {
        let mut history = Self::default();
        for &id in prompt {
            history.push(id);
        }
        history.prompt = prompt.len();
        history
    }

    /// Adds a new id.
    pub fn push(&mut self, id: u32) {
        self.ids.push(id);
        let (word, bit) = (id as usize / 64, 1 << (id % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit == 0 {
            self.seen[word] |= bit;
            self.distinct.push(id);
        }
    }

    /// The prompt.
    pub fn prompt(&self) -> &[u32] {
        &self.ids[..self.prompt]
    }

    /// What came after the prompt.
    pub fn new_ids(&self) -> &[u32] {
        &self.ids[self.prompt..]
    }

    /// Every id of prompt and answer, once, in order of appearance.
    pub fn distinct(&self) -> &[u32] {
        &self.distinct
    }

    /// The newest id.
    pub fn last(&self) -> Option<u32> {
        self.ids.last().copied()
    }
}

/// The processors that `settings` ask for, in the order in which they run.
pub fn chain(settings: &Settings) -> Vec<Box<dyn Processor>> {
    let mut chain: Vec<Box<dyn Processor>> = vec![];
    if settings.repetition_penalty != 1. {
        chain.push(Box::new(RepetitionPenalty(settings.repetition_penalty)));
    }
    if settings.min_new_tokens > 0 || settings.min_length > 0 {
        let (all, new) = (settings.min_length, settings.min_new_tokens);
        chain.push(Box::new(MinLength { all, new, eos: settings.eos.clone() }));
    }
    if !settings.suppress.is_empty() {
        chain.push(Box::new(Suppress(settings.suppress.clone())));
    }
    let Some(sampling) = settings.sampling else { return chain };
    if sampling.temperature != 1. {
        chain.push(Box::new(Temperature(sampling.temperature)));
    }
    if sampling.top_k > 0 {
        chain.push(Box::new(TopK(sampling.top_k)));
    }
    if sampling.top_p < 1. {
        chain.push(Box::new(TopP(sampling.top_p)));
    }
    if sampling.min_p > 0. {
        chain.push(Box::new(MinP(sampling.min_p)));
    }
    chain
}

#[cfg(test)]
mod tests;

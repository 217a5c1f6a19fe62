//! What happens to the logits of a step before an id is picked, in the order of transformers.

mod at_least;
mod bad_words;
mod forced;
mod min_p;
mod ngram;
mod renormalize;
mod repetition;
mod suppress;
mod temperature;
mod top_k;
mod top_p;

pub use at_least::AtLeast;
pub use bad_words::BadWords;
pub use forced::{ForcedBos, ForcedEos};
pub use min_p::MinP;
pub use ngram::NoRepeatNgram;
pub use renormalize::Renormalize;
pub use repetition::RepetitionPenalty;
pub use suppress::{BeginSuppress, MinLength, Suppress};
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
#[derive(Clone, Debug)]
pub struct History {
    ids: Vec<u32>,
    prompt: usize,
    limit: usize,
    distinct: Vec<u32>,
    /// One bit for each id of the vocabulary.
    seen: Vec<u64>,
}

impl History {
    /// A sequence that begins with `prompt`.
    pub fn new(prompt: &[u32]) -> Self {
        let mut history = Self { ids: vec![], prompt: prompt.len(), limit: usize::MAX, distinct: vec![], seen: vec![] };
        for &id in prompt {
            history.push(id);
        }
        history
    }

    /// Says how many new ids there will be at most.
    pub fn limited(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// Becomes a copy of `other`, in the memory that it has.
    pub fn copy_from(&mut self, other: &Self) {
        let Self { ids, prompt, limit, distinct, seen } = self;
        ids.clone_from(&other.ids);
        distinct.clone_from(&other.distinct);
        seen.clone_from(&other.seen);
        (*prompt, *limit) = (other.prompt, other.limit);
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

    /// Prompt and answer.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Most new ids.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The prompt; of an encoder-decoder what its decoder starts from.
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
    if settings.no_repeat_ngram > 0 {
        chain.push(Box::new(NoRepeatNgram(settings.no_repeat_ngram)));
    }
    let ends = |run: &&Vec<u32>| matches!(run[..], [id] if settings.eos.contains(&id));
    let bad_words: Vec<Vec<u32>> = settings.bad_words.iter().filter(|run| !ends(run)).cloned().collect();
    if !bad_words.is_empty() {
        chain.push(Box::new(BadWords(bad_words)));
    }
    if settings.min_new_tokens > 0 || settings.min_length > 0 {
        let (all, new) = (settings.min_length, settings.min_new_tokens);
        chain.push(Box::new(MinLength { all, new, eos: settings.eos.clone() }));
    }
    chain.extend(settings.forced_bos.map(|id| Box::new(ForcedBos(id)) as Box<dyn Processor>));
    if !settings.forced_eos.is_empty() {
        chain.push(Box::new(ForcedEos(settings.forced_eos.clone())));
    }
    if !settings.suppress.is_empty() {
        chain.push(Box::new(Suppress(settings.suppress.clone())));
    }
    if !settings.begin_suppress.is_empty() {
        let (ids, forced) = (settings.begin_suppress.clone(), settings.forced_bos.is_some());
        chain.push(Box::new(BeginSuppress { ids, forced }));
    }
    sampling(settings, &mut chain);
    if settings.renormalize && settings.beams > 1 {
        // Without beams nothing depends on it: neither the likeliest id nor a draw.
        chain.push(Box::new(Renormalize));
    }
    chain
}

/// What shapes the distribution that is drawn from.
fn sampling(settings: &Settings, chain: &mut Vec<Box<dyn Processor>>) {
    let Some(sampling) = settings.sampling else { return };
    // A beam needs an id to go on with besides those that end it.
    let ids = if settings.beams > 1 { settings.eos.len().max(1) + 1 } else { 1 };
    if sampling.temperature != 1. {
        chain.push(Box::new(Temperature(sampling.temperature)));
    }
    if sampling.top_k > 0 {
        chain.push(Box::new(TopK(sampling.top_k.max(ids))));
    }
    // The likeliest id they keep anyway.
    if sampling.top_p < 1. {
        let inner = TopP(sampling.top_p);
        chain.push(if ids > 1 { Box::new(AtLeast { ids, inner }) } else { Box::new(inner) });
    }
    if sampling.min_p > 0. {
        let inner = MinP(sampling.min_p);
        chain.push(if ids > 1 { Box::new(AtLeast { ids, inner }) } else { Box::new(inner) });
    }
}

#[cfg(test)]
mod tests;

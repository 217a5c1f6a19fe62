//! A conversation's memory: what has been read stays in the cache, so that a reply costs reading what is new, where a
//! call of its own reads everything again.

use phyla_nn::Cache;

/// The ids that a model has read, and its cache of them. Empty at first; for one model only.
#[derive(Debug, Default)]
pub struct Session {
    pub(crate) cache: Cache,
    pub(crate) ids: Vec<u32>,
}

impl Session {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ids that have been read: those of the last prompt and, but for the last one, of its answer.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// How many ids at the beginning of `prompt` need not be read again. The last is always read: the logits behind it
    /// are wanted.
    pub(crate) fn shared(&self, prompt: &[u32]) -> usize {
        let common = self.ids.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        common.min(prompt.len().saturating_sub(1))
    }
}

//! Guesses from counts of what has followed what: in this text, where [`super::lookup`] knows its first place alone, and in
//! all that an [`Ngrams`] has learnt.

use crate::Ngrams;
use crate::ngrams::{LONGEST, Table};

/// The counts of this text, and those that are shared.
pub(super) struct Counted<'a> {
    shared: &'a Ngrams,
    own: Table,
    /// Ids that `own` has counted.
    seen: usize,
}

impl<'a> Counted<'a> {
    /// Nothing of a text yet.
    pub fn new(shared: &'a Ngrams) -> Self {
        Self { shared, own: Table::default(), seen: 0 }
    }

    /// What most likely follows `text`, as long as anything is likely.
    pub fn guess(&mut self, text: &[u32], most: usize) -> Vec<u32> {
        self.own.learn(text, self.seen);
        self.seen = text.len();
        let mut tail = text[text.len().saturating_sub(LONGEST)..].to_vec();
        let known = tail.len();
        let shared = self.shared.table();
        while tail.len() < known + most {
            // Longer runs say more; of as long ones this text's.
            let longest = LONGEST.min(tail.len());
            let next = (1..=longest).rev().find_map(|n| {
                let run = &tail[tail.len() - n..];
                self.own.likely(run).or_else(|| shared.likely(run))
            });
            let Some(next) = next else { break };
            tail.push(next);
        }
        tail.split_off(known)
    }

    /// Adds a whole text to what is shared.
    pub fn remember(&self, text: &[u32]) {
        self.shared.learn(text);
    }
}

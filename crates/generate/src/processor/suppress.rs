//! Ids ruled out: some always, some at first, those that end a sequence until it is long enough.

use super::{History, Processor};

/// Rules ids out.
#[derive(Clone, Debug)]
pub struct Suppress(
    /// Those beyond the vocabulary are ignored.
    pub Vec<u32>,
);

impl Processor for Suppress {
    fn name(&self) -> &'static str {
        "suppress_tokens"
    }

    fn apply(&self, row: &mut [f32], _: &History) {
        rule_out(row, &self.0);
    }
}

/// Rules ids out as the first: behind the prompt or, where ids are forced behind the start, behind those.
#[derive(Clone, Debug)]
pub struct BeginSuppress {
    /// Those beyond the vocabulary are ignored.
    pub ids: Vec<u32>,
    /// Whether there is a [`super::ForcedBos`].
    pub forced: bool,
    /// The last position of [`super::ForcedIds`].
    pub later: usize,
}

impl Processor for BeginSuppress {
    fn name(&self) -> &'static str {
        "begin_suppress_tokens"
    }

    fn apply(&self, row: &mut [f32], history: &History) {
        let forced = usize::from(self.forced && history.prompt().len() == 1);
        if history.new_ids().len() == forced + self.later {
            rule_out(row, &self.ids);
        }
    }
}

/// Rules the end of sequence out while there are fewer tokens than asked for.
#[derive(Clone, Debug)]
pub struct MinLength {
    /// Tokens in all.
    pub all: usize,
    /// New tokens.
    pub new: usize,
    /// Ids that end a sequence.
    pub eos: Vec<u32>,
}

impl Processor for MinLength {
    fn name(&self) -> &'static str {
        if self.new > 0 { "min_new_tokens" } else { "min_length" }
    }

    fn apply(&self, row: &mut [f32], history: &History) {
        let new = history.new_ids().len();
        if new < self.new || history.prompt().len() + new < self.all {
            rule_out(row, &self.eos);
        }
    }
}

/// Leaves these ids no chance.
pub(crate) fn rule_out(row: &mut [f32], ids: &[u32]) {
    for &id in ids {
        if let Some(x) = row.get_mut(id as usize) {
            *x = f32::NEG_INFINITY;
        }
    }
}

//! Runs of ids that are never to be said.

use super::{History, Processor, bias};

/// Rules out the last id of a run behind all its others; a run of one id always.
#[derive(Clone, Debug)]
pub struct BadWords(
    /// None empty.
    pub Vec<Vec<u32>>,
);

impl Processor for BadWords {
    fn name(&self) -> &'static str {
        "bad_words_ids"
    }

    fn apply(&self, row: &mut [f32], history: &History) {
        for run in &self.0 {
            if let Some(x) = bias::completing(row, history, run) {
                *x = f32::NEG_INFINITY;
            }
        }
    }
}

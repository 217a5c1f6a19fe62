//! Runs of ids that are never to be said.

use super::{History, Processor};

/// Rules out the last id of a run behind all its others; a run of one id always.
#[derive(Clone, Debug)]
pub struct BadWords(
    /// None empty.
    pub Vec<Vec<u32>>,
);

impl Processor for BadWords {
    fn apply(&self, row: &mut [f32], history: &History) {
        for (last, before) in self.0.iter().filter_map(|run| run.split_last()) {
            if let Some(x) = row.get_mut(*last as usize).filter(|_| history.ids().ends_with(before)) {
                *x = f32::NEG_INFINITY;
            }
        }
    }
}

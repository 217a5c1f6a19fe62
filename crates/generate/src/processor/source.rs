//! What a text is an answer to: ids of the encoder's text or, without an encoder, of the prompt, made likelier or kept from
//! being copied.

use super::{History, Processor};

/// Multiplies positive and divides negative logits of ids of the source, each once: the inverse of the repetition penalty.
#[derive(Clone, Copy, Debug)]
pub struct SourcePenalty(
    /// Above 0; above 1 encourages.
    pub f32,
);

impl Processor for SourcePenalty {
    fn apply(&self, row: &mut [f32], history: &History) {
        let penalty = 1. / self.0;
        let mut ids = history.source().to_vec();
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            if let Some(x) = row.get_mut(id as usize) {
                *x = if *x < 0. { *x * penalty } else { *x / penalty };
            }
        }
    }
}

/// Rules out ids that would complete a run of the source.
#[derive(Clone, Copy, Debug)]
pub struct NoSourceNgram(
    /// Ids of a run, at least 1.
    pub usize,
);

impl Processor for NoSourceNgram {
    fn apply(&self, row: &mut [f32], history: &History) {
        let (ids, n) = (history.ids(), self.0.max(1));
        let Some(begun) = (ids.len() + 1).checked_sub(n).map(|from| &ids[from..]) else { return };
        for run in history.source().windows(n).filter(|run| run.starts_with(begun)) {
            if let Some(x) = row.get_mut(run[n - 1] as usize) {
                *x = f32::NEG_INFINITY;
            }
        }
    }
}

//! The repetition penalty of CTRL (Keskar et al. 2019, section 4.1), over prompt and answer.

use super::{History, Processor};

/// Divides positive and multiplies negative logits of ids that have appeared, each once.
#[derive(Clone, Copy, Debug)]
pub struct RepetitionPenalty(
    /// Above 0; above 1 discourages.
    pub f32,
);

impl Processor for RepetitionPenalty {
    fn name(&self) -> &'static str {
        "repetition_penalty"
    }

    fn apply(&self, row: &mut [f32], history: &History) {
        penalise(row, history.distinct(), self.0);
    }
}

/// Divides positive and multiplies negative logits of these ids.
pub(super) fn penalise(row: &mut [f32], ids: &[u32], penalty: f32) {
    for &id in ids {
        if let Some(x) = row.get_mut(id as usize) {
            *x = if *x < 0. { *x * penalty } else { *x / penalty };
        }
    }
}

//! An end that grows likelier with every token.

use super::{History, Processor};

/// Behind `start` new tokens the logits of the end grow by `factor^(tokens since) - 1` times their magnitude.
#[derive(Clone, Debug)]
pub struct LengthDecay {
    /// New tokens that are free.
    pub start: usize,
    /// Above 1 ends sooner.
    pub factor: f64,
    /// Ids that end a sequence.
    pub eos: Vec<u32>,
}

impl Processor for LengthDecay {
    fn name(&self) -> &'static str {
        "exponential_decay_length_penalty"
    }

    fn apply(&self, row: &mut [f32], history: &History) {
        let Some(since) = history.new_ids().len().checked_sub(self.start).filter(|&since| since > 0) else { return };
        let grown = (self.factor.powi(since.try_into().unwrap_or(i32::MAX)) - 1.) as f32;
        for &id in &self.eos {
            if let Some(x) = row.get_mut(id as usize).filter(|x| x.is_finite()) {
                *x += x.abs() * grown;
            }
        }
    }
}

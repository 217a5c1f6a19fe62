//! Temperature: how much likelier the likely becomes.

use super::{History, Processor};

/// Divides the logits: below 1 sharpens the distribution, above 1 flattens it.
#[derive(Clone, Copy, Debug)]
pub struct Temperature(
    /// Above 0.
    pub f32,
);

impl Processor for Temperature {
    fn name(&self) -> &'static str {
        "temperature"
    }

    fn apply(&self, row: &mut [f32], _: &History) {
        for x in row {
            *x /= self.0;
        }
    }
}

//! Logits that are no numbers, or infinite, made into some.

use super::{History, Processor};

/// NaN becomes 0, infinities the largest and the smallest number. What was ruled out before then is only very unlikely, as in
/// transformers.
#[derive(Clone, Copy, Debug)]
pub struct RemoveInvalid;

impl Processor for RemoveInvalid {
    fn name(&self) -> &'static str {
        "remove_invalid_values"
    }

    fn apply(&self, row: &mut [f32], _: &History) {
        for x in row {
            *x = if x.is_nan() { 0. } else { x.clamp(f32::MIN, f32::MAX) };
        }
    }
}

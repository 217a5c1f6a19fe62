//! Min-p (Nguyen et al. 2024): the more certain the model, the fewer ids remain.

use super::{History, Processor};

/// Rules out ids less likely than a fraction of the likeliest.
#[derive(Clone, Copy, Debug)]
pub struct MinP(
    /// From 0 to 1.
    pub f32,
);

impl Processor for MinP {
    fn name(&self) -> &'static str {
        "min_p"
    }

    fn apply(&self, row: &mut [f32], _: &History) {
        // p(i) < f · p(max) is exp(x(i) - max) < f: no sum needed.
        let most = crate::sampler::largest(row);
        for x in row {
            if (*x - most).exp() < self.0 {
                *x = f32::NEG_INFINITY;
            }
        }
    }
}

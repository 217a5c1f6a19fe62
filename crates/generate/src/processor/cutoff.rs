//! Cut-offs of probability (Hewitt et al. 2022): fixed, and lower where the distribution is flat.

use super::{History, Processor};
use crate::sampler::weights;

/// Rules out ids less likely than `epsilon`; the likeliest stay.
#[derive(Clone, Copy, Debug)]
pub struct Epsilon(
    /// Between 0 and 1.
    pub f32,
);

impl Processor for Epsilon {
    fn name(&self) -> &'static str {
        "epsilon_cutoff"
    }

    fn apply(&self, row: &mut [f32], _: &History) {
        let (values, total) = weights(row);
        cut(row, &values, f64::from(self.0) * total);
    }
}

/// Rules out ids less likely than `epsilon` and than `sqrt(epsilon) exp(-entropy)`; the likeliest stay.
#[derive(Clone, Copy, Debug)]
pub struct Eta(
    /// Between 0 and 1.
    pub f32,
);

impl Processor for Eta {
    fn name(&self) -> &'static str {
        "eta_cutoff"
    }

    fn apply(&self, row: &mut [f32], _: &History) {
        let (values, total) = weights(row);
        let possible = values.iter().map(|&value| f64::from(value) / total).filter(|&p| p > 0.);
        let entropy: f64 = possible.map(|p| -p * p.ln()).sum();
        let epsilon = f64::from(self.0);
        cut(row, &values, epsilon.min(epsilon.sqrt() * (-entropy).exp()) * total);
    }
}

/// Rules out what weighs less than `least`, but for what weighs most.
fn cut(row: &mut [f32], values: &[f32], least: f64) {
    for (x, &value) in row.iter_mut().zip(values) {
        if f64::from(value) < least && value < 1. {
            *x = f32::NEG_INFINITY;
        }
    }
}

//! Dynamic temperature: high where the model is undecided, low where it is sure; where `temperature` is the same always. As in
//! llama.cpp (`llama_sampler_init_temp_ext`).

use super::{History, Processor};
use crate::sampler::{largest, weights};

/// Divides the logits by a temperature that grows with the entropy.
#[derive(Clone, Copy, Debug)]
pub struct DynamicTemperature {
    /// The middle.
    pub temperature: f32,
    /// So far below, not below 0, and above the middle it goes.
    pub range: f32,
    /// The power of the entropy's share of the largest possible one.
    pub exponent: f32,
}

impl Processor for DynamicTemperature {
    fn name(&self) -> &'static str {
        "dynatemp_range"
    }

    fn apply(&self, row: &mut [f32], _: &History) {
        let (values, total) = weights(row);
        let possible = row.iter().filter(|x| **x > f32::NEG_INFINITY).count();
        if possible < 2 {
            return;
        }
        let shares = values.iter().map(|&value| f64::from(value) / total).filter(|&p| p > 0.);
        let entropy: f64 = shares.map(|p| -p * p.ln()).sum();
        let share = (entropy / (possible as f64).ln()).clamp(0., 1.) as f32;
        let (low, high) = ((self.temperature - self.range).max(0.), self.temperature + self.range);
        let temperature = low + (high - low) * share.powf(self.exponent);
        let most = largest(row);
        for x in row {
            // At 0 the likeliest remain.
            *x = if temperature > 0. {
                *x / temperature
            } else if *x < most {
                f32::NEG_INFINITY
            } else {
                *x
            };
        }
    }
}

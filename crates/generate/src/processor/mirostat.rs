//! Mirostat 2 (Basu et al. 2021, algorithm 2): rules out what would surprise too much, and how much is too much follows from
//! how surprising the text has been; where other cut-offs do not look back. As in llama.cpp
//! (`llama_sampler_init_mirostat_v2`).
//!
//! What it has learned stands in the sequence's [`History`], so that a copy of the history is a copy of that too, and what is
//! guessed and thrown away has taught nothing.

use super::{History, Processor};
use crate::sampler::weights;

/// Keeps the surprise of a text near a target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mirostat {
    /// Bits that an id is to surprise by.
    pub tau: f32,
    /// How fast it learns.
    pub eta: f32,
}

impl Processor for Mirostat {
    fn name(&self) -> &'static str {
        "mirostat"
    }

    fn apply(&self, row: &mut [f32], history: &History) {
        let (values, total) = weights(row);
        let bound = self.bound(history);
        for (x, &value) in row.iter_mut().zip(&values) {
            // The likeliest, of weight 1, stay.
            if surprise(value, total) > bound && value < 1. {
                *x = f32::NEG_INFINITY;
            }
        }
    }
}

impl Mirostat {
    fn bound(&self, history: &History) -> f32 {
        history.surprise.unwrap_or(2. * self.tau)
    }

    /// Learns from the id that was picked from `row`, which [`Mirostat::apply`] has changed.
    pub fn learn(&self, row: &[f32], id: u32, history: &mut History) {
        let (values, total) = weights(row);
        let found = values.get(id as usize).map_or(self.tau, |&value| surprise(value, total));
        history.surprise = Some(self.bound(history) - self.eta * (found - self.tau));
    }
}

/// Bits.
fn surprise(weight: f32, total: f64) -> f32 {
    -(f64::from(weight) / total).log2() as f32
}

//! XTC, "exclude top choices": where several ids are likely enough, all but the least likely of them are sometimes ruled out,
//! where other processors rule out the unlikely. As in llama.cpp (`llama_sampler_init_xtc`).

use super::{History, Processor};
use crate::sampler::weights;

/// Rules out the likely, in some steps.
#[derive(Clone, Copy, Debug)]
pub struct Xtc {
    /// How often: the share of steps, from 0 to 1.
    pub probability: f32,
    /// How probable an id is that counts as likely. Above 0.5 there is never more than one.
    pub threshold: f32,
}

impl Processor for Xtc {
    fn name(&self) -> &'static str {
        "xtc_probability"
    }

    fn apply(&self, row: &mut [f32], history: &History) {
        if history.chance("xtc") >= f64::from(self.probability) {
            return;
        }
        let (values, total) = weights(row);
        let least = f64::from(self.threshold) * total;
        let mut likely: Vec<usize> = (0..row.len()).filter(|&id| f64::from(values[id]) >= least).collect();
        // Of equally likely ones the last stays.
        let kept = likely.iter().rev().copied().reduce(|a, b| if values[b] < values[a] { b } else { a });
        likely.retain(|id| Some(*id) != kept);
        for id in likely {
            row[id] = f32::NEG_INFINITY;
        }
    }
}

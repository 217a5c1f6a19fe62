//! Top-h: the likeliest ids that hold a fraction of the entropy.

use super::{History, Processor};
use crate::sampler::likeliest;

/// Ids that are looked at: beyond, their entropy is as good as none.
const MOST: usize = 100;

/// Keeps ids, likeliest first, as long as their share of the entropy is at most `h` of that of the 100 likeliest; the first in
/// any case. Among equally likely ids the lower comes first.
#[derive(Clone, Copy, Debug)]
pub struct TopH(
    /// Above 0, up to 1.
    pub f32,
);

impl Processor for TopH {
    fn name(&self) -> &'static str {
        "top_h"
    }

    fn apply(&self, row: &mut [f32], _: &History) {
        let ids = likeliest(row, MOST);
        let values: Vec<f32> = ids.iter().map(|&id| row[id as usize]).collect();
        let most = values.first().copied().unwrap_or(0.);
        let total: f64 = values.iter().map(|&x| f64::from(x - most).exp()).sum();
        let entropy = |&x: &f32| match f64::from(x - most) - total.ln() {
            log if log > f64::NEG_INFINITY => -log * log.exp(),
            _ => 0.,
        };
        let bound = values.iter().map(entropy).sum::<f64>() * f64::from(self.0);
        let mut sum = 0.;
        let kept = values.iter().map(entropy).take_while(|term| {
            sum += term;
            sum <= bound
        });
        let kept = kept.count().max(1);
        let values: Vec<(u32, f32)> = ids.into_iter().zip(values).take(kept).collect();
        row.fill(f32::NEG_INFINITY);
        for (id, x) in values {
            row[id as usize] = x;
        }
    }
}

//! Nucleus sampling (Holtzman et al. 2020): draw among the fewest ids that hold a given probability together.

use super::{History, Processor};
use crate::sampler::weights;

/// Keeps an id if the ids before it, in order of falling probability, hold less than `p` together.
///
/// Among equally likely ids the lower comes first. The likeliest id always stays.
#[derive(Clone, Copy, Debug)]
pub struct TopP(
    /// From 0 to 1.
    pub f32,
);

impl Processor for TopP {
    fn apply(&self, row: &mut [f32], _: &History) {
        let (values, total) = weights(row);
        let nucleus = f64::from(self.0) * total;
        let mut order: Vec<u32> = (0..row.len() as u32).filter(|&id| values[id as usize] > 0.).collect();
        let before = |a: &u32, b: &u32| values[*b as usize].total_cmp(&values[*a as usize]).then(a.cmp(b));
        // The nucleus is mostly a few ids of many: sort only as far as it reaches.
        let (mut sorted, mut mass, mut kept) = (0, 0f64, 0);
        while kept < order.len() && (kept == 0 || mass < nucleus) {
            if kept == sorted {
                let rest = &mut order[sorted..];
                let take = (3 * sorted).max(64).min(rest.len());
                if take < rest.len() {
                    rest.select_nth_unstable_by(take - 1, before);
                }
                rest[..take].sort_unstable_by(before);
                sorted += take;
            }
            mass += f64::from(values[order[kept] as usize]);
            kept += 1;
        }
        // What is no part of `order` has no probability, in f32, either.
        let keep: Vec<(u32, f32)> = order[..kept].iter().map(|&id| (id, row[id as usize])).collect();
        row.fill(f32::NEG_INFINITY);
        for (id, x) in keep {
            row[id as usize] = x;
        }
    }
}

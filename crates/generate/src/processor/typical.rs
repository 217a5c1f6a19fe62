//! Locally typical sampling (Meister et al. 2022): ids that say about as much as the distribution does on average.

use super::{History, Processor};
use crate::sampler::weights;

/// Keeps the ids whose information is nearest to the entropy, until they hold `mass` of the probability together.
#[derive(Clone, Copy, Debug)]
pub struct Typical {
    /// Between 0 and 1.
    pub mass: f32,
    /// So many stay in any case.
    pub ids: usize,
}

impl Processor for Typical {
    fn name(&self) -> &'static str {
        "typical_p"
    }

    fn apply(&self, row: &mut [f32], _: &History) {
        let (values, total) = weights(row);
        let most = crate::sampler::largest(row);
        let information = |x: f32| total.ln() - f64::from(x - most);
        let entropy: f64 = (row.iter().zip(&values))
            .filter(|(_, value)| **value > 0.)
            .map(|(&x, &value)| information(x) * f64::from(value) / total)
            .sum();
        // Ids that are ruled out are infinitely far away.
        let mut ids: Vec<(f64, u32)> =
            row.iter().enumerate().map(|(id, &x)| ((information(x) - entropy).abs(), id as u32)).collect();
        ids.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let (mut mass, bound) = (0., f64::from(self.mass) * total);
        let before = ids.iter().take_while(|(_, id)| {
            mass += f64::from(values[*id as usize]);
            mass < bound
        });
        let last = before.count().min(ids.len().saturating_sub(1));
        let farthest = ids.get(last).map_or(0., |id| id.0);
        for &(_, id) in ids.iter().skip(self.ids).filter(|id| id.0 > farthest) {
            row[id as usize] = f32::NEG_INFINITY;
        }
    }
}

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
    fn name(&self) -> &'static str {
        "top_p"
    }

    fn apply(&self, row: &mut [f32], _: &History) {
        let (values, total) = weights(row);
        let nucleus = f64::from(self.0) * total;
        // Sorting a whole vocabulary costs a tenth of a step of a small model. The bits of positive floats are in the
        // order of their values, so their upper half sorts into buckets, and only the bucket at the border is sorted.
        let mut masses = vec![0f64; bucket(1.) + 1];
        // Those without a probability, in f32, are ruled out on the way: after top-k that is nearly all.
        let mut possible: Vec<u32> = vec![];
        for (id, (x, &value)) in row.iter_mut().zip(&values).enumerate() {
            if value > 0. {
                masses[bucket(value)] += f64::from(value);
                possible.push(id as u32);
            } else {
                *x = f32::NEG_INFINITY;
            }
        }
        let (mut border, mut mass) = (bucket(1.), 0f64);
        while border > 0 && mass + masses[border] < nucleus {
            mass += masses[border];
            border -= 1;
        }
        let value = |id: u32| values[id as usize];
        let mut last: Vec<u32> = possible.iter().copied().filter(|&id| bucket(value(id)) == border).collect();
        last.sort_unstable_by(|&a, &b| value(b).total_cmp(&value(a)).then(a.cmp(&b)));
        for id in last {
            // The likeliest has the weight 1, in the highest bucket, and comes first there.
            if mass >= nucleus && mass > 0. {
                row[id as usize] = f32::NEG_INFINITY;
            }
            mass += f64::from(value(id));
        }
        for id in possible.into_iter().filter(|&id| bucket(value(id)) < border) {
            row[id as usize] = f32::NEG_INFINITY;
        }
    }
}

/// Which of some 16,000 buckets a weight from 0 to 1 falls into; larger weights never into lower ones.
fn bucket(weight: f32) -> usize {
    (weight.to_bits() >> 16) as usize
}

//! Top-k (Fan et al. 2018): draw among the k likeliest.

use super::{History, Processor};

/// Rules out what is less likely than the k-th likeliest id. Ids as likely as that one all stay, as in transformers.
#[derive(Clone, Copy, Debug)]
pub struct TopK(
    /// At least 1; more than the vocabulary changes nothing.
    pub usize,
);

impl Processor for TopK {
    fn name(&self) -> &'static str {
        "top_k"
    }

    fn apply(&self, row: &mut [f32], _: &History) {
        let k = self.0.max(1);
        if k >= row.len() {
            return;
        }
        let least = kth_largest(row, k);
        for x in row {
            if *x < least {
                *x = f32::NEG_INFINITY;
            }
        }
    }
}

/// The `k`-th largest value, 1 <= `k` < length; NaN counts as smallest.
fn kth_largest(row: &[f32], k: usize) -> f32 {
    let descending = |a: &f32, b: &f32| b.total_cmp(a);
    // Among the first 2 k the k-th is known exactly; from then on only what beats it is looked at, which of a
    // vocabulary of 150,000 and a k of 50 is about one value in a hundred.
    let mut best: Vec<f32> = Vec::with_capacity(2 * k);
    let mut bar = f32::NEG_INFINITY;
    for &x in row {
        if x > bar || (best.len() < k && !x.is_nan()) {
            best.push(x);
            if best.len() == 2 * k {
                bar = *best.select_nth_unstable_by(k - 1, descending).1;
                best.truncate(k);
            }
        }
    }
    match best.len() {
        n if n < k => f32::NEG_INFINITY,
        _ => *best.select_nth_unstable_by(k - 1, descending).1,
    }
}

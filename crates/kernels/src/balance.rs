//! Sums of a router's probabilities under fixed factors: what every load-balancing loss comes down to.

use crate::chunk;
use crate::rows::dot;

/// Rows of probabilities in stretches of equal length, each with its own factors.
#[derive(Clone, Copy, Debug)]
pub struct Factors<'a> {
    /// `[stretches, experts]`.
    pub factors: &'a [f32],
    /// Rows to count, 0 for those to leave out; all where absent.
    pub keep: Option<&'a [u8]>,
    /// Rows in all.
    pub rows: usize,
    /// How many experts.
    pub experts: usize,
}

impl Factors<'_> {
    fn of_row(&self, row: usize) -> Option<&[f32]> {
        if self.keep.is_some_and(|keep| keep[row] == 0) {
            return None;
        }
        let stretch = row * (self.factors.len() / self.experts) / self.rows;
        Some(&self.factors[stretch * self.experts..][..self.experts])
    }

    fn check(&self, name: &str, probs: usize) {
        let stretches = self.factors.len() / self.experts.max(1);
        assert!(
            self.experts > 0
                && probs == self.rows * self.experts
                && self.factors.len() == stretches * self.experts
                && (self.rows == 0 || stretches > 0 && self.rows.is_multiple_of(stretches))
                && self.keep.is_none_or(|keep| keep.len() == self.rows),
            "{name}: {} rows of {} experts, {} factors; found {probs} probabilities, a mask of {:?}",
            self.rows,
            self.experts,
            self.factors.len(),
            self.keep.map(<[u8]>::len)
        );
    }
}

/// `Σ probs · factors` over the rows that count.
///
/// # Panics
/// If a length does not fit; so does [`backward`].
pub fn sum(probs: &[f32], by: &Factors) -> f64 {
    by.check("balance sum", probs.len());
    let rows = probs.chunks_exact(by.experts).enumerate();
    rows.filter_map(|(row, probs)| by.of_row(row).map(|factors| f64::from(dot(probs, factors)))).sum()
}

/// The gradient of [`sum`] times `scale`: the factors of each row, 0 on rows that do not count.
pub fn backward(dprobs: &mut [f32], scale: f32, by: &Factors) {
    by.check("balance backward", dprobs.len());
    chunk::each_mut(dprobs, by.experts, |start, dprobs| {
        for (row, dprobs) in (start / by.experts..).zip(dprobs.chunks_exact_mut(by.experts)) {
            match by.of_row(row) {
                Some(factors) => dprobs.iter_mut().zip(factors).for_each(|(dp, factor)| *dp = factor * scale),
                None => dprobs.fill(0.0),
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stretch_has_its_own_factors() {
        let probs: Vec<f32> = (1..=12).map(|i| i as f32).collect();
        let mut by = Factors { factors: &[1.0, 10.0, 100.0, 1000.0], keep: None, rows: 6, experts: 2 };
        // Rows 1 2, 3 4, 5 6 with 1 and 10; 7 8, 9 10, 11 12 with 100 and 1000.
        assert_eq!(sum(&probs, &by), 9.0 + 120.0 + 2700.0 + 30_000.0);
        by.keep = Some(&[1, 0, 0, 0, 1, 0]);
        assert_eq!(sum(&probs, &by), 1.0 + 20.0 + 900.0 + 10_000.0);
        let mut grad = vec![9.0; 12];
        backward(&mut grad, 0.5, &by);
        assert_eq!(grad, [0.5, 5.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 50.0, 500.0, 0.0, 0.0]);
        let none = Factors { factors: &[1.0, 2.0], keep: None, rows: 0, experts: 2 };
        assert_eq!(sum(&[], &none), 0.0);
        backward(&mut [], 1.0, &none);
    }
}

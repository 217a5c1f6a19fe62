//! Which directions rows of numbers vary in: their principal components, found batch by batch (Ross et al. 2008), so that no
//! row is kept.

use crate::decompose::{leading, leading_near};
use crate::rng::Rng;

/// Up to this many rows or columns directions are found exactly, beyond it in a random subspace.
const EXACT: usize = 1024;
/// As peft's: the subspace is so many times as wide as what is looked for, and is brought nearer so many times.
const WIDER: usize = 2;
const ROUNDS: usize = 4;

/// The leading directions of the rows that were added so far.
#[derive(Clone, Debug)]
pub struct Variation {
    columns: usize,
    wanted: usize,
    rows: usize,
    mean: Vec<f64>,
    /// Squares of differences from the mean, summed over rows and columns.
    squares: f64,
    values: Vec<f32>,
    directions: Vec<f32>,
}

impl Variation {
    /// Looks for `wanted` directions of rows of so many columns.
    #[must_use]
    pub fn new(columns: usize, wanted: usize) -> Self {
        let (values, directions) = (vec![], vec![]);
        Self { columns, wanted: wanted.min(columns), rows: 0, mean: vec![0.; columns], squares: 0., values, directions }
    }

    /// The directions, most varied first: `[found, columns]`, orthonormal.
    #[must_use]
    pub fn directions(&self) -> &[f32] {
        &self.directions
    }

    /// Each direction's share of all variance.
    #[must_use]
    pub fn shares(&self) -> Vec<f64> {
        self.values.iter().map(|&value| f64::from(value).powi(2) / self.squares.max(f64::MIN_POSITIVE)).collect()
    }

    /// Adds `values[rows, columns]`; fewer rows than directions wanted say too little and are left out. Returns the
    /// cosine between the least alike of the directions before and after.
    pub fn add(&mut self, values: &[f32]) -> Option<f64> {
        let (columns, new) = (self.columns, values.len() / self.columns.max(1));
        if new < self.wanted.max(1) {
            return None;
        }
        let mut mean = vec![0f64; columns];
        for row in values.chunks_exact(columns) {
            mean.iter_mut().zip(row).for_each(|(mean, &x)| *mean += f64::from(x) / new as f64);
        }
        let (old, all) = (self.rows as f64, (self.rows + new) as f64);
        let scaled = self.directions.iter().enumerate().map(|(at, x)| x * self.values[at / columns]);
        let mut stack: Vec<f32> = scaled.collect();
        for row in values.chunks_exact(columns) {
            stack.extend(row.iter().zip(&mean).map(|(&x, mean)| (f64::from(x) - mean) as f32));
        }
        let within = |row: &[f32]| row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        self.squares += within(&stack[self.directions.len()..]);
        if self.rows > 0 {
            // What the two means differ by is one more row.
            let weight = (old * new as f64 / all).sqrt();
            let between = self.mean.iter().zip(&mean).map(|(old, new)| (weight * (old - new)) as f32);
            stack.extend(between);
            self.squares += within(&stack[stack.len() - columns..]);
        }
        self.mean.iter_mut().zip(&mean).for_each(|(old_mean, mean)| *old_mean += (mean - *old_mean) * new as f64 / all);
        self.rows += new;
        self.turn(&stack)
    }

    /// Takes the leading directions of centred rows.
    fn turn(&mut self, stack: &[f32]) -> Option<f64> {
        let shape = [stack.len() / self.columns, self.columns];
        let found = match shape[0].min(shape[1]) <= EXACT {
            true => leading(stack, shape, self.wanted),
            false => {
                leading_near(stack, shape, [self.wanted, WIDER * self.wanted], ROUNDS, &mut Rng::new(self.rows as u64))
            }
        };
        let before = std::mem::replace(&mut self.directions, found.right);
        self.values = found.values;
        let cosine = |(a, b): (&[f32], &[f32])| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>().abs();
        let pairs = before.chunks_exact(self.columns).zip(self.directions.chunks_exact(self.columns));
        (!before.is_empty()).then(|| pairs.map(cosine).fold(1., f64::min))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn rows(count: usize, columns: usize) -> Vec<f32> {
        let (mut values, mut rng) = (vec![0.; count * columns], Rng::new(9));
        rng.fill_normal(&mut values, 0., 1.);
        // Columns vary unalike, about means of their own.
        values
            .iter_mut()
            .enumerate()
            .for_each(|(at, x)| *x = *x * 3f32.powi(-((at % columns) as i32)) + (at % 3) as f32);
        values
    }

    #[test]
    fn batches_find_what_all_rows_at_once_do() {
        let (columns, wanted) = (5, 5);
        let values = rows(60, columns);
        let (mut whole, mut parts) = (Variation::new(columns, wanted), Variation::new(columns, wanted));
        assert_eq!(whole.add(&values), None);
        for batch in values.chunks(20 * columns) {
            parts.add(batch);
        }
        for (a, b) in whole.shares().iter().zip(parts.shares()) {
            assert!((a - b).abs() < 1e-6, "{a} and {b}");
        }
        assert!((whole.shares().iter().sum::<f64>() - 1.).abs() < 1e-6);
        let pairs = whole.directions().chunks(columns).zip(parts.directions().chunks(columns));
        for (a, b) in pairs {
            let cosine: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
            assert!((cosine.abs() - 1.).abs() < 1e-4, "{cosine}");
        }
    }

    #[test]
    fn the_same_rows_again_turn_nothing() {
        let values = rows(40, 6);
        let mut found = Variation::new(6, 2);
        assert_eq!(found.add(&values[..6]), None);
        assert!(found.directions().is_empty(), "one row says nothing of two directions");
        found.add(&values);
        assert!(found.add(&values).unwrap() > 0.9999);
    }
}

//! Adafactor: a second moment kept as one value a row and one a column, so that its state is nearly free.
//!
//! Shazeer and Stern, "Adafactor: adaptive learning rates with sublinear memory cost" (2018), in the form that fairseq
//! and transformers share.

use half::bf16;

use super::{lower_isa, part, same};
use crate::chunk::{self, Parts};
use crate::elementwise::sum_squares;
use crate::vector::{self, Math, per_isa};

/// The settings, with transformers' names; their defaults are [`Adafactor::default`].
#[derive(Clone, Copy, Debug)]
pub struct Adafactor {
    /// Learning rate where `relative_step` is off.
    pub lr: f32,
    /// Added to the squared gradient.
    pub eps1: f32,
    /// Least scale of a parameter.
    pub eps2: f32,
    /// Root mean square that an update is cut to.
    pub clip_threshold: f32,
    /// The second moment decays by `1 - step^decay_rate`.
    pub decay_rate: f32,
    /// Decay of the first moment; used where there is one.
    pub beta1: f32,
    /// Share of the step's rate times the parameter taken off it.
    pub weight_decay: f32,
    /// Multiply the rate by the parameter's root mean square.
    pub scale_parameter: bool,
    /// The rate is `min(0.01, 1 / √step)` instead of `lr`.
    pub relative_step: bool,
    /// With `relative_step`, the 0.01 becomes `1e-6 step`.
    pub warmup_init: bool,
    /// The number of this step, from 1.
    pub step: u64,
    /// Multiplies the gradient first.
    pub grad_scale: f32,
}

impl Default for Adafactor {
    fn default() -> Self {
        Self {
            lr: 1e-3,
            eps1: 1e-30,
            eps2: 1e-3,
            clip_threshold: 1.0,
            decay_rate: -0.8,
            beta1: 0.0,
            weight_decay: 0.0,
            scale_parameter: true,
            relative_step: true,
            warmup_init: false,
            step: 1,
            grad_scale: 1.0,
        }
    }
}

impl Adafactor {
    /// The rate of this step for the parameter `p`.
    pub fn rate(&self, p: &[f32]) -> f32 {
        let step = self.step.max(1) as f64;
        let rate = if self.relative_step {
            (if self.warmup_init { 1e-6 * step } else { 1e-2 }).min(1.0 / step.sqrt())
        } else {
            f64::from(self.lr)
        };
        let scale = if self.scale_parameter { f64::from(self.eps2).max(rms(sum_squares(p), p.len())) } else { 1.0 };
        (rate * scale) as f32
    }
}

/// The second moment.
#[derive(Debug)]
pub enum Second<'a> {
    /// Of a matrix `[row.len(), column.len()]`: means over its rows and over its columns.
    Factored {
        /// One value a row.
        row: &'a mut [f32],
        /// One value a column.
        column: &'a mut [f32],
    },
    /// Of a vector: one value an element.
    Full(&'a mut [f32]),
}

fn rms(squares: f64, n: usize) -> f64 {
    (squares / n.max(1) as f64).sqrt()
}

/// Updates `p`, the second moment and, where given, the first moment `m` by the gradient `g`, and writes `p` in bf16
/// to `low`.
pub fn adafactor(
    p: &mut [f32],
    g: &[f32],
    m: Option<&mut [f32]>,
    second: Second,
    o: &Adafactor,
    low: Option<&mut [bf16]>,
) {
    let n = p.len();
    same("adafactor", &[n, g.len(), m.as_ref().map_or(n, |m| m.len()), low.as_ref().map_or(n, |l| l.len())]);
    if n == 0 {
        return;
    }
    let keep = (1.0 - (o.step.max(1) as f64).powf(f64::from(o.decay_rate))) as f32;
    let rate = o.rate(p);
    // Per-row and per-column factors of the update; a vector is one row whose columns are its elements.
    let (row, column, by_row) = match second {
        Second::Factored { row, column } => {
            assert!(
                row.len() * column.len() == n,
                "adafactor: {} rows, {} columns, {n} values",
                row.len(),
                column.len()
            );
            means(row, column, g, keep, o);
            let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / row.len() as f64;
            let by_row = row.iter().map(|r| (mean / f64::from(*r)).sqrt() as f32).collect();
            (row.len(), column, by_row)
        }
        Second::Full(v) => {
            same("adafactor", &[n, v.len()]);
            let squared = |g: f32| (g * o.grad_scale) * (g * o.grad_scale) + o.eps1;
            v.iter_mut().zip(g).for_each(|(v, &g)| *v = *v * keep + squared(g) * (1.0 - keep));
            (1, v, vec![1.0])
        }
    };
    let by_column: Vec<f32> = column.iter().map(|c| o.grad_scale / c.sqrt()).collect();
    let columns = n / row;
    let factors = Factors { by_row, by_column };
    let squares = factors.sum_squares(g, columns);
    let shrink = 1.0 / (rms(squares, n) / f64::from(o.clip_threshold)).max(1.0);
    let step = Step { rate: (f64::from(rate) * shrink) as f32, decay: rate * o.weight_decay, beta1: o.beta1 };
    let (m, low) = (m.map(Parts::new), low.map(Parts::new));
    chunk::each_mut(p, columns, |at, p| {
        let range = at..at + p.len();
        // SAFETY: the chunks of `p` do not overlap, and these are the same ranges.
        let (m, low) = unsafe { (part(&m, &range), part(&low, &range)) };
        for (i, p) in p.chunks_exact_mut(columns).enumerate() {
            let in_chunk = i * columns..(i + 1) * columns;
            let m = m.get_mut(in_chunk.clone()).unwrap_or_default();
            apply_isa(p, &g[at..][in_chunk], m, factors.by_row[at / columns + i], &factors.by_column, &step);
        }
        lower_isa(low, p);
    });
}

/// Moves the row and column means of the squared gradient on.
fn means(row: &mut [f32], column: &mut [f32], g: &[f32], keep: f32, o: &Adafactor) {
    /// Rows per partial sum of the columns: fixed, so that threads change no bit.
    const GROUP: usize = 64;
    let (rows, columns) = (row.len(), column.len());
    let groups = rows.div_ceil(GROUP);
    let mut sums = vec![0f32; groups * columns];
    let (sum_parts, row_parts) = (Parts::new(&mut sums), Parts::new(row));
    crate::threads::for_each(groups, g.len() * 2, |group| {
        // SAFETY: each group has its own sums and its own rows.
        let sums = unsafe { sum_parts.at(group * columns..(group + 1) * columns) };
        for r in group * GROUP..rows.min((group + 1) * GROUP) {
            let sum = squares_isa(sums, &g[r * columns..(r + 1) * columns], o.grad_scale, o.eps1);
            // SAFETY: as above.
            let row = unsafe { row_parts.at(r..r + 1) };
            row[0] = row[0] * keep + sum / columns as f32 * (1.0 - keep);
        }
    });
    let (total, rest) = sums.split_at_mut(columns);
    for group in rest.chunks_exact(columns) {
        crate::elementwise::add_assign(total, group);
    }
    for (column, sum) in column.iter_mut().zip(total) {
        *column = *column * keep + *sum / rows as f32 * (1.0 - keep);
    }
}

/// Adds the squares of a row of the gradient to `sums` and returns their sum.
#[inline(always)]
fn squares_loop<M: Math>(sums: &mut [f32], g: &[f32], scale: f32, eps: f32) -> f32 {
    for (sum, &g) in sums.iter_mut().zip(g) {
        *sum += M::fma(g * scale, g * scale, eps);
    }
    vector::sum1(g, |sum, g| sum + M::fma(g * scale, g * scale, eps))
}

per_isa! { fn squares_isa(sums: &mut [f32], g: &[f32], scale: f32, eps: f32) -> f32 = squares_loop; }

/// The update is `by_row[i] by_column[j] g[i, j]`.
struct Factors {
    by_row: Vec<f32>,
    by_column: Vec<f32>,
}

impl Factors {
    /// The sum of the squares of the update.
    fn sum_squares(&self, g: &[f32], columns: usize) -> f64 {
        let mut partial = vec![0f64; self.by_row.len()];
        let parts = Parts::new(&mut partial);
        chunk::each(g.len(), columns, |range| {
            for (row, g) in (range.start / columns..).zip(g[range].chunks_exact(columns)) {
                let sum = weighted_isa(g, &self.by_column);
                // SAFETY: one row, one partial sum.
                unsafe { parts.set(row, f64::from(sum) * f64::from(self.by_row[row]).powi(2)) };
            }
        });
        partial.iter().sum()
    }
}

#[inline(always)]
fn weighted_loop<M: Math>(g: &[f32], by_column: &[f32]) -> f32 {
    vector::sum2::<M>(g, by_column, |sum, g, c| M::fma(g * c, g * c, sum))
}

per_isa! { fn weighted_isa(g: &[f32], by_column: &[f32]) -> f32 = weighted_loop; }

/// The step's constants: the rate after clipping, and the decay.
struct Step {
    rate: f32,
    decay: f32,
    beta1: f32,
}

#[inline(always)]
fn apply_loop<M: Math>(p: &mut [f32], g: &[f32], m: &mut [f32], by_row: f32, by_column: &[f32], step: &Step) {
    let rate = by_row * step.rate;
    if m.is_empty() {
        for ((p, &g), &c) in p.iter_mut().zip(g).zip(by_column) {
            *p = M::fma(-rate * c, g, M::fma(-step.decay, *p, *p));
        }
    } else {
        // The first moment is of the updates, the rate included.
        for (((p, &g), &c), m) in p.iter_mut().zip(g).zip(by_column).zip(m) {
            *m = M::fma(*m, step.beta1, rate * c * g * (1.0 - step.beta1));
            *p = M::fma(-step.decay, *p, *p) - *m;
        }
    }
}

per_isa! {
    fn apply_isa(p: &mut [f32], g: &[f32], m: &mut [f32], by_row: f32, by_column: &[f32], step: &Step) = apply_loop;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn normal(n: usize, seed: u64, std: f32) -> Vec<f32> {
        let mut x = vec![0.0; n];
        Rng::new(seed).fill_normal(&mut x, 0.0, std);
        x
    }

    /// The paper's algorithms 4 and 5 in f64, with the moment of updates.
    struct Reference {
        p: Vec<f64>,
        m: Option<Vec<f64>>,
        row: Vec<f64>,
        column: Vec<f64>,
        full: Vec<f64>,
    }

    impl Reference {
        fn step(&mut self, g: &[f32], rows: usize, o: &Adafactor) {
            let (n, step) = (g.len(), o.step as f64);
            let columns = n / rows;
            let mean_square = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>() / n as f64;
            let relative = (if o.warmup_init { 1e-6 * step } else { 1e-2 }).min(1.0 / step.sqrt());
            let mut rate = if o.relative_step { relative } else { f64::from(o.lr) };
            if o.scale_parameter {
                rate *= mean_square(&self.p).sqrt().max(f64::from(o.eps2));
            }
            let keep = 1.0 - step.powf(f64::from(o.decay_rate));
            let g: Vec<f64> = g.iter().map(|g| f64::from(*g) * f64::from(o.grad_scale)).collect();
            let squared: Vec<f64> = g.iter().map(|g| g * g + f64::from(o.eps1)).collect();
            let mut u: Vec<f64> = if rows > 1 {
                for (r, row) in self.row.iter_mut().enumerate() {
                    let mean = squared[r * columns..(r + 1) * columns].iter().sum::<f64>() / columns as f64;
                    *row = keep * *row + (1.0 - keep) * mean;
                }
                for (c, column) in self.column.iter_mut().enumerate() {
                    let mean = (0..rows).map(|r| squared[r * columns + c]).sum::<f64>() / rows as f64;
                    *column = keep * *column + (1.0 - keep) * mean;
                }
                let mean = self.row.iter().sum::<f64>() / rows as f64;
                (0..n).map(|i| g[i] / (self.row[i / columns] / mean * self.column[i % columns]).sqrt()).collect()
            } else {
                for (v, s) in self.full.iter_mut().zip(&squared) {
                    *v = keep * *v + (1.0 - keep) * s;
                }
                g.iter().zip(&self.full).map(|(g, v)| g / v.sqrt()).collect()
            };
            let shrink = (mean_square(&u).sqrt() / f64::from(o.clip_threshold)).max(1.0);
            u.iter_mut().for_each(|u| *u *= rate / shrink);
            if let Some(m) = &mut self.m {
                let beta = f64::from(o.beta1);
                m.iter_mut().zip(&u).for_each(|(m, u)| *m = beta * *m + (1.0 - beta) * u);
                u.clone_from(m);
            }
            for (p, u) in self.p.iter_mut().zip(&u) {
                *p -= *p * f64::from(o.weight_decay) * rate + u;
            }
        }
    }

    #[test]
    fn matrices_and_vectors_follow_the_reference() {
        let settings = [
            Adafactor::default(),
            Adafactor { warmup_init: true, weight_decay: 0.1, ..Adafactor::default() },
            Adafactor {
                relative_step: false,
                scale_parameter: false,
                lr: 0.02,
                grad_scale: 0.5,
                ..Adafactor::default()
            },
            Adafactor { beta1: 0.9, relative_step: false, lr: 0.05, clip_threshold: 0.5, ..Adafactor::default() },
        ];
        for o in settings {
            for (rows, columns) in [(1, 301), (3, 5), (130, 77), (2, 20_000)] {
                let n = rows * columns;
                let (mut p, mut m) = (normal(n, 1, 1.0), vec![0.0; n]);
                let (mut row, mut column, mut full) = (vec![0.0; rows], vec![0.0; columns], vec![0.0; n]);
                let mut truth = Reference {
                    p: p.iter().map(|x| f64::from(*x)).collect(),
                    m: (o.beta1 > 0.0).then(|| vec![0.0; n]),
                    row: vec![0.0; rows],
                    column: vec![0.0; columns],
                    full: vec![0.0; n],
                };
                let mut low = vec![bf16::ZERO; n];
                for step in 1..=4 {
                    let g = normal(n, 50 + step, 0.3);
                    let o = Adafactor { step, ..o };
                    let second = if rows > 1 {
                        Second::Factored { row: &mut row, column: &mut column }
                    } else {
                        Second::Full(&mut full)
                    };
                    let m = (o.beta1 > 0.0).then_some(&mut m[..]);
                    adafactor(&mut p, &g, m, second, &o, Some(&mut low));
                    truth.step(&g, rows, &o);
                    for (p, t) in p.iter().zip(&truth.p) {
                        // Four updates of at most 0.1 each, a few ulps off.
                        assert!((f64::from(*p) - t).abs() < 3e-6, "{rows} x {columns}, step {step}: {p} {t}");
                    }
                    assert!(low.iter().zip(&p).all(|(l, p)| *l == bf16::from_f32(*p)));
                }
            }
        }
    }
}

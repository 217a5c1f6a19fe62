//! Cross-entropy with its gradient in place of the logits, and softmax, log-softmax and argmax over rows.

use crate::chunk::{self, Parts};
use crate::vector::{self, Math, per_isa};

/// The target that stands for "no loss here".
pub const IGNORE: i32 = -100;

/// A target that is neither in the vocabulary nor [`IGNORE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetError {
    /// The row of the target.
    pub row: usize,
    /// The target.
    pub target: i32,
    /// How many classes there are.
    pub vocab: usize,
}

impl std::fmt::Display for TargetError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { row, target, vocab } = self;
        write!(f, "target {target} in row {row}: expected 0 to {} or {IGNORE} (ignored)", *vocab as i64 - 1)
    }
}

impl std::error::Error for TargetError {}

/// Cross-entropy of every row of `logits[rows, vocab]` against `targets[rows]`, as `torch.nn.functional.cross_entropy`
/// per row: `losses[rows]`, 0 where the target is [`IGNORE`].
///
/// With `grad_scale` (1 / counted rows for a mean, times what comes from above) the logits are replaced by their
/// gradient, zero on ignored rows; without it they stay. `label_smoothing` spreads that share of the target's weight
/// evenly over the vocabulary.
///
/// # Errors
/// A target is outside the vocabulary; nothing has been changed then.
pub fn cross_entropy_rows(
    logits: &mut [f32],
    targets: &[i32],
    label_smoothing: f32,
    grad_scale: Option<f32>,
    losses: &mut [f32],
) -> Result<(), TargetError> {
    let rows = targets.len();
    let vocab = logits.len() / rows.max(1);
    assert!(
        logits.len() == rows * vocab && losses.len() == rows,
        "cross_entropy_rows: {rows} targets, {} logits, {} losses",
        logits.len(),
        losses.len()
    );
    for (row, &target) in targets.iter().enumerate() {
        if target != IGNORE && !usize::try_from(target).is_ok_and(|t| t < vocab) {
            return Err(TargetError { row, target, vocab });
        }
    }
    if vocab == 0 {
        losses.fill(0.0);
        return Ok(());
    }
    let losses = Parts::new(losses);
    chunk::each_mut(logits, vocab, |at, logits| {
        let first = at / vocab;
        for (row, logits) in (first..).zip(logits.chunks_exact_mut(vocab)) {
            // SAFETY: one row, one loss.
            let loss = unsafe { losses.at(row..row + 1) };
            // Checked above: not negative unless ignored.
            let target = targets[row] as usize;
            loss[0] = if targets[row] != IGNORE {
                cross_entropy_row(logits, target, label_smoothing, grad_scale)
            } else {
                if grad_scale.is_some() {
                    logits.fill(0.0);
                }
                0.0
            };
        }
    });
    Ok(())
}

/// Logits per step of the running log-sum-exp: they stay in L1 between the maximum and the sum.
const TILE: usize = 1024;

/// The maximum and the sum of `e^(x - maximum)`, in one pass over memory.
#[inline(always)]
fn max_and_sum<M: Math>(x: &[f32]) -> (f32, f64) {
    let (mut most, mut sum) = (f32::NEG_INFINITY, 0f64);
    let mut powers = [0f32; TILE];
    for x in x.chunks(TILE) {
        let here = vector::max(x);
        if here > most {
            // What was summed so far was relative to a smaller maximum (Milakov and Gimelshein 2018).
            sum *= f64::from(most - here).exp();
            most = here;
        }
        if most == f32::NEG_INFINITY {
            // Nothing but masks so far: no maximum to be relative to. A NaN among them must show all the same.
            sum += if x.iter().any(|x| x.is_nan()) { f64::NAN } else { 0.0 };
            continue;
        }
        let powers = &mut powers[..x.len()];
        for (power, &x) in powers.iter_mut().zip(x) {
            *power = vector::exp_down::<M>(x - most);
        }
        sum += f64::from(vector::sum1(powers, |sum, x| sum + x));
    }
    (most, sum)
}

#[inline(always)]
fn cross_entropy_row_loop<M: Math>(x: &mut [f32], target: usize, smoothing: f32, grad_scale: Option<f32>) -> f32 {
    let (most, sum) = max_and_sum::<M>(x);
    let log_sum = sum.ln();
    let even = f64::from(smoothing) / x.len() as f64;
    // Relative to the maximum: the differences keep their digits where logits are large.
    let mut loss = log_sum - (1.0 - f64::from(smoothing)) * f64::from(x[target] - most);
    if smoothing > 0.0 {
        loss -= even * f64::from(vector::sum1(x, |sum, x| sum + (x - most)));
    }
    if let Some(scale) = grad_scale {
        let (scale_of, even_share) = ((f64::from(scale) / sum) as f32, (f64::from(scale) * even) as f32);
        for x in x.iter_mut() {
            *x = M::fma(vector::exp_down::<M>(*x - most), scale_of, -even_share);
        }
        x[target] -= scale * (1.0 - smoothing);
    }
    loss as f32
}

per_isa! {
    fn cross_entropy_row(x: &mut [f32], target: usize, smoothing: f32, grad_scale: Option<f32>) -> f32
        = cross_entropy_row_loop;
}

fn by_rows(x: &mut [f32], vocab: usize, f: impl Fn(&mut [f32]) + Sync) {
    assert!(vocab > 0 && x.len().is_multiple_of(vocab), "{} values do not make rows of {vocab}", x.len());
    chunk::each_mut(x, vocab, |_, x| x.chunks_exact_mut(vocab).for_each(&f));
}

/// Replaces every row of `x[rows, vocab]` by its softmax. A row of nothing but -infinity becomes NaN, as in PyTorch.
pub fn softmax_rows(x: &mut [f32], vocab: usize) {
    by_rows(x, vocab, softmax_row);
}

/// Replaces every row of `x[rows, vocab]` by the logarithm of its softmax.
pub fn log_softmax_rows(x: &mut [f32], vocab: usize) {
    by_rows(x, vocab, log_softmax_row);
}

#[inline(always)]
fn softmax_row_loop<M: Math>(x: &mut [f32]) {
    let (most, sum) = max_and_sum::<M>(x);
    let scale = (1.0 / sum) as f32;
    for x in x {
        *x = vector::exp_down::<M>(*x - most) * scale;
    }
}

#[inline(always)]
fn log_softmax_row_loop<M: Math>(x: &mut [f32]) {
    let (most, sum) = max_and_sum::<M>(x);
    let log_sum = sum.ln() as f32;
    for x in x {
        *x = (*x - most) - log_sum;
    }
}

per_isa! { fn softmax_row(x: &mut [f32]) = softmax_row_loop; }
per_isa! { fn log_softmax_row(x: &mut [f32]) = log_softmax_row_loop; }

/// The place of the greatest value of every row of `x[rows, vocab]`, the first of equals; NaN never wins, and a row
/// without a number above -infinity gives 0.
pub fn argmax_rows(best: &mut [u32], x: &[f32], vocab: usize) {
    assert!(
        vocab > 0 && x.len() == best.len() * vocab,
        "argmax_rows: {} rows of {vocab}, {} values",
        best.len(),
        x.len()
    );
    let best = Parts::new(best);
    chunk::each(x.len(), vocab, |range| {
        // SAFETY: chunks are whole rows, and each row belongs to one.
        let best = unsafe { best.at(range.start / vocab..range.end / vocab) };
        for (best, x) in best.iter_mut().zip(x[range].chunks_exact(vocab)) {
            *best = argmax_row(x);
        }
    });
}

#[inline(always)]
fn argmax_row_loop(x: &[f32]) -> u32 {
    // The maximum of each tile, as fast as memory; then the search in the first tile that holds it.
    let (mut most, mut start) = (f32::NEG_INFINITY, 0);
    for (tile, x) in x.chunks(TILE).enumerate() {
        let here = vector::max(x);
        if here > most {
            (most, start) = (here, tile * TILE);
        }
    }
    let tile = &x[start..x.len().min(start + TILE)];
    (start + tile.iter().position(|x| *x == most).unwrap_or(0)) as u32
}

per_isa! { fn argmax_row(x: &[f32]) -> u32 = plain argmax_row_loop; }

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::rng::Rng;

    fn softmax(x: &[f32]) -> Vec<f64> {
        let most = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f64> = x.iter().map(|x| f64::from(x - most).exp()).collect();
        let sum: f64 = powers.iter().sum();
        powers.iter().map(|p| p / sum).collect()
    }

    #[test]
    fn loss_and_gradient_match_f64() {
        for (rows, vocab) in [(1, 1), (5, 7), (33, 1024), (3, 50_257), (17, 2_049)] {
            for smoothing in [0.0, 0.1] {
                let mut x = vec![0.0; rows * vocab];
                // Far from zero, as logits of trained models are.
                Rng::new(vocab as u64).fill_normal(&mut x, -30.0, 4.0);
                let mut targets: Vec<i32> = (0..rows).map(|r| (r * 31 % vocab) as i32).collect();
                if rows > 2 {
                    targets[2] = IGNORE;
                }
                let (mut grad, mut losses) = (x.clone(), vec![9.0; rows]);
                cross_entropy_rows(&mut grad, &targets, smoothing, Some(0.25), &mut losses).unwrap();
                let mut kept = x.clone();
                let mut again = vec![9.0; rows];
                cross_entropy_rows(&mut kept, &targets, smoothing, None, &mut again).unwrap();
                assert!(kept == x && again == losses, "without a gradient the logits stay");
                for r in 0..rows {
                    let (row, grad) = (&x[r * vocab..][..vocab], &grad[r * vocab..][..vocab]);
                    if targets[r] == IGNORE {
                        assert!(losses[r] == 0.0 && grad.iter().all(|g| *g == 0.0));
                        continue;
                    }
                    let (p, even) = (softmax(row), f64::from(smoothing) / vocab as f64);
                    let weight =
                        |i: usize| even + if i == targets[r] as usize { 1.0 - f64::from(smoothing) } else { 0.0 };
                    let loss: f64 = (0..vocab).map(|i| -weight(i) * p[i].ln()).sum();
                    // The sum over the vocabulary and the exponentials: a few ulps of a loss near 10.
                    assert!((f64::from(losses[r]) - loss).abs() <= 1e-6 * loss.max(1.0), "{} {loss}", losses[r]);
                    for i in 0..vocab {
                        let truth = 0.25 * (p[i] - weight(i));
                        assert!((f64::from(grad[i]) - truth).abs() <= 1e-6 * truth.abs() + 3e-8, "{} {truth}", grad[i]);
                    }
                }
            }
        }
    }

    #[test]
    fn a_target_outside_is_an_error_and_changes_nothing() {
        let (mut x, mut losses) = ([1.0, 2.0, 3.0, 4.0], [7.0; 2]);
        for target in [2, -1, -101, i32::MAX, i32::MIN] {
            let error = cross_entropy_rows(&mut x, &[0, target], 0.0, Some(1.0), &mut losses).unwrap_err();
            assert_eq!(error, TargetError { row: 1, target, vocab: 2 });
            assert!(error.to_string().contains(&format!("target {target} in row 1")), "{error}");
        }
        assert!(x == [1.0, 2.0, 3.0, 4.0] && losses == [7.0; 2]);
        cross_entropy_rows(&mut [], &[], 0.0, None, &mut []).unwrap();
    }

    #[test]
    fn masked_and_huge_logits() {
        let mut x = [f32::NEG_INFINITY, 1e30, 1e30, f32::NEG_INFINITY];
        let mut loss = [0.0];
        cross_entropy_rows(&mut x, &[1], 0.0, Some(1.0), &mut loss).unwrap();
        assert_eq!((x, loss[0]), ([0.0, -0.5, 0.5, 0.0], std::f32::consts::LN_2));
        // A first tile of nothing but masks must not spoil the sum.
        let mut x = vec![f32::NEG_INFINITY; 3000];
        x[2500] = 1.0;
        cross_entropy_rows(&mut x, &[2500], 0.0, None, &mut loss).unwrap();
        assert_eq!(loss[0], 0.0);
        let mut nan = [1.0, f32::NAN];
        cross_entropy_rows(&mut nan, &[0], 0.0, None, &mut loss).unwrap();
        assert!(loss[0].is_nan(), "a broken model shows");
    }

    #[test]
    fn softmax_log_softmax_and_argmax() {
        for (rows, vocab) in [(1, 1), (9, 65), (4, 5_001)] {
            let mut x = vec![0.0; rows * vocab];
            Rng::new(2).fill_normal(&mut x, 5.0, 3.0);
            let (mut s, mut l, mut best) = (x.clone(), x.clone(), vec![0; rows]);
            softmax_rows(&mut s, vocab);
            log_softmax_rows(&mut l, vocab);
            argmax_rows(&mut best, &x, vocab);
            for (r, best) in best.iter().enumerate() {
                let at = r * vocab..(r + 1) * vocab;
                let p = softmax(&x[at.clone()]);
                for (i, p) in p.iter().enumerate() {
                    assert!((f64::from(s[at.start + i]) - p).abs() <= 5e-7 * p + 1e-12);
                    assert!((f64::from(l[at.start + i]) - p.ln()).abs() <= 3e-6);
                }
                let top = p.iter().copied().fold(0.0, f64::max);
                assert_eq!(*best as usize, p.iter().position(|p| *p == top).unwrap());
            }
        }
        let mut best = [9; 3];
        argmax_rows(&mut best, &[1.0, 3.0, 3.0, f32::NAN, -1.0, f32::NAN, f32::NAN, f32::NAN, f32::NAN], 3);
        assert_eq!(best, [1, 1, 0]);
    }
}

//! Losses of numbers against numbers, with their gradients: squares, and the cross-entropy of a yes or no. The
//! cross-entropy over classes is in `loss`.

use crate::chunk::{self, CHUNK, Parts};
use crate::vector::{self, Math, per_isa};

/// A loss of one number against its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Regression {
    /// `(x - target)²`.
    Square,
    /// `-target ln σ(x) - (1 - target) ln (1 - σ(x))`, `x` being a logit.
    Binary,
}

/// The sum of the losses, in an order that does not depend on the threads.
///
/// # Panics
/// If the lengths differ; so does [`backward`].
pub fn sum(x: &[f32], targets: &[f32], loss: Regression) -> f64 {
    assert!(x.len() == targets.len(), "regression: {} numbers, {} targets", x.len(), targets.len());
    let mut sums = vec![0f32; x.len().div_ceil(CHUNK)];
    let parts = Parts::new(&mut sums);
    chunk::each(x.len(), 1, |range| {
        let (x, targets) = (&x[range.clone()], &targets[range.clone()]);
        let sum = match loss {
            Regression::Square => square_sum(x, targets),
            Regression::Binary => binary_sum(x, targets),
        };
        // SAFETY: one chunk, one sum.
        unsafe { parts.set(range.start / CHUNK, sum) };
    });
    sums.iter().map(|&sum| f64::from(sum)).sum()
}

/// The gradient of [`sum`] times `scale`.
pub fn backward(dx: &mut [f32], x: &[f32], targets: &[f32], scale: f32, loss: Regression) {
    assert!(
        dx.len() == x.len() && x.len() == targets.len(),
        "regression: {} gradients, {} numbers, {} targets",
        dx.len(),
        x.len(),
        targets.len()
    );
    chunk::each_mut(dx, 1, |at, dx| match loss {
        Regression::Square => square_slope(dx, &x[at..], &targets[at..], scale),
        Regression::Binary => binary_slope(dx, &x[at..], &targets[at..], scale),
    });
}

#[inline(always)]
fn square_sum_loop<M: Math>(x: &[f32], targets: &[f32]) -> f32 {
    vector::sum2::<M>(x, targets, |sum, x, t| M::fma(x - t, x - t, sum))
}

/// `max(x, 0) - x t + ln(1 + e^-|x|)`, where nothing overflows.
#[inline(always)]
fn binary_sum_loop<M: Math>(x: &[f32], targets: &[f32]) -> f32 {
    vector::sum2::<M>(x, targets, |sum, x, t| {
        let e = vector::exp_down::<M>(-x.abs());
        // ln(1 + e) by way of what 1 + e rounds to: exact for small e too, where a sure answer's loss is all of it.
        let u = 1.0 + e;
        let tail = if u == 1.0 { e } else { vector::ln::<M>(u) * (e / (u - 1.0)) };
        // Compared so that NaN passes.
        let top = if x <= 0.0 { 0.0 } else { x };
        sum + (M::fma(-x, t, top) + tail)
    })
}

#[inline(always)]
fn square_slope_loop(dx: &mut [f32], x: &[f32], targets: &[f32], scale: f32) {
    for ((dx, x), t) in dx.iter_mut().zip(x).zip(targets) {
        *dx = 2.0 * scale * (x - t);
    }
}

#[inline(always)]
fn binary_slope_loop<M: Math>(dx: &mut [f32], x: &[f32], targets: &[f32], scale: f32) {
    for ((dx, &x), t) in dx.iter_mut().zip(x).zip(targets) {
        *dx = scale * (vector::sigmoid::<M>(x) - t);
    }
}

per_isa! { fn square_sum(x: &[f32], targets: &[f32]) -> f32 = square_sum_loop; }
per_isa! { fn binary_sum(x: &[f32], targets: &[f32]) -> f32 = binary_sum_loop; }
per_isa! { fn square_slope(dx: &mut [f32], x: &[f32], targets: &[f32], scale: f32) = plain square_slope_loop; }
per_isa! { fn binary_slope(dx: &mut [f32], x: &[f32], targets: &[f32], scale: f32) = binary_slope_loop; }

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::threads::tests::with_threads;

    fn truth(loss: Regression, x: f64, t: f64) -> (f64, f64) {
        match loss {
            Regression::Square => ((x - t) * (x - t), 2.0 * (x - t)),
            Regression::Binary => (x.max(0.0) - x * t + (-x.abs()).exp().ln_1p(), 1.0 / (1.0 + (-x).exp()) - t),
        }
    }

    #[test]
    fn sums_and_slopes_match_f64() {
        for loss in [Regression::Square, Regression::Binary] {
            for n in [0, 1, 7, 65, 50_000] {
                let (mut x, mut t) = (vec![0.0; n], vec![0.0; n]);
                Rng::new(1).fill_normal(&mut x, 0.0, 5.0);
                Rng::new(2).fill_uniform(&mut t, 0.0, 1.0);
                let both = x.iter().zip(&t).map(|(&x, &t)| truth(loss, f64::from(x), f64::from(t)));
                let total: f64 = both.clone().map(|(value, _)| value).sum();
                let one = with_threads(1, || sum(&x, &t, loss));
                // Up to 256 terms in each partial sum.
                assert!((one - total).abs() <= 2e-6 * total, "{loss:?} of {n}: {one} {total}");
                assert_eq!(one, with_threads(2, || sum(&x, &t, loss)));
                let mut dx = vec![9.0; n];
                backward(&mut dx, &x, &t, 0.5, loss);
                for (dx, (_, slope)) in dx.iter().zip(both) {
                    assert!((f64::from(*dx) - 0.5 * slope).abs() <= 4e-7 * slope.abs().max(1.0));
                }
            }
        }
    }

    #[test]
    fn sure_answers_and_broken_ones() {
        for (x, t) in [(40.0, 1.0), (-40.0, 0.0), (12.0, 1.0), (-12.0, 0.0), (200.0, 0.0), (-1e4, 1.0)] {
            let (value, _) = truth(Regression::Binary, f64::from(x), f64::from(t));
            let ours = sum(&[x], &[t], Regression::Binary);
            assert!((ours - value).abs() <= 1e-6 * value, "{x}, {t}: {ours} {value}");
        }
        assert!(sum(&[f32::NAN], &[0.0], Regression::Binary).is_nan());
        assert!(sum(&[f32::NAN], &[0.0], Regression::Square).is_nan());
    }
}

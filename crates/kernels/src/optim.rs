//! Optimiser updates in one pass over parameter, gradient and moments, each equal to its reference implementation.

mod adafactor;

use half::bf16;

pub use crate::elementwise::{all_finite, scale, sum_squares};
pub use adafactor::{Adafactor, Second, adafactor};

use crate::chunk::{self, Parts};
use crate::elementwise::to_bf16;
use crate::vector::{Math, per_isa};

fn same(name: &str, lengths: &[usize]) {
    assert!(lengths.iter().all(|n| *n == lengths[0]), "{name}: expected slices of one length, found {lengths:?}");
}

/// The chunk of an optional companion slice.
///
/// # Safety
/// As [`Parts::at`].
unsafe fn part<'a, T>(parts: &Option<Parts<'a, T>>, range: &std::ops::Range<usize>) -> &'a mut [T] {
    match parts {
        // SAFETY: the caller's promise.
        Some(parts) => unsafe { parts.at(range.clone()) },
        None => &mut [],
    }
}

/// Writes the low-precision copy of what was just updated: the chunk is still in cache.
#[inline(always)]
fn lower(low: &mut [bf16], p: &[f32]) {
    for (low, p) in low.iter_mut().zip(p) {
        *low = to_bf16(*p);
    }
}

/// AdamW (Loshchilov and Hutter 2017), as `torch.optim.AdamW`; Adam where `weight_decay` is 0.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Share of `lr` times the parameter taken off it, apart from the gradient.
    pub weight_decay: f32,
    /// The number of this step, from 1: corrects the moments' bias.
    pub step: u64,
    /// Multiplies the gradient first (clipping, loss scale).
    pub grad_scale: f32,
}

/// Updates `p`, `m` and `v` by the gradient `g`, and writes `p` in bf16 to `low`.
pub fn adamw(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], o: &AdamW, low: Option<&mut [bf16]>) {
    same("adamw", &[p.len(), g.len(), m.len(), v.len(), low.as_ref().map_or(p.len(), |l| l.len())]);
    // Bias corrections in f64, as PyTorch: 1 - beta2^step loses digits in f32 at the first steps.
    let exponent = o.step.max(1).min(i32::MAX as u64) as i32;
    let bias1 = 1.0 - f64::from(o.beta1).powi(exponent);
    let bias2 = 1.0 - f64::from(o.beta2).powi(exponent);
    let rates = Rates {
        keep: (1.0 - f64::from(o.lr) * f64::from(o.weight_decay)) as f32,
        step: (f64::from(o.lr) / bias1) as f32,
        root: (1.0 / bias2.sqrt()) as f32,
    };
    let (m, v, low) = (Parts::new(m), Parts::new(v), low.map(Parts::new));
    chunk::each_mut(p, 1, |at, p| {
        let range = at..at + p.len();
        // SAFETY: the chunks of `p` do not overlap, and these are the same ranges.
        let (m, v, low) = unsafe { (m.at(range.clone()), v.at(range.clone()), part(&low, &range)) };
        adamw_isa(p, &g[range], [m, v], o, &rates);
        lower_isa(low, p);
    });
}

/// The step's constants.
struct Rates {
    keep: f32,
    step: f32,
    root: f32,
}

#[inline(always)]
fn adamw_loop<M: Math>(p: &mut [f32], g: &[f32], [m, v]: [&mut [f32]; 2], o: &AdamW, rates: &Rates) {
    for (((p, &g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
        let g = g * o.grad_scale;
        *m = M::fma(g - *m, 1.0 - o.beta1, *m);
        *v = M::fma(g * g, 1.0 - o.beta2, *v * o.beta2);
        let update = *m / M::fma(v.sqrt(), rates.root, o.eps);
        *p = M::fma(-rates.step, update, *p * rates.keep);
    }
}

#[inline(always)]
fn lower_loop(low: &mut [bf16], p: &[f32]) {
    lower(low, p);
}

per_isa! { fn adamw_isa(p: &mut [f32], g: &[f32], moments: [&mut [f32]; 2], o: &AdamW, rates: &Rates) = adamw_loop; }
per_isa! { fn lower_isa(low: &mut [bf16], p: &[f32]) = plain lower_loop; }

/// Stochastic gradient descent, as `torch.optim.SGD`.
#[derive(Clone, Copy, Debug)]
pub struct Sgd {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the velocity; 0 for none.
    pub momentum: f32,
    /// Share of the gradient kept out of the velocity.
    pub dampening: f32,
    /// Nesterov's look-ahead.
    pub nesterov: bool,
    /// Added to the gradient, times the parameter.
    pub weight_decay: f32,
    /// The number of this step, from 1: the first fills the velocity with the gradient itself.
    pub step: u64,
    /// Multiplies the gradient first.
    pub grad_scale: f32,
}

/// Updates `p` and, where there is momentum, `velocity` by the gradient `g`, and writes `p` in bf16 to `low`.
pub fn sgd(p: &mut [f32], g: &[f32], velocity: Option<&mut [f32]>, o: &Sgd, low: Option<&mut [bf16]>) {
    let n = p.len();
    same("sgd", &[n, g.len(), velocity.as_ref().map_or(n, |v| v.len()), low.as_ref().map_or(n, |l| l.len())]);
    assert!(o.momentum == 0.0 || velocity.is_some(), "sgd: momentum {} needs a velocity", o.momentum);
    let velocity = velocity.filter(|_| o.momentum != 0.0);
    let (velocity, low) = (velocity.map(Parts::new), low.map(Parts::new));
    chunk::each_mut(p, 1, |at, p| {
        let range = at..at + p.len();
        // SAFETY: as in `adamw`.
        let (velocity, low) = unsafe { (part(&velocity, &range), part(&low, &range)) };
        sgd_isa(p, &g[range], velocity, o);
        lower_isa(low, p);
    });
}

#[inline(always)]
fn sgd_loop<M: Math>(p: &mut [f32], g: &[f32], velocity: &mut [f32], o: &Sgd) {
    if velocity.is_empty() {
        for (p, &g) in p.iter_mut().zip(g) {
            *p = M::fma(-o.lr, M::fma(o.weight_decay, *p, g * o.grad_scale), *p);
        }
        return;
    }
    let (kept, taken) = if o.step <= 1 { (0.0, 1.0) } else { (o.momentum, 1.0 - o.dampening) };
    let (ahead, of_velocity) = if o.nesterov { (1.0, o.momentum) } else { (0.0, 1.0) };
    for ((p, &g), v) in p.iter_mut().zip(g).zip(velocity) {
        let g = M::fma(o.weight_decay, *p, g * o.grad_scale);
        *v = M::fma(*v, kept, g * taken);
        *p = M::fma(-o.lr, M::fma(*v, of_velocity, g * ahead), *p);
    }
}

per_isa! { fn sgd_isa(p: &mut [f32], g: &[f32], velocity: &mut [f32], o: &Sgd) = sgd_loop; }

/// Lion (Chen et al., "Symbolic discovery of optimization algorithms", 2023, algorithm 2).
#[derive(Clone, Copy, Debug)]
pub struct Lion {
    /// Learning rate.
    pub lr: f32,
    /// Weight of the momentum in the update's direction.
    pub beta1: f32,
    /// Decay of the momentum.
    pub beta2: f32,
    /// Share of `lr` times the parameter taken off it.
    pub weight_decay: f32,
    /// Multiplies the gradient first.
    pub grad_scale: f32,
}

/// Updates `p` and the momentum `m` by the gradient `g`, and writes `p` in bf16 to `low`.
pub fn lion(p: &mut [f32], g: &[f32], m: &mut [f32], o: &Lion, low: Option<&mut [bf16]>) {
    same("lion", &[p.len(), g.len(), m.len(), low.as_ref().map_or(p.len(), |l| l.len())]);
    let (m, low) = (Parts::new(m), low.map(Parts::new));
    chunk::each_mut(p, 1, |at, p| {
        let range = at..at + p.len();
        // SAFETY: as in `adamw`.
        let (m, low) = unsafe { (m.at(range.clone()), part(&low, &range)) };
        lion_isa(p, &g[range], m, o);
        lower_isa(low, p);
    });
}

#[inline(always)]
fn lion_loop<M: Math>(p: &mut [f32], g: &[f32], m: &mut [f32], o: &Lion) {
    for ((p, &g), m) in p.iter_mut().zip(g).zip(m) {
        let g = g * o.grad_scale;
        let c = M::fma(*m - g, o.beta1, g);
        // The sign of 0 is 0 here.
        let sign = if c > 0.0 {
            1.0
        } else if c < 0.0 {
            -1.0
        } else {
            c
        };
        *p = M::fma(-o.lr, M::fma(o.weight_decay, *p, sign), *p);
        *m = M::fma(*m - g, o.beta2, g);
    }
}

per_isa! { fn lion_isa(p: &mut [f32], g: &[f32], m: &mut [f32], o: &Lion) = lion_loop; }

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn normal(n: usize, seed: u64, std: f32) -> Vec<f32> {
        let mut x = vec![0.0; n];
        Rng::new(seed).fill_normal(&mut x, 0.0, std);
        x
    }

    fn close(p: &[f32], truth: &[f64]) {
        for (p, t) in p.iter().zip(truth) {
            // Some steps of a few roundings each, of values near 1.
            assert!((f64::from(*p) - t).abs() < 2e-6, "{p} {t}");
        }
    }

    #[test]
    fn adamw_follows_the_paper_in_f64() {
        for n in [1, 37, 20_011] {
            let (mut p, mut m, mut v) = (normal(n, 1, 1.0), vec![0.0; n], vec![0.0; n]);
            let (mut p_, mut m_, mut v_): (Vec<f64>, _, _) =
                (p.iter().map(|x| f64::from(*x)).collect(), vec![0f64; n], vec![0f64; n]);
            let mut low = vec![bf16::ZERO; n];
            for step in 1..=4 {
                let g = normal(n, 10 + step, 2.0);
                let o =
                    AdamW { lr: 0.01, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, step, grad_scale: 0.5 };
                adamw(&mut p, &g, &mut m, &mut v, &o, Some(&mut low));
                for i in 0..n {
                    let g = f64::from(g[i]) * 0.5;
                    p_[i] *= 1.0 - 0.01 * 0.1;
                    m_[i] = 0.9 * m_[i] + 0.1 * g;
                    v_[i] = 0.95 * v_[i] + 0.05 * g * g;
                    let (m, v) = (m_[i] / (1.0 - 0.9f64.powi(step as i32)), v_[i] / (1.0 - 0.95f64.powi(step as i32)));
                    p_[i] -= 0.01 * m / (v.sqrt() + 1e-8);
                }
                close(&p, &p_);
                assert!(low.iter().zip(&p).all(|(l, p)| *l == bf16::from_f32(*p)));
            }
        }
    }

    #[test]
    fn sgd_follows_pytorchs_rule() {
        for (momentum, dampening, nesterov) in
            [(0.0, 0.0, false), (0.9, 0.0, false), (0.9, 0.3, false), (0.9, 0.0, true)]
        {
            let n = 1001;
            let (mut p, mut buf) = (normal(n, 1, 1.0), vec![0.0; n]);
            let (mut p_, mut buf_): (Vec<f64>, Vec<f64>) = (p.iter().map(|x| f64::from(*x)).collect(), vec![0.0; n]);
            for step in 1..=3 {
                let g = normal(n, 20 + step, 1.0);
                let o = Sgd { lr: 0.1, momentum, dampening, nesterov, weight_decay: 0.01, step, grad_scale: 2.0 };
                sgd(&mut p, &g, Some(&mut buf), &o, None);
                let (mu, damp) = (f64::from(momentum), f64::from(dampening));
                for i in 0..n {
                    let mut d = f64::from(g[i]) * 2.0 + 0.01 * p_[i];
                    if mu != 0.0 {
                        buf_[i] = if step == 1 { d } else { mu * buf_[i] + (1.0 - damp) * d };
                        d = if nesterov { d + mu * buf_[i] } else { buf_[i] };
                    }
                    p_[i] -= 0.1 * d;
                }
                close(&p, &p_);
            }
        }
    }

    #[test]
    fn lion_follows_algorithm_2() {
        let n = 999;
        let (mut p, mut m) = (normal(n, 1, 1.0), vec![0.0; n]);
        let (mut p_, mut m_): (Vec<f64>, Vec<f64>) = (p.iter().map(|x| f64::from(*x)).collect(), vec![0.0; n]);
        for step in 0..4 {
            let g = normal(n, 30 + step, 1.0);
            let o = Lion { lr: 0.01, beta1: 0.9, beta2: 0.99, weight_decay: 0.1, grad_scale: 1.0 };
            lion(&mut p, &g, &mut m, &o, None);
            for i in 0..n {
                let g = f64::from(g[i]);
                p_[i] -= 0.01 * ((0.9 * m_[i] + 0.1 * g).signum() + 0.1 * p_[i]);
                m_[i] = 0.99 * m_[i] + 0.01 * g;
            }
            close(&p, &p_);
        }
        // No gradient and no momentum: only the decay moves.
        let (mut p, mut m) = ([1.0], [0.0]);
        lion(
            &mut p,
            &[0.0],
            &mut m,
            &Lion { lr: 0.5, beta1: 0.9, beta2: 0.99, weight_decay: 0.5, grad_scale: 1.0 },
            None,
        );
        assert_eq!(p, [0.75]);
    }

    #[test]
    fn not_a_number_is_not_hidden() {
        let (mut p, mut m, mut v) = ([1.0], [0.0], [0.0]);
        let o = AdamW { lr: 0.1, beta1: 0.9, beta2: 0.9, eps: 1e-8, weight_decay: 0.0, step: 1, grad_scale: 1.0 };
        adamw(&mut p, &[f32::NAN], &mut m, &mut v, &o, None);
        assert!(p[0].is_nan());
        let mut p = [1.0];
        let o = Lion { lr: 0.5, beta1: 0.9, beta2: 0.99, weight_decay: 0.5, grad_scale: 1.0 };
        lion(&mut p, &[f32::NAN], &mut [0.0], &o, None);
        assert!(p[0].is_nan());
    }
}

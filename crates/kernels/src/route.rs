//! Mixture of experts, row by row: the choice of experts, their weights, and the weighted sum of what they answer.
//! The experts themselves are products.

use crate::chunk::{self, Parts};
use crate::rows::dot;
use crate::vector::{self, Math, per_isa};

/// Experts in groups of equal size, of which a row may only use a few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// How many groups there are; they are as large as each other and contiguous.
    pub count: usize,
    /// How many of them a row may use: those whose best expert is best.
    pub top: usize,
}

/// For each row of `scores[rows, experts]` the places of its `k` greatest, greatest first and of equals the lowest,
/// into `best[rows, k]`. NaN counts as less than everything.
///
/// With `groups` a row first chooses groups by their greatest score, in the same way, and then experts within them.
///
/// # Panics
/// If a length does not fit, `k` is more than there are (in the groups), or the groups do not divide the experts; so
/// do all functions here.
pub fn top_k(best: &mut [u32], scores: &[f32], [experts, k]: [usize; 2], groups: Option<Groups>) {
    let within = groups.map_or(experts, |g| experts / g.count.max(1) * g.top);
    assert!(
        0 < k && k <= within && groups.is_none_or(|g| g.top <= g.count && experts.is_multiple_of(g.count)),
        "top_k: {k} of {experts} experts, groups {groups:?}"
    );
    assert!(
        best.len() / k * experts == scores.len() && best.len().is_multiple_of(k),
        "top_k: {} scores of {experts} experts give {k} each, found room for {}",
        scores.len(),
        best.len()
    );
    let best = Parts::new(best);
    chunk::each(scores.len(), experts, |range| {
        // SAFETY: chunks are whole rows, and each row belongs to one.
        let best = unsafe { best.at(range.start / experts * k..range.end / experts * k) };
        let mut chosen = vec![0; groups.map_or(0, |g| g.top)];
        for (best, scores) in best.chunks_exact_mut(k).zip(scores[range].chunks_exact(experts)) {
            match groups {
                None => greatest(best, (0..experts as u32).map(|e| (e, scores[e as usize]))),
                Some(groups) => {
                    let size = experts / groups.count;
                    let tops = scores.chunks_exact(size).map(vector::max);
                    greatest(&mut chosen, (0..).zip(tops));
                    // Ascending, so that of equal experts the lowest still comes first.
                    chosen.sort_unstable();
                    let members = chosen.iter().flat_map(|&g| g * size as u32..(g + 1) * size as u32);
                    greatest(best, members.map(|e| (e, scores[e as usize])));
                }
            }
        }
    });
}

/// The candidates with the greatest scores, in order. An insertion: few are kept, and most candidates end at the first
/// comparison.
fn greatest(best: &mut [u32], candidates: impl Iterator<Item = (u32, f32)>) {
    const MANY: usize = 64;
    let (mut few, mut many);
    let scores: &mut [f32] = if best.len() <= MANY {
        few = [0f32; MANY];
        &mut few[..best.len()]
    } else {
        many = vec![0f32; best.len()];
        &mut many
    };
    let mut count = 0;
    for (candidate, score) in candidates {
        let score = if score.is_nan() { f32::NEG_INFINITY } else { score };
        if count == best.len() && score <= scores[count - 1] {
            continue;
        }
        let mut at = if count < best.len() { count } else { count - 1 };
        while at > 0 && scores[at - 1] < score {
            (best[at], scores[at]) = (best[at - 1], scores[at - 1]);
            at -= 1;
        }
        (best[at], scores[at]) = (candidate, score);
        count = best.len().min(count + 1);
    }
}

/// How the weights of the chosen experts are made of their probabilities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weighing {
    /// Divide by the sum over the chosen.
    pub renormalise: bool,
    /// Multiply by this.
    pub scale: f32,
}

/// `weights[rows, k]`: the probabilities of the experts `chosen[rows, k]` out of `probs[rows, experts]`, weighed.
pub fn weigh(weights: &mut [f32], probs: &[f32], chosen: &[u32], [experts, k]: [usize; 2], how: Weighing) {
    check("weigh", [weights.len(), probs.len(), chosen.len()], [experts, k]);
    let rows = probs.chunks_exact(experts).zip(chosen.chunks_exact(k));
    for (weights, (probs, chosen)) in weights.chunks_exact_mut(k).zip(rows) {
        for (weight, &e) in weights.iter_mut().zip(chosen) {
            *weight = probs[e as usize];
        }
        let sum = if how.renormalise { weights.iter().sum() } else { 1f32 };
        weights.iter_mut().for_each(|weight| *weight *= how.scale / sum);
    }
}

/// The gradient of [`weigh`]: `dprobs[rows, experts]`, 0 for experts that were not chosen.
pub fn weigh_backward(
    dprobs: &mut [f32],
    dweights: &[f32],
    probs: &[f32],
    chosen: &[u32],
    [experts, k]: [usize; 2],
    how: Weighing,
) {
    check("weigh_backward", [dweights.len(), probs.len(), chosen.len()], [experts, k]);
    assert!(dprobs.len() == probs.len(), "weigh_backward: {} gradients of {}", dprobs.len(), probs.len());
    dprobs.fill(0.0);
    let rows = probs.chunks_exact(experts).zip(chosen.chunks_exact(k)).zip(dweights.chunks_exact(k));
    for (dprobs, ((probs, chosen), dweights)) in dprobs.chunks_exact_mut(experts).zip(rows) {
        let (mut sum, mut mean) = (1f32, 0f32);
        if how.renormalise {
            sum = chosen.iter().map(|&e| probs[e as usize]).sum();
            mean = chosen.iter().zip(dweights).map(|(&e, dw)| probs[e as usize] / sum * dw).sum();
        }
        for (&e, dw) in chosen.iter().zip(dweights) {
            dprobs[e as usize] = (dw - mean) * (how.scale / sum);
        }
    }
}

fn check(name: &str, [weights, probs, chosen]: [usize; 3], [experts, k]: [usize; 2]) {
    assert!(
        k > 0 && experts > 0 && weights == chosen && chosen.is_multiple_of(k) && probs == chosen / k * experts,
        "{name}: {k} of {experts} experts; found {weights} weights, {probs} probabilities, {chosen} choices"
    );
}

/// The gradient of a softmax over rows of `dim`, from its result `y`: `dx = y (dy - Σ y dy)`.
pub fn softmax_backward(dx: &mut [f32], dy: &[f32], y: &[f32], dim: usize) {
    assert!(
        dim > 0 && dx.len() == dy.len() && dx.len() == y.len() && dx.len().is_multiple_of(dim),
        "softmax_backward: rows of {dim}; found {}, {}, {}",
        dx.len(),
        dy.len(),
        y.len()
    );
    chunk::each_mut(dx, dim, |start, dx| {
        for (at, dx) in (start..).step_by(dim).zip(dx.chunks_exact_mut(dim)) {
            let (dy, y) = (&dy[at..at + dim], &y[at..at + dim]);
            let mean = dot(dy, y);
            dx.iter_mut().zip(dy.iter().zip(y)).for_each(|(dx, (dy, y))| *dx = y * (dy - mean));
        }
    });
}

/// `out[row] = Σ_j weights[row, j] · answers[row, j]`, summed in the order of `j`. An answer is a row of `dim`, wherever
/// it lies; `None` where there is none.
pub fn combine(out: &mut [f32], answers: &[Option<&[f32]>], weights: &[f32], k: usize, dim: usize) {
    assert!(
        k > 0 && dim > 0 && answers.len() == weights.len() && out.len() * k == answers.len() * dim,
        "combine: {k} answers of {dim} a row; found {} values, {} answers, {} weights",
        out.len(),
        answers.len(),
        weights.len()
    );
    chunk::each_mut(out, dim, |start, out| {
        for (row, out) in (start / dim..).zip(out.chunks_exact_mut(dim)) {
            out.fill(0.0);
            for (answer, &weight) in answers[row * k..][..k].iter().zip(&weights[row * k..]) {
                if let Some(answer) = answer {
                    assert!(answer.len() == dim, "combine: an answer of {} instead of {dim}", answer.len());
                    add_scaled(out, answer, weight);
                }
            }
        }
    });
}

#[inline(always)]
fn add_scaled_loop<M: Math>(y: &mut [f32], x: &[f32], a: f32) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = M::fma(a, x, *y);
    }
}

per_isa! { fn add_scaled(y: &mut [f32], x: &[f32], a: f32) = add_scaled_loop; }

/// The gradient of [`combine`] with respect to answers: `danswers[i] = weights[slots[i]] · dout[slots[i] / k]`.
pub fn combine_backward_answers(
    danswers: &mut [f32],
    dout: &[f32],
    weights: &[f32],
    slots: &[u32],
    k: usize,
    dim: usize,
) {
    assert!(
        k > 0 && dim > 0 && danswers.len() == slots.len() * dim && dout.len() * k == weights.len() * dim,
        "combine_backward_answers: {k} answers of {dim} a row; found {} for {} slots, {} from above, {} weights",
        danswers.len(),
        slots.len(),
        dout.len(),
        weights.len()
    );
    chunk::each_mut(danswers, dim, |start, danswers| {
        for (danswer, &slot) in danswers.chunks_exact_mut(dim).zip(&slots[start / dim..]) {
            let (dout, weight) = (&dout[slot as usize / k * dim..][..dim], weights[slot as usize]);
            danswer.iter_mut().zip(dout).for_each(|(da, dout)| *da = dout * weight);
        }
    });
}

/// The gradient of [`combine`] with respect to the weights: each answer times its row of `dout`, 0 without an answer.
pub fn combine_backward_weights(dweights: &mut [f32], dout: &[f32], answers: &[Option<&[f32]>], k: usize, dim: usize) {
    assert!(
        k > 0 && dim > 0 && dweights.len() == answers.len() && dout.len() * k == answers.len() * dim,
        "combine_backward_weights: {k} answers of {dim} a row; found {} weights, {} answers, {} from above",
        dweights.len(),
        answers.len(),
        dout.len()
    );
    let dweights = Parts::new(dweights);
    chunk::each(dout.len(), dim, |range| {
        for row in range.start / dim..range.end / dim {
            let dout = &dout[row * dim..][..dim];
            for (slot, answer) in (row * k..).zip(&answers[row * k..][..k]) {
                // SAFETY: chunks are whole rows, and the slots of a row belong to it.
                unsafe { dweights.set(slot, answer.map_or(0.0, |answer| dot(answer, dout))) };
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::threads::tests::with_threads;

    fn sorted(scores: &[f32], allowed: impl Fn(usize) -> bool, k: usize) -> Vec<u32> {
        let mut all: Vec<usize> = (0..scores.len()).filter(|&e| allowed(e)).collect();
        // Stable: equal scores keep their order.
        all.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        all[..k].iter().map(|&e| e as u32).collect()
    }

    #[test]
    fn the_best_are_those_of_a_stable_sort() {
        for (rows, experts, k) in [(0, 4, 2), (1, 1, 1), (7, 8, 2), (33, 64, 6), (300, 160, 6), (2, 200, 200)] {
            // 16 different values: ties everywhere.
            let mut rng = Rng::new(experts as u64);
            let scores: Vec<f32> = (0..rows * experts).map(|_| rng.below(16) as f32).collect();
            let mut best = vec![9; rows * k];
            top_k(&mut best, &scores, [experts, k], None);
            for (best, scores) in best.chunks_exact(k).zip(scores.chunks_exact(experts)) {
                assert_eq!(best, sorted(scores, |_| true, k));
            }
        }
    }

    #[test]
    fn groups_are_chosen_first() {
        for (experts, count, top, k) in [(8, 4, 2, 3), (8, 8, 3, 3), (12, 3, 1, 4), (160, 8, 3, 6), (6, 1, 1, 2)] {
            let mut rng = Rng::new(7);
            let scores: Vec<f32> = (0..50 * experts).map(|_| rng.below(40) as f32 - 9.0).collect();
            let mut best = vec![0; 50 * k];
            top_k(&mut best, &scores, [experts, k], Some(Groups { count, top }));
            for (best, scores) in best.chunks_exact(k).zip(scores.chunks_exact(experts)) {
                let size = experts / count;
                let tops: Vec<f32> = scores.chunks(size).map(|s| s.iter().copied().fold(f32::MIN, f32::max)).collect();
                let groups = sorted(&tops, |_| true, top);
                assert_eq!(best, sorted(scores, |e| groups.contains(&((e / size) as u32)), k));
            }
        }
    }

    #[test]
    fn nan_is_never_preferred_and_never_fatal() {
        let mut best = [9; 2];
        top_k(&mut best, &[f32::NAN, 1.0, f32::NAN, 2.0], [4, 2], None);
        assert_eq!(best, [3, 1]);
        top_k(&mut best, &[f32::NAN; 4], [4, 2], Some(Groups { count: 2, top: 1 }));
        assert_eq!(best, [0, 1]);
        top_k(&mut best, &[f32::NEG_INFINITY; 4], [4, 2], None);
        assert_eq!(best, [0, 1]);
    }

    #[test]
    fn sums_and_their_gradients_do_not_depend_on_threads() {
        let (rows, k, dim) = (700, 3, 65);
        let mut values = vec![0.0; rows * k * dim];
        Rng::new(1).fill_normal(&mut values, 0.0, 1.0);
        let mut weights = vec![0.0; rows * k];
        Rng::new(2).fill_normal(&mut weights, 0.0, 1.0);
        let mut dout = vec![0.0; rows * dim];
        Rng::new(3).fill_normal(&mut dout, 0.0, 1.0);
        let answer = |slot: usize| (slot % 7 != 3).then(|| &values[slot * dim..][..dim]);
        let answers: Vec<_> = (0..rows * k).map(answer).collect();
        let run = |threads| {
            with_threads(threads, || {
                let (mut out, mut dweights) = (vec![9.0; rows * dim], vec![9.0; rows * k]);
                combine(&mut out, &answers, &weights, k, dim);
                combine_backward_weights(&mut dweights, &dout, &answers, k, dim);
                (out, dweights)
            })
        };
        let (out, dweights) = run(1);
        assert_eq!((out.clone(), dweights.clone()), run(2));
        for (i, sum) in out.iter().enumerate() {
            let term = |j: usize| {
                let slot = i / dim * k + j;
                answers[slot].map_or(0.0, |answer| f64::from(weights[slot]) * f64::from(answer[i % dim]))
            };
            // Three terms of a few units.
            assert!((f64::from(*sum) - (0..k).map(term).sum::<f64>()).abs() < 4e-6);
        }
        for (slot, dw) in dweights.iter().enumerate() {
            let truth: f64 = answers[slot].map_or(0.0, |answer| {
                answer.iter().zip(&dout[slot / k * dim..]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
            });
            // 65 terms of about 1.
            assert!((f64::from(*dw) - truth).abs() < 2e-5, "{dw} {truth}");
        }
    }
}

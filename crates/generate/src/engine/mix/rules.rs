//! The rules by which distributions are mixed, on rows of logits.

use phyla_kernels::loss::log_softmax_rows;

use crate::config::Contrastive;
use crate::sampler::largest;

/// Log-probabilities.
fn log_probabilities(row: &[f32], temperature: f32) -> Vec<f32> {
    let mut row: Vec<f32> = row.iter().map(|x| x / temperature).collect();
    let vocab = row.len();
    log_softmax_rows(&mut row, vocab);
    row
}

/// Classifier-free guidance (Sanchez et al. 2023, equation 7): `u + scale (c - u)` of log-probabilities, `c` of the row and `u` of what
/// it is guided away from.
pub(in super::super) fn guide(row: &mut [f32], other: &[f32], scale: f32) {
    let (own, other) = (log_probabilities(row, 1.), log_probabilities(other, 1.));
    for (x, (c, u)) in row.iter_mut().zip(own.iter().zip(&other)) {
        *x = scale * (c - u) + u;
    }
}

/// Contrastive decoding (Li et al. 2023, equations 2 and 3): `log p - log q` where the expert's probability `p` is at least `alpha` of its
/// largest, the amateur's `q` being taken at a temperature; or `(1 + beta) log p - beta log q` (O'Brien and Lewis 2023).
pub(in super::super) fn contrast(row: &mut [f32], other: &[f32], rule: Contrastive) {
    let (expert, amateur) = (log_probabilities(row, 1.), log_probabilities(other, rule.temperature));
    let least = largest(&expert) + rule.alpha.ln();
    for (x, (p, q)) in row.iter_mut().zip(expert.iter().zip(&amateur)) {
        *x = match rule.beta {
            _ if *p < least => f32::NEG_INFINITY,
            Some(beta) => (1. + beta) * p - beta * q,
            None => p - q,
        };
    }
}

/// An id less likely than this share of the likeliest is no candidate.
const RELATIVE_TOP: f32 = 0.1;

/// DoLa (Chuang et al. 2024, equations 3 to 5): log-probabilities minus those of the earlier layer whose distribution is farthest from
/// the row's, by the Jensen-Shannon divergence as transformers computes it.
pub(in super::super) fn dola(row: &mut [f32], early: &[&[f32]]) {
    let mature = log_probabilities(row, 1.);
    let early = early.iter().map(|early| log_probabilities(early, 1.));
    let farthest = early.map(|early| (divergence(&mature, &early), early));
    // Of equally far ones the first.
    let Some((_, base)) = farthest.reduce(|a, b| if b.0 > a.0 { b } else { a }) else { return };
    let least = largest(&mature) + RELATIVE_TOP.ln();
    for (x, (p, q)) in row.iter_mut().zip(mature.iter().zip(&base)) {
        *x = if *p < least { f32::NEG_INFINITY } else { p - q };
    }
}

/// How far two distributions are apart: the mean of both's distances to what lies between them.
fn divergence(a: &[f32], b: &[f32]) -> f64 {
    let between = |(a, b): (&f32, &f32)| {
        let (a, b) = (f64::from(*a), f64::from(*b));
        let middle = 0.5 * (a.exp() + b.exp());
        if middle > 0. { middle * (2. * middle.ln() - a - b) } else { 0. }
    };
    a.iter().zip(b).map(between).sum()
}

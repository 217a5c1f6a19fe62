//! From the logits of a step to an id: the likeliest, or a seeded draw.

use phyla_kernels::rng::Rng;

use crate::{Error, Result};

/// Values that are compared side by side; the compiler makes vectors of them.
const LANES: usize = 16;

/// The largest value; minus infinity if there is none. NaN is passed over.
pub fn largest(row: &[f32]) -> f32 {
    scan(row).0
}

/// The largest value, and whether all are numbers below infinity.
fn scan(row: &[f32]) -> (f32, bool) {
    let (mut most, mut wrong) = ([f32::NEG_INFINITY; LANES], [0u32; LANES]);
    let (blocks, rest) = row.as_chunks::<LANES>();
    for block in blocks {
        for i in 0..LANES {
            most[i] = if block[i] > most[i] { block[i] } else { most[i] };
            wrong[i] |= u32::from(!sound(block[i]));
        }
    }
    let most = most.iter().chain(rest).fold(f32::NEG_INFINITY, |most, &x| if x > most { x } else { most });
    (most, wrong.iter().all(|&wrong| wrong == 0) && rest.iter().all(|&x| sound(x)))
}

/// Neither NaN nor infinity; minus infinity is an id ruled out.
fn sound(x: f32) -> bool {
    x <= f32::MAX
}

/// Number `step` of a stream of draws, whatever was drawn before: at least 0, below 1.
pub fn uniform(rng: &Rng, step: u64) -> f64 {
    let [a, b, ..] = rng.block(step);
    ((u64::from(a) << 32 | u64::from(b)) >> 11) as f64 * (1. / (1u64 << 53) as f64)
}

/// The id of the largest logit, the lowest of equals.
///
/// # Errors
/// When a logit is NaN or infinite, or every id has been ruled out.
pub fn greedy(row: &[f32]) -> Result<u32> {
    let most = checked_largest(row)?;
    Ok(row.iter().position(|&x| x == most).unwrap_or(0) as u32)
}

/// Draws an id with the probabilities `softmax(row)`.
///
/// Where the probabilities of all ids lie side by side, in their order, it is the one that [`uniform`] falls upon: number
/// `step` of the stream `rng`, whatever was drawn before. Exponentials are f32, sums f64.
///
/// # Errors
/// As [`greedy`].
pub fn draw(row: &[f32], rng: &Rng, step: u64) -> Result<u32> {
    checked_largest(row)?;
    let (weights, total) = weights(row);
    let mut left = uniform(rng, step) * total;
    let mut last = 0;
    for (id, &weight) in weights.iter().enumerate() {
        if weight > 0. {
            last = id;
            left -= f64::from(weight);
            if left < 0. {
                break;
            }
        }
    }
    // Rounding may leave a little: it belongs to the last id that has a probability.
    Ok(last as u32)
}

/// The `k` likeliest ids that are not ruled out, likeliest first, of equals the lowest.
pub(crate) fn likeliest(row: &[f32], k: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..row.len() as u32).filter(|&id| row[id as usize] > f32::NEG_INFINITY).collect();
    let falling = |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
    if (1..ids.len()).contains(&k) {
        ids.select_nth_unstable_by(k - 1, falling);
    }
    ids.truncate(k);
    ids.sort_unstable_by(falling);
    ids
}

/// `exp(row - max)` and the sum of that.
pub(crate) fn weights(row: &[f32]) -> (Vec<f32>, f64) {
    let most = largest(row);
    // Most ids are ruled out by then; exp of minus infinity costs as much as any other.
    let weight = |&x: &f32| if x == f32::NEG_INFINITY { 0. } else { (x - most).exp() };
    let weights: Vec<f32> = row.iter().map(weight).collect();
    let total = weights.iter().map(|&w| f64::from(w)).sum();
    (weights, total)
}

/// The largest logit.
///
/// # Errors
/// As [`greedy`].
pub(crate) fn checked_largest(row: &[f32]) -> Result<f32> {
    let (most, sound) = scan(row);
    if !sound {
        let nan = row.iter().filter(|x| x.is_nan()).count();
        let infinite = row.iter().filter(|x| **x == f32::INFINITY).count();
        return Err(Error::Logits(format!(
            "of {} logits {nan} are NaN and {infinite} infinite: the weights are damaged, or their numbers exceed \
             the type they are stored in (try --dtype f32)",
            row.len()
        )));
    }
    if most == f32::NEG_INFINITY {
        return Err(nothing_left());
    }
    Ok(most)
}

/// Every id has been ruled out.
pub(crate) fn nothing_left() -> Error {
    Error::Logits("every id has been ruled out: fewer suppress_tokens would help".into())
}

#[cfg(test)]
mod tests;

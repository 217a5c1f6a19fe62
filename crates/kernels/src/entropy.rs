//! The logarithm of one class's probability and the entropy of all, of each row of logits, with both gradients in place of
//! the logits; where `loss` knows one class alone.

use crate::chunk::{self, Parts};
use crate::loss::TargetError;
use crate::vector::{self, Math, per_isa};

/// What a row's outcome counts for in a loss: the slopes by its log-probability and by its entropy.
pub type Slopes = [f32; 2];

/// Of every row of `logits[rows, vocab]`, divided by `temperature`: `log softmax[targets[row]]` and the entropy
/// `-sum p log p` in nats, `found[rows]`.
///
/// With `slopes[rows]` the logits are replaced by their gradient; without, they stay.
///
/// # Errors
/// A target is outside the vocabulary; nothing has been changed then.
pub fn log_probs_and_entropies(
    logits: &mut [f32],
    targets: &[u32],
    temperature: f32,
    slopes: Option<&[Slopes]>,
    found: &mut [[f32; 2]],
) -> Result<(), TargetError> {
    let rows = targets.len();
    let vocab = logits.len() / rows.max(1);
    assert!(
        logits.len() == rows * vocab && found.len() == rows && slopes.is_none_or(|slopes| slopes.len() == rows),
        "log_probs_and_entropies: {rows} targets, {} logits, {} results",
        logits.len(),
        found.len()
    );
    if let Some((row, &target)) = targets.iter().enumerate().find(|&(_, &target)| target as usize >= vocab) {
        return Err(TargetError { row, target: i32::try_from(target).unwrap_or(i32::MAX), vocab });
    }
    let found = Parts::new(found);
    chunk::each_mut(logits, vocab, |at, logits| {
        let first = at / vocab;
        for (row, logits) in (first..).zip(logits.chunks_exact_mut(vocab)) {
            // SAFETY: one row, one result.
            let found = unsafe { found.at(row..row + 1) };
            found[0] = one_row(logits, targets[row] as usize, 1. / temperature, slopes.map(|slopes| slopes[row]));
        }
    });
    Ok(())
}

/// Logits per step of the sums: they stay in L1.
const TILE: usize = 1024;

#[inline(always)]
fn one_row_loop<M: Math>(x: &mut [f32], target: usize, sharpness: f32, slopes: Option<Slopes>) -> [f32; 2] {
    let most = vector::max(x);
    // `sum e^d` and `sum d e^d` of the distances below the largest.
    let (mut sum, mut weighted) = (0f64, 0f64);
    let (mut powers, mut products) = ([0f32; TILE], [0f32; TILE]);
    for x in x.chunks(TILE) {
        let (powers, products) = (&mut powers[..x.len()], &mut products[..x.len()]);
        for ((power, product), &x) in powers.iter_mut().zip(products.iter_mut()).zip(x) {
            let below = (x - most) * sharpness;
            *power = vector::exp_down::<M>(below);
            // A class that is ruled out, at minus infinity, takes no part.
            *product = if *power > 0. { below * *power } else { 0. };
        }
        sum += f64::from(vector::sum1(powers, |sum, x| sum + x));
        weighted += f64::from(vector::sum1(products, |sum, x| sum + x));
    }
    let log_sum = sum.ln();
    let log_prob = f64::from((x[target] - most) * sharpness) - log_sum;
    let entropy = log_sum - weighted / sum;
    // NaN does not survive a maximum, and a broken model must show.
    let broken = if sum.is_nan() || most.is_nan() { f64::NAN } else { 0. };
    if let Some([of_log_prob, of_entropy]) = slopes {
        let (scale, log_sum, entropy) = ((1. / sum) as f32, log_sum as f32, entropy as f32);
        for x in x.iter_mut() {
            let below = (*x - most) * sharpness;
            let p = vector::exp_down::<M>(below) * scale;
            // d log p_t = [i = t] - p_i, and d H = -p_i (log p_i + H).
            let surprise = if p > 0. { below - log_sum + entropy } else { 0. };
            *x = -p * M::fma(of_entropy, surprise, of_log_prob) * sharpness;
        }
        x[target] += of_log_prob * sharpness;
    }
    [(log_prob + broken) as f32, (entropy + broken) as f32]
}

per_isa! {
    fn one_row(x: &mut [f32], target: usize, sharpness: f32, slopes: Option<Slopes>) -> [f32; 2] = one_row_loop;
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::rng::Rng;

    fn plain(x: &[f32], target: usize, temperature: f64) -> (f64, f64, Vec<f64>) {
        let x: Vec<f64> = x.iter().map(|&x| f64::from(x) / temperature).collect();
        let most = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = x.iter().map(|x| (x - most).exp()).sum();
        let log_p: Vec<f64> = x.iter().map(|x| x - most - sum.ln()).collect();
        let entropy = -log_p.iter().filter(|l| l.is_finite()).map(|l| l.exp() * l).sum::<f64>();
        (log_p[target], entropy, log_p)
    }

    #[test]
    fn values_and_gradients_match_f64() {
        for (rows, vocab) in [(1, 1), (5, 7), (3, 1024), (2, 50_257), (17, 2_049)] {
            for temperature in [1., 0.7, 3.] {
                let mut x = vec![0.; rows * vocab];
                Rng::new(vocab as u64).fill_normal(&mut x, -30., 4.);
                if vocab > 5 {
                    x[3] = f32::NEG_INFINITY;
                }
                let targets: Vec<u32> = (0..rows).map(|row| (row * 31 % vocab) as u32).collect();
                let slopes: Vec<Slopes> = (0..rows).map(|row| [0.5 - row as f32, 0.3]).collect();
                let (mut grad, mut found) = (x.clone(), vec![[9.; 2]; rows]);
                log_probs_and_entropies(&mut grad, &targets, temperature, Some(&slopes), &mut found).unwrap();
                let (mut kept, mut again) = (x.clone(), vec![[9.; 2]; rows]);
                log_probs_and_entropies(&mut kept, &targets, temperature, None, &mut again).unwrap();
                assert!(kept == x && again == found, "without slopes the logits stay");
                for row in 0..rows {
                    let at = row * vocab..(row + 1) * vocab;
                    let (log_prob, entropy, log_p) =
                        plain(&x[at.clone()], targets[row] as usize, f64::from(temperature));
                    // Sums over the vocabulary in f32 tiles: a few ulps of numbers near 30.
                    assert!((f64::from(found[row][0]) - log_prob).abs() < 2e-5, "{:?} {log_prob}", found[row]);
                    assert!((f64::from(found[row][1]) - entropy).abs() < 1e-5, "{:?} {entropy}", found[row]);
                    for (i, (grad, log_p)) in grad[at].iter().zip(&log_p).enumerate() {
                        let p = log_p.exp();
                        let own = f64::from(u8::from(i == targets[row] as usize));
                        let of_entropy = if p > 0. { -p * (log_p + entropy) } else { 0. };
                        let [a, b] = slopes[row].map(f64::from);
                        let truth = (a * (own - p) + b * of_entropy) / f64::from(temperature);
                        assert!((f64::from(*grad) - truth).abs() < 2e-6 * truth.abs() + 1e-6, "{grad} {truth}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_target_outside_is_an_error_and_a_broken_row_shows() {
        let (mut x, mut found) = ([1., 2., 3., 4.], [[7.; 2]; 2]);
        let error = log_probs_and_entropies(&mut x, &[0, 2], 1., Some(&[[1.; 2]; 2]), &mut found).unwrap_err();
        assert_eq!(error, TargetError { row: 1, target: 2, vocab: 2 });
        assert!(x == [1., 2., 3., 4.] && found == [[7.; 2]; 2]);
        log_probs_and_entropies(&mut [1., f32::NAN], &[0], 1., None, &mut found[..1]).unwrap();
        assert!(found[0][0].is_nan() && found[0][1].is_nan());
        log_probs_and_entropies(&mut [], &[], 1., None, &mut []).unwrap();
    }
}

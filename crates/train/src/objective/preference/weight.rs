//! How likely a policy is to draw the same token twice, by which the probabilities of tokens are measured where pairs are
//! weighed (Zhou et al. 2024, WPO).

use candle_core::Result;
use phyla_data::batch::IGNORE;
use phyla_models::Model;
use phyla_ops::Tensor;

use super::values;

/// Rows of logits over a vocabulary that are held at once.
const PIECE: usize = 64;

/// `log Σ p²` of the distribution that each counted target comes from; nothing flows back through it.
pub(super) fn repeats(model: &Model, hidden: &Tensor, targets: &[i32]) -> Result<Vec<f64>> {
    let places: Vec<u32> = (0u32..).zip(targets).filter(|(_, target)| **target != IGNORE).map(|(at, _)| at).collect();
    phyla_ops::no_grad(|| {
        let mut found = Vec::with_capacity(places.len());
        for places in places.chunks(PIECE) {
            let logits = model.logits(&phyla_ops::gather_rows(hidden, places)?)?;
            let width = logits.last_dim().max(1);
            found.extend(values(&logits)?.chunks(width).map(repeat));
        }
        Ok(found)
    })
}

/// `log Σ softmax(x)²`.
fn repeat(logits: &[f32]) -> f64 {
    let largest = logits.iter().fold(f32::NEG_INFINITY, |top, &x| top.max(x));
    let [mut sum, mut squares] = [0f64; 2];
    for &x in logits {
        let part = f64::from((x - largest).exp());
        sum += part;
        squares += part * part;
    }
    squares.ln() - 2. * sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_of_one_in_many_are_seldom_the_same() {
        assert!((repeat(&[3.; 8]) - (1f64 / 8.).ln()).abs() < 1e-12);
        // Probabilities 0.7, 0.2 and 0.1, whatever is added to all.
        let logits: Vec<f32> = [0.7f32, 0.2, 0.1].iter().map(|p| p.ln() + 200.).collect();
        assert!((repeat(&logits) - (0.49f64 + 0.04 + 0.01).ln()).abs() < 1e-4);
        assert_eq!(repeat(&[f32::NEG_INFINITY, 0., f32::NEG_INFINITY]), 0.);
    }
}

//! Reward models of pairs: Bradley-Terry with a margin (Touvron et al. 2023, equation 2) and rewards that are kept near
//! zero (Eisenstein et al. 2023, equation 2).

use super::PairLoss;
use super::curve::{log_sigmoid, sigmoid};

/// `-log σ(chosen - rejected - margin) + c (chosen + rejected)²` summed over pairs.
pub fn bradley_terry(chosen: &[f64], rejected: &[f64], margins: Option<&[f32]>, centre: f64) -> PairLoss {
    let mut sum = PairLoss::zero(chosen.len());
    for (at, (&chosen, &rejected)) in chosen.iter().zip(rejected).enumerate() {
        let margin = margins.and_then(|margins| margins.get(at)).map_or(0., |&margin| f64::from(margin));
        let (x, both) = (chosen - rejected - margin, chosen + rejected);
        let (slope, pull) = (-sigmoid(-x), 2. * centre * both);
        sum.put(at, -log_sigmoid(x) + centre * both * both, [slope + pull, -slope + pull]);
    }
    sum
}

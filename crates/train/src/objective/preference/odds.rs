//! Odds-ratio preference optimisation (Hong et al. 2024): likelihood of the chosen text and odds against the rejected, in
//! one pass and without a reference.

use super::curve::{log_1m_exp, log_sigmoid, sigmoid};
use super::{PairLoss, Pairs};

/// `-β · log σ(log odds ratio)` summed over pairs (equations 4 and 7), of mean log-probabilities over tokens.
pub fn orpo(beta: f64, pairs: &Pairs) -> PairLoss {
    let mut sum = PairLoss::zero(pairs.count());
    for (at, (&chosen, &rejected)) in pairs.chosen.log_probs.iter().zip(&pairs.rejected.log_probs).enumerate() {
        let log_odds = chosen - rejected - (log_1m_exp(chosen) - log_1m_exp(rejected));
        let slope = -beta * sigmoid(-log_odds);
        // d log(p / (1 - p)) / d log p = 1 / (1 - p).
        let lever = |log_prob: f64| -1. / log_prob.exp_m1();
        sum.put(at, -beta * log_sigmoid(log_odds), [slope * lever(chosen), -slope * lever(rejected)]);
    }
    sum
}

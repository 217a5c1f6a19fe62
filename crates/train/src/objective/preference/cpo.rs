//! Contrastive preference optimisation (Xu et al. 2024) and SimPO (Meng et al. 2024): DPO as if the reference were
//! uniform, with a margin that is to be kept.

use super::curve::{hinge, logistic};
use super::{PairLoss, Pairs};
use crate::recipe::{Cpo, CpoLoss};

/// The loss summed over pairs, without the likelihood of the chosen completions; `ipo` and `simpo` take means over tokens.
pub fn cpo(settings: &Cpo, pairs: &Pairs) -> PairLoss {
    let (beta, smoothing) = (settings.beta, settings.label_smoothing);
    let mut sum = PairLoss::zero(pairs.count());
    for at in 0..pairs.count() {
        let rewards = [pairs.chosen.log_probs[at], pairs.rejected.log_probs[at]].map(|x| reward(settings.alpha, x));
        let margin = rewards[0].0 - rewards[1].0;
        let (value, slope) = match settings.loss_type {
            CpoLoss::Ipo => {
                let distance = margin - 1. / (2. * beta);
                (distance * distance, 2. * distance / beta)
            }
            CpoLoss::Hinge => hinge(beta * margin),
            CpoLoss::Sigmoid => logistic(beta * margin, smoothing),
            CpoLoss::Simpo => logistic(beta * margin - settings.simpo_gamma, smoothing),
        };
        sum.put(at, value, [beta * slope * rewards[0].1, -beta * slope * rewards[1].1]);
    }
    sum
}

/// `(1 - p^-α) / α` of a log-probability (AlphaPO, Gupta et al. 2025), which is the log-probability itself in the limit
/// α = 0; and its slope.
pub fn reward(alpha: f64, log_prob: f64) -> (f64, f64) {
    if alpha == 0. {
        return (log_prob, 1.);
    }
    let power = (-alpha * log_prob).exp();
    ((1. - power) / alpha, power)
}

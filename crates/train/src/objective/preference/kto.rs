//! Kahneman-Tversky optimisation (Ethayarajh et al. 2024): completions judged one by one.

use super::Side;
use super::curve::sigmoid;
use crate::recipe::{Kto, KtoLoss};

/// The loss summed over completions, and its slope for each log-probability.
///
/// `kl` is how far the policy is from the reference on completions of other prompts, at least 0 (equation 7); nothing
/// flows back through it. With [`KtoLoss::ApoZeroUnpaired`] (D'Oosterlinck et al. 2024, equation 7) there is none.
pub fn kto(settings: &Kto, side: &Side, desirable: &[bool], kl: f64) -> (f64, Vec<f64>) {
    let kl = if settings.loss_type == KtoLoss::Kto { kl } else { 0. };
    let losses = desirable.iter().enumerate().map(|(at, &desirable)| {
        let gain = settings.beta * (side.ratio(at) - kl);
        let (weight, sign) = match desirable {
            true => (settings.desirable_weight, -1.),
            false => (settings.undesirable_weight, 1.),
        };
        let slope = sign * settings.beta * sigmoid(gain) * sigmoid(-gain);
        (weight * sigmoid(sign * gain), weight * slope)
    });
    let (values, slopes): (Vec<f64>, Vec<f64>) = losses.unzip();
    (values.iter().sum(), slopes)
}

/// The mean log-ratio of mismatched completions, at least 0.
pub fn divergence(mismatched: &Side) -> f64 {
    let count = mismatched.log_probs.len();
    ((0..count).map(|at| mismatched.ratio(at)).sum::<f64>() / count.max(1) as f64).max(0.)
}

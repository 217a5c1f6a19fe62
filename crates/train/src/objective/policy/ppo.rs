//! Proximal policy optimisation: the clipped loss of the policy (Schulman et al. 2017, eq. 7) and of the value head, as in
//! InstructGPT and trl's `PPOTrainer`.

use super::{PolicyLoss, Tokens};
use crate::recipe::Ppo;

/// The loss over the mean of all tokens.
#[must_use]
pub fn ppo(settings: &Ppo, tokens: &Tokens) -> PolicyLoss {
    let mut loss = PolicyLoss::zero(tokens);
    let (weight, clip) = (tokens.over.tokens, settings.cliprange);
    let (mut squares, mut clipped, mut entropies, mut ratios) = (vec![], vec![], vec![], vec![]);
    let (mut policy, mut value, mut errors) = (0., 0., vec![]);
    for at in tokens.counted().flatten() {
        let advantage = f64::from(tokens.played.advantages[at]);
        let gain = tokens.gain(at);
        let ratio = gain.exp();
        let inside = (1. - clip..=1. + clip).contains(&ratio);
        let (free, held) = (-advantage * ratio, -advantage * ratio.clamp(1. - clip, 1. + clip));
        policy += free.max(held);
        if free >= held || inside {
            loss.by_log_prob[at] += weight * free;
        }
        loss.by_entropy[at] -= weight * settings.ent_coef;
        squares.push(0.5 * gain * gain);
        clipped.push(f64::from(u8::from(held > free)));
        entropies.push(tokens.entropies[at]);
        ratios.push(ratio);
        let Some(&new) = tokens.values.get(at) else { continue };
        let (old, wanted) = (f64::from(tokens.played.values[at]), f64::from(tokens.played.returns[at]));
        let near = new.clamp(old - settings.cliprange_value, old + settings.cliprange_value);
        let [error, held_error] = [new - wanted, near - wanted];
        value += 0.5 * (error * error).max(held_error * held_error);
        let slope = if error.abs() >= held_error.abs() {
            error
        } else if near == new {
            held_error
        } else {
            0.
        };
        loss.by_value[at] += weight * settings.vf_coef * slope;
        errors.push(error * error);
    }
    let entropy: f64 = entropies.iter().sum();
    loss.policy = weight * (policy - settings.ent_coef * entropy);
    loss.value = weight * settings.vf_coef * value;
    loss.means.add("approx_kl", &squares);
    loss.means.add("clip_ratio", &clipped);
    loss.means.add("entropy", &entropies);
    loss.means.add("ratio", &ratios);
    loss.means.add("value_error", &errors);
    loss
}

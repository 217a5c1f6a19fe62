//! REINFORCE with the others of a prompt for a baseline (Ahmadian et al. 2024): the ratio is of whole completions.

use super::{PolicyLoss, Tokens};
use crate::recipe::Rloo;

/// The loss over the mean of all completions, each with one advantage for all of its tokens.
#[must_use]
pub fn rloo(settings: &Rloo, tokens: &Tokens) -> PolicyLoss {
    let mut loss = PolicyLoss::zero(tokens);
    let weight = tokens.over.rows;
    let (low, high) = (1. - settings.epsilon, 1. + settings.epsilon_high.unwrap_or(settings.epsilon));
    let mut clipped = vec![];
    for row in tokens.counted() {
        let advantage = row.clone().next().map_or(0., |at| f64::from(tokens.played.advantages[at]));
        let ratio = row.clone().map(|at| tokens.gain(at)).sum::<f64>().exp();
        let (free, held) = (ratio * advantage, ratio.clamp(low, high) * advantage);
        loss.policy -= weight * free.min(held);
        if free <= held || (low..=high).contains(&ratio) {
            row.for_each(|at| loss.by_log_prob[at] -= weight * free);
        }
        clipped.push(f64::from(u8::from(ratio < low && advantage < 0. || ratio > high && advantage > 0.)));
    }
    loss.means.add("clip_ratio", &clipped);
    loss.means.add("entropy", &tokens.counted().flatten().map(|at| tokens.entropies[at]).collect::<Vec<_>>());
    loss
}

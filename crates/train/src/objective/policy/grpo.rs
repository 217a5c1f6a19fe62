//! Group-relative policy optimisation (Shao et al. 2024) and its relatives by trl's names: what differs between them is how
//! a ratio of probabilities counts, and what means are over.

use std::ops::Range;

use super::super::preference::sigmoid;
use super::{PolicyLoss, Tokens};
use crate::recipe::{Grpo, GrpoLoss, ImportanceSampling};

/// The loss of completions, each with one advantage for all of its tokens.
#[must_use]
pub fn grpo(settings: &Grpo, tokens: &Tokens) -> PolicyLoss {
    let mut loss = PolicyLoss::zero(tokens);
    let attended = attended(settings, tokens);
    let mut clipped = vec![];
    for row in tokens.counted() {
        let weight = weight(settings, tokens, row.len());
        match settings.importance_sampling_level {
            ImportanceSampling::Token => {
                for at in row.clone() {
                    let advantage = f64::from(tokens.played.advantages[at]);
                    let ratio = tokens.gain(at).exp();
                    clipped.push(is_clipped(settings, ratio, advantage));
                    if !attended[at] {
                        continue;
                    }
                    let (value, slope) = of_ratio(settings, ratio, advantage, tokens.log_probs[at]);
                    loss.policy += weight * value;
                    loss.by_log_prob[at] += weight * slope;
                }
            }
            ImportanceSampling::Sequence => {
                clipped.push(by_sequence(settings, tokens, &row, weight, &attended, &mut loss));
            }
        }
        divergence(settings, tokens, row, weight, &mut loss);
    }
    encourage(settings, tokens, &attended, &mut loss);
    loss.means.add("clip_ratio", &clipped.into_iter().map(|clipped| f64::from(u8::from(clipped))).collect::<Vec<_>>());
    loss.means.add("entropy", &tokens.counted().flatten().map(|at| tokens.entropies[at]).collect::<Vec<_>>());
    loss
}

/// What a token of a row of so many counts for.
fn weight(settings: &Grpo, tokens: &Tokens, length: usize) -> f64 {
    match settings.loss_type {
        GrpoLoss::Grpo | GrpoLoss::Sapo => tokens.over.rows / length.max(1) as f64,
        GrpoLoss::Bnpo => tokens.over.tokens,
        GrpoLoss::DrGrpo => tokens.over.rows / settings.rollout.max_completion_length as f64,
        GrpoLoss::Dapo | GrpoLoss::Cispo => 1. / f64::from(tokens.played.tokens_per_update).max(1.),
        GrpoLoss::Luspo => tokens.over.rows,
    }
}

/// What a ratio makes of an advantage: the loss, and its slope by the logarithm of the ratio or, of `cispo`, by the
/// log-probability.
fn of_ratio(settings: &Grpo, ratio: f64, advantage: f64, log_prob: f64) -> (f64, f64) {
    let (low, high) = bounds(settings);
    match settings.loss_type {
        GrpoLoss::Cispo => {
            // The ratio weighs, and is not learned from.
            let weighed = -ratio.min(settings.epsilon_high.unwrap_or(settings.epsilon)) * advantage;
            (weighed * log_prob, weighed)
        }
        GrpoLoss::Sapo => {
            let sharpness = if advantage > 0. { settings.sapo_temperature_pos } else { settings.sapo_temperature_neg };
            let gate = sigmoid(sharpness * (ratio - 1.));
            (-4. * gate / sharpness * advantage, -4. * gate * (1. - gate) * ratio * advantage)
        }
        _ => {
            let most = settings.delta.unwrap_or(f64::INFINITY);
            let (free, held) = (ratio.min(most) * advantage, ratio.clamp(low, high) * advantage);
            let moves = if free <= held { ratio <= most } else { (low..=high).contains(&ratio) };
            (-free.min(held), if moves { -ratio * advantage } else { 0. })
        }
    }
}

fn bounds(settings: &Grpo) -> (f64, f64) {
    (1. - settings.epsilon, 1. + settings.epsilon_high.unwrap_or(settings.epsilon))
}

fn is_clipped(settings: &Grpo, ratio: f64, advantage: f64) -> bool {
    let (low, high) = bounds(settings);
    let ratio = ratio.min(settings.delta.unwrap_or(f64::INFINITY));
    ratio < low && advantage < 0. || ratio > high && advantage > 0.
}

/// One ratio for a whole completion: the geometric mean of its tokens' (Zheng et al. 2025, GSPO, eq. 7). Whether it is
/// clipped.
fn by_sequence(
    settings: &Grpo,
    tokens: &Tokens,
    row: &Range<usize>,
    weight: f64,
    attended: &[bool],
    loss: &mut PolicyLoss,
) -> bool {
    let length = row.len().max(1) as f64;
    let ratio = (row.clone().map(|at| tokens.gain(at)).sum::<f64>() / length).exp();
    let advantage = row.clone().next().map_or(0., |at| f64::from(tokens.played.advantages[at]));
    let mut shared = 0.;
    for at in row.clone().filter(|&at| attended[at]) {
        let (value, slope) = of_ratio(settings, ratio, advantage, tokens.log_probs[at]);
        loss.policy += weight * value;
        match settings.loss_type {
            GrpoLoss::Cispo => loss.by_log_prob[at] += weight * slope,
            _ => shared += weight * slope / length,
        }
    }
    row.clone().for_each(|at| loss.by_log_prob[at] += shared);
    is_clipped(settings, ratio, advantage)
}

/// Divergence from the reference, token by token, by the estimator `r - 1 - log r` (eq. 4 of the paper).
fn divergence(settings: &Grpo, tokens: &Tokens, row: Range<usize>, weight: f64, loss: &mut PolicyLoss) {
    if settings.beta == 0. {
        return;
    }
    let mut found = vec![];
    for at in row {
        let gap = f64::from(tokens.played.reference[at]) - tokens.log_probs[at];
        found.push(gap.exp() - gap - 1.);
        loss.by_log_prob[at] += weight * settings.beta * (1. - gap.exp());
    }
    loss.policy += weight * settings.beta * found.iter().sum::<f64>();
    loss.means.add("kl", &found);
}

/// Adds what the entropy of the tokens that are learned from counts for.
fn encourage(settings: &Grpo, tokens: &Tokens, attended: &[bool], loss: &mut PolicyLoss) {
    let of: Vec<usize> = tokens.counted().flatten().filter(|&at| attended[at]).collect();
    if settings.entropy_coef == 0. || of.is_empty() {
        return;
    }
    // This batch's share of the tokens of an update.
    let share = tokens.over.tokens * tokens.counted().map(|row| row.len()).sum::<usize>() as f64;
    let weight = settings.entropy_coef * share / of.len() as f64;
    for at in of {
        loss.policy -= weight * tokens.entropies[at];
        loss.by_entropy[at] -= weight;
    }
}

/// Which tokens are learned from: those of the highest entropy, if not all.
fn attended(settings: &Grpo, tokens: &Tokens) -> Vec<bool> {
    let mut known: Vec<f64> = tokens.counted().flatten().map(|at| tokens.entropies[at]).collect();
    if settings.top_entropy_quantile >= 1. || known.is_empty() {
        return vec![true; tokens.entropies.len()];
    }
    known.sort_by(f64::total_cmp);
    let place = (1. - settings.top_entropy_quantile) * (known.len() - 1) as f64;
    let (below, above) = (known[place.floor() as usize], known[place.ceil() as usize]);
    let least = below + (above - below) * place.fract();
    tokens.entropies.iter().map(|&entropy| entropy >= least).collect()
}

//! Direct preference optimisation (Rafailov et al. 2023) and its relatives: losses of pairs under a policy and under a
//! reference.
//!
//! All are functions of log-ratios `u = log π(y|x) - log π_ref(y|x)`, or of what a divergence makes of them, by the names
//! and with the numbers of trl 1.16.

use super::curve::{hinge, log_sigmoid, logistic, sigmoid};
use super::{PairLoss, Pairs};
use crate::recipe::{Dpo, DpoLoss, FDivergence};

/// The loss summed over pairs, without the term on tokens of [`DpoLoss::Sft`].
pub fn dpo(settings: &Dpo, pairs: &Pairs) -> PairLoss {
    let mut sum = PairLoss::zero(pairs.count());
    for (loss, weight) in settings.losses() {
        let part = match loss {
            DpoLoss::Sft => continue,
            DpoLoss::Aot => aot(settings, pairs),
            DpoLoss::AotUnpaired => aot_unpaired(settings, pairs),
            loss => each(settings, loss, pairs),
        };
        sum.add(&part, weight);
    }
    sum
}

/// Losses of one pair by itself.
fn each(settings: &Dpo, loss: DpoLoss, pairs: &Pairs) -> PairLoss {
    let (beta, mut sum) = (settings.beta, PairLoss::zero(pairs.count()));
    let mut put = |at: usize, value: f64, slopes: [f64; 2]| {
        let weight = pairs.weight(at);
        sum.put(at, weight * value, slopes.map(|slope| weight * slope));
    };
    for at in 0..pairs.count() {
        let ratios = [pairs.chosen.ratio(at), pairs.rejected.ratio(at)];
        if let Some((value, slopes)) = of_ratios(loss, ratios, beta) {
            put(at, value, slopes);
            continue;
        }
        let scores = ratios.map(|ratio| score(settings, ratio));
        let lengths = match loss {
            DpoLoss::Ipo | DpoLoss::SigmoidNorm => [pairs.chosen.tokens[at], pairs.rejected.tokens[at]],
            _ => [1, 1],
        };
        let factors = lengths.map(|tokens| 1. / tokens.max(1) as f64);
        let margin = scores[0].0 * factors[0] - scores[1].0 * factors[1];
        let (value, slope) = of_margin(settings, loss, margin);
        put(at, value, [slope * scores[0].1 * factors[0], -slope * scores[1].1 * factors[1]]);
    }
    sum
}

/// `f'(π/π_ref)` of a divergence, up to a constant (Wang et al. 2023, "Beyond reverse KL"), and its slope.
fn score(settings: &Dpo, ratio: f64) -> (f64, f64) {
    match settings.f_divergence_type {
        FDivergence::ReverseKl => (ratio, 1.),
        FDivergence::ForwardKl => (1. - (-ratio).exp(), (-ratio).exp()),
        FDivergence::JsDivergence => (std::f64::consts::LN_2 + log_sigmoid(ratio), sigmoid(-ratio)),
        FDivergence::AlphaDivergence => {
            /// As in trl: beyond it the power leaves f32.
            const LARGEST: f64 = 80.;
            let power = settings.f_alpha_divergence_coef - 1.;
            // In the limit f'(t) is log t.
            if power.abs() < 1e-6 {
                return (ratio, 1.);
            }
            let exponent = power * ratio;
            let slope = if exponent > LARGEST { 0. } else { exponent.exp() };
            ((exponent.min(LARGEST).exp() - 1.) / power, slope)
        }
    }
}

/// Losses of the margin between the two scores, and their slope.
fn of_margin(settings: &Dpo, loss: DpoLoss, margin: f64) -> (f64, f64) {
    let (beta, smoothing) = (settings.beta, settings.label_smoothing);
    let x = beta * margin;
    let (value, slope) = match loss {
        // Azar et al. 2023, equation 17, on means over tokens; β is τ there.
        DpoLoss::Ipo => {
            let distance = margin - 1. / (2. * beta);
            return (distance * distance, 2. * distance);
        }
        // Zhao et al. 2023 (SLiC).
        DpoLoss::Hinge => hinge(x),
        // Ji et al. 2024, equation 16, for two completions.
        DpoLoss::ExoPair => {
            let [log_win, log_lose] = [log_sigmoid(x) - (-smoothing).ln_1p(), log_sigmoid(-x) - smoothing.ln()];
            let (win, lose) = (sigmoid(x), sigmoid(-x));
            // The derivative of Σ q (ln q - ln p) with dq = ± q (1 - q) dx: what is not a difference cancels.
            (win * log_win + lose * log_lose, win * lose * (log_win - log_lose))
        }
        // Chowdhury et al. 2024: unbiased under labels that are wrong that often.
        DpoLoss::Robust => {
            let clean = -(1. - smoothing) * log_sigmoid(x) + smoothing * log_sigmoid(-x);
            let slope = -(1. - smoothing) * sigmoid(-x) - smoothing * sigmoid(x);
            (clean / (1. - 2. * smoothing), slope / (1. - 2. * smoothing))
        }
        // Lu et al. 2024, equation 5: logistic and exponential, mixed by the margin itself.
        DpoLoss::Discopop => {
            let tau = settings.discopop_tau;
            let share = sigmoid(x / tau);
            let (logistic, exponential) = (-log_sigmoid(x), (-x).exp());
            let slope = -sigmoid(-x) * (1. - share) - exponential * share
                + (exponential - logistic) * share * sigmoid(-x / tau) / tau;
            (logistic * (1. - share) + exponential * share, slope)
        }
        // Equation 7 of the paper; smoothed as its authors do (conservative DPO).
        _ => logistic(x, smoothing),
    };
    (value, beta * slope)
}

/// Losses of the two log-ratios that no divergence changes, and both slopes; `None` for the others.
fn of_ratios(loss: DpoLoss, [chosen, rejected]: [f64; 2], beta: f64) -> Option<(f64, [f64; 2])> {
    let (c, r) = (beta * chosen, beta * rejected);
    let (value, [dc, dr]) = match loss {
        // Chen et al. 2024 (NCA).
        DpoLoss::NcaPair => {
            let value = -log_sigmoid(c) - 0.5 * log_sigmoid(-c) - 0.5 * log_sigmoid(-r);
            (value, [-sigmoid(-c) + 0.5 * sigmoid(c), 0.5 * sigmoid(r)])
        }
        // Jung et al. 2024 (BCO), without its moving reference point.
        DpoLoss::BcoPair => (-log_sigmoid(c) - log_sigmoid(-r), [-sigmoid(-c), sigmoid(r)]),
        // Wu et al. 2024, equation 4.7, with probabilities 1 and 0.
        DpoLoss::SppoHard => {
            let (win, lose) = (chosen - 0.5 / beta, rejected + 0.5 / beta);
            return Some((win * win + lose * lose, [2. * win, 2. * lose]));
        }
        // D'Oosterlinck et al. 2024, equation 7.
        DpoLoss::ApoZero => (sigmoid(-c) + sigmoid(r), [-sigmoid(c) * sigmoid(-c), sigmoid(r) * sigmoid(-r)]),
        // Equation 8 there.
        DpoLoss::ApoDown => {
            let margin = c - r;
            let bend = sigmoid(margin) * sigmoid(-margin);
            (sigmoid(c) + sigmoid(-margin), [sigmoid(c) * sigmoid(-c) - bend, bend])
        }
        _ => return None,
    };
    Some((value, [beta * dc, beta * dr]))
}

/// Distributional preference (Melnyk et al. 2024): quantile against quantile of the margins under both models.
fn aot(settings: &Dpo, pairs: &Pairs) -> PairLoss {
    let margin = |chosen: &[f64], rejected: &[f64]| -> Vec<f64> {
        chosen.iter().zip(rejected).map(|(chosen, rejected)| chosen - rejected).collect()
    };
    let policy = margin(&pairs.chosen.log_probs, &pairs.rejected.log_probs);
    let reference = margin(&pairs.chosen.reference, &pairs.rejected.reference);
    let mut sum = PairLoss::zero(pairs.count());
    for (at, other) in order(&policy).into_iter().zip(order(&reference)) {
        let (value, slope) = logistic(settings.beta * (policy[at] - reference[other]), settings.label_smoothing);
        sum.put(at, value, [settings.beta * slope, -settings.beta * slope]);
    }
    sum
}

/// The same of chosen against rejected completions, whichever pairs they came in.
fn aot_unpaired(settings: &Dpo, pairs: &Pairs) -> PairLoss {
    let ratios = |side: &super::Side| -> Vec<f64> { (0..pairs.count()).map(|at| side.ratio(at)).collect() };
    let (chosen, rejected) = (ratios(&pairs.chosen), ratios(&pairs.rejected));
    let mut sum = PairLoss::zero(pairs.count());
    for (better, worse) in order(&chosen).into_iter().zip(order(&rejected)) {
        let (value, slope) = logistic(settings.beta * (chosen[better] - rejected[worse]), settings.label_smoothing);
        sum.value += value;
        sum.chosen[better] += settings.beta * slope;
        sum.rejected[worse] -= settings.beta * slope;
    }
    sum
}

/// Places from the smallest to the largest number.
fn order(numbers: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..numbers.len()).collect();
    order.sort_by(|&a, &b| numbers[a].total_cmp(&numbers[b]));
    order
}

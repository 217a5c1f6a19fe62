//! Objectives on completions that the policy wrote itself: from a batch to log-probabilities, entropies and values, and from
//! the losses on those, which the files beside this one hold as plain formulas with their slopes, back to gradients.

mod grpo;
mod ppo;
mod rloo;

use std::ops::Range;

use candle_core::Result;
use phyla_data::batch::{Batch, IGNORE, Played};
use phyla_models::Model;

pub use grpo::grpo;
pub use ppo::ppo;
pub use rloo::rloo;

use super::preference::Found;
use super::{Counts, Mode, Part, Seen, see, values};
use crate::critic::Critic;
use crate::metrics::Means;
use crate::recipe::Objective;

/// The tokens of completions as a policy's loss sees them, row after row; every list is `[counted]`.
#[derive(Clone, Copy, Debug)]
pub struct Tokens<'a> {
    /// Log-probabilities under the policy.
    pub log_probs: &'a [f64],
    /// Entropies of the distributions that they were drawn from, in nats.
    pub entropies: &'a [f64],
    /// What the value head expects; empty without one.
    pub values: &'a [f64],
    /// What was known when they were written.
    pub played: &'a Played,
    /// The tokens of each row.
    pub rows: &'a [Range<usize>],
    /// One over what means over tokens and over completions are over.
    pub over: Over,
}

/// One over what means are over.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Over {
    /// Tokens of an update that count.
    pub tokens: f64,
    /// Completions of an update.
    pub rows: f64,
}

impl Tokens<'_> {
    /// The rows that count.
    fn counted(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.rows.iter().zip(&self.played.left_out).filter(|(_, left_out)| !**left_out).map(|(row, _)| row.clone())
    }

    /// `log π(y) - log π_old(y)` of a token.
    fn gain(&self, at: usize) -> f64 {
        self.log_probs[at] - f64::from(self.played.old[at])
    }
}

/// A loss with its slopes, `[counted]` each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyLoss {
    /// The part of log-probabilities and entropies.
    pub policy: f64,
    /// The part of values.
    pub value: f64,
    /// Slopes by log-probabilities.
    pub by_log_prob: Vec<f64>,
    /// Slopes by entropies.
    pub by_entropy: Vec<f64>,
    /// Slopes by values; empty without a value head.
    pub by_value: Vec<f64>,
    /// What is told of it.
    pub means: Means,
}

impl PolicyLoss {
    fn zero(tokens: &Tokens) -> Self {
        let zeros = || vec![0.; tokens.log_probs.len()];
        Self { by_log_prob: zeros(), by_entropy: zeros(), by_value: vec![0.; tokens.values.len()], ..Self::default() }
    }
}

/// The losses of a batch of the policy's own completions.
pub(super) fn played(
    objective: &Objective,
    model: &Model,
    (batch, played): (&Batch, &Played),
    seen: &mut Seen,
    critic: Option<&Critic>,
    scale: impl Fn(Part) -> f64,
) -> Result<Found> {
    let temperature = objective.play().map_or(1., |play| play.rollout.temperature as f32);
    let choices = model.choices(&seen.hidden, &batch.targets, temperature, &mut seen.pass)?;
    let expected = critic.map(|critic| critic.values(&seen.hidden, &batch.targets)).transpose()?;
    let column = |pairs: &[f32], at: usize| pairs.iter().skip(at).step_by(2).map(|&x| f64::from(x)).collect::<Vec<_>>();
    let numbers = values(&choices)?;
    let known = expected.as_ref().map(values).transpose()?.unwrap_or_default();
    let tokens = Tokens {
        log_probs: &column(&numbers, 0),
        entropies: &column(&numbers, 1),
        values: &known.iter().map(|&x| f64::from(x)).collect::<Vec<_>>(),
        played,
        rows: &rows_of(batch),
        over: Over { tokens: scale(Part::Tokens), rows: scale(Part::Rows) },
    };
    let loss = match objective {
        Objective::Ppo(settings) => ppo(settings, &tokens),
        Objective::Grpo(settings) => grpo(settings, &tokens),
        Objective::Rloo(settings) => rloo(settings, &tokens),
        other => candle_core::bail!("`{}` does not learn from its own completions", other.name()),
    };
    let slopes = loss.by_log_prob.iter().zip(&loss.by_entropy).flat_map(|(a, b)| [*a as f32, *b as f32]).collect();
    let mut parts = vec![(Part::Rows, phyla_ops::reduced(&choices, loss.policy, slopes)?)];
    if let Some(expected) = &expected {
        let slopes = loss.by_value.iter().map(|slope| *slope as f32).collect();
        parts.push((Part::Rows, phyla_ops::reduced(expected, loss.value, slopes)?));
    }
    Ok(Found { parts, means: loss.means, ..Found::default() })
}

/// Which of the counted tokens each row has.
fn rows_of(batch: &Batch) -> Vec<Range<usize>> {
    let mut end = 0;
    let row = |targets: &[i32]| {
        let start = end;
        end += targets.iter().filter(|&&target| target != IGNORE).count();
        start..end
    };
    batch.targets.chunks(batch.time.max(1)).map(row).collect()
}

/// What a model says of completions, outside training; `[counted]` each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Estimates {
    pub log_probs: Vec<f32>,
    pub entropies: Vec<f32>,
    /// Empty without a value head.
    pub values: Vec<f32>,
}

/// Asks a model, and a value head, about the completions of a batch.
pub(crate) fn ask(model: &Model, batch: &Batch, temperature: f32, critic: Option<&Critic>) -> Result<Estimates> {
    phyla_ops::no_grad(|| {
        let one = Counts { tokens: 1, rows: 1 };
        let mut seen = see(model, batch, one, &Mode::default(), None)?;
        let choices = values(&model.choices(&seen.hidden, &batch.targets, temperature, &mut seen.pass)?)?;
        let expected = critic.map(|critic| values(&critic.values(&seen.hidden, &batch.targets)?)).transpose()?;
        Ok(Estimates {
            log_probs: choices.iter().step_by(2).copied().collect(),
            entropies: choices.iter().skip(1).step_by(2).copied().collect(),
            values: expected.unwrap_or_default(),
        })
    })
}

#[cfg(test)]
mod tests;

//! What the objectives that learn from their own roll-outs have in common.

use std::path::Path;

use super::{Objective, RewardFunction, Rollout};

/// How such an objective writes, judges and takes up completions.
#[derive(Clone, Copy, Debug)]
pub struct Play<'a> {
    /// How completions are written.
    pub rollout: &'a Rollout,
    /// Who judges them.
    pub rewards: &'a [RewardFunction],
    /// What each of them counts for.
    pub weights: Option<&'a [f64]>,
    /// Completions of each prompt.
    pub generations: usize,
    /// Completions that an example of a batch is made of.
    pub together: usize,
    /// Passes over a roll-out.
    pub passes: usize,
    /// Whether there is a reference, and which, if it is not the model that the run begins with.
    pub reference: Option<Option<&'a Path>>,
    /// Taken from the reward of a completion without an end.
    pub missing_eos_penalty: f64,
}

impl Play<'_> {
    /// Completions of one roll-out, where an update takes `examples`.
    #[must_use]
    pub fn completions(&self, examples: usize) -> usize {
        self.rollout.generation_batch_size.unwrap_or(examples * self.together)
    }

    /// Updates that come of one roll-out.
    #[must_use]
    pub fn updates(&self, examples: usize) -> usize {
        self.completions(examples) / (examples * self.together).max(1) * self.passes
    }

    /// Adds the sentence when a roll-out cannot be divided into updates of so many examples, or into groups.
    pub(in crate::recipe) fn check_fits(&self, examples: usize, problems: &mut Vec<String>) {
        let (all, one) = (self.completions(examples), examples * self.together);
        if one > 0 && (all == 0 || !all.is_multiple_of(one)) {
            problems.push(format!(
                "`objective.rollout.generation_batch_size` is {all}; expected a multiple of the {one} completions of an \
                 update (`train.batch` times `train.accumulate`{})",
                if self.together > 1 { ", each a pair" } else { "" }
            ));
        }
        if !all.is_multiple_of(self.generations) {
            problems.push(format!(
                "a roll-out has {all} completions, which are no whole groups of {}: change \
                 `objective.rollout.generation_batch_size`, `train.batch` or `objective.num_generations`",
                self.generations
            ));
        }
    }
}

impl Objective {
    /// How completions come to be, for objectives that learn from their own.
    #[must_use]
    pub fn play(&self) -> Option<Play<'_>> {
        Some(match self {
            Self::Ppo(ppo) => Play {
                rollout: &ppo.rollout,
                rewards: &ppo.rewards,
                weights: ppo.reward_weights.as_deref(),
                generations: 1,
                together: 1,
                passes: ppo.num_ppo_epochs,
                reference: Some(ppo.reference_model.as_deref()),
                missing_eos_penalty: ppo.missing_eos_penalty.unwrap_or(0.),
            },
            Self::Grpo(grpo) => Play {
                rollout: &grpo.rollout,
                rewards: &grpo.rewards,
                weights: grpo.reward_weights.as_deref(),
                generations: grpo.num_generations,
                together: 1,
                passes: grpo.num_iterations,
                reference: (grpo.beta > 0.).then_some(grpo.reference_model.as_deref()),
                missing_eos_penalty: 0.,
            },
            Self::Rloo(rloo) => Play {
                rollout: &rloo.rollout,
                rewards: &rloo.rewards,
                weights: rloo.reward_weights.as_deref(),
                generations: rloo.num_generations,
                together: 1,
                passes: rloo.num_iterations,
                reference: (rloo.beta > 0.).then_some(rloo.reference_model.as_deref()),
                missing_eos_penalty: 0.,
            },
            Self::OnlineDpo(online) => Play {
                rollout: &online.rollout,
                rewards: &online.rewards,
                weights: online.reward_weights.as_deref(),
                generations: 2,
                together: 2,
                passes: 1,
                reference: Some(online.reference_model.as_deref()),
                missing_eos_penalty: online.missing_eos_penalty.unwrap_or(0.),
            },
            _ => return None,
        })
    }
}

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

/// One completion of each prompt, learned from once, without a reference.
fn plain<'a>(rollout: &'a Rollout, rewards: &'a [RewardFunction], weights: Option<&'a [f64]>) -> Play<'a> {
    let (generations, together, passes, reference, missing_eos_penalty) = (1, 1, 1, None, 0.);
    Play { rollout, rewards, weights, generations, together, passes, reference, missing_eos_penalty }
}

impl Objective {
    /// How completions come to be, for objectives that learn from their own.
    #[must_use]
    pub fn play(&self) -> Option<Play<'_>> {
        Some(match self {
            Self::Ppo(ppo) => Play {
                passes: ppo.num_ppo_epochs,
                reference: Some(ppo.reference_model.as_deref()),
                missing_eos_penalty: ppo.missing_eos_penalty.unwrap_or(0.),
                ..plain(&ppo.rollout, &ppo.rewards, ppo.reward_weights.as_deref())
            },
            Self::Grpo(grpo) => Play {
                generations: grpo.num_generations,
                passes: grpo.num_iterations,
                reference: (grpo.beta > 0.).then_some(grpo.reference_model.as_deref()),
                ..plain(&grpo.rollout, &grpo.rewards, grpo.reward_weights.as_deref())
            },
            Self::Rloo(rloo) => Play {
                generations: rloo.num_generations,
                passes: rloo.num_iterations,
                reference: (rloo.beta > 0.).then_some(rloo.reference_model.as_deref()),
                ..plain(&rloo.rollout, &rloo.rewards, rloo.reward_weights.as_deref())
            },
            Self::OnlineDpo(online) => Play {
                generations: 2,
                together: 2,
                reference: Some(online.reference_model.as_deref()),
                missing_eos_penalty: online.missing_eos_penalty.unwrap_or(0.),
                ..plain(&online.rollout, &online.rewards, online.reward_weights.as_deref())
            },
            _ => return None,
        })
    }
}

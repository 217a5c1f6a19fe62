//! `[objective] kind = "rloo"`: each completion against the mean of the others of its prompt (Ahmadian et al. 2024,
//! arXiv 2402.14740), with the names of trl's `RLOOConfig`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::rewards;
use super::{RewardFunction, Rollout};
use crate::recipe::{check_positive, check_range};

/// REINFORCE over whole completions, with the others of a prompt for a baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rloo {
    /// Completions of each prompt.
    pub num_generations: usize,
    /// Passes over one roll-out.
    pub num_iterations: usize,
    /// What a nat of a completion's divergence from the reference costs; at 0 there is no reference.
    pub beta: f64,
    /// How far from 1 the ratio of new and old probabilities counts.
    pub epsilon: f64,
    /// The same upwards; `epsilon` unless given.
    pub epsilon_high: Option<f64>,
    /// Whether advantages are brought to mean 0 and variance 1 over the roll-out.
    pub normalize_advantages: bool,
    /// Bounds of a completion's reward, before its divergence is taken off.
    pub reward_clip_range: Option<[f64; 2]>,
    /// Whether completions that never came to their end are left out of the loss.
    pub mask_truncated_completions: bool,
    /// The reference; the model that the run begins with unless given.
    pub reference_model: Option<PathBuf>,
    /// What each reward counts for; 1 unless given.
    pub reward_weights: Option<Vec<f64>>,
    /// For conversations: a file with a chat template, or the name of one that comes with the program; the tokenizer's own
    /// unless given.
    pub chat_template: Option<String>,
    /// How completions are written.
    pub rollout: Rollout,
    /// Who judges them.
    pub rewards: Vec<RewardFunction>,
}

impl Default for Rloo {
    fn default() -> Self {
        Self {
            num_generations: 2,
            num_iterations: 1,
            beta: 0.05,
            epsilon: 0.2,
            epsilon_high: None,
            normalize_advantages: false,
            reward_clip_range: None,
            mask_truncated_completions: false,
            reference_model: None,
            reward_weights: None,
            chat_template: None,
            rollout: Rollout::default(),
            rewards: vec![],
        }
    }
}

impl Rloo {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        check_positive(problems, "objective.num_iterations", self.num_iterations);
        if self.num_generations < 2 {
            let found = self.num_generations;
            problems
                .push(format!("`objective.num_generations` is {found}; leaving one out needs at least 2 completions"));
        }
        check_range(problems, "objective.beta", self.beta, 0., f64::MAX);
        check_range(problems, "objective.epsilon", self.epsilon, 1e-9, 1.);
        check_range(problems, "objective.epsilon_high", self.epsilon_high.unwrap_or(1.), 1e-9, f64::MAX);
        if let Some([low, high]) = self.reward_clip_range
            && low >= high
        {
            problems.push(format!("`objective.reward_clip_range` is [{low}, {high}]; expected the lower bound first"));
        }
        if self.reference_model.is_some() && self.beta <= 0. {
            problems.push("`objective.reference_model` is for `objective.beta` above 0; keep both or none".into());
        }
        self.rollout.check(problems);
        rewards::check(&self.rewards, self.reward_weights.as_deref(), problems);
    }
}

//! `[objective] kind = "grpo"`: several completions of each prompt, each against the others (Shao et al. 2024,
//! arXiv 2402.03300, section 4), with the names of trl's `GRPOConfig`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::rewards;
use super::{RewardFunction, Rollout};
use crate::recipe::{check_positive, check_range};

/// A policy without a value head: a completion's advantage is over the mean of its group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grpo {
    /// Completions of each prompt.
    pub num_generations: usize,
    /// Passes over one roll-out: μ of the paper.
    pub num_iterations: usize,
    /// What divergence from the reference counts for; at 0 there is no reference.
    pub beta: f64,
    /// How far from 1 the ratio of new and old probabilities counts.
    pub epsilon: f64,
    /// The same upwards (DAPO's "clip higher"; of `cispo` the largest ratio); `epsilon` unless given.
    pub epsilon_high: Option<f64>,
    /// The largest ratio that counts at all, where a completion is bad (INTELLECT-2).
    pub delta: Option<f64>,
    /// What a ratio is of.
    pub importance_sampling_level: ImportanceSampling,
    /// How tokens are weighed and clipped.
    pub loss_type: GrpoLoss,
    /// What advantages are divided by.
    pub scale_rewards: ScaleRewards,
    /// Whether completions that never came to their end are left out of the loss.
    pub mask_truncated_completions: bool,
    /// Learn from the tokens of highest entropy alone: such a share of them (Wang et al. 2025).
    pub top_entropy_quantile: f64,
    /// What the entropy of the policy counts for.
    pub entropy_coef: f64,
    /// Loss `sapo`: how sharply ratios of bad completions count.
    pub sapo_temperature_neg: f64,
    /// Loss `sapo`: how sharply ratios of good completions count.
    pub sapo_temperature_pos: f64,
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

/// What a ratio of probabilities is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportanceSampling {
    /// Each token has its own.
    #[default]
    Token,
    /// A completion has one: the geometric mean over its tokens (GSPO).
    Sequence,
}

/// Losses by trl's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrpoLoss {
    /// Means over tokens, then over completions: the paper's.
    Grpo,
    /// The mean over the tokens of an update.
    Bnpo,
    /// The sum over tokens, over the largest length: without the bias towards long completions (Liu et al. 2025).
    DrGrpo,
    /// The mean over the tokens of a roll-out (Yu et al. 2025).
    #[default]
    Dapo,
    /// Ratios that are cut off, but keep their gradient (MiniMax 2025).
    Cispo,
    /// Ratios that fade in place of clips (Gao et al. 2025).
    Sapo,
    /// The sum over tokens, then the mean over completions.
    Luspo,
}

/// What advantages are divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScaleRewards {
    /// The standard deviation of the group.
    #[default]
    Group,
    /// The standard deviation of the roll-out.
    Batch,
    /// Nothing.
    None,
}

impl Default for Grpo {
    fn default() -> Self {
        Self {
            num_generations: 8,
            num_iterations: 1,
            beta: 0.,
            epsilon: 0.2,
            epsilon_high: None,
            delta: None,
            importance_sampling_level: ImportanceSampling::default(),
            loss_type: GrpoLoss::default(),
            scale_rewards: ScaleRewards::default(),
            mask_truncated_completions: false,
            top_entropy_quantile: 1.,
            entropy_coef: 0.,
            sapo_temperature_neg: 1.05,
            sapo_temperature_pos: 1.,
            reference_model: None,
            reward_weights: None,
            chat_template: None,
            rollout: Rollout::default(),
            rewards: vec![],
        }
    }
}

impl Grpo {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        check_positive(problems, "objective.num_iterations", self.num_iterations);
        if self.num_generations < 2 {
            let found = self.num_generations;
            problems.push(format!("`objective.num_generations` is {found}; a group needs at least 2 completions"));
        }
        for (key, value, low, high) in [
            ("beta", self.beta, 0., f64::MAX),
            ("epsilon", self.epsilon, 1e-9, 1.),
            ("epsilon_high", self.epsilon_high.unwrap_or(1.), 1e-9, f64::MAX),
            ("delta", self.delta.unwrap_or(2.), 1e-9, f64::MAX),
            ("top_entropy_quantile", self.top_entropy_quantile, 0., 1.),
            ("entropy_coef", self.entropy_coef, 0., f64::MAX),
            ("sapo_temperature_neg", self.sapo_temperature_neg, 1e-6, f64::MAX),
            ("sapo_temperature_pos", self.sapo_temperature_pos, 1e-6, f64::MAX),
        ] {
            check_range(problems, &format!("objective.{key}"), value, low, high);
        }
        if self.reference_model.is_some() && self.beta <= 0. {
            problems.push("`objective.reference_model` is for `objective.beta` above 0; keep both or none".into());
        }
        self.rollout.check(problems);
        rewards::check(&self.rewards, self.reward_weights.as_deref(), problems);
    }
}

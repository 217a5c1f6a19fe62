//! `[objective] kind = "ppo"`: proximal policy optimisation as in InstructGPT (Ouyang et al. 2022, appendix C.4), with the
//! names of trl's `PPOConfig`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::rewards;
use super::{RewardFunction, Rollout};
use crate::recipe::{check_positive, check_range};

/// A policy with a value head, held near a reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ppo {
    /// Passes over one roll-out.
    pub num_ppo_epochs: usize,
    /// What a nat of divergence from the reference costs, token by token; the first such price where it adapts.
    pub kl_coef: f64,
    /// The divergence of a whole completion that the price is adapted to (Ziegler et al. 2019, section 2.2); the price
    /// stays without it.
    pub target_kl: Option<f64>,
    /// Completions after which an adapting price may have grown by a factor of e, at most.
    pub horizon: f64,
    /// How the divergence of a token is estimated (Schulman 2020).
    pub kl_estimator: KlEstimator,
    /// How far from 1 the ratio of new and old probabilities counts.
    pub cliprange: f64,
    /// What the value head's loss counts for.
    pub vf_coef: f64,
    /// How far from their old ones new values count.
    pub cliprange_value: f64,
    /// What the entropy of the policy counts for.
    pub ent_coef: f64,
    /// What a reward is worth one token earlier.
    pub gamma: f64,
    /// The λ of generalised advantage estimation (Schulman et al. 2016).
    pub lam: f64,
    /// Whether rewards are brought to variance 1 before advantages are made of them.
    pub whiten_rewards: bool,
    /// Taken from the reward of a completion that never came to its end.
    pub missing_eos_penalty: Option<f64>,
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

/// Estimators of the divergence by Schulman's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KlEstimator {
    /// The logarithm of the ratio: unbiased, of either sign.
    #[default]
    K1,
    /// `r - 1 - log r`: unbiased and never negative.
    K3,
}

impl Default for Ppo {
    fn default() -> Self {
        Self {
            num_ppo_epochs: 4,
            kl_coef: 0.05,
            target_kl: None,
            horizon: 10_000.,
            kl_estimator: KlEstimator::default(),
            cliprange: 0.2,
            vf_coef: 0.1,
            cliprange_value: 0.2,
            ent_coef: 0.,
            gamma: 1.,
            lam: 0.95,
            whiten_rewards: false,
            missing_eos_penalty: None,
            reference_model: None,
            reward_weights: None,
            chat_template: None,
            rollout: Rollout::default(),
            rewards: vec![],
        }
    }
}

impl Ppo {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        check_positive(problems, "objective.num_ppo_epochs", self.num_ppo_epochs);
        for (key, value, high) in [
            ("kl_coef", self.kl_coef, f64::MAX),
            ("target_kl", self.target_kl.unwrap_or(1.), f64::MAX),
            ("vf_coef", self.vf_coef, f64::MAX),
            ("ent_coef", self.ent_coef, f64::MAX),
            ("missing_eos_penalty", self.missing_eos_penalty.unwrap_or(0.), f64::MAX),
            ("gamma", self.gamma, 1.),
            ("lam", self.lam, 1.),
        ] {
            check_range(problems, &format!("objective.{key}"), value, 0., high);
        }
        for (key, value) in
            [("cliprange", self.cliprange), ("cliprange_value", self.cliprange_value), ("horizon", self.horizon)]
        {
            check_range(problems, &format!("objective.{key}"), value, 1e-9, f64::MAX);
        }
        if self.target_kl.is_some() && self.kl_coef <= 0. {
            problems.push("`objective.target_kl` adapts `objective.kl_coef`, which is 0 and would stay so".into());
        }
        self.rollout.check(problems);
        rewards::check(&self.rewards, self.reward_weights.as_deref(), problems);
    }
}

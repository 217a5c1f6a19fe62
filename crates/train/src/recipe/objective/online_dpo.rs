//! `[objective] kind = "online_dpo"`: two completions of each prompt, of which the one with the higher reward is preferred
//! (Guo et al. 2024, arXiv 2402.04792), with the names of trl's `OnlineDPOConfig`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::dpo::check_beta;
use super::rewards;
use super::{Dpo, DpoLoss, RewardFunction, Rollout};
use crate::recipe::check_range;

/// DPO on pairs that the policy writes itself; pairs with equal rewards teach nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OnlineDpo {
    /// How firmly the policy is held to the reference.
    pub beta: f64,
    /// The loss of a pair: `sigmoid` or `ipo`.
    pub loss_type: DpoLoss,
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

impl Default for OnlineDpo {
    fn default() -> Self {
        Self {
            beta: 0.1,
            loss_type: DpoLoss::Sigmoid,
            missing_eos_penalty: None,
            reference_model: None,
            reward_weights: None,
            chat_template: None,
            rollout: Rollout::default(),
            rewards: vec![],
        }
    }
}

impl OnlineDpo {
    /// The loss of its pairs.
    #[must_use]
    pub fn as_dpo(&self) -> Dpo {
        Dpo { beta: self.beta, loss_type: vec![self.loss_type], ..Dpo::default() }
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        check_beta(problems, self.beta);
        if !matches!(self.loss_type, DpoLoss::Sigmoid | DpoLoss::Ipo) {
            problems.push("`objective.loss_type` of online_dpo should be sigmoid or ipo".into());
        }
        let penalty = self.missing_eos_penalty.unwrap_or(0.);
        check_range(problems, "objective.missing_eos_penalty", penalty, 0., f64::MAX);
        self.rollout.check(problems);
        rewards::check(&self.rewards, self.reward_weights.as_deref(), problems);
    }
}

//! `[objective] kind = "reward"`: a number for each text, above that of the text it was preferred to, or in step with its
//! grade.

use phyla_data::supervised::graded::Scale;
use phyla_data::supervised::preference::Truncation;
use serde::{Deserialize, Serialize};

use super::{check_length, check_range};

/// One number a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reward {
    /// What is learned from: pairs, or grades.
    pub loss_type: RewardLoss,
    /// `bradley_terry`: what the squared sum of a pair's rewards counts for, which keeps them near zero; 0 unless given.
    pub center_rewards_coefficient: Option<f64>,
    /// `ordinal`: the grades from the worst to the best; of numbers in their order unless given.
    pub grades: Option<Vec<String>>,
    /// Tokens of a text at most.
    pub max_len: usize,
    /// Which end longer ones keep.
    pub truncation_mode: Truncation,
    /// For conversations: a file with a chat template, or the name of one that comes with the program; the tokenizer's own
    /// unless given.
    pub chat_template: Option<String>,
}

/// Losses of rewards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardLoss {
    /// Of two texts the better one (Bradley and Terry 1952).
    #[default]
    BradleyTerry,
    /// Texts with grades: proportional odds over thresholds that learn (McCullagh 1980).
    Ordinal,
}

impl Default for Reward {
    fn default() -> Self {
        Self {
            loss_type: RewardLoss::default(),
            center_rewards_coefficient: None,
            grades: None,
            max_len: 1024,
            truncation_mode: Truncation::default(),
            chat_template: None,
        }
    }
}

impl Reward {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        check_length(problems, "max_len", self.max_len, 2);
        let centre = self.center_rewards_coefficient.unwrap_or(0.);
        check_range(problems, "objective.center_rewards_coefficient", centre, 0., f64::MAX);
        match self.loss_type {
            RewardLoss::BradleyTerry if self.grades.is_some() => {
                problems.push("`objective.grades` is for `objective.loss_type` \"ordinal\"".into());
            }
            RewardLoss::Ordinal if self.center_rewards_coefficient.is_some() => {
                problems.push("`objective.center_rewards_coefficient` is for pairs, and grades come one by one".into());
            }
            _ => {}
        }
        if let Some(Err(error)) = self.grades.clone().map(Scale::new) {
            problems.push(format!("`objective.grades`: {error}"));
        }
    }
}

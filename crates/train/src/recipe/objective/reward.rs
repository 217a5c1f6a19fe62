//! `[objective] kind = "reward"`: a number for each text, above that of the text it was preferred to.

use phyla_data::supervised::preference::Truncation;
use serde::{Deserialize, Serialize};

use super::{check_length, check_range};

/// Bradley-Terry.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reward {
    /// What the squared sum of a pair's rewards counts for, which keeps them near zero; 0 unless given.
    pub center_rewards_coefficient: Option<f64>,
    /// Tokens of a text at most.
    pub max_len: usize,
    /// Which end longer ones keep.
    pub truncation_mode: Truncation,
    /// For conversations: a file with a chat template, or the name of one that comes with the program; the tokenizer's own
    /// unless given.
    pub chat_template: Option<String>,
}

impl Default for Reward {
    fn default() -> Self {
        Self {
            center_rewards_coefficient: None,
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
    }
}

//! `[objective] kind = "cpo"`, `"simpo"` and `"orpo"`: pairs of completions without a reference, with the names of trl's
//! configurations.

use phyla_data::supervised::preference::Truncation;
use serde::{Deserialize, Serialize};

use super::dpo::check_beta;
use super::{check_length, check_range};

/// Contrast of pairs, and likelihood of the chosen completions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cpo {
    /// Factor on rewards.
    pub beta: f64,
    /// Which contrast.
    pub loss_type: CpoLoss,
    /// Share of labels that are taken to be wrong: `sigmoid` and `simpo`.
    pub label_smoothing: f64,
    /// What the likelihood of the chosen completions counts for.
    pub cpo_alpha: f64,
    /// The margin that `simpo` wants kept.
    pub simpo_gamma: f64,
    /// Shape of the reward (AlphaPO); 0 for log-probabilities.
    pub alpha: f64,
    /// Tokens of a prompt with its completion at most.
    pub max_len: usize,
    /// Which end longer ones keep.
    pub truncation_mode: Truncation,
    /// For conversations: a file with a chat template, or the name of one that comes with the program; the tokenizer's own
    /// unless given.
    pub chat_template: Option<String>,
}

/// Contrasts by trl's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CpoLoss {
    /// CPO itself.
    #[default]
    Sigmoid,
    /// SLiC's hinge.
    Hinge,
    /// IPO, of means over tokens.
    Ipo,
    /// SimPO, of means over tokens.
    Simpo,
}

impl Default for Cpo {
    fn default() -> Self {
        Self {
            beta: 0.1,
            loss_type: CpoLoss::default(),
            label_smoothing: 0.,
            cpo_alpha: 1.,
            simpo_gamma: 0.5,
            alpha: 0.,
            max_len: 1024,
            truncation_mode: Truncation::default(),
            chat_template: None,
        }
    }
}

impl Cpo {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        check_length(problems, "max_len", self.max_len, 2);
        check_beta(problems, self.beta);
        check_range(problems, "objective.cpo_alpha", self.cpo_alpha, 0., f64::MAX);
        check_range(problems, "objective.simpo_gamma", self.simpo_gamma, -1e6, 1e6);
        check_range(problems, "objective.alpha", self.alpha, -1e3, 1e3);
        if self.label_smoothing > 0. && matches!(self.loss_type, CpoLoss::Hinge | CpoLoss::Ipo) {
            problems.push("`objective.label_smoothing` is for `objective.loss_type` sigmoid and simpo".into());
        }
    }
}

/// SimPO: mean log-probabilities as rewards, and a margin to be kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Simpo {
    /// Factor on rewards; those of means over tokens are small.
    pub beta: f64,
    /// The margin that is wanted.
    pub simpo_gamma: f64,
    /// Share of labels that are taken to be wrong.
    pub label_smoothing: f64,
    /// Tokens of a prompt with its completion at most.
    pub max_len: usize,
    /// Which end longer ones keep.
    pub truncation_mode: Truncation,
    /// For conversations: a file with a chat template, or the name of one that comes with the program; the tokenizer's own
    /// unless given.
    pub chat_template: Option<String>,
}

impl Default for Simpo {
    fn default() -> Self {
        let truncation_mode = Truncation::default();
        Self { beta: 2., simpo_gamma: 1., label_smoothing: 0., max_len: 1024, truncation_mode, chat_template: None }
    }
}

impl Simpo {
    /// The same as a contrast without likelihood, which is what it is.
    #[must_use]
    pub fn as_cpo(&self) -> Cpo {
        Cpo {
            beta: self.beta,
            loss_type: CpoLoss::Simpo,
            label_smoothing: self.label_smoothing,
            cpo_alpha: 0.,
            simpo_gamma: self.simpo_gamma,
            alpha: 0.,
            max_len: self.max_len,
            truncation_mode: self.truncation_mode,
            chat_template: self.chat_template.clone(),
        }
    }
}

/// ORPO: likelihood of the chosen text, and odds against the rejected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Orpo {
    /// What the odds count for (λ in the paper).
    pub beta: f64,
    /// Tokens of a prompt with its completion at most.
    pub max_len: usize,
    /// Which end longer ones keep.
    pub truncation_mode: Truncation,
    /// For conversations: a file with a chat template, or the name of one that comes with the program; the tokenizer's own
    /// unless given.
    pub chat_template: Option<String>,
}

impl Default for Orpo {
    fn default() -> Self {
        Self { beta: 0.1, max_len: 1024, truncation_mode: Truncation::default(), chat_template: None }
    }
}

impl Orpo {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        check_length(problems, "max_len", self.max_len, 2);
        check_beta(problems, self.beta);
    }
}

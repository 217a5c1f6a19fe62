//! `[objective] kind = "kto"`: completions judged good or bad one by one, with the names of trl's `KTOConfig`.

use std::path::PathBuf;

use phyla_data::supervised::preference::Truncation;
use serde::{Deserialize, Serialize};

use super::dpo::{Reference, check_beta};
use super::{check_length, check_range};

/// Gains and losses against a reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kto {
    /// How firmly the policy is held to the reference.
    pub beta: f64,
    /// Which loss.
    pub loss_type: KtoLoss,
    /// What good completions count for.
    pub desirable_weight: f64,
    /// What bad completions count for.
    pub undesirable_weight: f64,
    /// Where log-probabilities of the reference come from.
    pub reference: Reference,
    /// The reference; the model that the run begins with unless given.
    pub reference_model: Option<PathBuf>,
    /// Tokens of a prompt with its completion at most.
    pub max_len: usize,
    /// Which end longer ones keep.
    pub truncation_mode: Truncation,
    /// For conversations: a file with a chat template, or the name of one that comes with the program; the tokenizer's own
    /// unless given.
    pub chat_template: Option<String>,
}

/// Losses by trl's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KtoLoss {
    /// KTO itself, with its estimate of the divergence from mismatched completions.
    #[default]
    Kto,
    /// APO for completions better than the model's own, without that estimate.
    ApoZeroUnpaired,
}

impl Default for Kto {
    fn default() -> Self {
        Self {
            beta: 0.1,
            loss_type: KtoLoss::default(),
            desirable_weight: 1.,
            undesirable_weight: 1.,
            reference: Reference::default(),
            reference_model: None,
            max_len: 1024,
            truncation_mode: Truncation::default(),
            chat_template: None,
        }
    }
}

impl Kto {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        check_length(problems, "max_len", self.max_len, 2);
        check_beta(problems, self.beta);
        check_range(problems, "objective.desirable_weight", self.desirable_weight, 0., f64::MAX);
        check_range(problems, "objective.undesirable_weight", self.undesirable_weight, 0., f64::MAX);
        self.reference.check(self.reference_model.is_some(), problems);
    }
}

//! `[objective.rollout]`: how a model that learns from what it writes writes it, with the names of trl's `GRPOConfig`.

use serde::{Deserialize, Serialize};

use super::{LONGEST, check_length};
use crate::recipe::{check_positive, check_range};

/// How completions are written; the model's own engine writes them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rollout {
    /// Completions of one roll-out; those of one update (`train.batch` times `train.accumulate`) unless given.
    pub generation_batch_size: Option<usize>,
    /// Tokens of a prompt at most; longer ones are left out.
    pub max_prompt_length: usize,
    /// Tokens of a completion at most.
    pub max_completion_length: usize,
    /// Sampling temperature; log-probabilities are taken at the same.
    pub temperature: f64,
    /// Draw among the likeliest tokens that hold this much probability together; 1 for all.
    pub top_p: f64,
    /// Draw among so many likeliest tokens; 0 for all.
    pub top_k: usize,
    /// Drop tokens less likely than this fraction of the likeliest.
    pub min_p: Option<f64>,
    /// Above 1, tokens that were written already are less likely.
    pub repetition_penalty: f64,
    /// Texts that end a completion besides its end of sequence.
    pub stop_strings: Vec<String>,
}

impl Default for Rollout {
    fn default() -> Self {
        Self {
            generation_batch_size: None,
            max_prompt_length: 512,
            max_completion_length: 256,
            temperature: 1.,
            top_p: 1.,
            top_k: 0,
            min_p: None,
            repetition_penalty: 1.,
            stop_strings: vec![],
        }
    }
}

impl Rollout {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        check_positive(problems, "objective.rollout.generation_batch_size", self.generation_batch_size.unwrap_or(1));
        check_length(problems, "rollout.max_prompt_length", self.max_prompt_length, 1);
        check_length(problems, "rollout.max_completion_length", self.max_completion_length, 1);
        check_range(problems, "objective.rollout.temperature", self.temperature, 1e-3, 100.);
        check_range(problems, "objective.rollout.top_p", self.top_p, 1e-6, 1.);
        check_range(problems, "objective.rollout.min_p", self.min_p.unwrap_or(0.), 0., 1.);
        check_range(problems, "objective.rollout.repetition_penalty", self.repetition_penalty, 1e-3, 100.);
        if self.top_k > LONGEST {
            problems.push(format!("`objective.rollout.top_k` is {}; expected at most {LONGEST}", self.top_k));
        }
        if self.stop_strings.iter().any(String::is_empty) {
            problems
                .push("`objective.rollout.stop_strings` has an empty text, which would end every completion".into());
        }
    }
}

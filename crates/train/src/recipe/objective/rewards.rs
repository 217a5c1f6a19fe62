//! `[[objective.rewards]]`: who says how good a completion is.

use std::path::PathBuf;

use phyla_metrics::answer::Kind;
use serde::{Deserialize, Serialize};

use crate::recipe::{check_positive, check_range};

/// One judge of completions; several are added up, by `objective.reward_weights`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum RewardFunction {
    /// A reward model: a number for prompt and completion.
    Model {
        /// Its folder, or hub id.
        path: PathBuf,
        /// Tokens that it reads at most: the last ones.
        #[serde(default = "max_len")]
        max_len: usize,
    },
    /// How often a pattern is found in a completion.
    Regex {
        /// The pattern (`(?i)` in front ignores case).
        pattern: String,
        /// More than so many count as so many.
        #[serde(default = "one")]
        most: usize,
    },
    /// 1 for a completion that is JSON, 0 for others.
    Json {
        /// Keys that it must have: then it must be an object.
        #[serde(default)]
        keys: Vec<String>,
    },
    /// 1 for a completion that comes to the answer in a column of the prompt's row, 0 for others.
    Answer {
        /// The column.
        #[serde(default = "answer")]
        column: String,
        /// What kind of answer it is.
        #[serde(default)]
        answer: Kind,
    },
    /// 1 for a completion of this length, falling evenly to 0 for none and for twice as much.
    Length {
        /// How many.
        target: usize,
        /// Of what.
        #[serde(default)]
        unit: LengthUnit,
    },
    /// A program that is started once: a line of JSON with `prompt`, `completion` and the row's columns comes to its
    /// standard input for each completion, and it answers with a line: a number, `{"reward": number}`, or `null` for a
    /// completion that it cannot judge.
    Command {
        /// The program and its arguments.
        command: Vec<String>,
        /// Seconds that one answer may take.
        #[serde(default = "timeout")]
        timeout: f64,
    },
}

/// What a length is counted in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LengthUnit {
    /// Runs of characters between white space.
    #[default]
    Words,
    /// Characters.
    Characters,
    /// Tokens of the model.
    Tokens,
}

fn max_len() -> usize {
    1024
}

fn one() -> usize {
    1
}

fn answer() -> String {
    "answer".into()
}

fn timeout() -> f64 {
    60.
}

impl RewardFunction {
    /// Its `kind`, as it is called in metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Model { .. } => "model",
            Self::Regex { .. } => "regex",
            Self::Json { .. } => "json",
            Self::Answer { .. } => "answer",
            Self::Length { .. } => "length",
            Self::Command { .. } => "command",
        }
    }

    fn check(&self, at: usize, problems: &mut Vec<String>) {
        let key = |name: &str| format!("objective.rewards.{at}.{name}");
        match self {
            Self::Model { max_len, .. } => check_positive(problems, &key("max_len"), *max_len),
            Self::Regex { pattern, most } => {
                check_positive(problems, &key("most"), *most);
                if let Err(error) = fancy_regex::Regex::new(pattern) {
                    problems.push(format!("`{}` is no pattern: {error}", key("pattern")));
                }
            }
            Self::Length { target, .. } => check_positive(problems, &key("target"), *target),
            Self::Command { command, timeout } => {
                if command.first().is_none_or(String::is_empty) {
                    problems.push(format!("`{}` is empty; expected a program and its arguments", key("command")));
                }
                check_range(problems, &key("timeout"), *timeout, 1e-3, 1e6);
            }
            Self::Json { .. } | Self::Answer { .. } => {}
        }
    }
}

/// Adds the sentences about all judges and their weights.
pub(super) fn check(rewards: &[RewardFunction], weights: Option<&[f64]>, problems: &mut Vec<String>) {
    if rewards.is_empty() {
        problems.push(
            "`objective.rewards` is empty; expected at least one `[[objective.rewards]]` with a `kind`: model, regex, \
             json, answer, length or command"
                .into(),
        );
    }
    rewards.iter().enumerate().for_each(|(at, reward)| reward.check(at, problems));
    if let Some(weights) = weights
        && (weights.len() != rewards.len() || weights.iter().any(|weight| !weight.is_finite()))
    {
        problems.push(format!(
            "`objective.reward_weights` has {} entries for {} rewards; expected a finite number for each",
            weights.len(),
            rewards.len()
        ));
    }
}

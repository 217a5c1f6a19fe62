//! `[train]`: how long, how much at once, and what is measured and written when.

use serde::{Deserialize, Serialize};

use super::{Objective, Reads, check_positive, check_range};

/// `[train]`. Every `…_every` counts optimiser steps; 0 means never.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Train {
    /// Length of the run in optimiser steps.
    pub steps: Option<u64>,
    /// Length as passes over the training data instead.
    pub epochs: Option<f64>,
    /// Length as a time budget instead; the schedule then follows the clock, and a resumed run is no
    /// longer bit-identical.
    pub minutes: Option<f64>,
    /// Examples per forward pass: rows, pairs, or questions with all their choices.
    pub batch: usize,
    /// Labelled data: as many examples as fit into so many tokens, filling included, in place of `batch`; examples of
    /// like length come together. As the 2017 paper batches its pairs.
    pub batch_tokens: Option<usize>,
    /// Labelled data: examples of like length come together, which saves filling.
    pub group_by_length: bool,
    /// Forward passes per optimiser step.
    pub accumulate: usize,
    /// Steps between evaluations, where there is validation data.
    pub eval_every: u64,
    /// Batches per evaluation; all of them when absent.
    pub eval_batches: Option<usize>,
    /// Objective `seq2seq`: so many held-out sources are answered greedily at each evaluation, for exact match and BLEU.
    pub eval_generate: usize,
    /// Steps between lines of `metrics.jsonl`.
    pub log_every: u64,
    /// Steps between checkpoints; one is always written at the end.
    pub save_every: u64,
    /// Newest checkpoints that are kept.
    pub keep_last: usize,
    /// Keep the checkpoint with the lowest validation loss too.
    pub keep_best: bool,
    /// The final model is the mean of so many newest checkpoints, as in "Attention is all you need", section 6.1: 5;
    /// 0 and 1 take the last weights as they are. At most `keep_last`.
    pub average_last: usize,
    /// Stop after this many evaluations without a new lowest validation loss.
    pub early_stop_patience: Option<u64>,
    /// Recompute activations in the backward pass: less memory, about a third more time.
    pub activation_checkpointing: bool,
    /// Dropout in place of the model config's.
    pub dropout: Dropout,
    /// Text that the model writes while it learns.
    pub sample: Sample,
}

/// `[train.dropout]`: probabilities in place of the model config's; absent ones stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dropout {
    /// On attention weights.
    pub attention: Option<f64>,
    /// On each sublayer's output, before it joins the residual stream.
    pub residual: Option<f64>,
    /// On the embeddings.
    pub embedding: Option<f64>,
}

/// `[train.sample]`: text that the model writes while it learns, shown in the report: how it continues a prompt (`lm`),
/// fills its masks (`mlm`, `mlm_nsp`), answers it (`seq2seq`, `sft`, `ppo`, `grpo`, …) or labels it (`classify`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sample {
    /// Steps between samples; 0 means never.
    pub every: u64,
    /// What the model is given. An empty prompt begins a document; for all objectives but `lm` it takes a held-out text.
    pub prompts: Vec<String>,
    /// Objectives `lm` and `sft`: length of each text in tokens; the others write as their own tables say.
    pub max_new_tokens: usize,
    /// Objective `lm`: sampling temperature; 0 is greedy, as answers always are.
    pub temperature: f64,
}

/// How long a run lasts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Length {
    /// Optimiser steps.
    Steps(u64),
    /// Passes over the training data.
    Epochs(f64),
    /// Minutes of wall-clock time.
    Minutes(f64),
}

/// The batches of a step are drawn before it begins.
const MAX_ACCUMULATE: usize = 1 << 16;

impl Default for Train {
    fn default() -> Self {
        Self {
            steps: None,
            epochs: None,
            minutes: None,
            batch: 8,
            batch_tokens: None,
            group_by_length: false,
            accumulate: 1,
            eval_every: 250,
            eval_batches: None,
            eval_generate: 0,
            log_every: 10,
            save_every: 1000,
            keep_last: 2,
            keep_best: true,
            average_last: 0,
            early_stop_patience: None,
            activation_checkpointing: false,
            dropout: Dropout::default(),
            sample: Sample::default(),
        }
    }
}

impl Default for Sample {
    fn default() -> Self {
        Self { every: 0, prompts: vec![String::new()], max_new_tokens: 100, temperature: 0.8 }
    }
}

impl Train {
    /// The one length that is given. Of a checked recipe exactly one is.
    #[must_use]
    pub fn length(&self) -> Length {
        match (self.steps, self.epochs, self.minutes) {
            (Some(steps), _, _) => Length::Steps(steps),
            (_, Some(epochs), _) => Length::Epochs(epochs),
            (_, _, minutes) => Length::Minutes(minutes.unwrap_or(0.0)),
        }
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let given = [self.steps.is_some(), self.epochs.is_some(), self.minutes.is_some()];
        if given.iter().filter(|given| **given).count() != 1 {
            problems.push("[train] needs exactly one of `steps`, `epochs` and `minutes`".into());
        }
        if self.steps == Some(0) {
            problems.push("`train.steps` is 0; expected at least 1".into());
        }
        for (key, value) in [("train.epochs", self.epochs), ("train.minutes", self.minutes)] {
            if let Some(value) = value
                && !(value > 0.0 && value.is_finite())
            {
                problems.push(format!("`{key}` is {value}; expected a positive number"));
            }
        }
        check_positive(problems, "train.batch", self.batch);
        check_positive(problems, "train.accumulate", self.accumulate);
        if self.accumulate > MAX_ACCUMULATE {
            problems.push(format!("`train.accumulate` is {}; expected at most {MAX_ACCUMULATE}", self.accumulate));
        }
        check_positive(problems, "train.keep_last", self.keep_last);
        check_positive(problems, "train.batch_tokens", self.batch_tokens.unwrap_or(1));
        if self.average_last > self.keep_last {
            problems.push(format!(
                "`train.average_last` is {}, and only {} checkpoints are kept: set `train.keep_last` to at least that",
                self.average_last, self.keep_last
            ));
        }
        check_positive(problems, "train.eval_batches", self.eval_batches.unwrap_or(1));
        if self.early_stop_patience.is_some() && self.eval_every == 0 {
            problems.push("`train.early_stop_patience` counts evaluations and needs `train.eval_every` above 0".into());
        }
        if self.early_stop_patience == Some(0) {
            problems.push("`train.early_stop_patience` is 0; expected at least 1".into());
        }
        for (name, value) in [
            ("attention", self.dropout.attention),
            ("residual", self.dropout.residual),
            ("embedding", self.dropout.embedding),
        ] {
            if let Some(value) = value
                && !(0.0..1.0).contains(&value)
            {
                problems.push(format!("`train.dropout.{name}` is {value}; expected at least 0 and below 1"));
            }
        }
        check_range(problems, "train.sample.temperature", self.sample.temperature, 0.0, f64::MAX);
        check_positive(problems, "train.sample.max_new_tokens", self.sample.max_new_tokens);
        if self.sample.every > 0 && self.sample.prompts.is_empty() {
            problems.push("`train.sample.prompts` is empty; expected at least one, \"\" to begin a document".into());
        }
    }

    /// Adds a sentence for each key that says nothing for the objective.
    pub(super) fn check_fits(&self, objective: &Objective, validation: bool, problems: &mut Vec<String>) {
        let (name, reads) = (objective.name(), objective.reads());
        if reads == Reads::Text && (self.batch_tokens.is_some() || self.group_by_length) {
            problems.push(format!(
                "`train.batch_tokens` and `train.group_by_length` are for labelled data; the rows of `objective.kind` \
                 \"{name}\" have a length of their own: set `train.batch`"
            ));
        }
        if let Some(play) = objective.play() {
            if self.batch_tokens.is_some() || self.group_by_length {
                problems.push(format!(
                    "`train.batch_tokens` and `train.group_by_length` are for data of known lengths; `objective.kind` \
                     \"{name}\" takes `train.batch` completions at a time"
                ));
            }
            play.check_fits(self.batch * self.accumulate, problems);
        }
        if self.eval_generate > 0 && !(reads == Reads::Pairs && validation) {
            problems.push("`train.eval_generate` is for `objective.kind` \"seq2seq\" with validation data".into());
        }
        let written = matches!(objective, Objective::Lm(_) | Objective::Mlm(_) | Objective::MlmNsp(_))
            || matches!(reads, Reads::Pairs | Reads::Labelled | Reads::Prompts | Reads::Dialogues);
        if self.sample.every > 0 && !written {
            problems.push(format!("`train.sample` has nothing to show for `objective.kind` \"{name}\"; leave it out"));
        }
    }
}

//! How many rows a recipe's batches have, how long they can be, and how many of their tokens are learned.

use phyla_data::pretrain::SpanSettings;
use phyla_models::Arch;

use crate::recipe::{Objective, Play, Reads, Recipe};

/// A batch, as large as it can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Rows {
    /// Rows.
    pub batch: usize,
    /// Tokens of a row of the main tower.
    pub length: usize,
    /// Tokens of a row of an encoder-decoder's encoder.
    pub source: Option<usize>,
    /// Tokens of all rows that have a target.
    pub targets: usize,
}

/// What is known better than the recipe tells.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// Examples of a batch.
    pub batch: Option<usize>,
    /// Tokens of a row.
    pub length: Option<usize>,
    /// Tokens of a row of the encoder.
    pub source: Option<usize>,
}

/// Choices of a question, where the data would have to be read to know.
const CHOICES: usize = 4;

impl Rows {
    /// The largest batch of a recipe, as far as its settings bound it.
    pub fn of(recipe: &Recipe, arch: &Arch, known: Known) -> Self {
        let (mut length, mut source) = match &recipe.objective {
            Objective::Lm(_) => (recipe.data.max_len.unwrap_or(arch.context), None),
            Objective::Mlm(mlm) => (mlm.max_len, None),
            Objective::MlmNsp(nsp) => (nsp.max_len, None),
            Objective::Seq2Seq(pairs) => (pairs.max_target_len, Some(pairs.max_source_len)),
            Objective::T5Span(span) => (targets_of_spans(span), Some(span.inputs_length)),
            Objective::Classify(classify) => (classify.max_len, None),
            Objective::TokenClassify(tags) => (tags.max_len, None),
            Objective::Qa(qa) => (qa.max_len, None),
            Objective::MultipleChoice(choice) => (choice.max_len, None),
            Objective::Sft(sft) => (sft.max_len, None),
            other => match (other.completions(), other.play()) {
                (Some(settings), _) => (settings.max_len, None),
                (_, Some(Play { rollout, .. })) => (rollout.max_prompt_length + rollout.max_completion_length, None),
                _ => (arch.context, None),
            },
        };
        if arch.context_is_hard {
            length = length.min(arch.context);
        }
        length = known.length.unwrap_or(length);
        source = known.source.or(source).filter(|_| arch.source().is_some());
        let each = match &recipe.objective {
            Objective::MultipleChoice(_) => CHOICES,
            objective if objective.reads() == Reads::Preferences => 2,
            other => other.play().map_or(1, |play| play.together),
        };
        let examples = match (known.batch, recipe.train.batch_tokens) {
            (Some(batch), _) => batch,
            (None, Some(tokens)) => (tokens / length.max(source.unwrap_or(0)).max(1)).max(1),
            (None, None) => recipe.train.batch,
        };
        let batch = examples * each;
        let share = match &recipe.objective {
            Objective::Mlm(mlm) => mlm.mask.probability,
            Objective::MlmNsp(nsp) => nsp.mask.probability,
            Objective::Classify(_) | Objective::Qa(_) | Objective::MultipleChoice(_) | Objective::Reward(_) => 0.,
            _ => 1.,
        };
        let targets = match recipe.objective.play() {
            Some(play) => batch * play.rollout.max_completion_length.min(length),
            None => (share * (batch * length) as f64).ceil() as usize,
        };
        Self { batch, length, source, targets }
    }

    /// Tokens of the main tower.
    pub fn tokens(&self) -> usize {
        self.batch * self.length
    }
}

/// Tokens that the decoder says of a full row: each noise run with its sentinel, and the end.
fn targets_of_spans(span: &SpanSettings) -> usize {
    // Of `n` tokens of text the encoder reads `n (1 - density) + n density / mean + 1`.
    let density = span.noise_density;
    let text = (span.inputs_length as f64 - 1.) / (1. - density + density / span.mean_span_length);
    (text * density * (1. + 1. / span.mean_span_length)).round() as usize + 1
}

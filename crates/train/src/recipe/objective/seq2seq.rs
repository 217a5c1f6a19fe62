//! `[objective] kind = "seq2seq"`: a text for a text, with label smoothing as in the 2017 paper.

use phyla_data::supervised::seq2seq::Seq2SeqSettings;
use serde::{Deserialize, Serialize};

use super::check_length;

/// Cross-entropy of the target's tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Seq2Seq {
    /// Probability spread evenly over the vocabulary ("Attention is all you need", section 5.4: 0.1).
    /// Validation loss is always measured without it.
    pub label_smoothing: f64,
    /// Tokens of a source at most; longer ones are cut, and counted.
    pub max_source_len: usize,
    /// Tokens of a target at most, with its end.
    pub max_target_len: usize,
    /// Put before every source (T5: `translate English to German: `).
    pub source_prefix: String,
    /// The id at which the decoder begins. Without it the model's `decoder_start_token_id`; of a model from scratch
    /// the tokenizer's beginning of a sequence, or its padding.
    pub decoder_start: Option<u32>,
}

impl Default for Seq2Seq {
    fn default() -> Self {
        let Seq2SeqSettings { max_source_len, max_target_len, source_prefix, decoder_start } =
            Seq2SeqSettings::default();
        Self { label_smoothing: 0., max_source_len, max_target_len, source_prefix, decoder_start }
    }
}

impl Seq2Seq {
    /// What the maker of examples is asked for.
    #[must_use]
    pub fn settings(&self) -> Seq2SeqSettings {
        let Self { max_source_len, max_target_len, decoder_start, .. } = *self;
        Seq2SeqSettings { max_source_len, max_target_len, source_prefix: self.source_prefix.clone(), decoder_start }
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        check_length(problems, "max_source_len", self.max_source_len, 2);
        check_length(problems, "max_target_len", self.max_target_len, 2);
    }
}

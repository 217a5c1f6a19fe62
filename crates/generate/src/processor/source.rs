//! What a text is an answer to: ids of the encoder's text or, without an encoder, of the prompt, made likelier or kept from
//! being copied.

use super::{History, Processor, ngram, repetition};

/// Multiplies positive and divides negative logits of ids of the source, each once: the inverse of the repetition penalty.
#[derive(Clone, Copy, Debug)]
pub struct SourcePenalty(
    /// Above 0; above 1 encourages.
    pub f32,
);

impl Processor for SourcePenalty {
    fn name(&self) -> &'static str {
        "encoder_repetition_penalty"
    }

    fn apply(&self, row: &mut [f32], history: &History) {
        let mut ids = history.source().to_vec();
        ids.sort_unstable();
        ids.dedup();
        repetition::penalise(row, &ids, 1. / self.0);
    }
}

/// Rules out ids that would complete a run of the source.
#[derive(Clone, Copy, Debug)]
pub struct NoSourceNgram(
    /// Ids of a run, at least 1.
    pub usize,
);

impl Processor for NoSourceNgram {
    fn name(&self) -> &'static str {
        "encoder_no_repeat_ngram_size"
    }

    fn apply(&self, row: &mut [f32], history: &History) {
        ngram::rule_out(row, history.source(), history.ids(), self.0);
    }
}

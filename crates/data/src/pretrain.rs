//! Rows that hide part of a text and ask for it: masked language modelling, next sentences, corrupted spans.

mod epochs;
mod masking;
mod mlm;
mod nsp;
mod run;
mod sentence_file;
mod sentences;
mod spans;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod testing;
mod words;

pub use epochs::{Epochs, Row, Rows, Share};
pub use masking::{MaskSettings, MaskUnit, Masker, SpanLengths};
pub use mlm::{MlmBatches, MlmPacking, MlmRows, MlmSettings};
pub use nsp::{NspBatches, NspRows, NspSettings, Pairs};
pub use run::Run;
pub use sentence_file::Sentences;
pub use sentences::{SentenceSplit, sentences};
pub use spans::{Corruption, SpanBatches, SpanRows, SpanSettings};
pub use words::{Place, WordTable};

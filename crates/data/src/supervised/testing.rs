//! Tokenizers for the tests of all objectives.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::loader::{Examples, Loader, LoaderSettings, Size};
use crate::batch::{Batch, Batches};
use crate::tokenizer::Tokenizer;

/// A WordPiece tokenizer of letters and a few words, with BERT's `[CLS]` and `[SEP]`.
pub(super) fn bert() -> Tokenizer {
    let mut vocabulary: Vec<String> =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "fox", "the", "##s"].map(str::to_owned).to_vec();
    for letter in ('a'..='z').chain('0'..='9').chain(['.', ',', '?', '!', '"', '\'', '-', 'ä', 'ö', '北', '京']) {
        vocabulary.extend([letter.to_string(), format!("##{letter}")]);
    }
    let mut seen = std::collections::HashSet::new();
    vocabulary.retain(|token| seen.insert(token.clone()));
    let files = [
        ("vocab.txt", vocabulary.join("\n")),
        (
            "tokenizer_config.json",
            "{\"tokenizer_class\": \"BertTokenizer\", \"do_lower_case\": true, \"strip_accents\": false}".to_owned(),
        ),
    ];
    let files = files.into_iter().map(|(name, text)| (name.to_owned(), text.into_bytes()));
    Tokenizer::from_memory(files.collect::<BTreeMap<_, _>>()).unwrap()
}

/// All examples in one batch, in order.
pub(super) fn whole<E: Examples>(examples: E) -> Batch {
    let count = examples.count();
    Loader::new(Arc::new(examples), LoaderSettings::in_order(Size::Examples(count))).unwrap().next_batch().unwrap()
}

/// Row `row` of a batch without its filling.
pub(super) fn row(batch: &Batch, row: usize) -> &[u32] {
    &batch.ids[row * batch.time..][..batch.lengths[row]]
}

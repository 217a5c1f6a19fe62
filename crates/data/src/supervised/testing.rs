//! Tokenizers for the tests of all objectives.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::Arc;

use super::loader::{Examples, Loader, LoaderSettings, Size};
use crate::batch::{Batch, Batches};
use crate::tokenizer::{BpeSettings, Tokenizer, train_bpe};

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

/// A byte-level vocabulary with ChatML's tokens.
pub(super) fn bpe() -> Tokenizer {
    let text = "### Instruction:\nSay hello to the fox.\n\n### Response:\nHello, fox! Below is an instruction";
    let special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned).to_vec();
    let settings = BpeSettings { vocab_size: 320, special_tokens: special, ..BpeSettings::default() };
    train_bpe((0..9).map(|_| Ok(text)), &settings, &mut |_| {}).unwrap()
}

pub(super) fn chatml() -> Tokenizer {
    let tokenizer = bpe();
    let source = tokenizer.templates().find("chatml").unwrap();
    tokenizer.with_chat_template(&source)
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

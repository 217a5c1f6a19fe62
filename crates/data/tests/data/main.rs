//! The crate through its public face: files in, ids and text out.
#![expect(clippy::unwrap_used, reason = "tests")]

mod calls;
mod corpora;
mod dialogues;
mod gguf;
mod shared;
mod streams;
mod templates;
mod token_files;
mod trained;
mod vocabularies;

use std::collections::BTreeMap;

use phyla_data::tokenizer::{BpeSettings, Tokenizer, train_bpe};

/// English, German, Chinese, code, emoji, odd spaces: enough for every branch of a pre-tokenizer.
pub const TEXT: &str = "The quick brown fox jumps over the lazy dog. The dog didn't mind; it's THE DOG'S day!\n\n\
    Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.\n敏捷的棕色狐狸跳过了懒狗。敏捷的狐狸。\n\
    fn main() {\n    let x = 12345 + 678;\n\tprintln!(\"{x}\");\n}\n  two  spaces   three\r\n 👍🏽 naïve café 👨‍👩‍👧 end   \n";

/// A small byte-level tokenizer.
pub fn small(settings: BpeSettings) -> Tokenizer {
    let texts = (0..20).map(|_| Ok(TEXT));
    train_bpe(texts, &settings, &mut |_| {}).unwrap()
}

/// A tokenizer from its files' texts.
pub fn memory(files: &[(&str, &str)]) -> phyla_data::Result<Tokenizer> {
    let files = files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec()));
    Tokenizer::from_memory(files.collect::<BTreeMap<_, _>>())
}

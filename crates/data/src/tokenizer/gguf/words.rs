//! WordPiece, as BERT has it: the longest pieces from the left. GGUF files mark pieces that begin a word, where BERT's
//! own files mark those that go on with one.

use serde_json::{Value, json};

use super::{Around, Type, Vocabulary, wrong};
use crate::error::Result;

/// Marks a piece that begins a word.
const BEGINS: char = '\u{2581}';

pub(super) fn build(vocabulary: &Vocabulary<'_>) -> Result<(Value, Around)> {
    let unknown = vocabulary.id(&["unknown_token_id"])?;
    let unknown = unknown.ok_or_else(|| wrong("unknown_token_id", "missing; it stands for words without pieces"))?;
    let vocab = vocabulary.vocab(|token, kind| match token.strip_prefix(BEGINS) {
        Some(word) => word.to_owned(),
        None if kind != Type::Normal || (token.starts_with('[') && token.ends_with(']')) => token.to_owned(),
        None => format!("##{token}"),
    })?;
    // No file of the kind's first years says it, but a vocabulary without capitals needs texts without.
    let capital = |(token, kind): (&String, &Type)| {
        *kind == Type::Normal && !token.starts_with('[') && token.chars().any(|c| c.is_ascii_uppercase())
    };
    let cased = vocabulary.tokens.iter().zip(&vocabulary.types).any(capital);
    let lowercase = vocabulary.flag("normalizer.lowercase")?.unwrap_or(!cased);
    let strip_accents = vocabulary.flag("normalizer.strip_accents")?.unwrap_or(lowercase);
    let tokenizer = json!({
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": strip_accents, "lowercase": lowercase},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": vocabulary.tokens[unknown], "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab},
    });
    Ok((tokenizer, Around { bos: false, eos: false, pair: true }))
}

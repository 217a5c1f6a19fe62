//! Byte-level BPE, as GPT-2, Llama 3 and Qwen have it: tokens are spelled in letters that stand for bytes.

use serde_json::{Value, json};

use super::split::Split;
use super::{Around, Vocabulary, wrong};
use crate::error::Result;
use crate::tokenizer::legacy::byte_level;

pub(super) fn build(vocabulary: &Vocabulary<'_>) -> Result<(Value, Around)> {
    let name = vocabulary.text("pre")?.unwrap_or("default");
    let split = Split::named(name)?;
    let lines =
        vocabulary.list("merges")?.ok_or_else(|| wrong("merges", "missing; without them there are only bytes"))?;
    let mut merges = Vec::with_capacity(lines.len());
    for (number, line) in lines.iter().enumerate() {
        match line.as_str().and_then(|line| line.split_once(' ')) {
            Some((left, right)) if !left.is_empty() && !right.is_empty() => merges.push(json!([left, right])),
            _ => return Err(wrong("merges", format!("line {number} is {line}: expected two pieces and one space"))),
        }
    }
    let vocab = vocabulary.vocab(|token, _| token.to_owned())?;
    let tokenizer = json!({
        "normalizer": null,
        "pre_tokenizer": split.json(),
        "decoder": byte_level(),
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": split.whole,
            "vocab": vocab, "merges": merges},
    });
    Ok((tokenizer, Around { bos: split.bos, eos: false, pair: name == "roberta-bpe" }))
}

//! SentencePiece's BPE, as Llama 2 and Mistral have it: pieces with scores, where the neighbours that make the piece
//! with the highest score are joined first; what no piece spells becomes bytes.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{Around, Type, Vocabulary, wrong};
use crate::error::Result;

/// Stands for a space.
const SPACE: &str = "\u{2581}";
/// No vocabulary has pieces of more letters; a longer one would cost its square.
const MOST_LETTERS: usize = 512;

pub(super) fn build(vocabulary: &Vocabulary<'_>) -> Result<(Value, Around)> {
    let count = vocabulary.tokens.len();
    let scores =
        vocabulary.numbers("scores", count)?.ok_or_else(|| wrong("scores", "missing; pieces are joined by it"))?;
    let prefix = vocabulary.flag("add_space_prefix")?.unwrap_or(true);
    let vocab = vocabulary.vocab(|token, _| token.to_owned())?;
    let unknown = vocabulary.id(&["unknown_token_id"])?.map(|id| vocabulary.tokens[id].as_str());
    let bytes = vocabulary.types.iter().filter(|kind| **kind == Type::Byte).count() == 256;
    let begin = prefix.then(|| json!({"type": "Prepend", "prepend": SPACE}));
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    let strip = prefix.then(|| json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    let decoders = [
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    let tokenizer = json!({
        "normalizer": {"type": "Sequence", "normalizers": begin.into_iter().chain([replace]).collect::<Vec<_>>()},
        "pre_tokenizer": null,
        "decoder": {"type": "Sequence", "decoders": decoders.into_iter().chain(strip).collect::<Vec<_>>()},
        "model": {"type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": bytes, "ignore_merges": false,
            "vocab": vocab, "merges": merges(vocabulary, &scores)},
    });
    Ok((tokenizer, Around { bos: true, eos: false, pair: false }))
}

/// Every way to join two pieces to a third, the third with the highest score first.
fn merges(vocabulary: &Vocabulary<'_>, scores: &[f64]) -> Vec<Value> {
    let normal = |id: &usize| vocabulary.types[*id] == Type::Normal;
    let ids: Vec<usize> = (0..vocabulary.tokens.len()).filter(normal).collect();
    let pieces: HashMap<&str, usize> = ids.iter().map(|&id| (vocabulary.tokens[id].as_str(), id)).collect();
    let mut merges = vec![];
    for &id in &ids {
        let piece = vocabulary.tokens[id].as_str();
        let cuts = piece.char_indices().skip(1).map(|(at, _)| piece.split_at(at)).take(MOST_LETTERS);
        merges.extend(cuts.filter(|(a, b)| pieces.contains_key(a) && pieces.contains_key(b)).map(|cut| (id, cut)));
    }
    merges.sort_by(|(a, _), (b, _)| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    merges.into_iter().map(|(_, (left, right))| json!([left, right])).collect()
}

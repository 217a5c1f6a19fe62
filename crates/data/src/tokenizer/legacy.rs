//! Builds `tokenizer.json` for folders older than that file: GPT-2's and RoBERTa's vocabulary with merges, BERT's word list.

use serde_json::{Map, Value, json};

use super::files::{Files, kind};
use crate::error::{Error, Result};

/// Byte-level BPE files under the names of transformers and of OpenAI's release.
const BPE: [(&str, &str); 2] = [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")];

const HOW: &str = "convert it once with transformers: \
    python -c \"from transformers import AutoTokenizer as A; A.from_pretrained('DIR').save_pretrained('DIR')\"";

/// The bytes of a `tokenizer.json` equal in effect to the older files.
pub(super) fn build(files: &Files, config: &Map<String, Value>) -> Result<Vec<u8>> {
    let value = if let Some((vocab, merges)) = BPE.into_iter().find(|(vocab, _)| files.contains(vocab)) {
        byte_level_bpe(files, vocab, merges)?
    } else if files.contains("vocab.txt") {
        word_piece(files, config)?
    } else {
        return Err(refusal(files));
    };
    serde_json::to_vec_pretty(&value).map_err(|error| Error::format(&files.path("tokenizer.json"), error.to_string()))
}

fn refusal(files: &Files) -> Error {
    for name in ["tokenizer.model", "spiece.model", "sentencepiece.bpe.model"] {
        if let Some(bytes) = files.get(name) {
            // SentencePiece is a protobuf; tiktoken is lines of base64 and a rank.
            let what = if bytes.first() == Some(&0x0A) { "SentencePiece" } else { "tiktoken" };
            return Error::format(
                &files.path(name),
                format!("a {what} model without a tokenizer.json beside it cannot be read; {HOW}"),
            );
        }
    }
    Error::format(
        &files.path(""),
        "no tokenizer here: expected tokenizer.json, or vocab.json with merges.txt, or vocab.txt",
    )
}

/// GPT-2, or RoBERTa when the vocabulary has RoBERTa's five special tokens.
fn byte_level_bpe(files: &Files, vocab_name: &str, merges_name: &str) -> Result<Value> {
    let vocab = files.object(vocab_name)?.unwrap_or_default();
    for (token, id) in &vocab {
        if id.as_u64().is_none_or(|id| id > u64::from(u32::MAX)) {
            return Err(Error::format(
                &files.path(vocab_name),
                format!("token `{token}` should have a whole number as its id, found {}", kind(id)),
            ));
        }
    }
    if vocab.keys().any(|token| token.len() > 4 && token.ends_with("</w>")) {
        return Err(Error::format(
            &files.path(vocab_name),
            format!("this vocabulary marks the ends of words (`</w>`) and is not byte-level; {HOW}"),
        ));
    }
    let text = files.text(merges_name)?.ok_or_else(|| {
        Error::format(&files.path(merges_name), format!("missing: {vocab_name} needs the merges that go with it"))
    })?;
    let mut merges = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || (number == 0 && line.starts_with("#version")) {
            continue;
        }
        match line.split_once(' ') {
            Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => {
                merges.push(json!([left, right]));
            }
            _ => {
                return Err(Error::format(
                    &files.path(merges_name),
                    format!("line {}: expected two pieces and one space, found `{line}`", number + 1),
                ));
            }
        }
    }
    let id = |token: &str| vocab.get(token).and_then(Value::as_u64);
    let roberta = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"];
    let (added, post_processor) = match (id("<s>"), id("</s>")) {
        (Some(cls), Some(sep)) if roberta.iter().all(|token| id(token).is_some()) => {
            let added: Vec<Value> = roberta
                .iter()
                // `<mask>` swallows the space before it, as in "a <mask> b".
                .map(|token| added_token(token, id(token), *token == "<mask>"))
                .collect();
            let post = json!({"type": "RobertaProcessing", "sep": ["</s>", sep], "cls": ["<s>", cls],
                "trim_offsets": true, "add_prefix_space": false});
            (added, post)
        }
        _ => {
            let end = "<|endoftext|>";
            let added = id(end).map(|_| added_token(end, id(end), false));
            (added.into_iter().collect(), byte_level())
        }
    };
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": byte_level(),
        "post_processor": post_processor,
        "decoder": byte_level(),
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges},
    }))
}

pub(super) fn byte_level() -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true})
}

/// BERT: lower-casing and accent stripping as the configuration says (both on when it says nothing).
fn word_piece(files: &Files, config: &Map<String, Value>) -> Result<Value> {
    let text = files.text("vocab.txt")?.unwrap_or_default();
    let mut vocab = Map::new();
    for (id, line) in text.lines().enumerate() {
        let token = line.trim_end();
        if let Some(first) = vocab.insert(token.to_owned(), json!(id)) {
            return Err(Error::format(
                &files.path("vocab.txt"),
                format!("line {}: token `{token}` stands already in line {}", id + 1, first.as_u64().unwrap_or(0) + 1),
            ));
        }
    }
    let named = |role: &str, default: &str| match config.get(role) {
        Some(Value::String(token)) => token.clone(),
        Some(Value::Object(token)) => token.get("content").and_then(Value::as_str).unwrap_or(default).to_owned(),
        _ => default.to_owned(),
    };
    let roles = [
        ("pad_token", "[PAD]"),
        ("unk_token", "[UNK]"),
        ("cls_token", "[CLS]"),
        ("sep_token", "[SEP]"),
        ("mask_token", "[MASK]"),
    ];
    let mut added = Vec::new();
    for (role, default) in roles {
        let token = named(role, default);
        let id = vocab.get(&token).and_then(Value::as_u64).ok_or_else(|| {
            Error::format(
                &files.path("vocab.txt"),
                format!("BERT's {role} `{token}` is not among its {} lines", vocab.len()),
            )
        })?;
        added.push(added_token(&token, Some(id), false));
    }
    let (cls, sep) = (named("cls_token", "[CLS]"), named("sep_token", "[SEP]"));
    let flag = |key: &str, default: Option<bool>| config.get(key).map_or(default, Value::as_bool);
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true,
            "handle_chinese_chars": flag("tokenize_chinese_chars", Some(true)),
            "strip_accents": flag("strip_accents", None),
            "lowercase": flag("do_lower_case", Some(true))},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": [sep, vocab.get(&sep)], "cls": [cls, vocab.get(&cls)]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": named("unk_token", "[UNK]"),
            "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocab},
    }))
}

pub(super) fn added_token(text: &str, id: Option<u64>, lstrip: bool) -> Value {
    json!({"id": id, "content": text, "single_word": false, "lstrip": lstrip, "rstrip": false,
        "normalized": false, "special": true})
}

//! Tokenizers for tests: small, with tokens that cross every border of JSON and that split characters.

use std::collections::BTreeMap;

use candle_core::Device;
use phyla_data::tokenizer::Tokenizer;
use phyla_models::{Model, fresh};
use serde_json::{Map, Value, json};

/// What ends a sequence.
pub const END: u32 = 0;

/// A tokenizer and a model whose table is larger.
pub struct Tokens {
    pub tokenizer: Tokenizer,
    pub model: Model,
    /// Ids that end strings, lists, objects.
    pub closing: Vec<u32>,
}

/// Texts of more than one byte; some end within a character.
const LONGER: &[&[u8]] = &[
    b"{\"",
    b"\":",
    b"\": ",
    b"\",\"",
    b"\",",
    b"\"}",
    b"\"]",
    b"},{",
    b"}}",
    b"]}",
    b"[{\"",
    b":\"",
    b": [",
    b"\":{\"",
    b"\":\"",
    b"true",
    b"tru",
    b"e,",
    b"false",
    b"null",
    b"null}",
    b"12",
    b"0.",
    b"-1",
    b"5,",
    b"7}",
    b"\"a",
    b"na",
    b"name\"",
    b" \"",
    b"  ",
    b"\n  ",
    b"\\\"",
    b"\\n",
    b"ab",
    b"xyz",
    b"2024-",
    b":00",
    b"@b.",
    b"\xc3\xa9",
    b"\xe6\x97",
    b"\xa9\"",
    b"\x97\xa5",
    b"\xf0\x9f\x98",
    b"\"\xc3",
    b"1]",
    b"1,2",
    b"(1",
    b"+1",
    b")*(",
    b"::",
    b"-0",
];

/// GPT-2's characters for bytes.
fn character(byte: u8) -> char {
    let plain = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..);
    let code = if plain(byte) { byte.into() } else { 256 + (0..byte).filter(|&b| !plain(b)).count() as u32 };
    char::from_u32(code).unwrap()
}

/// Tokens of bytes.
pub fn byte_level() -> Tokens {
    let bytes = (0..=255u8).map(|byte| vec![byte]).chain(LONGER.iter().map(|text| text.to_vec()));
    let mut words: Vec<String> = vec!["<|end|>".into(), "<|pad|>".into()];
    words.extend(bytes.map(|bytes| bytes.into_iter().map(character).collect::<String>()));
    let decoder = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    built(words, decoder, &["\"", "}", "]", "\"}", "\",", "\"]", "]}", "}}", "\":"])
}

/// Pieces with marks for spaces, and bytes for what no piece spells. The beginning of a text loses a space.
pub fn pieces() -> Tokens {
    let mut words: Vec<String> = vec!["</s>".into(), "<s>".into()];
    words.extend((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
    words.extend((b'!'..=b'~').map(|byte| char::from(byte).to_string()));
    words.extend(
        ["▁", "▁{\"", "\":▁", "▁yes", "yes", "▁\"", "né", "▁12", "\"}", "\",▁\"", "▁no", "▁▁"].map(String::from),
    );
    let decoder = json!({ "type": "Sequence", "decoders": [
        { "type": "Replace", "pattern": { "String": "▁" }, "content": " " }, { "type": "ByteFallback" },
        { "type": "Fuse" }, { "type": "Strip", "content": " ", "start": 1, "stop": 0 }
    ] });
    built(words, decoder, &["\"", "}", "]", "\"}"])
}

/// Characters, and no others than these.
pub fn characters(of: &str) -> Tokens {
    let words = std::iter::once("<end>".to_owned()).chain(of.chars().map(String::from)).collect();
    built(words, json!({ "type": "Fuse" }), &[])
}

fn built(words: Vec<String>, decoder: Value, closing: &[&str]) -> Tokens {
    let vocab: Map<String, Value> = words.iter().enumerate().map(|(id, word)| (word.clone(), id.into())).collect();
    assert_eq!(vocab.len(), words.len());
    let special = |id: usize| {
        json!({ "id": id, "content": words[id], "special": true, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false })
    };
    let specials = if words[1].len() > 1 { vec![special(0), special(1)] } else { vec![special(0)] };
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": decoder, "added_tokens": specials,
        "model": { "type": "BPE", "vocab": vocab, "merges": [], "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "dropout": null },
    });
    let files = BTreeMap::from([("tokenizer.json".to_owned(), json.to_string().into_bytes())]);
    let tokenizer = Tokenizer::from_memory(files).unwrap();
    let closing = closing.iter().map(|text| tokenizer.token_to_id(text).unwrap()).collect();
    // Ids beyond the tokenizer's, as in many checkpoints.
    let model = model(words.len() + 11, 7);
    Tokens { tokenizer, model, closing }
}

/// A tiny decoder with random weights.
pub fn model(vocab: usize, seed: u64) -> Model {
    let config = json!({
        "model_type": "llama", "vocab_size": vocab, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 4096, "initializer_range": 0.4,
    });
    fresh(config.as_object().unwrap(), seed, &Device::Cpu).unwrap()
}

//! Tokenizers from the metadata of GGUF files: small ones made here, and llama.cpp's own where they are there.

use std::path::Path;

use phyla_data::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};

use crate::shared::{cases, shared};
use crate::streams::check;

fn metadata(value: Value) -> Map<String, Value> {
    let keys = value.as_object().unwrap().clone().into_iter();
    keys.map(|(key, value)| (format!("tokenizer.{key}"), value)).collect()
}

/// Pieces with scores, bytes among them.
fn pieces(more: Value) -> Map<String, Value> {
    let mut tokens = vec![json!("<unk>"), json!("<s>"), json!("</s>")];
    tokens.extend((0..256).map(|byte| json!(format!("<0x{byte:02X}>"))));
    tokens.extend(["▁", "a", "b", "c", "ab", "bc", "▁a", "▁ab", "abc", "<tool>"].map(|piece| json!(piece)));
    let mut types = vec![2, 3, 3];
    types.extend([6; 256]);
    types.extend([1, 1, 1, 1, 1, 1, 1, 1, 1, 4]);
    let mut scores = vec![0.; 259];
    scores.extend([-10., -11., -12., -13., -2., -1., -3., -4., -5., 0.]);
    let mut keys = metadata(json!({
        "ggml.model": "llama", "ggml.tokens": tokens, "ggml.token_type": types, "ggml.scores": scores,
        "ggml.bos_token_id": 1, "ggml.eos_token_id": 2, "ggml.unknown_token_id": 0, "ggml.padding_token_id": -1,
        "chat_template": "{{ bos_token }}{{ messages[0].content }}",
    }));
    keys.extend(metadata(more));
    keys
}

#[test]
fn pieces_join_by_their_scores() {
    let tokenizer = Tokenizer::from_gguf(&pieces(json!({}))).unwrap();
    let of = |text: &str| -> Vec<String> {
        let ids = tokenizer.encode(text, false).unwrap();
        assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
        ids.iter().map(|&id| tokenizer.id_to_token(id).unwrap()).collect()
    };
    // `bc` scores above `ab`, and `▁ab` is out of reach then.
    assert_eq!(of("abc"), ["▁a", "bc"]);
    assert_eq!(of("ab"), ["▁ab"]);
    assert_eq!(of("b é"), ["▁", "b", "▁", "<0xC3>", "<0xA9>"]);
    assert_eq!(tokenizer.encode("a<tool>", true).unwrap(), [1, 265, 268]);
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.pad()), (Some(1), Some(2), None));
    assert!(!tokenizer.is_special(268) && tokenizer.is_special(1));
    assert!(tokenizer.templates().source("default").unwrap().starts_with("{{ bos_token }}"));
    let plain = json!({"ggml.add_space_prefix": false, "ggml.add_bos_token": false, "ggml.add_eos_token": true});
    let tokenizer = Tokenizer::from_gguf(&pieces(plain)).unwrap();
    assert_eq!(tokenizer.encode("ab", true).unwrap(), [263, 2]);
}

#[test]
fn words_are_marked_where_they_begin() {
    let tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "▁play", "ing", "▁ing", "▁!"];
    let keys = json!({
        "ggml.model": "bert", "ggml.tokens": tokens, "ggml.token_type": [3, 2, 3, 3, 3, 1, 1, 1, 1],
        "ggml.unknown_token_id": 1, "ggml.seperator_token_id": 3, "ggml.cls_token_id": 2, "ggml.mask_token_id": 4,
    });
    let tokenizer = Tokenizer::from_gguf(&metadata(keys)).unwrap();
    assert_eq!(tokenizer.encode("Playing! ing xyz", true).unwrap(), [2, 5, 6, 8, 7, 1, 3]);
    let (ids, kinds) = tokenizer.encode_pair("play", "ing", true).unwrap();
    assert_eq!((ids.as_slice(), kinds.as_slice()), ([2, 5, 3, 7, 3].as_slice(), [0, 0, 0, 1, 1].as_slice()));
    assert_eq!(tokenizer.mask(), Some(4));
}

#[test]
fn what_is_wrong_is_named_by_its_key() {
    let bytes = json!({"ggml.model": "gpt2", "ggml.tokens": ["a", "b", "ab"], "ggml.merges": ["a b"]});
    let with = |key: &str, value: Value| {
        let mut keys = bytes.clone();
        keys[key] = value;
        Tokenizer::from_gguf(&metadata(keys))
    };
    assert_eq!(with("ggml.pre", json!("gpt-2")).unwrap().encode("ab", false).unwrap(), [2]);
    for (key, value, expected) in [
        ("ggml.model", json!("rwkv"), "tokenizer.ggml.model: \"rwkv\" is not known; known are"),
        ("ggml.pre", json!("new"), "tokenizer.ggml.pre: \"new\" is not known"),
        ("ggml.tokens", json!(["a", "b", "a"]), "tokenizer.ggml.tokens: tokens 0 and 2 are both \"a\""),
        ("ggml.tokens", json!(["a", 1]), "tokenizer.ggml.tokens: token 1 is not a string"),
        ("ggml.tokens", json!("a"), "tokenizer.ggml.tokens: expected a list"),
        ("ggml.token_type", json!([1]), "tokenizer.ggml.token_type: expected one for each of 3 tokens, found 1"),
        ("ggml.token_type", json!([1, 2, 7]), "tokenizer.ggml.token_type: 7 is no type"),
        ("ggml.merges", json!(["ab"]), "tokenizer.ggml.merges: line 0 is \"ab\""),
        ("ggml.add_bos_token", json!(true), "tokenizer.ggml.bos_token_id: missing"),
        ("ggml.add_bos_token", json!(1), "tokenizer.ggml.add_bos_token: expected true or false"),
        ("ggml.eos_token_id", json!("a"), "tokenizer.ggml.eos_token_id: expected a token's number"),
    ] {
        let error = with(key, value).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// The metadata of a file, for tests: the real reader stands in a crate above this one.
fn read(path: &Path) -> Map<String, Value> {
    struct Reader(Vec<u8>, usize);
    impl Reader {
        fn take<const N: usize>(&mut self) -> [u8; N] {
            self.1 += N;
            self.0[self.1 - N..self.1].try_into().unwrap()
        }
        fn text(&mut self) -> String {
            let length = u64::from_le_bytes(self.take()) as usize;
            self.1 += length;
            String::from_utf8_lossy(&self.0[self.1 - length..self.1]).into_owned()
        }
        fn value(&mut self, kind: u32) -> Value {
            match kind {
                4 => json!(u32::from_le_bytes(self.take())),
                5 => json!(i32::from_le_bytes(self.take())),
                6 => json!(f32::from_le_bytes(self.take())),
                7 => json!(self.take::<1>()[0] != 0),
                8 => json!(self.text()),
                9 => {
                    let (kind, length) = (u32::from_le_bytes(self.take()), u64::from_le_bytes(self.take()));
                    (0..length).map(|_| self.value(kind)).collect()
                }
                other => unreachable!("type {other}"),
            }
        }
    }
    // After the magic, the version and the number of tensors.
    let mut reader = Reader(std::fs::read(path).unwrap(), 16);
    let pairs = u64::from_le_bytes(reader.take());
    let pair = |_| {
        let (key, kind) = (reader.text(), u32::from_le_bytes(reader.take()));
        (key, reader.value(kind))
    };
    (0..pairs).map(pair).collect()
}

#[test]
fn files_of_llama_cpp_give_its_ids() {
    let Some(folder) = shared("gguf_vocab") else { return };
    let mut wrong = vec![];
    for case in ["gpt-2", "deepseek-llm", "deepseek-coder", "falcon", "starcoder", "llama-spm", "phi-3", "bert-bge"] {
        let path = folder.join(format!("ggml-vocab-{case}.gguf"));
        let start = std::time::Instant::now();
        let tokenizer = Tokenizer::from_gguf(&read(&path)).unwrap();
        let took = start.elapsed();
        let file = |ending: &str| folder.join(format!("ggml-vocab-{case}.gguf.{ending}"));
        let (mut same, mut all) = (0, 0);
        for (text, expected) in cases(&file("inp"), &file("out")) {
            let ids = tokenizer.encode(&text, false).unwrap();
            all += 1;
            same += usize::from(ids == expected);
            if ids != expected {
                wrong.push(format!("{case}: {text:?}: {ids:?} for {expected:?}"));
            } else if case != "bert-bge" && !ids.is_empty() {
                check(&tokenizer, &ids);
            }
        }
        println!("{case}: {same} of {all}, made in {took:?}");
        assert!(all > 40);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

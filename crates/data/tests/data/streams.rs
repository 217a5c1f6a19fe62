//! Text from ids one at a time against text from all ids at once.

use phyla_data::stream::StreamDecoder;
use phyla_data::tokenizer::{BpeSettings, Tokenizer};

use crate::{TEXT, memory, small};

/// Streams ids and checks that the whole is what decoding at once gives, and that no piece holds half a character.
pub fn check(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    let mut stream = StreamDecoder::new(tokenizer, false);
    let mut pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    pieces.push(stream.finish().unwrap());
    assert_eq!(pieces.concat(), tokenizer.decode(ids, false).unwrap());
    pieces
}

#[test]
fn byte_level_text_streams_without_half_characters() {
    // No merges, so every byte is a token of its own.
    for vocab_size in [257, 300, 600] {
        let tokenizer = small(BpeSettings { vocab_size, ..BpeSettings::default() });
        let ids = tokenizer.encode(TEXT, false).unwrap();
        let pieces = check(&tokenizer, &ids);
        assert!(pieces.iter().all(|piece| !piece.contains('\u{FFFD}')));
        // Held back no longer than a character lasts.
        let longest = pieces.split(|piece| !piece.is_empty()).map(<[String]>::len).max().unwrap();
        assert!(longest <= 3, "{longest}");
    }
}

#[test]
fn text_cut_inside_a_character_ends_as_decoding_ends_it() {
    let tokenizer = small(BpeSettings { vocab_size: 257, ..BpeSettings::default() });
    let ids = tokenizer.encode("a👍b👍", false).unwrap();
    for end in 0..ids.len() {
        check(&tokenizer, &ids[..end]);
    }
}

#[test]
fn bytes_that_are_no_text_come_out_as_decoding_has_them() {
    let tokenizer = small(BpeSettings { vocab_size: 300, ..BpeSettings::default() });
    let mut rng = phyla_kernels::rng::Rng::new(5);
    for length in 0..200 {
        let ids: Vec<u32> = (0..length).map(|_| rng.below(tokenizer.vocab_size() as u64) as u32).collect();
        check(&tokenizer, &ids);
    }
}

#[test]
fn a_replacement_character_in_the_text_is_text() {
    let tokenizer = small(BpeSettings { vocab_size: 257, ..BpeSettings::default() });
    let ids = tokenizer.encode("a\u{FFFD}b\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}\u{FFFD}c", false).unwrap();
    check(&tokenizer, &ids);
}

/// The shape of Llama 2's: a space before the first word, spaces as `▁`, unknown characters as bytes.
pub fn sentence_piece() -> Tokenizer {
    let mut vocab: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    vocab.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    vocab.extend(["▁", "a", "b", "▁a", "▁b", "ab", "▁ab", "你"].map(str::to_owned));
    let vocab: serde_json::Map<_, _> = vocab.into_iter().zip((0..).map(serde_json::Value::from)).collect();
    let added = ["<unk>", "<s>", "</s>"].into_iter().zip(0..).map(|(content, id)| {
        serde_json::json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    });
    let added: Vec<_> = added.collect();
    let json = serde_json::json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": null,
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "vocab": vocab,
            "merges": ["▁ a", "▁ b", "a b", "▁ ab"]},
    });
    let config = r#"{"bos_token": "<s>", "eos_token": {"content": "</s>", "special": true}, "unk_token": "<unk>"}"#;
    memory(&[("tokenizer.json", &json.to_string()), ("tokenizer_config.json", config)]).unwrap()
}

#[test]
fn sentence_piece_keeps_its_spaces_and_falls_back_to_bytes() {
    let tokenizer = sentence_piece();
    for text in ["ab a b", "a 你好 b", "👍👍 ab", "  a  b ", "好好", ""] {
        let ids = tokenizer.encode(text, true).unwrap();
        assert_eq!(ids[0], 1);
        assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
        let pieces = check(&tokenizer, &ids);
        assert!(pieces.iter().all(|piece| !piece.contains('\u{FFFD}')), "{pieces:?}");
    }
    // Longer than the window, so that it is shortened inside a text.
    let text = "ab 好 ".repeat(40);
    check(&tokenizer, &tokenizer.encode(text.trim_end(), false).unwrap());
}

#[test]
fn skipped_special_tokens_leave_no_trace() {
    let tokenizer = sentence_piece();
    let mut ids = tokenizer.encode("ab b", true).unwrap();
    ids.push(2);
    let mut stream = StreamDecoder::new(std::sync::Arc::new(tokenizer), true);
    let text: String = ids.into_iter().map(|id| stream.push(id).unwrap()).collect();
    assert_eq!(text + &stream.finish().unwrap(), "ab b");
    assert!(stream.push(100_000).unwrap_err().to_string().contains("no token has id 100000"));
}

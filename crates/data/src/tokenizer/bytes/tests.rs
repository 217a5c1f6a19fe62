//! The bytes of tokens, against what decoders make of them.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;

fn built(decoder: Value, tokens: &[&str]) -> Tokenizer {
    let vocab: serde_json::Map<String, Value> =
        tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), id.into())).collect();
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": decoder,
        "added_tokens": [{ "id": 0, "content": tokens[0], "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false }],
        "model": { "type": "BPE", "vocab": vocab, "merges": [], "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "dropout": null },
    });
    Tokenizer::from_memory(BTreeMap::from([("tokenizer.json".into(), json.to_string().into_bytes())])).unwrap()
}

/// The bytes of any tokens in a row are the text of all of them, behind a word.
fn agrees(tokenizer: &Tokenizer, seed: u64) {
    let bytes = tokenizer.token_bytes().unwrap();
    let ids: Vec<u32> = (0..tokenizer.vocab_size() as u32).filter(|id| tokenizer.id_to_token(*id).is_some()).collect();
    let mut rng = phyla_kernels::rng::Rng::new(seed);
    for _ in 0..400 {
        let word = ids.iter().find(|&&id| bytes[id as usize].ends_with(b"a") || bytes[id as usize].ends_with(b"d"));
        let draws = (0..12).map(|_| ids[rng.below(ids.len() as u64) as usize]);
        let run: Vec<u32> = word.copied().into_iter().chain(draws).collect();
        let joined: Vec<u8> = run.iter().flat_map(|&id| bytes[id as usize].clone()).collect();
        // Bytes that are no text become as many signs as the decoder likes: compared are runs that are text.
        let Ok(joined) = String::from_utf8(joined) else { continue };
        let text = tokenizer.decode_raw(&run, true).unwrap();
        assert!(text == joined || Some(text.as_str()) == joined.strip_prefix(' '), "{run:?}: {text:?} for {joined:?}");
    }
}

#[test]
fn characters_of_byte_level_tokens_are_bytes() {
    let tokenizer = built(
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true }),
        &["<end>", "a", "Ġa", "Ċ", "Ã", "©", "ĠÃ©", "ÿ", "Ā", "Ń", "日"],
    );
    let bytes = tokenizer.token_bytes().unwrap();
    let expected: [&[u8]; 11] =
        [b"", b"a", b" a", b"\n", b"\xc3", b"\xa9", b" \xc3\xa9", b"\xff", b"\0", b"\xad", "日".as_bytes()];
    assert_eq!(bytes, expected);
    agrees(&tokenizer, 1);
}

#[test]
fn sentence_pieces_have_spaces_and_single_bytes() {
    let tokenizer = built(
        json!({ "type": "Sequence", "decoders": [
            { "type": "Replace", "pattern": { "String": "▁" }, "content": " " }, { "type": "ByteFallback" },
            { "type": "Fuse" }, { "type": "Strip", "content": " ", "start": 1, "stop": 0 }
        ] }),
        &["</s>", "▁a", "a▁▁b", "<0x0A>", "<0xE6>", "<0x0AB>", "日", "<0xZZ>"],
    );
    let bytes = tokenizer.token_bytes().unwrap();
    let expected: [&[u8]; 8] = [b"", b" a", b"a  b", b"\n", b"\xe6", b"<0x0AB>", "日".as_bytes(), b"<0xZZ>"];
    assert_eq!(bytes, expected);
    agrees(&tokenizer, 2);
    let tokenizer = built(
        json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true }),
        &["</s>", "▁a", "b", "▁"],
    );
    assert_eq!(tokenizer.token_bytes().unwrap(), [&b""[..], b" a", b"b", b" "]);
    agrees(&tokenizer, 3);
}

#[test]
fn word_pieces_stand_behind_spaces_and_signs_do_not() {
    for (cleanup, dot) in [(true, "."), (false, " .")] {
        let decoder = json!({ "type": "WordPiece", "prefix": "##", "cleanup": cleanup });
        let tokenizer = built(decoder, &["[SEP]", "word", "##s", ".", "##"]);
        assert_eq!(tokenizer.token_bytes().unwrap(), [&b""[..], b" word", b"s", dot.as_bytes(), b""]);
        agrees(&tokenizer, 4);
    }
}

#[test]
fn tokens_whose_text_depends_on_others_have_no_bytes() {
    for (decoder, why) in [
        (Value::Null, "no decoder"),
        (json!({ "type": "BPEDecoder", "suffix": "</w>" }), "BPEDecoder"),
        (json!({ "type": "CTC", "pad_token": "_", "word_delimiter_token": "|", "cleanup": true }), "CTC"),
        (json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }), "Strip"),
    ] {
        let error = built(decoder, &["</s>", "a"]).token_bytes().unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn real_tokenizers_say_what_their_bytes_are() {
    let data = std::env::var("PHYLA_SHARED_DATA")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data").into());
    let data = PathBuf::from(data).join("tokenizers");
    let mut found = 0;
    for name in ["llama2", "phi-3", "minimind", "roberta-base", "bert-base-uncased"] {
        if let Ok(tokenizer) = Tokenizer::load(data.join(name)) {
            agrees(&tokenizer, 5);
            found += 1;
        }
    }
    if found == 0 {
        println!("skipped: no tokenizers in {}", data.display());
    }
}

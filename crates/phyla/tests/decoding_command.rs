//! `generate` with the settings of decoding, each by its own name, from a file, or both.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/tiny.rs"]
mod tiny;

use std::fs;
use std::path::Path;

use common::{matches_snapshot, phyla, said, transcript};
use serde_json::{Value, json};
use tiny::tiny_decoder;

const GENERATE: [&str; 5] = ["generate", "--model", "model", "--ids", "7,3,9,7,3,9,7,3"];

/// What comes of these settings.
fn answer(folder: &Path, settings: &[&str]) -> Value {
    serde_json::from_str(&said(folder, &[&GENERATE, settings, &["--json"]].concat())).unwrap()
}

#[test]
fn every_setting_is_an_option_and_a_file_may_hold_any() {
    let folder = tiny_decoder();
    let path = folder.path();
    let ids = |settings: &[&str]| answer(path, &[&["--max-new-tokens", "24"], settings].concat())["sequences"].clone();
    let plain = ids(&[]);
    assert_eq!(plain[0]["ids"].as_array().unwrap().len(), 24);
    // Lists, switches with and without a word, numbers below zero.
    let first = plain[0]["ids"][0].to_string();
    for (settings, changes) in [
        (vec!["--suppress-tokens", first.as_str()], true),
        (vec!["--suppress-tokens", "58,59", "--bad-words-ids", "[[59],[58,1]]"], false),
        (vec!["--do-sample", "--temperature", "2", "--seed", "4"], true),
        (vec!["--do-sample", "false", "--temperature", "2"], false),
        (vec!["--frequency-penalty", "-0.0"], false),
        (vec!["--presence-penalty", "3.5", "--no-repeat-ngram-size", "2"], true),
        (vec!["--exponential-decay-length-penalty", "3,1.5"], false),
        (vec!["--typical-p", "0.4", "--top-h", "0.5", "--eta-cutoff", "0.1"], true),
        (vec!["--cache-dtype", "f16", "--cache-implementation", "static"], false),
        (vec!["--deterministic", "--remove-invalid-values"], false),
    ] {
        assert_eq!(ids(&settings) != plain, changes, "{settings:?}");
    }
    // A file, and an option that goes before it.
    let file = json!({ "max_new_tokens": 5, "do_sample": true, "top_k": 0, "temperature": 1.5 });
    fs::write(path.join("settings.json"), file.to_string()).unwrap();
    let from_file = answer(path, &["--generation-config", "settings.json"])["sequences"].clone();
    assert_eq!(from_file[0]["ids"].as_array().unwrap().len(), 5);
    let both = answer(path, &["--generation-config", "settings.json", "--max-new-tokens", "3"])["sequences"].clone();
    assert_eq!(both[0]["ids"].as_array().unwrap()[..], from_file[0]["ids"].as_array().unwrap()[..3]);
}

#[test]
fn guesses_change_no_id_and_are_counted() {
    let folder = tiny_decoder();
    let path = folder.path();
    let run = |settings: &[&str]| answer(path, &[&["--max-new-tokens", "60"], settings].concat());
    let plain = run(&[]);
    assert_eq!(plain["speculation"], json!({ "drafted": 0, "accepted": 0, "passes": 59 }));
    let counted = ["--ngram-cache", "n.grams"];
    for settings in [
        &["--prompt-lookup-num-tokens", "6"][..],
        &["--assistant-model", "model"],
        &["--assistant-early-exit", "1"],
        &counted,
    ] {
        let guessed = run(settings);
        assert_eq!(guessed["sequences"], plain["sequences"], "{settings:?}");
        assert!(guessed["speculation"]["drafted"].as_u64().unwrap() > 0, "{settings:?}");
    }
    let twin = run(&["--assistant-model", "model"]);
    assert!(twin["speculation"]["accepted"].as_u64().unwrap() > 5, "{twin}");
    // The file has learnt the answer.
    assert!(run(&counted)["speculation"]["passes"].as_u64().unwrap() < 30);
    fs::write(path.join("n.grams"), "nonsense").unwrap();
    let output = phyla(path, &[&GENERATE[..], &counted].concat());
    assert!(String::from_utf8(output.stderr).unwrap().contains("this is no file of n-grams"));
}

/// A folder with a tiny decoder and a tokenizer of bytes.
fn folder_with_tokens() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "model_type": "llama", "vocab_size": 270, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
        "num_attention_heads": 1, "num_key_value_heads": 1, "max_position_embeddings": 400, "initializer_range": 0.3,
        "eos_token_id": 256,
    });
    fs::write(folder.path().join("c.json"), config.to_string()).unwrap();
    said(folder.path(), &["init", "--config", "c.json", "--output", "model", "--seed", "5"]);
    let mut vocab: serde_json::Map<String, Value> = (0..256).map(|id| (format!("<0x{id:02X}>"), id.into())).collect();
    vocab.insert("</s>".into(), 256.into());
    vocab.insert("yes".into(), 257.into());
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": { "type": "Sequence", "decoders": [{ "type": "ByteFallback" }, { "type": "Fuse" }] },
        "added_tokens": [{ "id": 256, "content": "</s>", "special": true, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false }],
        "model": { "type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": true },
    });
    fs::write(folder.path().join("model/tokenizer.json"), tokenizer.to_string()).unwrap();
    folder
}

#[test]
fn answers_are_what_is_asked_for() {
    let folder = folder_with_tokens();
    let path = folder.path();
    let schema = json!({ "type": "object", "additionalProperties": false, "required": ["n"], "properties": {
        "n": { "type": "integer", "minimum": 10, "maximum": 99 } } });
    fs::write(path.join("schema.json"), schema.to_string()).unwrap();
    fs::write(path.join("sums.lark"), "start: N \"+\" N\nN: /[0-9]/\n").unwrap();
    fs::write(path.join("settings.json"), json!({ "choice": ["no"], "max_new_tokens": 20 }).to_string()).unwrap();
    let run = |settings: &[&str]| {
        let sampled = ["--do-sample", "--seed", "3", "--max-new-tokens", "60"];
        let answer = answer(path, &[&sampled[..], settings].concat());
        assert!(
            answer["timings"]["masks"].as_u64().unwrap() > 0 && answer["timings"]["per_mask"].as_f64().unwrap() > 0.
        );
        assert_eq!(answer["sequences"][0]["complete"], true, "{settings:?}");
        answer["sequences"][0]["text"].as_str().unwrap().to_owned()
    };
    for schema in ["schema.json", &schema.to_string()] {
        let document: Value = serde_json::from_str(&run(&["--json-schema", schema])).unwrap();
        assert!((10..=99).contains(&document["n"].as_i64().unwrap()), "{document}");
    }
    let object = run(&["--json-object", "--sequence-bias", "[[[125],30]]"]);
    assert!(serde_json::from_str::<Value>(&object).unwrap().is_object());
    assert!(["yes", "né"].contains(&run(&["--choice", "yes", "--choice", "né"]).as_str()));
    assert_eq!(run(&["--regex", "a{3}"]), "aaa");
    assert_eq!(run(&["--grammar", "sums.lark"]).len(), 3);
    // An option goes before a file's.
    assert_eq!(run(&["--generation-config", "settings.json"]), "no");
    assert_eq!(run(&["--generation-config", "settings.json", "--regex", "b"]), "b");
    // One that is cut off is told.
    let output = phyla(path, &[&GENERATE[..], &["--regex", "a{30}", "--max-new-tokens", "4", "--json"]].concat());
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&answer["sequences"][0]["complete"], &answer["sequences"][0]["finish_reason"]),
        (&json!(false), &json!("length"))
    );
    let warning = String::from_utf8(output.stderr).unwrap();
    assert!(warning.contains("1 of 1 answers are cut off (length)"), "{warning}");
}

#[test]
fn a_prompt_cache_spares_what_was_read() {
    let folder = tiny_decoder();
    let path = folder.path();
    let ids = |more: &[u32]| -> String {
        let all = (0..40).map(|i| i * 7 % 53).chain(more.iter().copied());
        all.map(|id| id.to_string()).collect::<Vec<_>>().join(",")
    };
    let run = |ids: &str, more: &[&str]| -> (Value, u64) {
        let args = [&["generate", "--model", "model", "--ids", ids, "--max-new-tokens", "6", "--json"], more].concat();
        let answer: Value = serde_json::from_str(&said(path, &args)).unwrap();
        (answer["sequences"].clone(), answer["prompt_ids_read"].as_u64().unwrap())
    };
    let cache = ["--prompt-cache", "p.cache"];
    let ro = [&cache[..], &["--prompt-cache-ro"]].concat();
    let output = phyla(path, &[&["generate", "--model", "model", "--ids", "1"], &ro[..]].concat());
    assert!(String::from_utf8(output.stderr).unwrap().contains("there is no prompt cache `p.cache`"));
    let (plain, _) = run(&ids(&[1]), &[]);
    assert_eq!(run(&ids(&[1]), &cache), (plain.clone(), 41));
    assert_eq!(run(&ids(&[1]), &cache), (plain.clone(), 1));
    // Another end: it is read, and not kept where the file is only read.
    let (other, _) = run(&ids(&[2, 3]), &[]);
    assert_eq!(run(&ids(&[2, 3]), &ro), (other.clone(), 2));
    assert_eq!(run(&ids(&[2, 3]), &ro), (other, 2));
    // With the answer, but for its last id, which nobody has read.
    let answer: Vec<u32> = serde_json::from_value(plain[0]["ids"].clone()).unwrap();
    let all = [&cache[..], &["--prompt-cache-all"]].concat();
    assert_eq!(run(&ids(&[1]), &all), (plain, 1));
    assert_eq!(run(&ids(&[&[1], &answer[..], &[9]].concat()), &all).1, 2);
    // Another model's, and one that is cut.
    let other = ["init", "--config", "c.json", "--output", "other", "--seed", "6"];
    said(path, &other);
    let output = phyla(path, &[&["generate", "--model", "other", "--ids", "1"], &cache[..]].concat());
    assert!(String::from_utf8(output.stderr).unwrap().contains("another model has written it"));
    let bytes = fs::read(path.join("p.cache")).unwrap();
    fs::write(path.join("p.cache"), &bytes[..bytes.len() / 2]).unwrap();
    let output = phyla(path, &[&GENERATE[..], &cache].concat());
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("in the middle of its pages"));
    assert_eq!(fs::read(path.join("p.cache")).unwrap().len(), bytes.len() / 2, "it is left as it was");
}

#[test]
fn a_bench_tells_what_the_cache_holds() {
    let folder = tiny_decoder();
    let path = folder.path();
    let bytes = |more: &[&str]| -> [u64; 2] {
        let args = ["bench", "decode", "--model", "model", "--prompt-tokens", "70", "--new-tokens", "100", "--json"];
        let told: Value = serde_json::from_str(&said(path, &[&args, more].concat())).unwrap();
        ["cache_bytes", "cache_bytes_most"].map(|name| told[name].as_u64().unwrap())
    };
    // Keys and values of 64 positions in two layers, of 32 numbers.
    let page = 2 * 2 * 64 * 32;
    assert_eq!(bytes(&[]), [page * 4 * 3; 2]);
    assert_eq!(bytes(&["--cache-dtype", "q8_0"]), [page * 34 / 32 * 3; 2]);
    assert_eq!(bytes(&["--cache-implementation", "offloaded"]), [page * 4 * 3; 2]);
    let sink = ["--cache-implementation", "sink", "--cache-config", r#"{"window_length":40}"#];
    assert_eq!(bytes(&sink)[0], page * 4 * 3);
    let output = phyla(path, &["bench", "decode", "--model", "model", "--cache-implementation", "sliding_window"]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("look back all the way"));
}

#[test]
fn logits_are_mixed_with_what_is_named() {
    let folder = tiny_decoder();
    let path = folder.path();
    said(path, &["init", "--config", "c.json", "--output", "amateur", "--seed", "6"]);
    let ids = |settings: &[&str]| answer(path, &[&["--max-new-tokens", "24"], settings].concat())["sequences"].clone();
    let plain = ids(&[]);
    let mut seen = vec![plain];
    for settings in [
        &["--guidance-scale", "3"][..],
        &["--guidance-scale", "3", "--negative-ids", "5,6,7"],
        &["--dola-layers", "0,1"],
        &["--amateur-model", "amateur"],
        &["--amateur-model", "amateur", "--contrastive-beta", "2.5", "--amateur-temperature", "0.5"],
    ] {
        let mixed = ids(settings);
        assert!(!seen.contains(&mixed), "{settings:?}");
        seen.push(mixed);
    }
}

#[test]
fn a_watermark_is_found_by_who_knows_it() {
    let folder = tiny_decoder();
    let path = folder.path();
    let found = |settings: &[&str], with: &[&str]| -> Value {
        let new = answer(path, &[&["--max-new-tokens", "120", "--do-sample", "--seed", "3"], settings].concat());
        let ids: Vec<String> = new["sequences"][0]["ids"].as_array().unwrap().iter().map(Value::to_string).collect();
        let ids = ids.join(",");
        let detect = ["detect-watermark", "--model", "model", "--ids", &ids, "--json"];
        serde_json::from_str(&said(path, &[&detect, with].concat())).unwrap()
    };
    let settings = r#"{ "bias": 8, "hashing_key": 77, "context_width": 2 }"#;
    for (marked, known, expected) in [
        (vec![], vec![], false),
        (vec!["--watermarking-config", "{\"bias\":8}"], vec![], true),
        (vec!["--watermarking-config", settings], vec!["--watermarking-config", settings], true),
        (vec!["--watermarking-config", settings], vec![], false),
    ] {
        let found = found(&marked, &known);
        assert_eq!(found["prediction"], json!(expected), "{marked:?} {known:?}: {found}");
    }
    let mut text = String::new();
    let detect = ["detect-watermark", "--model", "model"];
    for args in [
        &["--ids", "7,3,9,7,3,9,7,3"][..],
        &["--ids", "7"],
        &["--ids", "7,99"],
        &["--ids", "7,9", "--watermarking-config", "{ \"key\": 3 }"],
        &["--ids", "7,9", "--watermarking-config", "{"],
    ] {
        text += &transcript(path, &[&detect, args].concat());
    }
    matches_snapshot("detect-watermark", &text);
}

#[test]
fn what_is_wrong_with_settings_is_told() {
    let folder = tiny_decoder();
    let path = folder.path();
    fs::write(path.join("broken.json"), "{ \"top_k\": ").unwrap();
    fs::write(path.join("list.json"), "[]").unwrap();
    fs::write(path.join("odd.json"), r#"{ "max_new_tokens": 2, "use_mtp": true, "topk": 4 }"#).unwrap();
    let mut text = String::new();
    for settings in [
        &["--typical-p", "1.5"][..],
        &["--top-k", "many"],
        &["--sequence-bias", "[[1,2]]"],
        &["--cache-dtype", "q3_k"],
        &["--cache-implementation", "fast"],
        &["--cache-implementation", "sink"],
        &["--cache-implementation", "sink", "--cache-config", "{\"window_length\":4,\"num_sink_tokens\":4}"],
        &["--num-beams", "2", "--prompt-lookup-num-tokens", "3"],
        &["--guidance-scale", "2", "--dola-layers", "low"],
        &["--negative-ids", "4"],
        &["--negative-prompt", "no", "--guidance-scale", "2"],
        &["--decoder-ids", "4"],
        &["--mirostat", "1"],
        &["--token-healing"],
        &["--json-schema", "missing.json"],
        &["--json-schema", r#"{ "properties": { "a": { "uniqueItems": true } } }"#],
        &["--json-schema", "{"],
        &["--json-object"],
        &["--regex", "a(b"],
        &["--grammar", "missing.lark"],
        &["--choice", "a", "--regex", "b"],
        &["--generation-config", "missing.json"],
        &["--generation-config", "broken.json"],
        &["--generation-config", "list.json"],
        &["--generation-config", "odd.json", "--seed", "1"],
    ] {
        text += &transcript(path, &[&GENERATE, settings].concat());
    }
    matches_snapshot("decoding-mistakes", &text);
    // A file of no use is found out before the model is looked for.
    let output = phyla(path, &["generate", "--model", "nowhere", "--ids", "1", "--generation-config", "broken.json"]);
    assert!(String::from_utf8(output.stderr).unwrap().contains("broken.json"));
}

#[test]
fn what_else_a_call_gives_is_in_the_json() {
    let folder = tiny_decoder();
    let run = |settings: &[&str]| answer(folder.path(), &[&["--max-new-tokens", "4"], settings].concat());
    let plain = run(&[]);
    let said = &run(&["--top-logprobs", "3", "--output-scores", "--output-hidden-states"])["sequences"][0];
    assert_eq!(said["ids"], plain["sequences"][0]["ids"]);
    let tokens = said["logprobs"].as_array().unwrap();
    assert_eq!(tokens.len(), 4);
    for (token, id) in tokens.iter().zip(said["ids"].as_array().unwrap()) {
        // Greedy: the token is the likeliest, and there is no tokenizer to name it.
        assert_eq!((&token["id"], &token["top_logprobs"][0]["id"], &token["token"]), (id, id, &Value::Null));
        assert_eq!(
            (&token["logprob"], token["top_logprobs"].as_array().unwrap().len()),
            (&token["top_logprobs"][0]["logprob"], 3)
        );
        assert!(token["logprob"].as_f64().unwrap() < 0.);
    }
    assert_eq!((said["scores"][3].as_array().unwrap().len(), said.get("logits")), (60, None));
    assert_eq!(said["hidden_states"][0][2]["shape"], json!([8, 32]));
    // A number alone asks for alternatives; beams come with their scores.
    let beams = run(&["--logprobs", "2", "--num-beams", "2", "--num-return-sequences", "2"]);
    assert_eq!(beams["sequences"][1]["logprobs"][0]["top_logprobs"].as_array().unwrap().len(), 2);
    assert!(beams["sequences"][0]["score"].as_f64() >= beams["sequences"][1]["score"].as_f64());
    let output = phyla(folder.path(), &[&GENERATE[..], &["--max-new-tokens", "2", "--logprobs"]].concat());
    let warning = String::from_utf8(output.stderr).unwrap();
    assert!(warning.contains("logprobs: only `generate --json` prints these"), "{warning}");
}

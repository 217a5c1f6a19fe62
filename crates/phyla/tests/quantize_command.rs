//! `quantize`, and `--quantize` of the commands that run a model, as a user meets them.
//!
//! The texts stand in `snapshots/`; `PHYLA_UPDATE_SNAPSHOTS=1` writes them anew.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::path::Path;

use common::{command, matches_snapshot, phyla, said, transcript};
use phyla_data::tokenizer::{BpeSettings, train_bpe};
use phyla_models::gguf::Gguf;
use serde_json::{Value, json};

const TEXT: &str = "Once upon a time there was a little fox. The fox saw a bird, and the bird sang.\n";

/// A folder with `model`, a small random one with a tokenizer, and `text.txt`.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("text.txt", &TEXT.repeat(20));
    let config = json!({"model_type": "llama", "vocab_size": 290, "hidden_size": 256, "intermediate_size": 512,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "initializer_range": 0.05, "eos_token_id": 0});
    write("config.json", &config.to_string());
    said(folder.path(), &["init", "--config", "config.json", "--output", "model", "--seed", "3"]);
    let settings = BpeSettings { vocab_size: 290, ..BpeSettings::default() };
    let tokenizer = train_bpe([Ok(TEXT.repeat(3))], &settings, &mut |_| {}).unwrap();
    tokenizer.save_into(folder.path().join("model")).unwrap();
    folder
}

/// What a run answers in JSON; warnings may stand on standard error.
fn json_of(folder: &Path, args: &[&str]) -> Value {
    let output = phyla(folder, args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{args:?}: {stderr}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn help_says_what_quantize_does() {
    let folder = tempfile::tempdir().unwrap();
    matches_snapshot("help-quantize", &said(folder.path(), &["quantize", "--help"]));
}

#[test]
fn the_file_answers_as_the_folder_quantised_on_loading() {
    let folder = folder();
    let ids = |model: &str, more: &[&str]| {
        let args = ["generate", "--model", model, "--prompt", "Once upon", "--max-new-tokens", "24", "--json"];
        let said = json_of(folder.path(), &[args.as_slice(), more].concat());
        (said["prompt_ids"].clone(), said["sequences"][0]["ids"].clone())
    };
    let size = |name: &str| fs::metadata(folder.path().join(name)).unwrap().len();
    let plain = ids("model", &[]);
    for kind in ["f32", "q8_0", "q4_k_m", "q3_k_l", "iq4_xs"] {
        let done = json_of(folder.path(), &["quantize", "model", "out.gguf", "--type", kind, "--json"]);
        assert_eq!((&done["type"], &done["warnings"]), (&json!(kind), &json!([])));
        let (before, after) = (done["bytes_before"].as_u64().unwrap(), done["bytes_after"].as_u64().unwrap());
        let (folder, file) = (size("model/model.safetensors"), size("out.gguf"));
        assert!(before <= folder && folder < before + 8192 && after < file && file < after + 32768, "{kind}");
        assert!(kind == "f32" || after < before / 3, "{kind}: {after} of {before} bytes");
        let found = ids("out.gguf", &[]);
        match kind {
            "f32" => assert_eq!(found, plain),
            kind => assert_eq!(found, ids("model", &["--quantize", kind]), "{kind}"),
        }
    }
    // From one file to another, as from the folder to it.
    said(folder.path(), &["quantize", "model", "f32.gguf", "--type", "f32"]);
    said(folder.path(), &["quantize", "f32.gguf", "again.gguf", "--type", "iq4_xs"]);
    let (once, again) = (folder.path().join("out.gguf"), folder.path().join("again.gguf"));
    let (once, again) = (Gguf::open(once).unwrap(), Gguf::open(again).unwrap());
    assert_eq!(once.names().collect::<Vec<_>>(), again.names().collect::<Vec<_>>());
    assert!(once.names().all(|name| once.tensor(name).unwrap().bytes() == again.tensor(name).unwrap().bytes()));
    for key in once.keys().filter(|key| *key != "general.name") {
        assert_eq!(once.get(key), again.get(key), "{key}");
    }
}

#[test]
fn perplexity_is_measured_before_and_after() {
    let folder = folder();
    let args = ["quantize", "model", "out.gguf", "--type", "q2_k", "--perplexity", "text.txt", "--json"];
    let done = json_of(folder.path(), &args);
    let measured = |model: &str| {
        let done = json_of(folder.path(), &["eval", "--model", model, "--data", "text.txt", "--json"]);
        done["metrics"]["perplexity"].as_f64().unwrap()
    };
    let (before, after) = (done["perplexity_before"].as_f64().unwrap(), done["perplexity_after"].as_f64().unwrap());
    assert_eq!((before, after), (measured("model"), measured("out.gguf")));
    assert!(before != after && (before / after).ln().abs() < 0.5, "{before} {after}");
    let text = said(folder.path(), &["quantize", "model", "out.gguf", "--type", "q8_0", "--perplexity", "text.txt"]);
    assert!(text.contains("before") && text.lines().any(|line| line.starts_with("perplexity  ")), "{text}");
}

#[test]
fn mistakes_are_named_with_the_way_out() {
    let folder = folder();
    let generate = ["generate", "--model", "model", "--prompt", "a", "--quantize"];
    let said: Vec<String> = [
        &["quantize", "model", "out.bin", "--type", "q8_0"][..],
        &["quantize", "model", "out.gguf", "--type", "q4_k_n"],
        &["quantize", "model", "out.gguf", "--type", "nf4"],
        &["quantize", "model", "out.gguf", "--type", "q8_0", "--max-ram", "3"],
        &["quantize", "model", "out.gguf", "--type", "q8_0", "--perplexity", "none.txt"],
        &["quantize", "model", "none/out.gguf", "--type", "q8_0"],
        &["bench", "train", "--config", "config.json", "--quantize", "q8_0"],
        &[generate.as_slice(), &["q9"]].concat(),
    ]
    .iter()
    .map(|args| transcript(folder.path(), args))
    .collect();
    matches_snapshot("quantize-mistakes", &said.join("\n"));
    assert!(!folder.path().join("out.gguf").exists());
}

#[test]
fn benches_take_files_and_quantised_weights() {
    let folder = folder();
    said(folder.path(), &["quantize", "model", "q4.gguf", "--type", "q4_k_m"]);
    for what in ["prefill", "decode"] {
        for from in [&["--model", "q4.gguf"][..], &["--config", "config.json", "--quantize", "q4_k_m"]] {
            let args = [&["bench", what], from, &["--prompt-tokens", "8", "--steps", "1", "--json"]].concat();
            let done = json_of(folder.path(), &args);
            assert_eq!(done["dtype"], "q4_k", "{args:?}");
            assert!(done["tokens_per_second"].as_f64().unwrap() > 0.);
        }
    }
}

/// The largest matrix alone has 128 MB in f32; so much less is anonymous memory, whatever the files' pages.
#[cfg(target_os = "linux")]
#[test]
fn memory_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({"model_type": "llama", "vocab_size": 32000, "hidden_size": 1024, "intermediate_size": 64,
        "num_hidden_layers": 1, "num_attention_heads": 16, "max_position_embeddings": 64});
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    said(folder.path(), &["init", "--config", "config.json", "--output", "model"]);
    let args = ["quantize", "model", "out.gguf", "--type", "q4_0", "--max-ram", "8MiB", "--threads", "2"];
    let mut child = command(folder.path(), &args).stdout(std::process::Stdio::null()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let (mut most, mut looks) = (0, 0);
    while child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let kib = text.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB")?.parse().ok());
        (most, looks) = (most.max(kib.unwrap_or(0u64)), looks + 1);
    }
    assert!(child.wait().unwrap().success() && folder.path().join("out.gguf").exists());
    // 8 MiB of weights on their way, and 24 MiB for the program itself, its threads and its allocator.
    assert!(looks > 3 && most < 32 << 10, "{most} KiB at most, in {looks} looks");
}

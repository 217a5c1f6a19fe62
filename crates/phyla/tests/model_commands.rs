//! `init`, `forward`, `inspect` and `bench` as a user meets them: texts, exit codes, files.
//!
//! The texts stand in `snapshots/`; `PHYLA_UPDATE_SNAPSHOTS=1` writes them anew.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{matches_snapshot, phyla, said, transcript};
use phyla_models::checkpoint::Checkpoint;
use serde_json::{Value, json};

fn golden(case: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(case)
}

/// A folder with `config.json`, a small model.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), config().to_string()).unwrap();
    folder
}

fn config() -> Value {
    json!({
        "model_type": "qwen2", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "eos_token_id": [3, 4],
        "use_sliding_window": true, "sliding_window": 8, "max_window_layers": 2, "tie_word_embeddings": true,
    })
}

fn bytes(path: PathBuf) -> Vec<u8> {
    fs::read(path).unwrap()
}

#[test]
fn help_says_what_the_commands_do() {
    let folder = folder();
    for command in ["init", "forward", "inspect", "bench"] {
        matches_snapshot(&format!("help-{command}"), &said(folder.path(), &[command, "--help"]));
    }
    for what in ["train", "prefill", "decode", "roofline"] {
        matches_snapshot(&format!("help-bench-{what}"), &said(folder.path(), &["bench", what, "--help"]));
    }
}

#[test]
fn mistakes_are_named_with_the_way_out() {
    let folder = folder();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    said(folder.path(), &["init", "--config", "config.json", "--output", "model"]);
    write("ragged.json", r#"{"input_ids": [[1, 2], [3]]}"#);
    write("misspelt.json", r#"{"input_ids": [[1, 2]], "atention_mask": [[1, 1]]}"#);
    write("decoder.json", r#"{"input_ids": [1], "decoder_input_ids": [1]}"#);
    write("large.json", r#"{"input_ids": [1, 40]}"#);
    write("types.json", r#"{"input_ids": [1], "token_type_ids": [0]}"#);
    write("broken.json", r#"{"input_ids": [1"#);
    write("family.json", r#"{"model_type": "qwen22"}"#);
    write("field.json", r#"{"model_type": "qwen2", "hidden_size": "16"}"#);
    write("none.safetensors", "not a header");
    let forward = |ids| ["forward", "--model", "model", "--ids", ids, "--output", "out.safetensors"];
    let runs: Vec<Vec<&str>> = vec![
        vec!["init", "--output", "new"],
        vec!["init", "--config", "absent.json", "--output", "new"],
        vec!["init", "--config", "family.json", "--output", "new"],
        vec!["init", "--config", "field.json", "--output", "new"],
        vec!["init", "--config", "config.json", "--output", "model"],
        vec!["init", "--config", "config.json", "--output", "config.json"],
        vec!["init", "--config", "config.json", "--output", "new", "--dtype", "int8"],
        forward("absent.json").into(),
        forward("ragged.json").into(),
        forward("misspelt.json").into(),
        forward("decoder.json").into(),
        forward("large.json").into(),
        forward("types.json").into(),
        forward("broken.json").into(),
        vec!["forward", "--model", "no model", "--ids", "large.json", "--output", "out.safetensors"],
        vec!["forward", "--model", "model", "--ids", "large.json", "--output", "o", "--device", "gpu"],
        vec!["inspect", "none.safetensors"],
        vec!["inspect", "family.json"],
        vec!["bench", "decode"],
        vec!["bench", "train", "--config", "config.json", "--dtype", "f16"],
        vec!["bench", "train", "--config", "config.json", "--dropout", "1"],
        vec!["bench", "prefill", "--config", "config.json", "--batch", "0"],
    ];
    let text: Vec<String> = runs.iter().map(|args| transcript(folder.path(), args)).collect();
    assert!(text.iter().all(|text| text.ends_with("exit code 2\n")), "{}", text.join("\n"));
    matches_snapshot("mistakes", &text.join("\n"));
    assert!(!folder.path().join("out.safetensors").exists() && !folder.path().join("new").exists());
}

#[test]
#[cfg_attr(any(target_os = "macos"), ignore = "there may be a device")]
fn a_device_that_is_not_there_is_a_failure() {
    let folder = folder();
    said(folder.path(), &["init", "--config", "config.json", "--output", "model"]);
    fs::write(folder.path().join("ids.json"), r#"{"input_ids": [1]}"#).unwrap();
    let args = ["forward", "--model", "model", "--ids", "ids.json", "--output", "out", "--device", "metal"];
    let text = transcript(folder.path(), &args);
    assert!(text.contains("device `metal` cannot be used") && text.ends_with("exit code 1\n"), "{text}");
}

#[test]
fn init_is_decided_by_configuration_and_seed() {
    let folder = folder();
    let path = folder.path();
    let weights = |model: &str| bytes(path.join(model).join("model.safetensors"));
    let init = |model: &str, more: &[&str]| {
        said(path, &[&["init", "--config", "config.json", "--output", model], more].concat())
    };
    let text = init("a", &["--seed", "7"]);
    assert_eq!(text, "a: 6.61 k parameters in f32, 26.4 kB\n");
    init("b", &["--seed", "7", "--threads", "1"]);
    init("c", &["--seed", "8"]);
    assert_eq!(weights("a"), weights("b"));
    assert_ne!(weights("a"), weights("c"));
    let generation: Value = serde_json::from_slice(&bytes(path.join("a/generation_config.json"))).unwrap();
    assert_eq!(generation, json!({ "_from_model_config": true, "eos_token_id": [3, 4] }));
    // Written over, in another type: the same draws, rounded.
    let text = init("c", &["--seed", "7", "--dtype", "bf16", "--force", "--json"]);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&report["parameters"], &report["bytes"]), (&json!(6608), &json!(13216)));
    let (full, low) = (Checkpoint::open(path.join("a")).unwrap(), Checkpoint::open(path.join("c")).unwrap());
    for name in full.names() {
        let (full, low) = (full.get(name).unwrap().to_f32().unwrap(), low.get(name).unwrap().to_f32().unwrap());
        // bf16 keeps 8 bits.
        assert!(full.iter().zip(&low).all(|(a, b)| (a - b).abs() <= a.abs() / 256.), "{name}");
    }
}

#[test]
fn forward_writes_what_the_reference_found() {
    let folder = folder();
    for case in ["gpt2", "mistral"].map(|family| fs::read_dir(golden(family)).unwrap().next().unwrap().unwrap().path())
    {
        let (case, ids) = (case.to_str().unwrap(), case.join("inputs.json"));
        let out = folder.path().join("out.safetensors");
        let args = ["forward", "--model", case, "--ids", ids.to_str().unwrap(), "--output", "out.safetensors"];
        said(folder.path(), &[&args[..], &["--hidden-states"]].concat());
        let (ours, theirs) =
            (Checkpoint::open(&out).unwrap(), Checkpoint::open(Path::new(case).join("expected.safetensors")).unwrap());
        assert_eq!(ours.names().collect::<Vec<_>>(), theirs.names().collect::<Vec<_>>());
        let inputs: Value = serde_json::from_slice(&bytes(ids)).unwrap();
        let mask: Vec<bool> = match inputs.get("attention_mask") {
            Some(mask) => {
                mask.as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap()).map(|m| m == 1).collect()
            }
            None => vec![],
        };
        for name in ours.names() {
            let (ours, theirs) = (ours.get(name).unwrap(), theirs.get(name).unwrap());
            assert_eq!(ours.shape, theirs.shape, "{case} {name}");
            let width = ours.shape[2];
            let (mut worst, mut largest) = (0f32, 0f32);
            for (i, (a, b)) in ours.to_f32().unwrap().iter().zip(theirs.to_f32().unwrap()).enumerate() {
                if mask.get(i / width).copied().unwrap_or(true) {
                    assert!(a.is_finite(), "{case} {name}");
                    (worst, largest) = (worst.max((a - b).abs()), largest.max(b.abs()));
                }
            }
            // As in the models' own tests: sums of f32 in another order, and nothing else.
            assert!(worst <= 2e-5 * largest, "{case} {name}: {}", worst / largest);
        }
    }
}

#[test]
fn a_gguf_file_writes_what_its_folder_does() {
    let folder = folder();
    let written = |model: PathBuf| -> Value {
        let model = model.to_str().unwrap().to_owned();
        let args = ["generate", "--model", &model, "--ids", "1,2,3", "--temperature", "0", "--max-new-tokens", "9"];
        let said = said(folder.path(), &[&args[..], &["--dtype", "f32", "--json"]].concat());
        serde_json::from_str::<Value>(&said).unwrap()["sequences"][0]["ids"].take()
    };
    for (file, case) in [("llama-f16", "llama/f16"), ("qwen2-tied", "qwen2/tied"), ("qwen3-grouped", "qwen3/grouped")] {
        let ids = written(golden(&format!("gguf/{file}.gguf")));
        assert_eq!(ids, written(golden(case)), "{file}");
        assert!(ids.as_array().unwrap().len() > 1, "{file}: {ids}");
    }
}

#[test]
fn inspect_draws_a_model_whether_or_not_it_fits() {
    let folder = folder();
    let path = folder.path();
    said(path, &["init", "--config", "config.json", "--output", "model", "--dtype", "bf16"]);
    let mut text = transcript(path, &["inspect", "model"]);
    // A layer more than the file has, and another vocabulary.
    let mut other = config();
    (other["num_hidden_layers"], other["vocab_size"], other["unheard_of"]) = (json!(4), json!(41), json!(1));
    fs::write(path.join("model/config.json"), other.to_string()).unwrap();
    text += &transcript(path, &["inspect", "model"]);
    text += &transcript(path, &["inspect", "config.json", "--tensors"]);
    text += &transcript(path, &["inspect", "model/model.safetensors"]);
    matches_snapshot("inspect", &text);

    let output = phyla(path, &["inspect", "model", "--json"]);
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["layers"], 4);
    let missing = |tensor: &&Value| tensor.get("missing").is_some();
    assert_eq!(value["tensors"].as_array().unwrap().iter().filter(missing).count(), 12);
}

#[test]
fn bench_prints_its_keys() {
    let folder = folder();
    let run = |what: &[&str]| -> Value {
        let args = [&["bench"], what, &["--config", "config.json", "--batch", "2", "--json"]].concat();
        serde_json::from_str(&said(folder.path(), &args)).unwrap()
    };
    let positive = |value: &Value| value.as_f64().is_some_and(|number| number > 0.);
    for (what, steps) in [
        (&["train", "--seq", "16", "--steps", "3"][..], 3),
        (&["prefill", "--prompt-tokens", "16", "--steps", "2"], 2),
        (&["decode", "--prompt-tokens", "4", "--new-tokens", "5", "--steps", "2"], 10),
    ] {
        let value = run(what);
        for key in ["tokens_per_second", "step_ms", "fraction_of_limit"] {
            assert!(positive(&value[key]), "{what:?} {key}: {value}");
        }
        assert!(value["fraction_of_limit"].as_f64().unwrap() < 1., "faster than possible: {value}");
        assert!(cfg!(not(target_os = "linux")) || positive(&value["peak_rss_mb"]), "{value}");
        for key in ["f32_gflops", "bf16_gflops", "int8_gops", "read_gbps"] {
            assert!(positive(&value["roofline"][key]), "{what:?} {key}: {value}");
        }
        assert_eq!(value["step_ms_all"].as_array().unwrap().len(), steps);
    }
}

//! Models read from GGUF files answer as those read from folders; `tests/golden/gguf_files.py` wrote the files.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};

use phyla_models::checkpoint::Checkpoint;
use phyla_models::{Input, LoadOptions, LoadReport, Model, load};
use phyla_ops::Weight;

/// As in `parity.rs`.
const TOLERANCE: f32 = 2e-5;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

/// The files that have a golden folder, with that folder.
fn files() -> Vec<(PathBuf, PathBuf)> {
    let mut files = vec![];
    for entry in std::fs::read_dir(golden().join("gguf")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().to_string();
        let (family, case) = name.split_once('-').unwrap();
        let folder = golden().join(family).join(case);
        if folder.exists() && path.extension().unwrap() == "gguf" {
            files.push((path, folder));
        }
    }
    assert!(files.len() > 10);
    files
}

fn open(path: &Path) -> (Model, LoadReport) {
    let options = LoadOptions { dtype: Some(candle_core::DType::F32), ..LoadOptions::default() };
    load(path, &options).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn input(case: &Path) -> Input {
    let text = std::fs::read_to_string(case.join("inputs.json")).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rows = |key: &str| -> Option<Vec<u32>> {
        let rows: Vec<Vec<u32>> = serde_json::from_value(value.get(key)?.clone()).unwrap();
        Some(rows.concat())
    };
    let batch = value["input_ids"].as_array().unwrap().len();
    let ids = rows("input_ids").unwrap();
    let attention_mask = rows("attention_mask").map(|mask| mask.iter().map(|&m| m as u8).collect());
    let (positions, token_types) = (rows("position_ids"), rows("token_type_ids"));
    Input { batch, time: ids.len() / batch, ids, attention_mask, positions, token_types, ..Input::default() }
}

/// Largest difference over unmasked tokens, relative to the largest value.
fn error(ours: &[f32], theirs: &[f32], input: &Input) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let width = ours.len() / (input.batch * input.time);
    let (mut worst, mut largest) = (0f32, 0f32);
    for (token, (a, b)) in ours.chunks(width).zip(theirs.chunks(width)).enumerate() {
        if input.attention_mask.as_ref().is_none_or(|mask| mask[token] != 0) {
            for (a, b) in a.iter().zip(b) {
                assert!(a.is_finite());
                (worst, largest) = (worst.max((a - b).abs()), largest.max(b.abs()));
            }
        }
    }
    worst / largest
}

fn output(model: &Model, input: &Input, name: &str) -> Vec<f32> {
    let outputs = model.run(input, true).unwrap();
    let (_, found) = outputs.iter().find(|(found, _)| found == name).unwrap();
    found.data().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn answers_are_those_of_the_folder() {
    for (path, folder) in files() {
        let ((model, report), input) = (open(&path), input(&folder));
        // The converter leaves BERT's pooler out, which is worth a sentence.
        assert!(report.unused.is_empty() && report.warnings.len() <= 1, "{}: {:?}", path.display(), report.warnings);
        let expected = Checkpoint::open(folder.join("expected.safetensors")).unwrap();
        let name = if expected.contains("logits") { "logits" } else { "last_hidden_state" };
        let error = error(&output(&model, &input, name), &expected.get(name).unwrap().to_f32().unwrap(), &input);
        println!("{}: {error:.1e}", path.display());
        assert!(error < TOLERANCE, "{}: {error:.1e}", path.display());
    }
}

#[test]
fn weights_are_those_of_the_folder_to_the_bit() {
    for (path, folder) in files() {
        let (ours, theirs) = (open(&path).0, open(&folder).0);
        for param in ours.params() {
            let same = theirs.params().iter().find(|other| other.path() == param.path()).unwrap();
            let values =
                |weight: Weight| -> Vec<f32> { weight.to_f32().unwrap().flatten_all().unwrap().to_vec1().unwrap() };
            assert_eq!(values(param.weight()), values(same.weight()), "{}: {}", path.display(), param.path());
        }
    }
}

#[test]
fn plain_numbers_are_used_in_place() {
    let path = golden().join("gguf/deepseek_v2-dense_first.gguf");
    let (model, report) = load(&path, &LoadOptions::default()).unwrap();
    let mapped = |param: &phyla_ops::Param| matches!(param.weight(), Weight::Mapped(_));
    assert!(model.params().iter().all(|param| mapped(param)), "experts lie in their stacks");
    assert!(report.mapped_bytes > 20_000);
    let (model, _) = load(&golden().join("gguf/gpt2-left_padding.gguf"), &LoadOptions::default()).unwrap();
    assert!(model.params().iter().all(|param| mapped(param)), "q, k and v lie one after another");
    let (model, _) = load(&golden().join("gguf/llama-f16.gguf"), &LoadOptions::default()).unwrap();
    for param in model.params() {
        let reordered = [".q.", ".k."].iter().any(|name| param.path().contains(name));
        assert_eq!(mapped(param), !reordered, "{}", param.path());
    }
}

#[test]
fn blocks_become_the_numbers_they_stand_for() {
    let (model, report) = open(&golden().join("gguf/llama-quantised.gguf"));
    assert!(report.unused.is_empty() && report.warnings.is_empty(), "{:?}", report.warnings);
    let expected = Checkpoint::open(golden().join("gguf/llama-quantised.safetensors")).unwrap();
    let ids: Vec<u32> = expected.get("input_ids").unwrap().to_i64().unwrap().iter().map(|&id| id as u32).collect();
    let input = Input::row(&ids);
    let error = error(&output(&model, &input, "logits"), &expected.get("logits").unwrap().to_f32().unwrap(), &input);
    assert!(error < TOLERANCE, "{error:.1e}");
}

//! `generate --input` and `bench serve`: many prompts at once, as a user meets them.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/tiny.rs"]
mod tiny;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use common::{command, matches_snapshot, phyla, said, transcript};
use phyla_kernels::rng::Rng;
use phyla_models::LoadOptions;
use phyla_models::adapter::{Adapter, AdapterSpec, LoraSpec};
use phyla_ops::{Weight, cpu};
use serde_json::{Value, json};
use tiny::tiny_decoder;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What one prompt is answered by itself.
fn alone(folder: &Path, ids: &[u32], options: &[&str]) -> Value {
    let ids = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let args = [&["generate", "--model", "model", "--ids", &ids, "--json"], options].concat();
    serde_json::from_str::<Value>(&said(folder, &args)).unwrap()["sequences"].clone()
}

#[test]
fn prompts_of_a_file_are_answered_in_order_each_as_if_alone() {
    let folder = tiny_decoder();
    let path = folder.path();
    let prompts: Vec<Vec<u32>> = (0..20).map(|i| (0..1 + 7 * i % 100).map(|t| (t * t + i) % 60).collect()).collect();
    let mut text = String::new();
    for (i, ids) in prompts.iter().enumerate() {
        let line = match i % 4 {
            0 => json!({ "ids": ids, "id": format!("number {i}") }),
            1 => json!({ "ids": ids, "max_new_tokens": 9, "temperature": 0.9, "seed": 4 }),
            2 => json!({ "ids": ids, "num_beams": 2, "id": i }),
            _ => json!({ "ids": ids, "num_return_sequences": 2, "top_k": 5 }),
        };
        text += &format!("{line}\n\n");
    }
    fs::write(path.join("in.jsonl"), &text).unwrap();
    let options = ["--max-new-tokens", "20"];
    let args = ["generate", "--model", "model", "--input", "in.jsonl", "--output", "out.jsonl", "--max-num-seqs", "5"];
    assert_eq!(said(path, &[&args[..], &options, &["--cache-blocks", "12"]].concat()), "");
    let answers = lines(&fs::read_to_string(path.join("out.jsonl")).unwrap());
    assert_eq!(answers.len(), 20);
    for (i, (answer, ids)) in answers.iter().zip(&prompts).enumerate() {
        let own: &[&str] = match i % 4 {
            0 => &[],
            1 => &["--max-new-tokens", "9", "--temperature", "0.9", "--seed", "4"],
            2 => &["--num-beams", "2"],
            _ => &["--num-return-sequences", "2", "--top-k", "5"],
        };
        let options = if own.contains(&"--max-new-tokens") { own.to_vec() } else { [&options[..], own].concat() };
        assert_eq!(answer["sequences"], alone(path, ids, &options), "prompt {i}");
        let id = [json!(format!("number {i}")), Value::Null, json!(i), Value::Null];
        assert_eq!(answer.get("id").unwrap_or(&Value::Null), &id[i % 4]);
    }
    // From standard input to standard output.
    let args = ["generate", "--model", "model", "--input", "-", "--max-new-tokens", "3"];
    let mut child = command(path, &args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"{\"ids\":[5]}\n{\"ids\":[6]}\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let answers = lines(&String::from_utf8(output.stdout).unwrap());
    let expected: Vec<Value> =
        [5, 6].iter().map(|&id| json!({ "sequences": alone(path, &[id], &["--max-new-tokens", "3"]) })).collect();
    assert_eq!((answers, output.status.code()), (expected, Some(0)));
}

/// Writes an adapter of the model whose numbers are anything but nothing.
fn adapter(path: &Path, name: &str, seed: u64) {
    let model = phyla_models::load(&path.join("model"), &LoadOptions::default()).unwrap().0;
    let adapter = Adapter::fresh(&model, &AdapterSpec::Lora(LoraSpec::default()), seed).unwrap();
    for param in adapter.params() {
        let mut numbers = vec![0.; param.count()];
        Rng::new(seed).split(param.path()).fill_normal(&mut numbers, 0., 1.);
        param.set_weight(Weight::Dense(cpu::tensor(numbers, param.dims()).unwrap())).unwrap();
    }
    adapter.save(&model, &path.join(name), None).unwrap();
}

#[test]
fn each_prompt_chooses_its_adapters() {
    let folder = tiny_decoder();
    let path = folder.path();
    adapter(path, "a", 1);
    adapter(path, "b", 2);
    let choices = [json!("first"), json!(["first", "b"]), json!(null), json!("b"), json!(["b"]), json!("c"), json!(7)];
    let line = |adapter: &Value| format!("{}\n", json!({ "ids": [1, 2, 3], "adapter": adapter }));
    let text: String = choices.iter().map(line).chain(["{\"ids\": [1, 2, 3]}\n".to_owned()]).collect();
    fs::write(path.join("in.jsonl"), text).unwrap();
    let args = ["generate", "--model", "model", "--input", "in.jsonl", "--max-new-tokens", "12"];
    let output = phyla(path, &[&args[..], &["--adapter", "first=a", "--adapter", "b"]].concat());
    let answers = lines(&String::from_utf8(output.stdout).unwrap());
    let with = |adapters: &[&str]| {
        let named: Vec<&str> = adapters.iter().flat_map(|name| ["--adapter", *name]).collect();
        alone(path, &[1, 2, 3], &[&["--max-new-tokens", "12"], &named[..]].concat())
    };
    let expected = [
        with(&["a"]),
        with(&["a", "b"]),
        with(&[]),
        with(&["b"]),
        with(&["b"]),
        json!(null),
        json!(null),
        with(&["a", "b"]),
    ];
    for (at, (answer, expected)) in answers.iter().zip(&expected).enumerate() {
        assert_eq!(answer.get("sequences").unwrap_or(&Value::Null), expected, "line {at}");
    }
    assert!(expected[0] != expected[2] && expected[0] != expected[3], "adapters that change nothing");
    let error = |at: usize| answers[at]["error"].as_str().unwrap().to_owned();
    assert!(error(5).contains("no adapter is called \"c\"; there are: \"first\", \"b\""), "{}", error(5));
    assert!(error(6).contains("adapter: expected a name"), "{}", error(6));
    let twice = phyla(path, &["generate", "--model", "model", "--ids", "1", "--adapter", "x=a", "--adapter", "x=b"]);
    assert!(String::from_utf8_lossy(&twice.stderr).contains("two adapters are called \"x\""));
}

#[test]
fn what_is_wrong_with_a_prompt_stands_in_its_place() {
    let folder = tiny_decoder();
    let path = folder.path();
    let wrong = [
        r#"{"ids": [1, 2]}"#,
        "not an object",
        r#"{"ids": [1, 999]}"#,
        r#"{"prompt": "a text"}"#,
        r#"{"ids": [3], "top_p": 7}"#,
        r#"{"ids": [3], "seed": -1}"#,
        r#"{"temperature": 1}"#,
        r#"{"ids": [4], "max_new_tokens": 700}"#,
        r#"{"ids": [4], "cache_dtype": "q3_k"}"#,
        r#"{"ids": [1, 2]}"#,
    ];
    fs::write(path.join("in.jsonl"), wrong.join("\n")).unwrap();
    let args = ["generate", "--model", "model", "--input", "in.jsonl", "--max-new-tokens", "4", "--cache-blocks", "8"];
    let mut text = transcript(path, &args);
    let output = phyla(path, &args);
    let answers = lines(&String::from_utf8(output.stdout).unwrap());
    assert_eq!((answers.len(), &answers[0]), (10, &answers[9]));
    assert_eq!(answers.iter().filter(|answer| answer.get("error").is_some()).count(), 8);
    for args in [
        &["generate", "--model", "model", "--input", "missing.jsonl"][..],
        &["generate", "--model", "model", "--input", "in.jsonl", "--output", "in.jsonl"],
        &["generate", "--model", "model", "--ids", "1", "--max-num-seqs", "3"],
        &["generate", "--model", "model", "--ids", "1", "--output", "out.jsonl"],
        &["bench", "serve", "--config", "c.json", "--batch", "4"],
    ] {
        text += &transcript(path, args);
    }
    matches_snapshot("many-mistakes", &text);
}

#[test]
fn bench_serve_answers_alike_and_leaves_no_block() {
    let folder = tiny_decoder();
    matches_snapshot("help-bench-serve", &said(folder.path(), &["bench", "serve", "--help"]));
    let args =
        ["bench", "serve", "--config", "c.json", "--requests", "9", "--concurrency", "4", "--prompt-tokens", "20"];
    let args = [&args[..], &["--new-tokens", "10", "--steps", "2"]].concat();
    let value: Value = serde_json::from_str(&said(folder.path(), &[&args[..], &["--json"]].concat())).unwrap();
    assert_eq!((&value["same_answers"], &value["blocks_left"]), (&json!(9), &json!(0)));
    assert!(value["ratio"].as_f64().unwrap() > 0. && value["ratio_all"].as_array().unwrap().len() == 2, "{value}");
    let text = said(folder.path(), &args);
    assert!(text.contains("9 of 9 answers the same") && text.contains("0 left in use at the end"), "{text}");
}

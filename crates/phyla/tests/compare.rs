//! `bench compare` and `bench startup` as a user meets them, with peers that are scripts of the shell.
//!
//! The texts stand in `snapshots/`; `PHYLA_UPDATE_SNAPSHOTS=1` writes them anew.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{command, matches_snapshot, phyla, said, transcript};
use serde_json::{Value, json};

/// A folder with a small model's `config.json` and a list of peers; `sh` takes Python's place.
fn folder(peers: Value, scripts: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = json!({
        "model_type": "qwen2", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    });
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    let peers_folder = folder.path().join("tests/peers");
    fs::create_dir_all(&peers_folder).unwrap();
    fs::write(peers_folder.join("peers.json"), peers.to_string()).unwrap();
    for (name, text) in scripts {
        fs::write(peers_folder.join(name), text).unwrap();
    }
    folder
}

fn peer(name: &str, script: &str, more: &[&str]) -> Value {
    let command = [&[script], more].concat();
    json!({ "name": name, "works": ["decode"], "command": command })
}

/// On one thread, since every run of ours measures the machine as well.
const QUICK: [&str; 13] = [
    "bench",
    "compare",
    "decode",
    "--config",
    "config.json",
    "--python",
    "sh",
    "--prompt-tokens",
    "4",
    "--new-tokens",
    "3",
    "--threads",
    "1",
];

fn compare(folder: &Path, more: &[&str]) -> (String, String, Option<i32>) {
    let output = phyla(folder, &[&QUICK, more].concat());
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.code())
}

#[test]
fn peers_run_in_turns_and_those_that_cannot_are_left_out() {
    // Each run leaves a line with what it was told; the third answers a thousand times as fast as the others.
    let figures = r#"echo "$@" >> told
n=$(wc -l < told); rate=1; [ $n = 3 ] && rate=1000
echo "loading" >&2
echo "{\"bench\": \"decode\", \"tokens_per_second\": $rate, \"peak_rss_mb\": 250, \"dtype\": \"q8\"}"
"#;
    let missing = "echo 'nothing is not installed here' >&2; exit 3";
    let folder = folder(
        json!([
            peer("Fake", "fake.sh", &["--new-tokens", "{new_tokens}", "{subject}"]),
            peer("Missing", "missing.sh", &[]),
            peer("Broken", "broken.sh", &[]),
            peer("Dying", "dying.sh", &[]),
            peer("Needy", "fake.sh", &["{gguf}"]),
            json!({ "name": "Typed", "works": ["decode"], "dtypes": ["int8"], "command": ["fake.sh"] }),
            json!({ "name": "Other", "works": ["embed"], "command": ["fake.sh"] }),
        ]),
        &[
            ("fake.sh", figures),
            ("missing.sh", missing),
            ("broken.sh", "echo not json"),
            ("dying.sh", "echo all well >&2; kill -SEGV $$"),
        ],
    );
    let (stdout, stderr, code) = compare(folder.path(), &["--pairs", "3", "--json"]);
    assert_eq!(code, Some(0), "{stderr}");
    let value: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(value["rows"].as_array().unwrap().len(), 1, "{value}");
    let row = &value["rows"][0];
    assert_eq!(row["setting"], "batch 1, prompt tokens 4, new tokens 3, f32, peer q8");
    assert_eq!((&row["pairs"], &row["peer_peak_rss_mb"]), (&json!(3), &json!(250.)));
    assert_eq!(row["peer_tokens_per_second"], json!({ "median": 1., "min": 1., "max": 1000. }));
    assert_eq!(row["last"]["peer"]["dtype"], "q8");
    let number = |value: &Value| value.as_f64().unwrap();
    assert!(number(&row["ratio"]["median"]) > number(&row["ratio"]["min"]) && number(&row["fraction_of_limit"]) > 0.);
    // Once to warm up, and three times.
    assert_eq!(fs::read_to_string(folder.path().join("told")).unwrap(), "--new-tokens 3 config.json\n".repeat(4));
    for line in [
        "decode, Fake: pair 3 of 3",
        "decode, Missing: left out, nothing is not installed here",
        "decode, Broken: left out, `sh tests/peers/broken.sh` fails: it printed no JSON",
        "decode, Dying: left out, `sh tests/peers/dying.sh` fails: ended with signal: 11",
        "decode, Needy: left out, it needs a GGUF file as --gguf",
        "decode, Typed: left out, it has no f32",
    ] {
        assert!(stderr.contains(line), "{line} is not in\n{stderr}");
    }
    assert!(!stderr.contains("Other"), "{stderr}");
    let (stdout, stderr, _) = compare(folder.path(), &["--pairs", "1", "--only", "fake", "--markdown", "--quiet"]);
    assert!(stdout.starts_with("| Work | Phyla | Peer | Ratio |\n|---|---|---|---|\n| decode, batch 1"), "{stdout}");
    assert_eq!((stdout.lines().count(), stderr.as_str()), (3, ""));
}

#[test]
fn help_and_mistakes_say_what_to_give() {
    let folder = folder(json!([peer("Fake", "fake.sh", &[])]), &[("fake.sh", "exit 3")]);
    for what in ["compare", "startup"] {
        matches_snapshot(&format!("help-bench-{what}"), &said(folder.path(), &["bench", what, "--help"]));
    }
    let with = |more: &[&'static str]| [&QUICK[..], more].concat();
    let python = |python| [&QUICK[..5], &["--python", python][..]].concat();
    let runs = [
        with(&["--only", "else"]),
        with(&["--peers", "none"]),
        with(&["--batch", "0"]),
        with(&[]),
        python("no-such-python"),
        vec!["bench", "compare", "embed"],
        // Of everything only what inputs are given for.
        vec!["bench", "compare", "all", "--config", "config.json", "--python", "sh", "--threads", "1"],
        vec!["bench", "startup", "--model", "config.json"],
    ];
    let text: Vec<String> = runs.iter().map(|args| transcript(folder.path(), args)).collect();
    assert!(text.iter().all(|text| text.ends_with("exit code 2\n")), "{}", text.join("\n"));
    matches_snapshot("compare-mistakes", &text.join("\n"));
}

#[test]
fn a_signal_ends_the_children_too() {
    let script = "sleep 300 & echo $! > sleeping; wait";
    let folder = folder(json!([peer("Slow", "slow.sh", &[])]), &[("slow.sh", script)]);
    let mut comparison = command(folder.path(), &QUICK).stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (file, begun) = (folder.path().join("sleeping"), Instant::now());
    let sleeping = loop {
        match fs::read_to_string(&file).unwrap_or_default() {
            text if text.ends_with('\n') => break text.trim().to_owned(),
            _ => assert!(begun.elapsed() < Duration::from_secs(120), "the peer does not start"),
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let kill = |signal: &str, id: &str| {
        Command::new("kill").args([signal, id]).stderr(Stdio::null()).status().unwrap().success()
    };
    assert!(kill("-INT", &comparison.id().to_string()));
    assert_eq!(comparison.wait().unwrap().code(), Some(130));
    let ended = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        !kill("-0", &sleeping) || zombie(&sleeping)
    });
    assert!(ended, "process {sleeping} still runs");
}

/// Whether it has ended and nobody has asked how.
fn zombie(id: &str) -> bool {
    fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

#[test]
fn startup_times_the_first_token_of_a_process() {
    let folder = folder(json!([]), &[]);
    said(folder.path(), &["init", "--config", "config.json", "--output", "model"]);
    let text = said(folder.path(), &["bench", "startup", "--model", "model", "--steps", "3", "--json"]);
    let value: Value = serde_json::from_str(&text).unwrap();
    let all = value["first_token_ms_all"].as_array().unwrap();
    assert_eq!(all.len(), 3);
    assert!(all.iter().all(|first| first.as_f64().is_some_and(|first| first > 0.1)), "{value}");
    let text = said(folder.path(), &["bench", "startup", "--model", "model", "--steps", "1"]);
    assert!(text.starts_with("startup  1 prompt tokens") && text.contains("after the start of the process"), "{text}");
}

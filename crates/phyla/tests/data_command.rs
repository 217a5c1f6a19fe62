//! `phyla data inspect` as a user meets it.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::path::Path;

use common::{command, matches_snapshot, phyla, said, transcript};
use serde_json::Value;

/// A folder with conversations, `chats.jsonl`, and the model of the fixtures, `model`.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/sft");
    fs::create_dir(folder.path().join("model")).unwrap();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(golden.join(name), folder.path().join("model").join(name)).unwrap();
    }
    let chats = [
        r#"{"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "fine <b>\u001b[31m"}]}"#,
        r#"{"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two three four"}]}"#,
        r#"{"messages": [{"role": "user", "content": "one two three four one two three four one two"}]}"#,
    ];
    fs::write(folder.path().join("chats.jsonl"), chats.join("\n")).unwrap();
    folder
}

#[test]
fn what_is_learned_is_shown() {
    let folder = folder();
    fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
        [&["data", "inspect", "chats.jsonl", "--model", "model"][..], more].concat()
    }
    let mut text = transcript(folder.path(), &with(&["--ids"]));
    text += &transcript(folder.path(), &with(&["--max-len", "24", "--packing", "--limit", "1"]));
    text +=
        &transcript(folder.path(), &with(&["--loss-on", "completion", "--limit", "1", "--chat-template", "chatml"]));
    matches_snapshot("data-inspect", &text);
    let found: Value = serde_json::from_str(&said(folder.path(), &with(&["--json"]))).unwrap();
    let runs = |example: usize| -> Vec<(bool, String)> {
        let runs = found["examples"][example]["runs"].as_array().unwrap().iter();
        runs.map(|run| (run["learned"].as_bool().unwrap(), run["text"].as_str().unwrap().to_owned())).collect()
    };
    assert_eq!(runs(1)[1], (true, "two three four<|im_end|>".to_owned()));
    assert_eq!(runs(2).len(), 1);
    let example = &found["examples"][1];
    let learned = example["learned"].as_array().unwrap().iter().filter(|learned| **learned == true).count();
    assert_eq!(example["ids"].as_array().unwrap().len(), example["learned"].as_array().unwrap().len());
    assert!(learned > 1, "{example}");
}

#[test]
fn the_page_needs_nothing_and_runs_nothing() {
    let folder = folder();
    said(folder.path(), &["data", "inspect", "chats.jsonl", "--model", "model", "--html", "page.html"]);
    let page = fs::read_to_string(folder.path().join("page.html")).unwrap();
    assert!(page.contains("<mark>two three four&lt;|im_end|&gt;</mark>"), "{page}");
    assert!(page.contains("fine &lt;b&gt;") && !page.contains("<b>") && !page.contains('\u{1b}'), "{page}");
    assert!(!["<script", "src=", "href=", "url("].iter().any(|part| page.contains(part)), "{page}");
}

#[test]
fn data_that_teach_nothing_are_refused() {
    let folder = folder();
    let only = r#"{"messages": [{"role": "user", "content": "one"}, {"role": "user", "content": "two"}]}"#;
    fs::write(folder.path().join("asked.jsonl"), only).unwrap();
    fs::write(folder.path().join("empty.jsonl"), "").unwrap();
    let mut text = transcript(folder.path(), &["data", "inspect", "asked.jsonl", "--model", "model"]);
    for args in [
        &["data", "inspect", "chats.jsonl", "--model", "model", "--max-len", "4", "--limit", "0"][..],
        &["data", "inspect", "empty.jsonl", "--model", "model"],
        &["data", "inspect", "chats.jsonl"],
        &["data", "inspect", "chats.jsonl", "--model", "model", "--column", "messages"],
        &["data", "inspect", "chats.jsonl", "--model", "model", "--part", "validation"],
    ] {
        text += &transcript(folder.path(), args);
    }
    matches_snapshot("data-mistakes", &text);
}

#[test]
fn each_part_of_a_recipe_is_shown_by_itself() {
    let folder = folder();
    let recipe = |rest: &str| {
        let recipe = format!(
            "model = \"model\"\n[data]\nkind = \"table\"\ntrain = \"chats.jsonl\"\n{rest}\n[objective]\nkind = \"sft\"\n\
             [optim]\nkind = \"adamw\"\nlr = 1e-3\n[train]\nsteps = 1\n"
        );
        fs::write(folder.path().join("recipe.toml"), recipe).unwrap();
    };
    let held_out = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "held out"}]}"#;
    fs::write(folder.path().join("held.jsonl"), held_out).unwrap();
    recipe("validation = \"held.jsonl\"");
    let inspect = ["data", "inspect", "--recipe", "recipe.toml"];
    let text = said(folder.path(), &inspect);
    assert!(text.contains("⟦two three four<|im_end|>⟧") && !text.contains("held out"), "{text}");
    let text = said(folder.path(), &[&inspect[..], &["--part", "validation"]].concat());
    assert!(text.contains("⟦held out<|im_end|>⟧") && text.contains("1 examples, of which 1"), "{text}");
    recipe("");
    let output = phyla(folder.path(), &[&inspect[..], &["--part", "validation"]].concat());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("holds nothing out"), "{error}");
    assert!(command(folder.path(), &["data", "--help"]).output().unwrap().status.success());
}

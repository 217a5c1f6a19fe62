//! `explain decode`: each way to decode is told, in JSON of a fixed form, in lines, and as a page that fetches nothing.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
#[path = "common/tiny.rs"]
mod tiny;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{matches_snapshot, phyla, said, transcript};
use serde_json::{Value, json};
use tiny::tiny_decoder;

/// A folder with a tiny decoder, and a tokenizer whose tokens mean harm.
fn folder() -> tempfile::TempDir {
    let folder = tiny_decoder();
    let hostile =
        ["</script><script>alert(1)</script>", "<!--", "\u{2028}", "\u{202e}", "\u{0}", "\"'&<img src=x>", " a\n"];
    let name = |i: usize| hostile.get(i).map_or_else(|| format!("w{i}"), |text| (*text).to_owned());
    let vocab: BTreeMap<String, usize> = (0..60).map(|i| (name(i % 60), i)).collect();
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": { "type": "Fuse" }, "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "w59" }
    });
    fs::write(folder.path().join("model/tokenizer.json"), tokenizer.to_string()).unwrap();
    folder
}

const ASKED: [&str; 7] = ["--model", "model", "--ids", "7,3,9,7,3,9,7,3", "--max-new-tokens", "12", "--quiet"];

fn explained(folder: &Path, settings: &[&str]) -> Value {
    serde_json::from_str(&said(folder, &[&["explain", "decode"], &ASKED[..], settings, &["--json"]].concat())).unwrap()
}

/// The settings of every way to decode, and its name.
const WAYS: [(&[&str], &str); 7] = [
    (&["--repetition-penalty", "1.2"], "greedy"),
    (&["--temperature", "0.9", "--top-p", "0.8", "--seed", "3", "--num-return-sequences", "2"], "sampling"),
    (&["--num-beams", "3", "--num-return-sequences", "2", "--eos-token-id", "9,11,30"], "beams"),
    (&["--num-beams", "2", "--do-sample"], "drawn beams"),
    (&["--penalty-alpha", "0.5", "--top-k", "4"], "contrastive"),
    (&["--prompt-lookup-num-tokens", "5"], "greedy"),
    (&["--assistant-model", "model"], "greedy"),
];

/// The names of all fields, with those of what lists hold.
fn fields(value: &Value, path: &str, found: &mut BTreeMap<String, &'static str>) {
    let kind = match value {
        Value::Null => return,
        Value::Bool(_) => "true or false",
        Value::Number(_) => "number",
        Value::String(_) => "text",
        Value::Array(items) => {
            items.iter().for_each(|item| fields(item, &format!("{path}[]"), found));
            "list"
        }
        Value::Object(map) => {
            map.iter().for_each(|(name, value)| fields(value, &format!("{path}.{name}"), found));
            "object"
        }
    };
    found.insert(path.trim_start_matches('.').to_owned(), kind);
}

#[test]
fn every_way_to_decode_is_told_and_writes_what_generate_writes() {
    let folder = folder();
    let mut all = BTreeMap::new();
    for (settings, method) in WAYS {
        let told = explained(folder.path(), settings);
        let plain = said(folder.path(), &[&["generate"], &ASKED[..], settings, &["--json"]].concat());
        let plain: Value = serde_json::from_str(&plain).unwrap();
        assert_eq!((&told["method"], &told["left_out"]), (&json!(method), &json!(0)));
        for (answer, plain) in told["sequences"].as_array().unwrap().iter().zip(plain["sequences"].as_array().unwrap())
        {
            let ids: Vec<&Value> = answer["tokens"].as_array().unwrap().iter().map(|token| &token["id"]).collect();
            assert_eq!((json!(ids), &answer["text"]), (plain["ids"].clone(), &plain["text"]), "{settings:?}");
        }
        for step in told["steps"].as_array().unwrap() {
            probabilities_fit(step, method.contains("beams"));
        }
        for pass in told["passes"].as_array().unwrap() {
            assert!(pass["bytes"].as_u64() > Some(0), "{pass}");
        }
        fields(&told, "", &mut all);
    }
    let form: Vec<String> = all.into_iter().map(|(name, kind)| format!("{name}: {kind}\n")).collect();
    matches_snapshot("explain-form", &form.concat());
}

/// Candidates and stages have one length; what was picked is likely where it had to be.
fn probabilities_fit(step: &Value, search: bool) {
    let candidates = step["candidates"].as_array().unwrap().len();
    for stage in step["stages"].as_array().unwrap() {
        let of = |name: &str| stage[name].as_array().unwrap().clone();
        assert_eq!((of("scores").len(), of("probabilities").len()), (candidates, candidates));
        let sum: f64 = of("probabilities").iter().map(|p| p.as_f64().unwrap()).sum();
        assert!(sum <= 1.0001 && stage["entropy"].as_f64().unwrap() <= (stage["left"].as_f64().unwrap()).log2() + 1e-4);
        let ruled_out = |(score, p): (&Value, &Value)| !score.is_null() || *p == json!(0.0);
        assert!(of("scores").iter().zip(&of("probabilities")).all(ruled_out), "{stage}");
    }
    assert_eq!(step["pick"].is_null(), search);
    let last = step["stages"].as_array().unwrap().last().unwrap();
    let p = |i: &Value| last["probabilities"][i.as_u64().unwrap() as usize].as_f64().unwrap();
    let pick = &step["pick"];
    match pick["why"].as_str() {
        Some("likeliest") => assert!((0..candidates).all(|i| p(&json!(i)) <= p(&pick["candidate"]))),
        Some("drawn") => {
            let (u, below) = (pick["uniform"].as_f64().unwrap(), pick["below"].as_f64().unwrap());
            assert!(below - 1e-6 <= u && u <= below + p(&pick["candidate"]) + 1e-6, "{pick}");
        }
        Some("contrast") => assert_eq!(pick["weighed"].as_array().unwrap().len(), 4),
        _ => assert!(search),
    }
}

#[test]
fn beams_lead_from_the_prompt_to_what_comes_out_and_guesses_are_counted() {
    let folder = folder();
    let told = explained(folder.path(), WAYS[2].0);
    let ended = |candidate: &&Value| candidate["fate"] == "finished" && candidate["returned"] == true;
    let steps = told["beams"].as_array().unwrap();
    let found = steps.iter().flat_map(|step| step["candidates"].as_array().unwrap()).filter(ended).count();
    assert_eq!(found, 2);
    // Some beam of every step before the first end is on the way there.
    let kept = |step: &Value| step["candidates"].as_array().unwrap().iter().any(|c| c["returned"] == true);
    assert!(kept(&steps[0]));
    let guessed = explained(folder.path(), WAYS[6].0);
    let guesses = guessed["guesses"].as_array().unwrap();
    assert!(guesses.iter().any(|guess| guess["right"].as_u64() > Some(0)), "{guesses:?}");
    // Only so many steps are kept, and the others counted.
    let few = explained(folder.path(), &["--steps", "5", "--candidates", "2"]);
    assert_eq!((few["steps"].as_array().unwrap().len(), &few["left_out"]), (5, &json!(7)));
    assert!(few["steps"][0]["candidates"].as_array().unwrap().len() <= 2);
}

#[test]
fn the_page_needs_nothing_beside_it_and_hostile_tokens_stay_text() {
    let folder = folder();
    for (settings, _) in WAYS {
        let told =
            said(folder.path(), &[&["explain", "decode"], &ASKED[..], settings, &["--html", "page.html"]].concat());
        assert!(told.is_empty(), "{told}");
        let page = fs::read_to_string(folder.path().join("page.html")).unwrap();
        assert_eq!((page.matches("<script").count(), page.matches("</script").count()), (2, 2));
        for absent in ["http:", "https:", "@import", "url(", "<!--", "<img", "\u{2028}", "\u{202e}", "\0"] {
            assert!(!page.contains(absent), "{settings:?}: {absent:?}");
        }
        // Tokens may say anything; what they say is data.
        let (before, data) = page.split_once("id=\"data\">").unwrap();
        let (data, behind) = data.split_once("</script>").unwrap();
        assert!(!data.contains(['<', '>', '&']));
        assert!([before, behind].iter().all(|page| !page.contains(" src=") && !page.contains("href=")));
        assert!(page.contains("default-src 'none'") && page.contains("⟨U+2028⟩") && page.len() < 400_000);
    }
}

#[test]
fn lines_are_plain_where_there_is_no_terminal() {
    let folder = folder();
    let mut text = String::new();
    for settings in [
        &["--max-new-tokens", "2", "--candidates", "3", "--temperature", "0.7", "--top-k", "2"][..],
        &["--max-new-tokens", "2", "--candidates", "2", "--num-beams", "2"],
        &["--max-new-tokens", "2", "--candidates", "2", "--penalty-alpha", "0.5", "--top-k", "2"],
    ] {
        text += &said(folder.path(), &[&["explain", "decode"], &ASKED[..4], settings].concat());
    }
    assert!(!text.contains('\u{1b}') && !text.contains('\u{202e}') && !text.contains('\0'));
    // Signs of every part; the numbers depend on the machine's last digits.
    for part in [
        "token 1 ",
        "drawn, u ",
        " bits, 2 ids left",
        "beams after token 2",
        "end <- ",
        "by contrast",
        "likeness",
        "cache  ",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}

#[test]
fn help_and_mistakes() {
    let folder = folder();
    matches_snapshot("help-explain", &said(folder.path(), &["explain", "--help"]));
    let mut text = String::new();
    for settings in [&["--candidates", "0"][..], &["--html", "nowhere/page.html", "--max-new-tokens", "1"]] {
        text += &transcript(folder.path(), &[&["explain", "decode"], &ASKED[..4], settings].concat());
    }
    matches_snapshot("explain-mistakes", &text);
    let output =
        phyla(folder.path(), &[&["explain", "decode"], &ASKED[..], &["--logprobs", "--html", "p.html"]].concat());
    assert!(output.status.success());
}

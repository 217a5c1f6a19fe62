//! `cot` and the evaluation of reasoning as a user meets them, on a tiny model with random weights that knows characters.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{matches_snapshot, said, transcript};
use phyla::Tokenizer;
use serde_json::{Value, json};

/// A conversation as this template has it can be continued in the middle of an answer.
const CHAT: &str = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% if not loop.last or m.role == 'user' %}[/]\n{% endif %}\
                    {% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}";

/// A folder with a decoder: `model`, and `chat`, which is the same with a chat template.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let tokenizer = Tokenizer::from_characters((' '..='~').chain(['\n'])).unwrap();
    let config = json!({
        "model_type": "llama", "vocab_size": tokenizer.vocab_size(), "hidden_size": 16, "intermediate_size": 24,
        "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 4096, "initializer_range": 0.4,
    });
    fs::write(path.join("c.json"), config.to_string()).unwrap();
    for name in ["model", "chat"] {
        said(path, &["init", "--config", "c.json", "--output", name, "--seed", "5"]);
        tokenizer.save_into(path.join(name)).unwrap();
    }
    fs::write(path.join("chat/chat_template.jinja"), CHAT).unwrap();
    folder
}

const QUESTION: &str = "A box has 4 rows of 6 eggs. 5 are broken. How many are whole?";

fn cot(folder: &Path, model: &str, more: &[&str]) -> Value {
    let common = ["cot", "--model", model, QUESTION, "--json", "--max-new-tokens", "12"];
    serde_json::from_str(&said(folder, &[&common, more].concat())).unwrap()
}

fn stages(chain: &Value) -> Vec<&str> {
    chain["passes"].as_array().unwrap().iter().map(|pass| pass["stage"].as_str().unwrap()).collect()
}

#[test]
fn help_says_what_the_command_does() {
    let folder = tempfile::tempdir().unwrap();
    matches_snapshot("help-cot", &said(folder.path(), &["cot", "--help"]));
}

#[test]
fn every_method_asks_in_its_stages() {
    let folder = folder();
    let path = folder.path();
    for (method, expected) in
        [("plain", &["answer"][..]), ("zero-shot", &["reason", "answer"]), ("few-shot", &["reason"])]
    {
        let found = cot(path, "model", &["--method", method]);
        assert_eq!(found["method"], method);
        assert_eq!(found["chains"].as_array().unwrap().len(), 1);
        assert_eq!(stages(&found["chains"][0]), expected);
        assert_eq!((&found["vote"], &found["chat_template"]), (&Value::Null, &json!(false)));
        assert_eq!(found, cot(path, "model", &["--method", method]), "the same again");
    }
    // What the model writes is what `generate` writes behind the same prompt.
    let found = cot(path, "model", &["--method", "zero-shot"]);
    let [reason, answer] = [0, 1].map(|pass| found["chains"][0]["passes"][pass].clone());
    assert_eq!(reason["prompt"], format!("Q: {QUESTION}\nA: Let's think step by step."));
    let generate = ["generate", "--model", "model", "--max-new-tokens", "12", "--stop", "\nQ:", "--prompt"];
    let text = said(path, &[&generate[..], &[reason["prompt"].as_str().unwrap()]].concat());
    assert_eq!(text.strip_suffix('\n').unwrap(), reason["text"]);
    let prompt = format!(
        "{} {}\nTherefore, the answer (arabic numerals) is",
        reason["prompt"].as_str().unwrap(),
        reason["text"].as_str().unwrap().trim()
    );
    assert_eq!(answer["prompt"], prompt);
    let written = said(path, &[&generate[..], &[prompt.as_str()]].concat());
    assert_eq!(written.strip_suffix('\n').unwrap(), answer["text"]);
    // Without JSON the same is printed, and the answer last.
    let shown = said(path, &["cot", "--model", "model", QUESTION, "--max-new-tokens", "12"]);
    assert!(shown.contains(reason["text"].as_str().unwrap()) && shown.contains(answer["text"].as_str().unwrap()));
    let last = found["answer"].as_str().unwrap_or("none found");
    assert!(shown.ends_with(&format!("(24 tokens, as plain text)\nanswer: {last}\n")), "{shown}");
}

#[test]
fn chains_of_self_consistency_are_draws_from_one_prompt_and_their_votes_are_counted() {
    let folder = folder();
    let path = folder.path();
    for (more, passes) in [(&[][..], 1), (&["--no-shots"][..], 2)] {
        let found = cot(path, "model", &[&["--method", "self-consistency", "--samples", "7"], more].concat());
        let chains = found["chains"].as_array().unwrap();
        assert_eq!(chains.len(), 7);
        let mut texts: Vec<&Value> = chains.iter().map(|chain| &chain["passes"][0]["text"]).collect();
        texts.sort_by_key(|text| text.to_string());
        texts.dedup();
        assert!(texts.len() > 3, "draws differ");
        assert!(chains.iter().all(|chain| {
            chain["passes"].as_array().unwrap().len() == passes
                && chain["passes"][0]["prompt"] == chains[0]["passes"][0]["prompt"]
        }));
        let vote = &found["vote"];
        let counted: u64 = vote["votes"].as_array().unwrap().iter().map(|votes| votes["count"].as_u64().unwrap()).sum();
        assert_eq!(counted + vote["unanswered"].as_u64().unwrap(), 7);
        let most = vote["votes"][0]["count"].as_u64().unwrap_or(0);
        assert_eq!(vote["confidence"].as_f64().unwrap(), most as f64 / 7.);
        assert_eq!((&vote["answer"], &vote["votes"][0]["answer"]), (&found["answer"], &found["answer"]));
    }
    let shown =
        said(path, &["cot", "--model", "model", QUESTION, "--method", "self-consistency", "--max-new-tokens", "9"]);
    assert!(shown.contains("\n[5] ") && shown.contains("\nconfidence 0."), "{shown}");
}

#[test]
fn least_to_most_puts_earlier_answers_before_later_questions() {
    let folder = folder();
    let found = cot(folder.path(), "model", &["--method", "least-to-most", "--seed", "3"]);
    let chain = &found["chains"][0];
    let names = stages(chain);
    assert!(names.len() >= 2 && names[0] == "decompose" && names[1..].iter().all(|name| *name == "solve"), "{names:?}");
    let passes = chain["passes"].as_array().unwrap();
    assert!(passes.last().unwrap()["prompt"].as_str().unwrap().ends_with("Q: How many are whole?\nA:"), "{passes:?}");
    for pair in passes[1..].windows(2) {
        let said = pair[0]["text"].as_str().unwrap().trim();
        assert!(pair[1]["prompt"].as_str().unwrap().contains(&format!("A: {said}\nQ: ")), "{pair:?}");
    }
}

#[test]
fn prompts_go_through_the_models_chat_template_where_it_has_one() {
    let folder = folder();
    let path = folder.path();
    let found = cot(path, "chat", &[]);
    assert_eq!(found["chat_template"], true);
    let passes = &found["chains"][0]["passes"];
    let begun = format!("[user]{QUESTION}[/]\n[assistant]Let's think step by step.");
    assert_eq!(passes[0]["prompt"], begun);
    let reasoning = passes[0]["text"].as_str().unwrap().trim();
    assert_eq!(passes[1]["prompt"], format!("{begun} {reasoning}\nTherefore, the answer (arabic numerals) is"));
    let few = cot(path, "chat", &["--method", "few-shot"]);
    assert!(few["chains"][0]["passes"][0]["prompt"].as_str().unwrap().ends_with("whole?[/]\n[assistant]"));
    let plain = cot(path, "chat", &["--chat", "never"]);
    assert_eq!(plain, cot(path, "model", &[]));
}

#[test]
fn templates_and_exemplars_may_be_ones_own() {
    let folder = folder();
    let path = folder.path();
    for method in ["plain", "zero-shot", "few-shot", "self-consistency", "least-to-most"] {
        let template = said(path, &["cot", "--print-template", method]);
        assert!(template.starts_with("{#") && template.contains("{{ question }}"), "{template}");
        fs::write(path.join("same.jinja"), template).unwrap();
        let own = ["--method", method];
        let same = cot(path, "model", &[&own[..], &["--template", "same.jinja"]].concat());
        assert_eq!(same, cot(path, "model", &own), "{method}");
    }
    fs::write(path.join("mine.jinja"), "{{ shots[0].reasoning }}|{{ shots | length }}|{{ question }} ").unwrap();
    let shots = "{\"question\": \"q\", \"answer\": \"one <<1+1=2>>two\\n#### 2\"}\n".repeat(3);
    fs::write(path.join("shots.jsonl"), shots).unwrap();
    let own = ["--method", "few-shot", "--template", "mine.jinja", "--shots", "shots.jsonl", "--most-shots", "2"];
    let found = cot(path, "model", &own);
    assert_eq!(found["chains"][0]["passes"][0]["prompt"], format!("one two|2|{QUESTION}"));
    // Options have letters, and the answer is one.
    let choice = ["--method", "plain", "--answer", "choice", "--option", "3", "--option", "19"];
    let found = cot(path, "model", &choice);
    let prompt = found["chains"][0]["passes"][0]["prompt"].as_str().unwrap();
    assert!(prompt.contains("\nOptions: (A) 3 (B) 19\nA: Among the options, the answer is"), "{prompt}");
}

#[test]
fn a_reasoning_that_leaves_no_room_for_its_answer_is_cut_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let tokenizer = Tokenizer::from_characters((' '..='~').chain(['\n'])).unwrap();
    let config = json!({ "model_type": "gpt2", "vocab_size": tokenizer.vocab_size(), "n_embd": 16, "n_layer": 1,
        "n_head": 2, "n_positions": 200, "initializer_range": 0.4 });
    fs::write(path.join("c.json"), config.to_string()).unwrap();
    said(path, &["init", "--config", "c.json", "--output", "model", "--seed", "5"]);
    tokenizer.save_into(path.join("model")).unwrap();
    let found: Value =
        serde_json::from_str(&said(path, &["cot", "--model", "model", QUESTION, "--json", "--stop", "never"])).unwrap();
    let passes = &found["chains"][0]["passes"];
    assert_eq!((&passes[0]["cut"], passes[0]["finish_reason"].as_str()), (&json!(true), Some("length")));
    let prompt = passes[1]["prompt"].as_str().unwrap();
    assert!(prompt.len() <= 168 && prompt.ends_with("\nTherefore, the answer (arabic numerals) is"), "{prompt}");
    let shown = said(path, &["cot", "--model", "model", QUESTION, "--stop", "never"]);
    assert!(shown.contains("the end of the reasoning was cut"), "{shown}");
}

fn lines(path: PathBuf) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn methods_are_evaluated_side_by_side() {
    let folder = folder();
    let path = folder.path();
    let eval = ["eval", "--model", "model", "--task", "coin_flip", "--limit", "6", "--max-new-tokens", "8"];
    let rows = ["--method", "plain,zero-shot-cot,few-shot-cot,self-consistency", "--samples", "3"];
    let files = ["--output", "out.jsonl", "--html", "page.html", "--json", "-q"];
    let found: Value = serde_json::from_str(&said(path, &[&eval[..], &rows, &files].concat())).unwrap();
    let names: Vec<&str> =
        found["methods"].as_array().unwrap().iter().map(|row| row["method"].as_str().unwrap()).collect();
    assert_eq!(names, ["plain", "zero-shot-cot", "few-shot-cot", "self-consistency"]);
    let lines = lines(path.join("out.jsonl"));
    assert_eq!(lines.len(), 24);
    for row in found["methods"].as_array().unwrap() {
        let own: Vec<&Value> = lines.iter().filter(|line| line["method"] == row["method"]).collect();
        let right = own.iter().filter(|line| line["correct"] == true).count();
        assert!(own.iter().all(|line| (line["answer"] == line["expected"]) == (line["correct"] == true)));
        assert_eq!((row["correct"].as_u64(), row["count"].as_u64()), (Some(right as u64), Some(6)));
        let tokens: u64 = own
            .iter()
            .flat_map(|line| line["chains"].as_array().unwrap())
            .flat_map(|chain| chain["passes"].as_array().unwrap())
            .map(|pass| pass["tokens"].as_u64().unwrap())
            .sum();
        assert!((row["tokens"].as_f64().unwrap() - tokens as f64 / 6.).abs() < 1e-9);
        assert!(row["interval"][0].as_f64() <= row["accuracy"].as_f64());
    }
    let page = fs::read_to_string(path.join("page.html")).unwrap();
    assert!(page.contains("<th>self-consistency</th>") && page.contains("95 % interval"), "{page}");
    // A question is answered alone as it is among others.
    let alone = &lines[0];
    let options = ["--answer", "coin", "--method", "plain", "--json", "--max-new-tokens", "8"];
    let question = alone["question"].as_str().unwrap();
    let single: Value =
        serde_json::from_str(&said(path, &[&["cot", "--model", "model", question][..], &options].concat())).unwrap();
    assert_eq!(single["chains"], alone["chains"]);
    let shown = said(path, &[&eval[..], &["--method", "plain", "-q"]].concat());
    assert!(shown.contains("method  accuracy  95 % interval") && shown.contains("made from seed 0"), "{shown}");
}

#[test]
fn given_outputs_are_scored_without_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let rows: String = [
        ("It is 3 + 4 = <<3+4=7>>7.\n#### 7", "7"),
        ("So $1,450.\n#### 1,450", "b"),
        ("#### -3", "c"),
        ("2.50\n#### 2.5", "d"),
    ]
    .iter()
    .map(|(answer, question)| json!({ "question": question, "answer": answer }).to_string() + "\n")
    .collect();
    fs::write(path.join("data.jsonl"), rows).unwrap();
    let eval = ["eval", "--task", "gsm8k", "--data", "data.jsonl", "--json", "--predictions"];
    let own: Value = serde_json::from_str(&said(path, &[&eval[..], &["data.jsonl"]].concat())).unwrap();
    assert_eq!((&own["methods"][0]["correct"], &own["metrics"]["accuracy"]), (&json!(4), &json!(1.)));
    fs::write(path.join("said.txt"), "I think 7\nThe answer is $1,450.00. Or 3?\nminus 3\n").unwrap();
    let given: Value = serde_json::from_str(&said(path, &[&eval[..], &["said.txt", "--limit", "3"]].concat())).unwrap();
    assert_eq!(given["methods"][0]["correct"], 2, "{given}");
    assert_eq!(given["mistakes"][0]["found"], "3");
    let text = transcript(path, &["eval", "--task", "gsm8k", "--data", "data.jsonl", "--predictions", "said.txt"]);
    assert!(text.contains("there are 3 predictions for 4 problems") && text.ends_with("exit code 2\n"), "{text}");
}

/// The published files, where they are on this machine.
fn shared(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("PHYLA_SHARED_DATA")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let path = root.join(name);
    if !path.exists() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn every_solution_of_a_published_set_scores_right_against_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for (task, name, count) in [
        ("gsm8k", "gsm8k/test.jsonl", 1319),
        ("gsm8k", "gsm8k/train.jsonl", 7473),
        ("svamp", "cot_misc/SVAMP__SVAMP.json", 1000),
        ("multiarith", "cot_misc/MultiArith__MultiArith.json", 600),
        ("multiarith", "cot_misc/AddSub__AddSub.json", 395),
        ("multiarith", "cot_misc/SingleEq__questions.json", 508),
        ("aqua", "cot_misc/AQuA__test.json", 254),
        ("coin_flip", "cot_misc/coin_flip__coin_flip.json", 500),
        ("last_letters", "cot_misc/last_letters__last_letters.json", 500),
        ("strategyqa", "cot_misc/StrategyQA__task.json", 2290),
    ] {
        let Some(data) = shared(name) else { continue };
        let data = data.to_str().unwrap();
        let eval = ["eval", "--task", task, "--data", data, "--json", "--predictions"];
        let score = |file: &str| {
            let found: Value = serde_json::from_str(&said(path, &[&eval[..], &[file]].concat())).unwrap();
            (found["methods"][0]["correct"].as_u64().unwrap(), found["methods"][0]["count"].as_u64().unwrap())
        };
        if task == "gsm8k" {
            // Its own solutions, as they stand.
            assert_eq!(score(data), (count, count), "{name}");
        }
        // What is expected, said as the few-shot prompts say it.
        let outputs = path.join("said.jsonl");
        fs::write(&outputs, "{\"output\": \"\"}\n".repeat(count as usize)).unwrap();
        let empty = [&eval[..], &["said.jsonl", "--output", "all.jsonl"]].concat();
        said(path, &empty);
        let expected = |line: &Value| {
            format!("{}\n", json!({ "output": format!("So the answer is {}.", line["expected"].as_str().unwrap()) }))
        };
        let all: String = lines(path.join("all.jsonl")).iter().map(expected).collect();
        fs::write(&outputs, all).unwrap();
        assert_eq!(score("said.jsonl"), (count, count), "{name}");
    }
}

#[test]
fn what_is_wrong_is_told() {
    let folder = folder();
    let path = folder.path();
    fs::write(path.join("bad.jinja"), "Q: {{ qestion }}").unwrap();
    fs::write(path.join("open.jinja"), "{% if question %}").unwrap();
    fs::write(path.join("shots.jsonl"), "{\"question\": \"q\"}\n").unwrap();
    fs::write(path.join("data.jsonl"), "{\"question\": \"q\"}\n").unwrap();
    let ask = ["cot", "--model", "model", "How many?"];
    let mut text = String::new();
    for settings in [
        &["--template", "bad.jinja"][..],
        &["--template", "open.jinja"],
        &["--template", "missing.jinja"],
        &["--shots", "shots.jsonl"],
        &["--chat", "always"],
        &["--method", "self-consistency", "--temperature", "0"],
        &["--method", "self-consistency", "--num-return-sequences", "3"],
        &["--answer", "choice"],
        &["--option", "5"],
    ] {
        text += &transcript(path, &[&ask[..], settings].concat());
    }
    for command in [
        &["cot", "--model", "model", " "][..],
        &["eval", "--model", "model", "--task", "gsm8k"],
        &["eval", "--model", "model", "--task", "gsm8k", "--data", "data.jsonl"],
        &["eval", "--model", "model", "--task", "perplexity"],
        &["eval", "--task", "perplexity", "--data", "data.jsonl", "--predictions", "data.jsonl"],
        &["eval", "--task", "gsm8k", "--data", "data.jsonl"],
    ] {
        text += &transcript(path, command);
    }
    matches_snapshot("cot-mistakes", &text);
}

//! Ten thousand mutated files through the functions of the fuzz targets: no panic, no memory beyond a limit, no case
//! that takes long, and one clear message for each refusal.
#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

#[path = "../../../fuzz/src/entries.rs"]
mod entries;
mod mutate;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use entries::Refusal;
use mutate::{Rng, bytes, json, text};
use phyla_data::tokenizer::{BpeSettings, Tokenizer, train_bpe};
use serde_json::Value;

const ROLE: &str = "PHYLA_TEST_MUTATIONS";
/// Address space of the child in KiB: its threads and libraries take about a sixth; no case needs more than a few MB.
const LIMIT: u64 = 1_500_000;
/// No file here takes a second to read; a template may use up its fuel.
const SECONDS: f64 = 8.;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// What is wrong with a message, if anything is.
fn flaw(message: &str) -> Option<&'static str> {
    let has = |texts: &[&str]| texts.iter().any(|text| message.contains(text));
    match message {
        "" => Some("empty"),
        _ if message.len() > 2500 => Some("longer than a screen"),
        _ if has(&["panicked", "unwrap()", "Some(", "Err(", "Error {", "Error(", "InvalidHeader", "{:?}"]) => {
            Some("a dump")
        }
        _ if message.ends_with([':', ',']) => Some("cut off"),
        _ if message.trim() != message => Some("surrounded by space"),
        _ => None,
    }
}

/// Whether a message says which file, field or template it is about.
fn names_its_place(kind: &str, message: &str) -> bool {
    match kind {
        "checkpoint" => message.contains(".safetensors"),
        "recipe" => message.contains("recipe.toml") || message.contains('`') || message.contains('['),
        "template" => message.contains("template"),
        "tokenizer" | "tokenizer_config" => message.contains("tokenizer") || message.contains("template"),
        "generation_config" => message.contains("generation_config.json") || mentions_setting(message),
        _ => message.contains("config.json") || message.contains("tensor") || message.contains("expected"),
    }
}

fn mentions_setting(message: &str) -> bool {
    let settings = [
        "temperature",
        "top_",
        "min_",
        "max_",
        "penalty",
        "num_return",
        "num_beams",
        "bad_words",
        "early_stopping",
        "ngram",
        "renormalize",
        "stop_strings",
        "token",
        "sample",
    ];
    settings.iter().any(|setting| message.contains(setting))
}

/// Runs cases of one kind and gathers what is wrong with them.
struct Trial {
    last: PathBuf,
    problems: Vec<String>,
    sorts: BTreeSet<String>,
    counts: BTreeMap<&'static str, [usize; 2]>,
    slowest: (f64, String),
    total: usize,
}

impl Trial {
    fn case(&mut self, kind: &'static str, input: &[u8], entry: impl FnOnce(&[u8]) -> Refusal) {
        // Read by the parent should this process die.
        std::fs::write(&self.last, [kind.as_bytes(), b"\n", input].concat()).unwrap();
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| entry(input)));
        let seconds = start.elapsed().as_secs_f64();
        if seconds > self.slowest.0 {
            self.slowest = (seconds, kind.to_string());
        }
        self.total += 1;
        let problem = match &outcome {
            Err(_) => Some("a panic".to_string()),
            Ok(_) if seconds > SECONDS => Some(format!("{seconds:.1} s")),
            Ok(Ok(())) => None,
            Ok(Err(message)) => match flaw(message) {
                Some(flaw) => Some(format!("the message is {flaw}: {message:?}")),
                None if !names_its_place(kind, message) => Some(format!("the message names no place: {message:?}")),
                None => None,
            },
        };
        self.counts.entry(kind).or_default()[usize::from(matches!(outcome, Ok(Err(_))))] += 1;
        if let Some(problem) = problem
            && self.problems.len() < 25
        {
            let problem: String = problem.chars().take(300).collect();
            let shown = String::from_utf8_lossy(&input[..input.len().min(1500)]).into_owned();
            // One of a sort is enough to see.
            let sort: String = problem.chars().filter(|c| c.is_alphabetic()).take(70).collect();
            if self.sorts.insert(sort) {
                self.problems.push(format!("{kind}: {problem}\n    {shown}"));
            }
        }
    }
}

fn configs() -> Vec<(String, Value)> {
    let mut found = vec![];
    for family in ["gpt2", "llama", "mistral", "qwen2", "qwen3"] {
        let folders = std::fs::read_dir(root().join("tests/golden").join(family)).unwrap();
        let mut paths: Vec<PathBuf> = folders.map(|entry| entry.unwrap().path().join("config.json")).collect();
        paths.sort();
        let read = |path: &PathBuf| serde_json::from_slice(&std::fs::read(path).ok()?).ok();
        found.extend(paths.iter().filter_map(|path| Some((path.parent()?.display().to_string(), read(path)?))));
    }
    assert!(found.len() > 20, "{} configurations", found.len());
    found
}

fn tokenizers() -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let settings = BpeSettings { vocab_size: 280, ..BpeSettings::default() };
    let bpe =
        train_bpe(["a fox and a hen went out one day"; 3].map(Ok::<_, phyla_data::Error>), &settings, &mut |_| {});
    bpe.unwrap().save_into(folder.path()).unwrap();
    let characters = Tokenizer::from_characters("abc xyz.".chars()).unwrap();
    let other = tempfile::tempdir().unwrap();
    characters.save_into(other.path()).unwrap();
    let read = |folder: &Path| -> Value {
        serde_json::from_slice(&std::fs::read(folder.join("tokenizer.json")).unwrap()).unwrap()
    };
    let mut all = vec![read(folder.path()), read(other.path()), serde_json::from_str(entries::SOUND).unwrap()];
    let mut unigram: Value = all[2].clone();
    unigram["model"] = serde_json::json!({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["fox", -1.5], ["▁a", -2.0]],
        "byte_fallback": false});
    unigram["normalizer"] = serde_json::json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Replace",
        "pattern": {"Regex": " {2,}"}, "content": "▁"}, {"type": "Prepend", "prepend": "▁"}]});
    unigram["decoder"] =
        serde_json::json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    let mut pieces: Value = all[2].clone();
    pieces["model"] = serde_json::json!({"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": {"[UNK]": 0, "fox": 1, "##es": 2, "[CLS]": 4, "[SEP]": 5}});
    pieces["post_processor"] = serde_json::json!({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [4], "tokens": ["[CLS]"]}}});
    pieces["padding"] = serde_json::json!({"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[UNK]"});
    pieces["truncation"] =
        serde_json::json!({"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 2});
    all.extend([unigram, pieces]);
    all
}

const TOKENIZER_CONFIG: &str = r#"{"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 1024,
    "bos_token": "<|endoftext|>", "eos_token": {"content": "<|endoftext|>", "lstrip": false, "special": true},
    "unk_token": "[UNK]", "pad_token": null, "clean_up_tokenization_spaces": true, "add_bos_token": true,
    "added_tokens_decoder": {"3": {"content": "<|endoftext|>", "special": true, "normalized": false}},
    "additional_special_tokens": ["<|im_start|>"], "extra_special_tokens": {"image": "<img>"},
    "chat_template": [{"name": "default", "template": "{{ messages[0].content }}"}, {"name": "tool_use", "template": "x"}]}"#;

const GENERATION: &str = r#"{"_from_model_config": true, "max_new_tokens": 100, "max_length": 200, "min_new_tokens": 1,
    "do_sample": true, "temperature": 0.7, "top_k": 20, "top_p": 0.9, "min_p": 0.1, "repetition_penalty": 1.1,
    "eos_token_id": [1, 2], "bos_token_id": 1, "stop_strings": ["\n", "end"], "num_return_sequences": 2,
    "suppress_tokens": [5], "transformers_version": "5.0.0", "num_beams": 1}"#;

/// What no mutation is likely to hit upon.
const TEMPLATES: &[&str] = &[
    "{% for i in range(1000000000) %}{% for j in range(1000000000) %}x{% endfor %}{% endfor %}",
    "{{ 'x' * 1000000000000 }}",
    "{{ ('x' * 10000000) * 100000 }}",
    "{{ [1] * 1000000000000 }}",
    "{% set ns = namespace(s='x') %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
    "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{{ messages | tojson(indent=1000000000) }}",
    "{{ 'a'.replace('', 'x' * 100000) * 100000 }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ 'x'.ljust(1000000000000) }}{{ 'x' | center(1000000000000) }}",
    "{{ 'x' | indent(1000000000000) }}",
    "{{ range(0, 9223372036854775807) | list | length }}",
    "{{ 9223372036854775807 * 9223372036854775807 * 9223372036854775807 * 9223372036854775807 }}",
    "{{ 2 ** 100000 }}{{ 1 // 0 }}{{ 1 % 0 }}",
    "{{ messages[9223372036854775807] }}{{ messages[-9223372036854775808] }}",
    "{% include 'x' %}{% extends 'y' %}{% import 'z' as z %}",
];

fn misfits(trial: &mut Trial, rng: &mut Rng, configs: &[(String, Value)], count: u64) {
    let (folder, config) = configs.iter().find(|(folder, _)| folder.ends_with("llama/linear_new")).unwrap();
    let weights = Path::new(folder).join("model.safetensors");
    for _ in 0..count {
        let input = json(rng, config);
        trial.case("config", &input, |input| entries::misfit(input, &weights));
    }
}

/// Not a test of its own: what the test below runs with little memory.
#[test]
fn child() {
    let Some(last) = std::env::var_os(ROLE) else { return };
    let seed = number("PHYLA_TEST_SEED", 1);
    let rng = &mut Rng::new(seed);
    let mut trial = Trial {
        last: last.into(),
        problems: vec![],
        sorts: BTreeSet::new(),
        counts: BTreeMap::new(),
        slowest: (0., String::new()),
        total: 0,
    };

    let configs = configs();
    for _ in 0..2800 {
        let (_, original) = rng.pick(&configs);
        trial.case("config", &json(rng, original), entries::config);
    }
    misfits(&mut trial, rng, &configs, 700);
    let weights = std::fs::read(Path::new(&configs[0].0).join("model.safetensors")).unwrap();
    for _ in 0..1500 {
        trial.case("checkpoint", &mutate::safetensors(rng, &weights), entries::checkpoint);
    }
    let tokenizers = tokenizers();
    for _ in 0..1600 {
        let original = rng.pick(&tokenizers);
        trial.case("tokenizer", &json(rng, original), entries::tokenizer);
    }
    let config: Value = serde_json::from_str(TOKENIZER_CONFIG).unwrap();
    let generation: Value = serde_json::from_str(GENERATION).unwrap();
    for _ in 0..900 {
        trial.case("tokenizer_config", &json(rng, &config), entries::tokenizer_config);
        trial.case("generation_config", &json(rng, &generation), entries::generation_config);
    }
    let golden = std::fs::read(root().join("crates/data/tests/templates.json")).unwrap();
    let golden: Value = serde_json::from_slice(&golden).unwrap();
    let templates: Vec<&str> = golden["templates"].as_object().unwrap().values().filter_map(Value::as_str).collect();
    for template in TEMPLATES {
        trial.case("template", template.as_bytes(), entries::template);
    }
    for _ in 0..800 {
        let (one, other) = (*rng.pick(&templates), *rng.pick(&templates));
        trial.case("template", &text(rng, one, other), entries::template);
    }
    let files = std::fs::read_dir(root().join("recipes")).unwrap().map(|entry| entry.unwrap().path());
    let recipes: Vec<String> = files.map(|path| std::fs::read_to_string(path).unwrap()).collect();
    for _ in 0..1200 {
        let (one, other) = (rng.pick(&recipes), rng.pick(&recipes));
        trial.case("recipe", &mutate::toml(rng, one, other), entries::recipe);
    }
    entries::clean_up();

    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("VmHWM unknown").to_owned();
    println!("seed {seed}: {} cases; accepted, refused: {:?}", trial.total, trial.counts);
    println!("slowest {:.2} s ({}); {peak}", trial.slowest.0, trial.slowest.1);
    assert!(trial.problems.is_empty(), "seed {seed}:\n{}", trial.problems.join("\n"));
    // Both outcomes must be common, or the mutations are too wild or too tame to mean anything.
    for (kind, [accepted, refused]) in trial.counts {
        assert!(accepted >= 20 && refused >= 20, "{kind}: {accepted} accepted, {refused} refused");
    }
}

#[test]
fn mutated_files_never_panic_nor_take_memory_and_are_refused_in_words() {
    let last = tempfile::NamedTempFile::new().unwrap();
    let command = format!("ulimit -v {LIMIT}; exec \"$0\" --exact child --test-threads=1 --nocapture");
    let output = Command::new("sh")
        .args(["-c", &command])
        .arg(std::env::current_exe().unwrap())
        .env(ROLE, last.path())
        .env("RAYON_NUM_THREADS", "2")
        .output()
        .unwrap();
    print!("{}", String::from_utf8_lossy(&output.stdout));
    if !output.status.success() {
        let case = std::fs::read(last.path()).unwrap_or_default();
        let case = String::from_utf8_lossy(&case[..case.len().min(3000)]).into_owned();
        panic!("{}\n{}\nthe last case was {case}", output.status, String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn mutated_ids_are_refused_by_the_program_in_words() {
    let mut rng = Rng::new(number("PHYLA_TEST_SEED", 1));
    let model = root().join("tests/golden/gpt2/token_types");
    let folder = tempfile::tempdir().unwrap();
    let input = serde_json::json!({"input_ids": [[1, 2, 3], [4, 5, 6]], "attention_mask": [[1, 1, 0], [1, 1, 1]],
        "position_ids": [[0, 1, 2], [0, 1, 2]], "token_type_ids": [[0, 0, 1], [1, 1, 0]]});
    let mut outcomes = [0, 0];
    for _ in 0..150 {
        let ids = json(&mut rng, &input);
        let command = format!("ulimit -v {LIMIT}; exec \"$0\" forward --ids - --model \"$1\" --output \"$2\" --quiet");
        let mut child = Command::new("sh")
            .args(["-c", &command, env!("CARGO_BIN_EXE_phyla")])
            .args([&model, &folder.path().join("out.safetensors")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that has seen enough closes its end.
        child.stdin.take().unwrap().write_all(&ids).ok();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let shown = String::from_utf8_lossy(&ids).into_owned();
        match output.status.code() {
            Some(0) => outcomes[0] += 1,
            Some(2) => {
                assert_eq!(said.matches("error: ").count(), 1, "{said} for {shown}");
                assert!(flaw(said.trim_end()).is_none(), "{said} for {shown}");
                outcomes[1] += 1;
            }
            other => panic!("status {other:?}, {said} for {shown}"),
        }
    }
    println!("{} accepted, {} refused", outcomes[0], outcomes[1]);
    assert!(outcomes[0] > 5 && outcomes[1] > 50, "{outcomes:?}");
}

#[test]
fn malformed_bytes_stay_what_they_were_mutated_to() {
    // The mutator itself: the same seed gives the same bytes, and most of them differ from the original.
    let original = b"{\"a\": [1, 2, 3], \"b\": \"text\"}".to_vec();
    let run = |seed| (0..50u64).map(|i| bytes(&mut Rng::new(seed + i), &original)).collect::<Vec<_>>();
    assert_eq!(run(3), run(3));
    assert!(run(3).iter().filter(|mutant| **mutant != original).count() > 40);
}

//! Learning from preferences, grades and dialogues as whole runs: what only shows when data, loop and model come together.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use candle_core::Device;
use phyla_train::recipe::Recipe;
use phyla_train::{Options, Summary, train};
use serde_json::{Value, json};

const LLAMA: &str = "[model]\nmodel_type = 'llama'\nhidden_size = 32\nintermediate_size = 48\nnum_hidden_layers = 2\n\
    num_attention_heads = 2\nmax_position_embeddings = 256\n[tokenizer]\nkind = 'bpe'\nvocab_size = 400\npreset = 'chat'\n";

fn recipe(folder: &Path, name: &str, text: &str) -> Recipe {
    let text = format!("output = '{}'\n{text}", folder.join(name).display());
    Recipe::parse("test.toml", &text, &[]).unwrap()
}

fn run(folder: &Path, name: &str, text: &str) -> Summary {
    train(&recipe(folder, name, text), &Options { resume: false, quiet: true, device: Device::Cpu }).unwrap()
}

fn error(folder: &Path, text: &str) -> String {
    let recipe = recipe(folder, "refused", text);
    train(&recipe, &Options { resume: false, quiet: true, device: Device::Cpu }).unwrap_err().to_string()
}

/// The rows of a run's metrics.
fn rows(folder: &Path, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join(name).join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A model that has learned a little, for others to go on from.
fn base(folder: &Path) -> PathBuf {
    let text = format!(
        "{LLAMA}[data]\nkind = 'stories'\nbytes = 60000\nvalidation_fraction = 0.1\nmax_len = 64\n[optim]\nkind = 'adamw'\n\
         lr = 3e-3\n[train]\nsteps = 20\nbatch = 4\n"
    );
    run(folder, "base", &text).model.unwrap()
}

/// Every number that two runs tell must be the same up to rounding.
fn alike(one: &[Value], other: &[Value], what: &str) {
    fn numbers(value: &Value, found: &mut Vec<(String, f64)>, at: &str) {
        match value {
            Value::Number(number) => found.push((at.to_owned(), number.as_f64().unwrap())),
            Value::Object(map) => map.iter().for_each(|(key, value)| numbers(value, found, &format!("{at}/{key}"))),
            _ => {}
        }
    }
    assert_eq!(one.len(), other.len(), "{what}");
    let mut largest = 0f64;
    for (one, other) in one.iter().zip(other) {
        let [mut ours, mut theirs] = [vec![], vec![]];
        numbers(one, &mut ours, "");
        numbers(other, &mut theirs, "");
        let timed = |(name, _): &(String, f64)| !["time", "second", "rss"].iter().any(|word| name.contains(word));
        let [ours, theirs] = [ours, theirs].map(|all| all.into_iter().filter(timed).collect::<Vec<_>>());
        assert_eq!(ours.len(), theirs.len(), "{what}: {one} {other}");
        for ((name, a), (_, b)) in ours.iter().zip(&theirs) {
            let apart = (a - b).abs() / b.abs().max(1.);
            largest = largest.max(apart);
            assert!(apart < 1e-4, "{what}: {name} is {a} and {b}");
        }
    }
    println!("{what}: largest difference {largest:.1e}");
}

#[test]
fn the_model_without_its_adapter_is_the_reference_that_was_computed_before() {
    let folder = tempfile::tempdir().unwrap();
    let base = base(folder.path());
    for (name, objective) in [
        ("dpo", "kind = 'dpo'\nld_alpha = 0.5\nuse_weighting = true"),
        ("kto", "kind = 'kto'"),
        ("dpo of several", "kind = 'dpo'\nloss_type = ['sigmoid', 'sft']"),
    ] {
        let text = |reference: &str| {
            format!(
                "model = '{}'\n[data]\nkind = 'task'\ntask = 'preferences'\nitems = 24\nvalidation_items = 6\n[method]\n\
                 kind = 'lora'\nrank = 4\n[objective]\n{objective}\nmax_len = 120\ntruncation_mode = 'keep_end'\n\
                 reference = '{reference}'\n[optim]\nkind = 'adamw'\nlr = 1e-2\n[train]\nsteps = 6\nbatch = 4\nlog_every = 1\n\
                 eval_every = 3\n",
                base.display()
            )
        };
        run(folder.path(), "before", &text("precompute"));
        run(folder.path(), "meanwhile", &text("adapter_off"));
        let [before, meanwhile] = ["before", "meanwhile"].map(|name| rows(folder.path(), name));
        // It learns, or else all would be alike anyhow.
        let margin = |row: &Value| row["scores"]["rewards/margins"].as_f64();
        if name == "dpo" {
            assert!(before.iter().filter_map(margin).any(|margin| margin.abs() > 1e-3), "{before:?}");
        }
        alike(&meanwhile, &before, name);
        assert!(folder.path().join("before/data/reference.json").is_file());
        assert!(!folder.path().join("meanwhile/data/reference.json").exists());
        for run in ["before", "meanwhile"] {
            std::fs::remove_dir_all(folder.path().join(run)).unwrap();
        }
    }
    // What is trained beside the adapter is not switched off with it.
    let text = format!(
        "model = '{}'\n[data]\nkind = 'task'\ntask = 'preferences'\nitems = 8\n[method]\nkind = 'lora'\nsave = ['tokens']\n\
         [objective]\nkind = 'dpo'\nreference = 'adapter_off'\n[optim]\nkind = 'adamw'\nlr = 1e-2\n[train]\nsteps = 1\n",
        base.display()
    );
    let found = error(folder.path(), &text);
    assert!(found.contains("beside which nothing of the model itself learns"), "{found}");
}

#[test]
fn pairs_of_a_file_are_judged_one_by_one_and_stay_together() {
    let folder = tempfile::tempdir().unwrap();
    let row = |number: usize| {
        let [good, bad] = ["is fine", "is bad"].map(|end| format!(" it {end} {number}"));
        json!({"prompt": format!("number {number}:"), "chosen": good, "rejected": bad}).to_string()
    };
    let lines: Vec<String> = (0..40).map(row).collect();
    std::fs::write(folder.path().join("pairs.jsonl"), lines.join("\n")).unwrap();
    let text = format!(
        "{LLAMA}[data]\nkind = 'table'\ntrain = '{}'\nvalidation_fraction = 0.25\n[objective]\nkind = 'kto'\nmax_len = 64\n\
         [optim]\nkind = 'adamw'\nlr = 1e-3\n[train]\nsteps = 2\nbatch = 4\n",
        folder.path().join("pairs.jsonl").display()
    );
    let summary = run(folder.path(), "kto", &text);
    assert!(summary.eval_loss.unwrap().is_finite());
    // Both completions of a prompt are in one part: as many good ones as bad ones in each.
    let reference: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("kto/data/reference.json")).unwrap()).unwrap();
    let parts: Vec<usize> =
        reference["log_probs"].as_array().unwrap().iter().map(|part| part.as_array().unwrap().len()).collect();
    // Each completion has a row, and one that belongs to another prompt.
    assert_eq!(parts.iter().sum::<usize>(), 2 * 2 * 40);
    assert!(parts.iter().all(|rows| rows % 4 == 0) && parts[1] > 0, "{parts:?}");
}

#[test]
fn grades_are_learned_and_thresholds_are_saved() {
    let folder = tempfile::tempdir().unwrap();
    let text = "[model]\nmodel_type = 'bert'\nhidden_size = 32\nintermediate_size = 48\nnum_hidden_layers = 1\n\
        num_attention_heads = 2\nmax_position_embeddings = 128\n[tokenizer]\nkind = 'wordpiece'\nvocab_size = 400\n[data]\n\
        kind = 'task'\ntask = 'reviews'\nitems = 600\nvalidation_items = 150\n[objective]\nkind = 'reward'\nloss_type = 'ordinal'\n\
        max_len = 96\n[optim]\nkind = 'adamw'\nlr = 4e-3\n[train]\nsteps = 120\nbatch = 16\neval_every = 60\n";
    let summary = run(folder.path(), "grades", text);
    let scores = &summary.eval_scores;
    println!("{scores:?}");
    // By chance 0.2 and 0.5; the mean grade for all would be 1.2 stars off.
    // Thresholds that kept up with the scores: of five grades alike, chance is 1.61.
    assert!(summary.eval_loss.unwrap() < 0.8, "{summary:?}");
    assert!(scores["accuracy"] > 0.6 && scores["ranking_accuracy"] > 0.9 && scores["mae"] < 0.5, "{scores:?}");
    let saved = summary.model.unwrap();
    let read = |name: &str| -> Value { serde_json::from_slice(&std::fs::read(saved.join(name)).unwrap()).unwrap() };
    let kept = read("ordinal.json");
    assert_eq!(kept["grades"], json!(["1", "2", "3", "4", "5"]));
    let thresholds: Vec<f64> = serde_json::from_value(kept["thresholds"].clone()).unwrap();
    assert!(thresholds.len() == 4 && thresholds.is_sorted(), "{thresholds:?}");
    let config = read("config.json");
    assert_eq!(config["architectures"], json!(["BertForSequenceClassification"]));
    assert_eq!(config["id2label"], json!({"0": "LABEL_0"}));
    // A second run goes on from the thresholds too: at the first evaluation it is as good as the first was at its end.
    let again = format!(
        "model = '{}'\n[data]\nkind = 'task'\ntask = 'reviews'\nitems = 60\nvalidation_items = 150\n[objective]\n\
         kind = 'reward'\nloss_type = 'ordinal'\nmax_len = 96\n[optim]\nkind = 'adamw'\nlr = 1e-9\n[train]\nsteps = 1\n",
        saved.display()
    );
    let again = run(folder.path(), "again", &again);
    assert!((again.eval_loss.unwrap() - summary.eval_loss.unwrap()).abs() < 1e-4, "{again:?}");
    // Grades that are words need an order.
    std::fs::write(folder.path().join("words.jsonl"), "{\"text\": \"a\", \"label\": \"good\"}\n").unwrap();
    let words = format!(
        "{LLAMA}[data]\nkind = 'table'\ntrain = '{}'\n[objective]\nkind = 'reward'\nloss_type = 'ordinal'\n[optim]\n\
         kind = 'adamw'\nlr = 1e-3\n[train]\nsteps = 1\n",
        folder.path().join("words.jsonl").display()
    );
    assert!(error(folder.path(), &words).contains("from the worst to the best in `objective.grades`"));
}

#[test]
fn held_out_questions_are_answered_while_dialogues_are_learned() {
    let folder = tempfile::tempdir().unwrap();
    let line = |number: usize| {
        let asked = json!({"role": "user", "content": format!("What follows {}?", number % 4)});
        let word = ["one", "two", "three", "four"][number % 4];
        let answer = json!({"role": "assistant", "content": word});
        json!({"messages": [asked, answer]}).to_string()
    };
    let lines: Vec<String> = (0..64).map(line).collect();
    std::fs::write(folder.path().join("chats.jsonl"), lines.join("\n")).unwrap();
    let text = format!(
        "{LLAMA}[data]\nkind = 'table'\ntrain = '{}'\nvalidation_fraction = 0.2\n[objective]\nkind = 'sft'\nmax_len = 64\n\
         packing = true\nneftune_noise_alpha = 1\n[optim]\nkind = 'adamw'\nlr = 1e-2\n[train]\nsteps = 90\nbatch = 4\n\
         eval_every = 90\n[train.sample]\nevery = 45\nprompts = ['', 'What follows 2?']\nmax_new_tokens = 20\n",
        folder.path().join("chats.jsonl").display()
    );
    let summary = run(folder.path(), "chats", &text);
    let newest = std::fs::read_dir(folder.path().join("chats/checkpoints")).unwrap().map(|entry| entry.unwrap().path());
    let newest = newest.max().unwrap();
    let state: Value = serde_json::from_slice(&std::fs::read(newest.join("trainer_state.json")).unwrap()).unwrap();
    let samples = state["samples"].as_array().unwrap();
    // Three held-out questions and one of the recipe's; those of the last step came after its checkpoint.
    assert_eq!(samples.len(), 4, "{samples:?}");
    assert!(samples[0]["prompt"].as_str().unwrap().contains("What follows"), "{samples:?}");
    assert_eq!(samples[3]["prompt"], "What follows 2?");
    // What is expected is told where it is not met, which at the end it is.
    let missed = |text: &str| text.matches("(expected:").count();
    let first: usize = samples.iter().map(|sample| missed(sample["text"].as_str().unwrap())).sum();
    let report = std::fs::read_to_string(&summary.report).unwrap();
    assert_eq!((report.matches("=&gt; ").count(), missed(&report)), (8, first), "{report}");
    assert!(report.contains("=&gt; three"), "{report}");
}

#[test]
fn the_mean_of_an_adapters_checkpoints_is_the_mean_of_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let base = base(folder.path());
    for method in
        ["kind = 'lora'\nrank = 4\nsave = ['tokens']", "kind = 'lora'\nrank = 4\ninit = 'pissa'", "kind = 'ia3'"]
    {
        let text = |average: usize| {
            format!(
                "model = '{}'\n[data]\nkind = 'stories'\nbytes = 30000\nmax_len = 48\n[method]\n{method}\n[optim]\n\
                 kind = 'adamw'\nlr = 1e-2\n[train]\nsteps = 6\nbatch = 2\nsave_every = 2\nkeep_last = 3\n\
                 average_last = {average}\n",
                base.display()
            )
        };
        run(folder.path(), "mean", &text(3));
        let numbers = |path: &Path| -> std::collections::BTreeMap<String, Vec<f32>> {
            let tensors = phyla_models::checkpoint::Checkpoint::open(path.join("adapter_model.safetensors")).unwrap();
            let names: Vec<String> = tensors.names().map(str::to_owned).collect();
            names.into_iter().map(|name| (name.clone(), tensors.get(&name).unwrap().to_f32().unwrap())).collect()
        };
        let checkpoints = std::fs::read_dir(folder.path().join("mean/checkpoints")).unwrap();
        let checkpoints: Vec<PathBuf> =
            checkpoints.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
        let each: Vec<_> = checkpoints.iter().map(|path| numbers(path)).collect();
        assert_eq!(each.len(), 3, "{checkpoints:?}");
        let mean = numbers(&folder.path().join("mean/model"));
        let mut moved = 0f32;
        for (name, mean) in &mean {
            // Beginning with the weights, what is saved is their difference to the beginning, of twice the rank.
            for (at, value) in mean.iter().enumerate() {
                let expected = each.iter().map(|numbers| numbers[name][at]).sum::<f32>() / 3.;
                assert!((value - expected).abs() < 1e-5, "{method}, {name}: {value}, expected {expected}");
                moved = moved.max((value - each[0][name][at]).abs());
            }
        }
        assert!(moved > 1e-4, "{method}: nothing moved");
        std::fs::remove_dir_all(folder.path().join("mean")).unwrap();
    }
}

//! Every recipe of the repository runs: two steps of it, on less data, and what comes of it can be opened again.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};

use candle_core::Device;
use phyla_models::adapter::Adapter;
use phyla_models::{LoadOptions, Task, load};
use phyla_train::recipe::{
    FromFile, LengthUnit, Model, Objective, Reads, Recipe, RewardFunction, Source, TokenizerTable,
};
use phyla_train::{Options, Summary, train};
use serde_json::{Value, json};

fn recipes() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    paths
}

/// The recipe cut down to two steps in a folder of its own; sizes that cost time and mean nothing here are smaller.
fn small(path: &Path, folder: &Path) -> Recipe {
    cut(Recipe::read(path, &[]).unwrap(), folder)
}

fn cut(mut recipe: Recipe, folder: &Path) -> Recipe {
    recipe.output = folder.join("run");
    let steps = &mut recipe.train;
    (steps.steps, steps.epochs, steps.minutes) = (Some(2), None, None);
    (steps.accumulate, steps.eval_every, steps.save_every) = (1, 2, 1);
    steps.eval_batches = Some(1);
    steps.eval_generate = steps.eval_generate.min(2);
    if steps.sample.every > 0 {
        (steps.sample.every, steps.sample.max_new_tokens) = (2, 5);
    }
    let text = folder.join("text");
    match &mut recipe.data.source {
        Source::Stories(stories) => stories.bytes = 60_000,
        Source::Sums(sums) => sums.items = 2000,
        Source::Task(task) => (task.items, task.validation_items) = (80, 8),
        Source::Text(files) => {
            let stories: Vec<String> = phyla_data::stories::generate(1, 60_000).map(|story| story.text).collect();
            std::fs::write(&text, stories.join("\n")).unwrap();
            files.train = vec![text];
        }
        Source::Jsonl(files) => {
            let lines =
                phyla_data::stories::generate(1, 60_000).map(|story| format!("{}\n", json!({"text": story.text})));
            std::fs::write(&text, lines.collect::<String>()).unwrap();
            files.train = vec![text];
            recipe.data.validation_fraction = Some(0.1);
        }
        _ => {}
    }
    // Judged by what needs no other run.
    let judges = || vec![RewardFunction::Length { target: 5, unit: LengthUnit::Words }];
    let rollout = match &mut recipe.objective {
        Objective::Ppo(ppo) => Some((&mut ppo.rollout, &mut ppo.rewards)),
        Objective::Grpo(grpo) => Some((&mut grpo.rollout, &mut grpo.rewards)),
        _ => None,
    };
    if let Some((rollout, rewards)) = rollout {
        *rewards = judges();
        (rollout.max_completion_length, rollout.generation_batch_size) = (8, None);
    }
    let taught = recipe.distill.is_some();
    if taught || matches!(&recipe.model, Model::Named(name) if name.starts_with("runs/")) {
        // What another recipe would have left there.
        let tiny = "[model]\nmodel_type = 'llama'\nhidden_size = 16\nintermediate_size = 24\nnum_hidden_layers = 1\n\
            num_attention_heads = 2\nmax_position_embeddings = 2048\n[tokenizer]\nkind = 'bpe'\nvocab_size = 600\n\
            [data]\nkind = 'stories'\n[optim]\nlr = 1e-3\n[train]\nsteps = 2\n";
        let tiny = Recipe::parse("tiny.toml", tiny, &[]).unwrap();
        if let Some(distill) = &mut recipe.distill {
            let base = Recipe { output: folder.join("base"), ..tiny };
            distill.teacher = run(&base).model.unwrap().display().to_string();
            recipe.tokenizer = Some(TokenizerTable::Path(FromFile { path: distill.teacher.clone().into() }));
        } else if recipe.method.adapter().is_some() {
            // An adapter begins with a model that has learned.
            let base = Recipe { output: folder.join("base"), ..tiny };
            recipe.model = Model::Named(run(&base).model.unwrap().display().to_string());
        } else {
            (recipe.model, recipe.tokenizer) = (tiny.model, tiny.tokenizer);
        }
    }
    if let Model::Config(config) = &mut recipe.model
        && config.get("hidden_size").and_then(Value::as_u64) > Some(300)
    {
        for (key, size) in [("hidden_size", 48), ("intermediate_size", 64), ("num_hidden_layers", 1)] {
            config.insert(key.into(), json!(size));
        }
    }
    recipe
}

/// Objectives that no recipe of the repository has: choices, which take a checkpoint to learn anything, and masks alone.
const MORE: [&str; 2] = [
    "[data]\nkind = 'task'\ntask = 'speakers'\n[objective]\nkind = 'multiple_choice'\nmax_len = 256\n",
    "[data]\nkind = 'stories'\nvalidation_fraction = 0.1\n[objective]\nkind = 'mlm'\nmax_len = 64\n",
];

fn more(tables: &str) -> Recipe {
    let text = format!(
        "[model]\nmodel_type = 'bert'\nhidden_size = 16\nnum_hidden_layers = 1\nnum_attention_heads = 2\n\
         intermediate_size = 32\nmax_position_embeddings = 256\n[tokenizer]\nkind = 'wordpiece'\nvocab_size = 400\n\
         {tables}[optim]\nlr = 1e-3\n[train]\nsteps = 2\n"
    );
    Recipe::parse("more.toml", &text, &[]).unwrap()
}

fn run(recipe: &Recipe) -> Summary {
    train(recipe, &Options { resume: false, quiet: true, device: Device::Cpu }).unwrap()
}

#[test]
fn every_recipe_of_the_repository_runs_two_steps() {
    let mut tasks = vec![];
    let shipped = recipes().into_iter().map(|path| Recipe::read(&path, &[]).unwrap());
    for recipe in shipped.chain(MORE.map(more)) {
        let name = recipe.output.display().to_string();
        let folder = tempfile::tempdir().unwrap();
        let recipe = cut(recipe, folder.path());
        let summary = run(&recipe);
        assert_eq!(summary.steps, 2, "{name}");
        // Of answers to held-out prompts there is a reward, and no loss.
        let plays = recipe.objective.play().is_some();
        let loss =
            summary.eval_loss.unwrap_or_else(|| if plays { 0. } else { panic!("{name} has no validation data") });
        assert!(loss.is_finite() && summary.loss.is_finite() && summary.eval_loss.is_none() == plays, "{name}");
        let scores: Vec<&str> = summary.eval_scores.keys().map(String::as_str).collect();
        let expected: &[&str] = match recipe.objective.name() {
            "lm" => &[],
            "mlm" => &["masked_accuracy"],
            "mlm_nsp" => &["masked_accuracy", "next_sentence_accuracy"],
            "seq2seq" => &["bleu", "exact_match", "token_accuracy"],
            "t5_span" => &["token_accuracy"],
            "classify" => &["accuracy", "f1", "matthews"],
            "token_classify" => &["accuracy", "f1", "precision", "recall"],
            "qa" => &["exact_match", "f1"],
            "sft" => &["token_accuracy"],
            "dpo" => &[
                "logps/chosen",
                "logps/rejected",
                "rewards/accuracies",
                "rewards/chosen",
                "rewards/margins",
                "rewards/rejected",
            ],
            "reward" if recipe.objective.reads() == Reads::Grades => {
                &["accuracy", "mae", "ranking_accuracy", "rewards/mean"]
            }
            "reward" => {
                &["calibration_error", "rewards/accuracies", "rewards/chosen", "rewards/margins", "rewards/rejected"]
            }
            "ppo" | "grpo" => &[
                "completions/clipped_ratio",
                "completions/mean_length",
                "objective/entropy",
                "objective/kl",
                "reward",
                "reward_std",
            ],
            _ => &["accuracy"],
        };
        assert_eq!(scores, expected, "{name}");
        assert_eq!(summary.perplexity.is_some(), recipe.objective.has_perplexity(), "{name}");
        let saved = summary.model.unwrap();
        let adapts = recipe.method.adapter().is_some();
        let opened = match &recipe.model {
            Model::Named(base) if adapts => PathBuf::from(base),
            _ => saved.clone(),
        };
        let (model, report) = load(&opened, &LoadOptions::default()).unwrap();
        assert!(!adapts || Adapter::load(&model, &saved).is_ok(), "{name}");
        assert!(report.warnings.is_empty(), "{name}: {:?}", report.warnings);
        if let Some(task) = recipe.objective.task() {
            assert_eq!(model.arch.task, task, "{name}");
        }
        let generation: Value =
            serde_json::from_str(&std::fs::read_to_string(saved.join("generation_config.json")).unwrap()).unwrap();
        let begins = generation.get("decoder_start_token_id").is_some();
        assert_eq!(begins, model.arch.task == Task::Seq2SeqLm, "{name}: {generation}");
        tasks.push(recipe.objective.name());
    }
    for objective in
        ["lm", "mlm", "mlm_nsp", "seq2seq", "t5_span", "classify", "token_classify", "qa", "multiple_choice"]
    {
        assert!(tasks.contains(&objective), "no recipe of kind {objective}");
    }
}

#[test]
fn what_one_recipe_has_learned_another_one_goes_on_from() {
    let path = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes").join(name);
    let folder = tempfile::tempdir().unwrap();
    let pretrained = run(&small(&path("bert-pretrain.toml"), folder.path())).model.unwrap();
    let mut recipe = small(&path("classify.toml"), folder.path());
    (recipe.model, recipe.tokenizer) = (Model::Named(pretrained.display().to_string()), None);
    recipe.output = folder.path().join("classes");
    let tuned = run(&recipe);
    let report = std::fs::read_to_string(&tuned.report).unwrap();
    assert!(report.contains("weights of the new head are not in the checkpoint and begin at random"));
    let saved = tuned.model.unwrap();
    let config = |folder: &Path| -> Value {
        serde_json::from_str(&std::fs::read_to_string(folder.join("config.json")).unwrap()).unwrap()
    };
    let found = config(&saved);
    assert_eq!(found["architectures"], json!(["BertForSequenceClassification"]));
    assert_eq!(found["problem_type"], "single_label_classification");
    assert_eq!(found["id2label"], json!({"0": "good", "1": "sad"}));
    assert_eq!(found["label2id"], json!({"good": 0, "sad": 1}));

    // A checkpoint's own order of the same labels stays, since its head knows them by number.
    let mut turned = found.clone();
    turned["id2label"] = json!({"0": "sad", "1": "good"});
    turned["label2id"] = json!({"sad": 0, "good": 1});
    std::fs::write(saved.join("config.json"), turned.to_string()).unwrap();
    recipe.model = Model::Named(saved.display().to_string());
    recipe.output = folder.path().join("again");
    let again = run(&recipe);
    assert_eq!(config(&again.model.unwrap())["id2label"], turned["id2label"]);
    assert!(!std::fs::read_to_string(&again.report).unwrap().contains("begin at random"));
}

#[test]
fn rows_beyond_learned_positions_are_refused_before_the_first_step() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes/classify.toml");
    let folder = tempfile::tempdir().unwrap();
    let mut recipe = small(&path, folder.path());
    if let Model::Config(config) = &mut recipe.model {
        config.insert("max_position_embeddings".into(), json!(32));
    }
    let error = train(&recipe, &Options { resume: false, quiet: true, device: Device::Cpu }).unwrap_err().to_string();
    assert!(error.contains("learned positions for 32 only: set objective.max_len"), "{error}");
}

//! What is planned is what a run takes.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

use candle_core::Device;
use phyla_train::metrics::peak_rss_mb;
use phyla_train::plan::{KnownRows, Plan, Serving, plan, serve};
use phyla_train::recipe::Recipe;
use phyla_train::{Options, train};

const RUN: &str = "PHYLA_TEST_PLANNED";
const RECIPES: &str = "PHYLA_TEST_RECIPES";

/// A whole run in a process of its own, which then says how much memory it had at most.
#[test]
fn child() {
    let Some(recipe) = std::env::var_os(RUN) else { return };
    phyla_kernels::memory::keep_freed();
    let recipe = Recipe::read(Path::new(&recipe), &[]).unwrap();
    train(&recipe, &Options { resume: false, quiet: true, device: Device::Cpu }).unwrap();
    println!("peak {}", peak_rss_mb().unwrap_or(0.));
}

/// Mebibytes that a run of the recipe took, and those that were planned.
fn both(recipe: &Path) -> (f64, Plan) {
    let made = plan(&Recipe::read(recipe, &[]).unwrap(), KnownRows::default()).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--test-threads=1", "--nocapture"])
        .env("RAYON_NUM_THREADS", "2")
        .env(RUN, recipe)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let peak = text.split("peak ").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    (peak, made)
}

fn mib(bytes: usize) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

/// For measuring: `PHYLA_TEST_RECIPES` names recipes, separated by blanks; prints a line for each.
#[test]
fn all_that_are_named() {
    for recipe in std::env::var(RECIPES).unwrap_or_default().split_whitespace() {
        let (peak, plan) = both(Path::new(recipe));
        let planned = mib(plan.peak);
        println!("{recipe}: {peak:.0} measured, {planned:.0} planned, {:+.1} %", 100. * (planned / peak - 1.));
        for item in plan.items.iter().chain(&plan.worse) {
            println!("    {:<16} {:>6.0}", item.name, mib(item.bytes));
        }
    }
}

fn recipe(folder: &Path, model: &str, more: &str) -> PathBuf {
    let path = folder.join("recipe.toml");
    let text = format!(
        "output = '{}'\nseed = 1\n{model}\n[data]\nkind = 'stories'\nbytes = 100_000\nmax_len = 256\n[objective]\nkind = 'lm'\n\
         [optim]\nlr = 1e-4\n{more}\n",
        folder.join("run").display()
    );
    std::fs::write(&path, text).unwrap();
    path
}

const LLAMA: &str = "[model]\nmodel_type = 'llama'\nhidden_size = 256\nintermediate_size = 704\nnum_hidden_layers = 4\n\
    num_attention_heads = 4\nnum_key_value_heads = 2\nmax_position_embeddings = 512\nvocab_size = 16000\n\
    [tokenizer]\nkind = 'characters'";

#[test]
fn a_run_takes_what_was_planned() {
    if peak_rss_mb().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for train in ["[train]\nsteps = 2\nbatch = 4", "[train]\nsteps = 2\nbatch = 8\nactivation_checkpointing = true"] {
        let (peak, plan) = both(&recipe(folder.path(), LLAMA, train));
        std::fs::remove_dir_all(folder.path().join("run")).unwrap();
        let planned = mib(plan.peak);
        // A tenth, and what a harness takes beside the run.
        assert!((planned - peak).abs() < 0.1 * peak + 10., "{peak} measured, {planned} planned: {plan:?}");
    }
}

fn planned(recipe: &Path, overrides: &[&str]) -> Plan {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    plan(&Recipe::read(recipe, &overrides).unwrap(), KnownRows::default()).unwrap()
}

fn bytes(plan: &Plan, name: &str) -> usize {
    plan.items.iter().find(|item| item.name == name).map_or(0, |item| item.bytes)
}

#[test]
fn weights_gradients_and_states_are_counted_by_the_number_of_parameters() {
    let folder = tempfile::tempdir().unwrap();
    let path = recipe(folder.path(), LLAMA, "[train]\nsteps = 1\nbatch = 2");
    let layer = 256 * 256 * 2 + 2 * 128 * 256 + 3 * 256 * 704 + 2 * 256;
    let (matrices, vectors) = (2 * 16_000 * 256 + 4 * (layer - 2 * 256), 9 * 256);
    let full = planned(&path, &[]);
    assert_eq!(full.parameters, [matrices + vectors; 2]);
    assert_eq!(bytes(&full, "weights"), 4 * (matrices + vectors));
    assert_eq!(bytes(&full, "gradients"), 4 * (matrices + vectors));
    assert_eq!(bytes(&full, "optimiser"), 8 * (matrices + vectors));
    assert_eq!(bytes(&planned(&path, &["dtype=bf16"]), "copies in bf16"), 2 * matrices);
    let lion = planned(&path, &["optim.kind=lion"]);
    assert_eq!(bytes(&lion, "optimiser"), 4 * (matrices + vectors));
    let frozen = planned(&path, &["method.freeze=[\"tokens\"]"]);
    assert_eq!(bytes(&frozen, "gradients"), 4 * (matrices + vectors - 16_000 * 256));
}

#[test]
fn activations_grow_with_the_batch_and_shrink_with_checkpointing() {
    let folder = tempfile::tempdir().unwrap();
    let path = recipe(folder.path(), LLAMA, "[train]\nsteps = 1\nbatch = 2");
    let of = |overrides: &[&str]| bytes(&planned(&path, overrides), "activations");
    let (two, four) = (of(&[]), of(&["train.batch=4"]));
    assert_eq!(four, 2 * two, "all of it is for tokens");
    let again = of(&["train.activation_checkpointing=true"]);
    assert!(2 * again < two, "{again} {two}");
    // What the handbook says a layer keeps, four of them, is most of it.
    let (tokens, layer) = (512, 2 * 256 + 2 + 2 * 256 + (2 * 256 + 2 * 128) + 4 + 3 * 704);
    let kept = 4 * 4 * tokens * layer;
    assert!((kept..kept + kept / 2).contains(&two), "{kept} kept of {two}");
}

#[test]
fn an_answering_model_takes_its_weights_and_its_cache() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.json");
    std::fs::write(
        &config,
        r#"{"model_type": "llama", "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4,
            "num_key_value_heads": 2, "max_position_embeddings": 512, "vocab_size": 16000}"#,
    )
    .unwrap();
    let serving = Serving { dtype: None, quantize: None, context: Some(1000), sequences: 3, cache: None };
    let made = serve(&config, &serving).unwrap();
    // Whole pages of 64 positions, keys and values of two heads of 64 numbers, four layers, in f32.
    assert_eq!(bytes(&made, "cache"), 3 * 1024 * 4 * 2 * 2 * 64 * 4);
    let small = serve(&config, &Serving { quantize: Some("q8_0".parse().unwrap()), ..serving }).unwrap();
    assert!(bytes(&small, "weights") * 100 < bytes(&made, "weights") * 27, "34 bytes for 128");
    assert_eq!(bytes(&small, "cache"), bytes(&made, "cache") / 2, "bf16 beside quantised weights");
}

/// 4 bits for a number, 8 for every 64 and 32 for every 16,384; what rows of 704 and of 256 have alike is that 64 divides them.
#[test]
fn nf4_is_counted_with_its_scales() {
    let folder = tempfile::tempdir().unwrap();
    let config = r#"{"model_type": "llama", "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "vocab_size": 16000}"#;
    let config: serde_json::Value = serde_json::from_str(config).unwrap();
    let model = phyla_models::fresh(config.as_object().unwrap(), 1, &Device::Cpu).unwrap();
    phyla_models::save(&model, folder.path(), candle_core::DType::F32).unwrap();
    let options = phyla_models::LoadOptions {
        quantize: Some(phyla_models::Quantize::Nf4),
        ..phyla_models::LoadOptions::default()
    };
    let (loaded, _) = phyla_models::load(folder.path(), &options).unwrap();
    let held: usize = loaded.params().iter().map(|param| param.weight().bytes()).sum();
    let spans = |count: usize| 4 * ((count / 64).div_ceil(256) + 1);
    let (square, narrow, wide) = (256 * 256, 128 * 256, 256 * 704);
    let layer = 2 * square + 2 * narrow + 3 * wide;
    let scales = 2 * spans(square) + 2 * spans(narrow) + 3 * spans(wide);
    assert_eq!(held, 4 * (layer / 2 + layer / 64 + scales) + 4 * (2 * 16_000 * 256 + 9 * 256));
    let path = recipe(
        folder.path(),
        &format!("model = '{}'\nquantize = 'nf4'", folder.path().display()),
        "[train]\nsteps = 1\nbatch = 2\n[method]\nkind = 'lora'\nrank = 4",
    );
    assert_eq!(bytes(&planned(&path, &[]), "weights"), held);
    // AdaLoRA follows each number's sensitivity and uncertainty beside the number itself.
    let adalora = planned(&path, &["method={ kind = \"adalora\", rank = 4, target_rank = 2 }"]);
    assert_eq!(bytes(&adalora, "adapter"), 4 * 4 * (256 + 256 + 1 + 256 + 128 + 1) * 12);
    assert_eq!(bytes(&adalora, "optimiser"), 4 * 4 * (256 + 256 + 1 + 256 + 128 + 1) * 8);
}

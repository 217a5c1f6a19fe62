//! Training of adapters: ten losses against peft's, from the fixtures that `tests/golden/adapters.py` wrote, and what a run
//! leaves behind.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::DType;
use phyla_data::batch::Batch;
use phyla_kernels::rng::Rng;
use phyla_models::adapter::{Adapter, AdapterSpec, Eva};
use phyla_models::checkpoint::Checkpoint;
use phyla_models::{LoadOptions, Model, Quantize, load};
use phyla_ops::Param;
use phyla_train::optimizer::Optimizer;
use phyla_train::recipe::{AdamW, Lm, Objective, Optim, Rule};
use phyla_train::step::Stepper;
use serde_json::{Value, json};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/adapters")
}

/// The ids of a family's inputs, each row to be continued.
fn batch(family: &str) -> Batch {
    let text = std::fs::read_to_string(golden().join(family).join("inputs.json")).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    let ids: Vec<Vec<u32>> = serde_json::from_value(value["input_ids"].clone()).unwrap();
    let time = ids[0].len();
    let row = |row: &Vec<u32>| row[1..].iter().map(|&id| id as i32).chain([-100]).collect::<Vec<_>>();
    let targets: Vec<i32> = ids.iter().flat_map(row).collect();
    Batch {
        positions: ids.iter().flat_map(|_| 0..time as u32).collect(),
        lengths: vec![time; ids.len()],
        batch: ids.len(),
        time,
        tokens: targets.iter().filter(|&&t| t != -100).count(),
        ids: ids.concat(),
        targets,
        ..Batch::default()
    }
}

/// Puts an adapter to use and lets it alone learn.
fn learning(model: &Model, adapter: Adapter) -> (Arc<Adapter>, Vec<Arc<Param>>) {
    let adapter = Arc::new(adapter);
    model.use_adapters(std::slice::from_ref(&adapter));
    for param in adapter.params() {
        param.set_trainable(adapter.learns(param)).unwrap();
    }
    let params = adapter.params().into_iter().cloned().collect();
    (adapter, params)
}

fn steps(model: &Model, params: &[Arc<Param>], batch: &Batch, count: u64, lr: f64) -> Vec<f64> {
    steps_of(model, params, batch, (count, lr), false)
}

fn steps_of(
    model: &Model,
    params: &[Arc<Param>],
    batch: &Batch,
    (count, lr): (u64, f64),
    checkpointing: bool,
) -> Vec<f64> {
    let rule = Rule::Adamw(AdamW::default());
    let optim = Optim { rule, lr, weight_decay: 0., clip: None, ..Optim::default() };
    let mut optimizer = Optimizer::new(&optim, params, |_| 1.).unwrap();
    let objective = Objective::Lm(Lm::default());
    let stepper = Stepper {
        model,
        objective: &objective,
        clip: None,
        rng: Rng::new(0),
        checkpointing,
        critic: None,
        teacher: None,
        thresholds: None,
        allocator: None,
    };
    let batches = std::slice::from_ref(batch);
    (1..=count).map(|step| stepper.run(&mut optimizer, batches, step, lr).unwrap().loss).collect()
}

#[test]
fn ten_losses_equal_pefts() {
    for family in ["llama", "gpt2"] {
        for method in ["lora", "rslora", "dora", "vera", "ia3"] {
            let folder = golden().join(family).join(method);
            let model = load(&golden().join(family), &LoadOptions::default()).unwrap().0;
            let (_, params) = learning(&model, Adapter::load(&model, &folder).unwrap());
            let view = Checkpoint::open(folder.join("expected.safetensors")).unwrap().get("losses").unwrap();
            let theirs: Vec<f64> =
                view.bytes().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect();
            let ours = steps(&model, &params, &batch(family), 10, 1e-2);
            for (step, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
                assert!((ours - theirs).abs() < 1e-4, "{family} {method} step {step}: {ours}, peft {theirs}");
            }
            assert!(ours[9] < ours[0], "{family} {method}: nothing is learned");
        }
    }
}

/// The linear maps that the fixtures adapt.
fn targets(family: &str) -> Value {
    match family {
        "llama" => json!(["**.attn.{q,v}", "**.mlp.down"]),
        _ => json!(["**.attn.{q,k,v}", "**.mlp.up"]),
    }
}

#[test]
fn what_begins_with_the_weights_or_their_inputs_learns_as_pefts() {
    for (family, init) in [("llama", "pissa"), ("llama", "olora"), ("llama", "eva"), ("gpt2", "pissa"), ("gpt2", "eva")]
    {
        let folder = golden().join(family).join(init);
        let expected = Checkpoint::open(folder.join("expected.safetensors")).unwrap();
        let theirs: Vec<f64> = (expected.get("losses").unwrap().bytes().chunks_exact(8))
            .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
            .collect();
        let model = load(&golden().join(family), &LoadOptions::default()).unwrap().0;
        let spec = json!({ "lora": { "rank": 3, "alpha": 5, "init": init, "targets": targets(family) } });
        let mut made = fresh(&model, spec);
        if init == "eva" {
            let mut eva = Eva::new(made).unwrap();
            for _ in 0..3 {
                Objective::Lm(Lm::default()).examine(&model, &batch(family)).unwrap();
                eva.read(|_, _| None).unwrap();
            }
            made = eva.finish(&model).unwrap();
        }
        let (adapter, params) = learning(&model, made);
        let ours = steps(&model, &params, &batch(family), 10, 1e-2);
        for (step, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
            assert!((ours - theirs).abs() < 1e-4, "{family} {init} step {step}: {ours}, peft {theirs}");
        }
        // What is saved belongs to the weights as they are.
        let written = tempfile::tempdir().unwrap();
        adapter.save(&model, written.path(), None).unwrap();
        let [saved, pefts] =
            [written.path(), &folder].map(|folder| Checkpoint::open(folder.join("adapter_model.safetensors")).unwrap());
        let shapes = |checkpoint: &Checkpoint| -> Vec<(String, Vec<usize>)> {
            checkpoint.names().map(|name| (name.to_string(), checkpoint.get(name).unwrap().shape)).collect()
        };
        assert_eq!(shapes(&saved), shapes(&pefts), "{family} {init}");
        let other = load(&golden().join(family), &LoadOptions::default()).unwrap().0;
        let beside = Arc::new(Adapter::load(&other, written.path()).unwrap());
        other.use_adapters(std::slice::from_ref(&beside));
        let loss = |model: &Model| {
            let (parts, _) = Objective::Lm(Lm::default()).examine(model, &batch(family)).unwrap();
            parts[0].1
        };
        assert!((loss(&model) - loss(&other)).abs() < 1e-4, "{family} {init}");
        let theirs = Arc::new(Adapter::load(&other, &folder).unwrap());
        other.use_adapters(&[theirs]);
        assert!((loss(&model) - loss(&other)).abs() < 5e-2, "{family} {init}");
    }
}

#[test]
fn prompts_learn_as_pefts() {
    for family in ["llama", "gpt2"] {
        for method in ["prompt", "p_tuning_mlp", "p_tuning_lstm", "prefix", "prefix_projection"] {
            let folder = golden().join("../prompts").join(family).join(method);
            let begun = tempfile::tempdir().unwrap();
            for name in ["adapter_config.json", "adapter_model.safetensors"] {
                std::fs::copy(folder.join(name), begun.path().join(name)).unwrap();
            }
            // What makes a prompt, as peft has drawn it.
            if folder.join("encoder.safetensors").is_file() {
                std::fs::copy(folder.join("encoder.safetensors"), begun.path().join("prompt_encoder.safetensors"))
                    .unwrap();
            }
            let losses = |checkpointing: bool| {
                let model = load(&golden().join(family), &LoadOptions::default()).unwrap().0;
                let (_, params) = learning(&model, Adapter::load(&model, begun.path()).unwrap());
                steps_of(&model, &params, &batch(family), (10, 1e-2), checkpointing)
            };
            let view = Checkpoint::open(folder.join("expected.safetensors")).unwrap().get("losses").unwrap();
            let theirs: Vec<f64> =
                view.bytes().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect();
            let ours = losses(false);
            for (step, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
                assert!((ours - theirs).abs() < 1e-4, "{family} {method} step {step}: {ours}, peft {theirs}");
            }
            assert!(ours[9] < ours[0], "{family} {method}: nothing is learned");
            assert_eq!(losses(true), ours, "{family} {method}: computed again, otherwise");
        }
    }
}

fn fresh(model: &Model, spec: Value) -> Adapter {
    let spec: AdapterSpec = serde_json::from_value(spec).unwrap();
    Adapter::fresh(model, &spec, 7).unwrap()
}

#[test]
fn every_method_learns_over_frozen_weights_of_every_kind() {
    let quantised =
        |kind: &str| LoadOptions { quantize: Some(kind.parse::<Quantize>().unwrap()), ..LoadOptions::default() };
    let bf16 = LoadOptions { dtype: Some(DType::BF16), ..LoadOptions::default() };
    let folder = golden().join("llama");
    for (what, options) in [("f32", LoadOptions::default()), ("bf16", bf16), ("q8_0", quantised("q8_0"))] {
        for spec in [
            json!({ "lora": { "rank": 3, "targets": ["**.attn.*", "**.mlp.*"] } }),
            json!({ "lora": { "rank": 3, "dora": true, "dropout": 0.1, "targets": ["**.attn.*"] } }),
            json!({ "lora": { "rank": 3, "freeze_a": true } }),
            json!({ "vera": { "rank": 5, "dropout": 0.1 } }),
            json!({ "ia3": {} }),
            json!({ "bottleneck": { "inner": 4 } }),
        ] {
            let model = load(&folder, &options).unwrap().0;
            let before: Vec<String> = model.params().iter().map(|param| param.weight().stored().to_string()).collect();
            let (adapter, params) = learning(&model, fresh(&model, spec.clone()));
            let losses = steps(&model, &params, &batch("llama"), 20, 2e-2);
            assert!(losses[19] < losses[0] - 1e-3, "{what} {spec}: {losses:?}");
            let after: Vec<String> = model.params().iter().map(|param| param.weight().stored().to_string()).collect();
            assert_eq!(before, after, "{what} {spec}: a frozen weight is stored otherwise");
            assert!(
                model.params().iter().all(|param| param.grad().is_none()),
                "{what} {spec}: a gradient of a frozen weight"
            );
            assert!(
                adapter.params().iter().all(|param| param.grad().is_some() == adapter.learns(param)),
                "{what} {spec}"
            );
        }
    }
}

#[test]
fn checkpointing_computes_the_same_masks_again() {
    let run = |checkpointing: bool| {
        let model = load(&golden().join("llama"), &LoadOptions::default()).unwrap().0;
        let spec = json!({ "lora": { "rank": 3, "dropout": 0.3, "targets": ["**.attn.*"] } });
        let (_, params) = learning(&model, fresh(&model, spec));
        let optim = Optim { lr: 1e-2, ..Optim::default() };
        let mut optimizer = Optimizer::new(&optim, &params, |_| 1.).unwrap();
        let objective = Objective::Lm(Lm::default());
        let stepper = Stepper {
            model: &model,
            objective: &objective,
            clip: None,
            rng: Rng::new(0),
            checkpointing,
            critic: None,
            teacher: None,
            thresholds: None,
            allocator: None,
        };
        let batches = [batch("llama")];
        (1..=4).map(|step| stepper.run(&mut optimizer, &batches, step, 1e-2).unwrap().loss).collect::<Vec<_>>()
    };
    assert_eq!(run(false), run(true));
}

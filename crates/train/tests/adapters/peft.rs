//! Ten losses against peft's, from the fixtures that `tests/golden/adapters.py` and `prompts.py` wrote, and what a run leaves
//! behind.

use candle_core::DType;
use phyla_models::Quantize;
use phyla_models::adapter::{AdapterSpec, Eva};
use phyla_train::beside::Beside;
use serde_json::json;

use super::*;

#[test]
fn ten_losses_equal_pefts() {
    for family in ["llama", "gpt2"] {
        for method in ["lora", "rslora", "dora", "vera", "ia3"] {
            let folder = golden("adapters").join(family).join(method);
            let model = base(family);
            let (_, params) = learning(&model, Adapter::load(&model, &folder).unwrap());
            let theirs = losses_of(&Checkpoint::open(folder.join("expected.safetensors")).unwrap());
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
        let folder = golden("adapters").join(family).join(init);
        let theirs = losses_of(&Checkpoint::open(folder.join("expected.safetensors")).unwrap());
        let model = base(family);
        let spec = json!({ "lora": { "rank": 3, "alpha": 5, "init": init, "targets": targets(family) } });
        let mut made = fresh(&model, spec);
        if init == "eva" {
            let mut eva = Eva::new(made).unwrap();
            for _ in 0..3 {
                Objective::Lm(Lm::default()).examine(&model, &batch(family), Beside::default()).unwrap();
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
        let other = base(family);
        let beside = Arc::new(Adapter::load(&other, written.path()).unwrap());
        other.use_adapters(std::slice::from_ref(&beside));
        let loss = |model: &Model| {
            let (parts, _) = Objective::Lm(Lm::default()).examine(model, &batch(family), Beside::default()).unwrap();
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
            let folder = golden("prompts").join(family).join(method);
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
                let model = base(family);
                let (_, params) = learning(&model, Adapter::load(&model, begun.path()).unwrap());
                steps_of(&model, &params, &batch(family), (10, 1e-2), checkpointing)
            };
            let theirs = losses_of(&Checkpoint::open(folder.join("expected.safetensors")).unwrap());
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
    let folder = golden("adapters").join("llama");
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
        let model = base("llama");
        let spec = json!({ "lora": { "rank": 3, "dropout": 0.3, "targets": ["**.attn.*"] } });
        let (_, params) = learning(&model, fresh(&model, spec));
        steps_of(&model, &params, &batch("llama"), (4, 1e-2), checkpointing)
    };
    assert_eq!(run(false), run(true));
}

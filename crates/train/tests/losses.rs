//! Ten steps of training against PyTorch's, from the fixtures that `tests/golden/train_losses.py` wrote.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use phyla_data::batch::Batch;
use phyla_models::checkpoint::Checkpoint;
use phyla_models::names::{Place, place};
use phyla_models::{LoadOptions, Model, load};
use phyla_ops::Data;
use phyla_train::objective::Counts;
use phyla_train::optimizer::Optimizer;
use phyla_train::recipe::{AdamW, Lm, Objective, Optim, Rule};
use phyla_train::step::Stepper;
use serde_json::Value;

/// PyTorch's own f32 losses are within 1.1e-6 of f64's, norms within 7e-6, after ten steps.
const LOSS: f64 = 1e-4;

fn folder(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/train").join(family)
}

fn json(path: PathBuf) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn open(family: &str) -> Model {
    let model = load(&folder(family), &LoadOptions::default()).unwrap().0;
    for param in model.params() {
        param.set_trainable(true).unwrap();
    }
    model
}

fn batch(family: &str) -> Batch {
    let value = json(folder(family).join("batch.json"));
    let ids: Vec<Vec<u32>> = serde_json::from_value(value["input_ids"].clone()).unwrap();
    let labels: Vec<Vec<i32>> = serde_json::from_value(value["labels"].clone()).unwrap();
    let targets: Vec<i32> = labels.iter().flat_map(|row| row[1..].iter().copied().chain([-100])).collect();
    let tokens = targets.iter().filter(|&&t| t != -100).count();
    Batch { targets, tokens, ..Batch::of_rows(ids.iter().map(Vec::as_slice), 0) }
}

fn optim(settings: &Value) -> Optim {
    let number = |key: &str| settings[key].as_f64().unwrap();
    let betas = [settings["betas"][0].as_f64().unwrap(), settings["betas"][1].as_f64().unwrap()];
    let rule = Rule::Adamw(AdamW { betas, eps: number("eps") });
    Optim {
        rule,
        lr: number("lr"),
        weight_decay: number("weight_decay"),
        clip: Some(number("clip")),
        ..Optim::default()
    }
}

fn numbers(value: &Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The losses and norms of ten steps, and the model after them.
fn ten_steps(family: &str, batches: &[Batch], checkpointing: bool) -> (Vec<(f64, f64)>, Model) {
    let (model, settings) = (open(family), json(folder(family).join("train.json")));
    let optim = optim(&settings);
    let mut optimizer = Optimizer::new(&optim, model.params(), |_| 1.).unwrap();
    let objective = Objective::Lm(Lm::default());
    let stepper = Stepper { clip: optim.clip, checkpointing, ..Stepper::new(&model, &objective) };
    let results = (1..=10)
        .map(|step| {
            let result = stepper.run(&mut optimizer, batches, step, optim.lr).unwrap();
            (result.loss, result.grad_norm)
        })
        .collect();
    (results, model)
}

/// The elements of a stored tensor that are a parameter's, in its own order.
fn ours_of(stored: &[f32], place: &Place, dims: &[usize]) -> Vec<f32> {
    let rows = dims[0];
    let columns: usize = dims[1..].iter().product();
    let at = |row: usize, column: usize| {
        let row = place.part.0 * rows + row;
        if place.transposed && dims.len() == 2 { column * rows * place.part.1 + row } else { row * columns + column }
    };
    (0..rows * columns).map(|i| stored[at(i / columns, i % columns)]).collect()
}

fn values(data: &Data) -> Vec<f32> {
    data.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn ten_losses_equal_pytorchs() {
    for family in ["gpt2", "llama", "mistral", "qwen2", "qwen3"] {
        let expected = json(folder(family).join("train.json"));
        let (results, model) = ten_steps(family, &[batch(family)], false);
        let theirs = numbers(&expected["losses"]).into_iter().zip(numbers(&expected["gradient_norms"]));
        for (step, ((loss, norm), (their_loss, their_norm))) in results.into_iter().zip(theirs).enumerate() {
            assert!((loss - their_loss).abs() < LOSS, "{family} step {step}: loss {loss}, PyTorch {their_loss}");
            assert!(
                (norm - their_norm).abs() < LOSS * their_norm,
                "{family} step {step}: norm {norm}, PyTorch {their_norm}"
            );
        }
        let final_weights = Checkpoint::open(folder(family).join("final.safetensors")).unwrap();
        for param in model.params() {
            let place = place(model.family.names, param.path(), |_| true).unwrap();
            if !final_weights.contains(&place.tensor) {
                continue;
            }
            let theirs = ours_of(&final_weights.get(&place.tensor).unwrap().to_f32().unwrap(), &place, param.dims());
            for (a, b) in values(&param.weight().to_f32().unwrap()).iter().zip(theirs) {
                // Adam's first steps move by lr whatever the gradient's size, so rounding near 0 shows.
                assert!((a - b).abs() < 2e-3, "{family} {}: {a} {b}", param.path());
            }
        }
    }
}

#[test]
fn gradients_equal_pytorchs() {
    for family in ["gpt2", "llama"] {
        let (model, batch) = (open(family), batch(family));
        let objective = Objective::Lm(Lm::default());
        let mode = phyla_train::objective::Mode::default();
        objective.losses(&model, &batch, Counts::of(&batch), &mode).unwrap().total().unwrap().1.backward().unwrap();
        let expected = Checkpoint::open(folder(family).join("gradients.safetensors")).unwrap();
        for param in model.params() {
            let place = place(model.family.names, param.path(), |_| true).unwrap();
            let theirs = ours_of(&expected.get(&place.tensor).unwrap().to_f32().unwrap(), &place, param.dims());
            // A bias on every key shifts all scores alike: its gradient is nothing but rounding.
            let largest = theirs.iter().fold(1e-2f32, |m, x| m.max(x.abs()));
            for (a, b) in values(&param.grad().unwrap()).iter().zip(theirs) {
                assert!((a - b).abs() < 2e-5 * largest, "{family} {}: {a}, PyTorch {b}", param.path());
            }
        }
    }
}

#[test]
fn checkpointed_activations_give_the_same_losses() {
    let plain = ten_steps("qwen3", &[batch("qwen3")], false).0;
    // Bit for bit: the same operations run, only later.
    assert_eq!(plain, ten_steps("qwen3", &[batch("qwen3")], true).0);
}

#[test]
fn micro_batches_weigh_by_their_tokens() {
    let whole = batch("llama");
    let row = |index: usize| {
        let range = index * whole.time..(index + 1) * whole.time;
        let targets = whole.targets[range.clone()].to_vec();
        Batch {
            ids: whole.ids[range.clone()].to_vec(),
            positions: whole.positions[range].to_vec(),
            tokens: targets.iter().filter(|&&t| t != -100).count(),
            targets,
            batch: 1,
            lengths: vec![whole.time],
            ..whole.clone()
        }
    };
    let parts = [row(0), row(1), row(2)];
    let (together, apart) =
        (ten_steps("llama", std::slice::from_ref(&whole), false).0, ten_steps("llama", &parts, false).0);
    for ((a, _), (b, _)) in together.into_iter().zip(apart) {
        assert!((a - b).abs() < LOSS, "{a} {b}");
    }
}

//! Training of adapters: losses, gradients and what a run leaves behind.
#![expect(clippy::unwrap_used, reason = "tests")]

mod adalora;
mod peft;
mod qlora;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use phyla_data::batch::Batch;
use phyla_models::adapter::Adapter;
use phyla_models::checkpoint::Checkpoint;
use phyla_models::{Input, LoadOptions, Model, load};
use phyla_ops::{Param, no_grad};
use phyla_train::optimizer::Optimizer;
use phyla_train::recipe::{AdamW, Lm, Objective, Optim, Rule};
use phyla_train::step::Stepper;
use serde_json::Value;

/// A folder of fixtures.
fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(folder)
}

/// The model of a family that adapters are fixtures of.
fn base(family: &str) -> Model {
    load(&golden("adapters").join(family), &LoadOptions::default()).unwrap().0
}

/// Rows of ids, each to be continued.
fn continued(ids: &[Vec<u32>]) -> Batch {
    let row = |row: &Vec<u32>| row[1..].iter().map(|&id| id as i32).chain([-100]).collect::<Vec<_>>();
    let targets: Vec<i32> = ids.iter().flat_map(row).collect();
    let tokens = targets.len() - ids.len();
    Batch { targets, tokens, ..Batch::of_rows(ids.iter().map(Vec::as_slice), 0) }
}

/// A family's inputs, each row to be continued.
fn batch(family: &str) -> Batch {
    let text = std::fs::read_to_string(golden("adapters").join(family).join("inputs.json")).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    continued(&serde_json::from_value::<Vec<Vec<u32>>>(value["input_ids"].clone()).unwrap())
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

/// How all fixtures were trained.
fn optimizer(params: &[Arc<Param>], lr: f64) -> Optimizer {
    let rule = Rule::Adamw(AdamW::default());
    Optimizer::new(&Optim { rule, lr, weight_decay: 0., clip: None, ..Optim::default() }, params, |_| 1.).unwrap()
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
    let (mut optimizer, objective) = (optimizer(params, lr), Objective::Lm(Lm::default()));
    let stepper = Stepper { checkpointing, ..Stepper::new(model, &objective) };
    let batches = std::slice::from_ref(batch);
    (1..=count).map(|step| stepper.run(&mut optimizer, batches, step, lr).unwrap().loss).collect()
}

fn logits(model: &Model, batch: &Batch) -> Vec<f32> {
    let input = Input { ids: batch.ids.clone(), batch: batch.batch, time: batch.time, ..Input::default() };
    let found = no_grad(|| model.run(&input, false)).unwrap();
    found[0].1.data().flatten_all().unwrap().to_vec1().unwrap()
}

/// A tensor of losses.
fn losses_of(checkpoint: &Checkpoint) -> Vec<f64> {
    let view = checkpoint.get("losses").unwrap();
    view.bytes().as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect()
}

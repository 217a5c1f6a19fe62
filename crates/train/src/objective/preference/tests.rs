//! Losses and gradients held against those of trl.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::Path;

use candle_core::Device;
use phyla_ops::Data;
use serde_json::{Value, json};

use super::*;

/// f32 sums of a few dozen log-probabilities, and exponentials of them.
const TOLERANCE: f64 = 1e-5;

fn golden(of: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/preference.json");
    let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    all[of].as_array().unwrap().clone()
}

fn objective(case: &Value) -> Objective {
    let mut settings = case["objective"].as_object().unwrap().clone();
    let kind = settings.remove("kind").unwrap();
    serde_json::from_value(json!({ kind.as_str().unwrap(): settings })).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    serde_json::from_value(value.clone()).unwrap()
}

fn close(found: f64, expected: f64, what: &str) {
    let error = (found - expected).abs() / expected.abs().max(1.);
    assert!(error < TOLERANCE, "{what}: found {found}, expected {expected}");
}

fn all_close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    found.iter().zip(expected).for_each(|(found, expected)| close(*found, *expected, what));
}

/// A batch of rows with these lengths, and the log-probabilities that count in it.
fn batch(case: &Value, whole: bool) -> (Batch, Vec<f64>) {
    let lengths: Vec<usize> = serde_json::from_value(case["lengths"].clone()).unwrap();
    let prompts: Vec<usize> = serde_json::from_value(case["prompts"].clone()).unwrap();
    let time = *lengths.iter().max().unwrap();
    let (mut targets, mut kept) = (vec![IGNORE; lengths.len() * time], vec![]);
    for (row, &length) in lengths.iter().enumerate() {
        let prompt = prompts[row % prompts.len()];
        targets[row * time + prompt - 1..row * time + length - 1].fill(1);
        let first = if whole && row < prompts.len() { 0 } else { prompt - 1 };
        kept.extend_from_slice(&numbers(&case["log_probs"][row])[first..]);
    }
    let reference = case.get("reference").map(|known| numbers(known).into_iter().map(|x| x as f32).collect());
    let labels = Labels::Pairs(Compared { reference, margins: None, whole });
    let ids = vec![1; targets.len()];
    let (batch, time) = (lengths.len(), time);
    (Batch { ids, targets, lengths, batch, time, labels, ..Batch::default() }, kept)
}

/// What trl says of the tokens that count here; it must say nothing of the others.
fn gradient(case: &Value, whole: bool) -> Vec<f64> {
    let prompts: Vec<usize> = serde_json::from_value(case["prompts"].clone()).unwrap();
    let mut kept = vec![];
    for (row, gradient) in case["gradient"].as_array().unwrap().iter().enumerate() {
        let first = if whole && row < prompts.len() { 0 } else { prompts[row % prompts.len()] - 1 };
        let gradient = numbers(gradient);
        assert!(gradient[..first].iter().all(|&x| x == 0.), "a gradient in a prompt");
        kept.extend_from_slice(&gradient[first..]);
    }
    kept
}

fn holds_for(cases: &[Value]) {
    for case in cases {
        let (objective, what) = (objective(case), case["objective"].to_string());
        let whole = matches!(objective, Objective::Orpo(_));
        let (batch, log_probs) = batch(case, whole);
        let leaf: Vec<f32> = log_probs.iter().map(|&x| x as f32).collect();
        let leaf = Tensor::leaf(Data::from_vec(leaf, log_probs.len(), &Device::Cpu).unwrap());
        let Labels::Pairs(pairs) = &batch.labels else { panic!("no pairs") };
        let mut made = Completions::over(leaf.clone(), &batch, &counted(&batch), &objective).unwrap();
        if let Some(repeats) = case.get("repeats") {
            let prompts: Vec<usize> = serde_json::from_value(case["prompts"].clone()).unwrap();
            let rows = repeats.as_array().unwrap().iter().enumerate();
            made.repeats =
                rows.flat_map(|(row, of)| numbers(of)[prompts[row % prompts.len()] - 1..].to_vec()).collect();
        }
        let counts = Counts::of(&batch);
        let Found { parts, means, .. } =
            contrast(&objective, &made, pairs, |part| 1. / counts.count(part) as f64).unwrap();
        let losses = super::super::Losses { parts, balance: phyla_models::Balance::default(), means };
        let told = losses.means.values();
        let (loss, total) = losses.total().unwrap();
        close(loss, case["loss"].as_f64().unwrap(), &what);
        total.backward().unwrap();
        let found: Vec<f64> = leaf.grad().unwrap().to_vec1::<f32>().unwrap().into_iter().map(f64::from).collect();
        all_close(&found, &gradient(case, whole), &what);
        for (name, expected) in case["metrics"].as_object().unwrap() {
            close(told[name], expected.as_f64().unwrap(), &format!("{name} of {what}"));
        }
    }
}

#[test]
fn every_loss_of_dpo_is_that_of_trl() {
    let cases = golden("dpo");
    assert!(cases.len() > 40);
    holds_for(&cases);
}

#[test]
fn losses_without_a_reference_are_those_of_trl() {
    holds_for(&golden("contrast"));
}

#[test]
fn judgements_are_weighed_as_in_trl() {
    for case in golden("kto") {
        let Objective::Kto(settings) = objective(&case) else { panic!("not KTO") };
        let side = |log_probs: &str, reference: &str| Side {
            log_probs: numbers(&case[log_probs]),
            reference: numbers(&case[reference]),
            tokens: vec![],
        };
        let own = side("sums", "reference");
        let desirable: Vec<bool> = serde_json::from_value(case["label"].clone()).unwrap();
        let kl = divergence(&side("mismatched", "mismatched_reference"));
        let (value, slopes) = kto(&settings, &own, &desirable, kl);
        let count = desirable.len() as f64;
        let what = case["objective"].to_string();
        close(value / count, case["loss"].as_f64().unwrap(), &what);
        all_close(&slopes.iter().map(|x| x / count).collect::<Vec<_>>(), &numbers(&case["gradient"]), &what);
        if settings.loss_type == crate::recipe::KtoLoss::Kto {
            close(kl, case["metrics"]["kl"].as_f64().unwrap(), "kl");
        }
    }
}

#[test]
fn rewards_are_compared_as_in_trl() {
    for case in golden("reward") {
        let Objective::Reward(settings) = objective(&case) else { panic!("not a reward model") };
        let scores = numbers(&case["rewards"]);
        let (chosen, rejected) = scores.split_at(scores.len() / 2);
        let margins: Option<Vec<f32>> = serde_json::from_value(case["margins"].clone()).unwrap();
        let centre = settings.center_rewards_coefficient.unwrap_or(0.);
        let loss = bradley_terry(chosen, rejected, margins.as_deref(), centre);
        let (count, what) = (chosen.len() as f64, case["objective"].to_string());
        close(loss.value / count, case["loss"].as_f64().unwrap(), &what);
        let slopes: Vec<f64> = loss.chosen.iter().chain(&loss.rejected).map(|x| x / count).collect();
        all_close(&slopes, &numbers(&case["gradient"]), &what);
        let told = rewards(chosen, rejected).values();
        close(told["rewards/accuracies"], case["accuracy"].as_f64().unwrap(), "accuracy");
        close(told["rewards/margins"], case["margin"].as_f64().unwrap(), "margin");
    }
}

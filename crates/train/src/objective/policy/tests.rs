//! Losses and gradients held against those of trl, and of PPO against a plain reference.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::*;
use crate::recipe::{Grpo, Ppo, Rloo, ScaleRewards};
use crate::rollout::Completion;
use crate::rollout::advantage::{leave_one_out, over_group};

/// What was known at the roll-out is kept in f32; everything else is f64 on both sides.
const TOLERANCE: f64 = 1e-5;

fn golden(of: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/policy.json");
    let all: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    all[of].as_array().unwrap().clone()
}

fn read<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

fn all_close(found: &[f64], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        let error = (found - expected).abs() / expected.abs().max(1.);
        assert!(error < TOLERANCE, "{what}: found {found}, expected {expected}");
    }
}

fn ranges(lengths: &[usize]) -> Vec<Range<usize>> {
    let ends = lengths.iter().scan(0, |end, length| {
        *end += length;
        Some(*end)
    });
    ends.zip(lengths).map(|(end, length)| end - length..end).collect()
}

/// Runs `loss` on the tensors of a case, and compares what comes of it.
fn check(case: &Value, played: &Played, values: &[f64], loss: impl Fn(&Tokens) -> PolicyLoss) -> PolicyLoss {
    let lengths: Vec<usize> = read(&case["lengths"]);
    let (log_probs, entropies): (Vec<f64>, Vec<f64>) = (read(&case["log_probs"]), read(&case["entropies"]));
    let counted: usize = lengths.iter().zip(&played.left_out).filter(|(_, out)| !**out).map(|(length, _)| length).sum();
    let tokens = Tokens {
        log_probs: &log_probs,
        entropies: &entropies,
        values,
        played,
        rows: &ranges(&lengths),
        over: Over { tokens: 1. / counted as f64, rows: 1. / lengths.len() as f64 },
    };
    let found = loss(&tokens);
    let what = case["settings"].to_string();
    all_close(&found.by_log_prob, &read::<Vec<f64>>(&case["by_log_prob"]), &format!("{what}: by log-probability"));
    all_close(&found.by_entropy, &read::<Vec<f64>>(&case["by_entropy"]), &format!("{what}: by entropy"));
    found
}

fn of_group(case: &Value) -> Played {
    let read = |name: &str| read::<Vec<f32>>(&case[name]);
    Played {
        old: read("old"),
        reference: read("reference"),
        advantages: read("advantages"),
        left_out: self::read(&case["left_out"]),
        tokens_per_update: case["tokens_per_update"].as_f64().unwrap() as f32,
        ..Played::default()
    }
}

fn told(found: &PolicyLoss, case: &Value) {
    let means = found.means.values();
    // Where a completion has one ratio, trl counts those too that are left out.
    let by_sequence = case["settings"]["importance_sampling_level"] == "sequence";
    let left_out = read::<Vec<bool>>(&case["left_out"]).contains(&true);
    for (theirs, ours) in [("kl", "kl"), ("entropy", "entropy"), ("clip_ratio/region_mean", "clip_ratio")] {
        if let Some(expected) = case["metrics"].get(theirs).and_then(Value::as_f64)
            && !(ours == "clip_ratio" && by_sequence && left_out)
        {
            all_close(&[means[ours]], &[expected], &format!("{}: {theirs}", case["settings"]));
        }
    }
}

#[test]
fn grpo_and_its_relatives_equal_trl() {
    let cases = golden("grpo");
    for case in &cases {
        let settings: Grpo = read(&case["settings"]);
        let found = check(case, &of_group(case), &[], |tokens| grpo(&settings, tokens));
        all_close(&[found.policy], &[case["loss"].as_f64().unwrap()], &case["settings"].to_string());
        told(&found, case);
    }
    assert!(cases.len() > 50);
}

#[test]
fn rloo_equals_trl() {
    for case in &golden("rloo") {
        let settings: Rloo = read(&case["settings"]);
        let found = check(case, &of_group(case), &[], |tokens| rloo(&settings, tokens));
        all_close(&[found.policy], &[case["loss"].as_f64().unwrap()], &case["settings"].to_string());
        told(&found, case);
    }
}

#[test]
fn ppo_equals_its_reference_from_rewards_to_gradients() {
    for case in &golden("ppo") {
        let settings: Ppo = read(&case["settings"]);
        let lengths: Vec<usize> = read(&case["lengths"]);
        let (old, reference): (Vec<f32>, Vec<f32>) = (read(&case["old"]), read(&case["reference"]));
        let (values, rewards): (Vec<f32>, Vec<f64>) = (read(&case["old_values"]), read(&case["rewards"]));
        let mut made: Vec<Completion> = ranges(&lengths)
            .into_iter()
            .zip(&rewards)
            .map(|(row, &reward)| Completion {
                given: 1,
                ids: vec![0; row.len() + 1],
                ended: true,
                reward: Some(reward),
                old: old[row.clone()].to_vec(),
                reference: reference[row.clone()].to_vec(),
                values: values[row].to_vec(),
                ..Completion::default()
            })
            .collect();
        crate::rollout::experience::weigh(&Objective::Ppo(settings.clone()), &mut made, settings.kl_coef);
        let all = |list: fn(&Completion) -> &Vec<f32>| -> Vec<f32> { made.iter().flat_map(list).copied().collect() };
        let (advantages, returns) = (all(|one| &one.advantages), all(|one| &one.returns));
        let wide = |list: &[f32]| list.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
        let what = case["settings"].to_string();
        all_close(&wide(&advantages), &read::<Vec<f64>>(&case["advantages"]), &format!("{what}: advantages"));
        all_close(&wide(&returns), &read::<Vec<f64>>(&case["returns"]), &format!("{what}: returns"));
        let left_out = vec![false; lengths.len()];
        let played = Played { old, reference, advantages, values, returns, left_out, ..Played::default() };
        let new: Vec<f64> = read(&case["values"]);
        let found = check(case, &played, &new, |tokens| ppo(&settings, tokens));
        let expected = [case["policy"].as_f64().unwrap(), case["value"].as_f64().unwrap()];
        all_close(&[found.policy, found.value], &expected, &what);
        all_close(&found.by_value, &read::<Vec<f64>>(&case["by_value"]), &format!("{what}: by value"));
    }
}

#[test]
fn advantages_of_groups_equal_trl() {
    for case in &golden("groups") {
        let group = case["group"].as_u64().unwrap() as usize;
        let rewards: Vec<Option<f64>> = read(&case["rewards"]);
        let scale: ScaleRewards = read(&case["scale"]);
        all_close(&over_group(&rewards, group, scale), &read::<Vec<f64>>(&case["advantages"]), "group");
        all_close(&leave_one_out(&rewards, group, false), &read::<Vec<f64>>(&case["leave_one_out"]), "leave one out");
        all_close(&leave_one_out(&rewards, group, true), &read::<Vec<f64>>(&case["normalized"]), "normalised");
    }
}

#[test]
fn what_nobody_could_judge_teaches_nothing() {
    let rewards = [Some(1.), None, Some(3.), None, None, Some(5.)];
    let over = over_group(&rewards, 3, ScaleRewards::None);
    assert_eq!(over, [-1., 0., 1., 0., 0., 0.]);
    assert_eq!(leave_one_out(&rewards, 3, false), [-2., 0., 2., 0., 0., 0.]);
}

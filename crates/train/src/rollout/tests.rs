//! Twenty updates of PPO against the same written out in torch (`tests/golden/ppo_run.py`), on given completions.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use candle_core::Device;
use serde_json::Value;

use super::*;
use crate::optimizer::Optimizer;
use crate::setup::Setup;
use crate::step::Stepper;

/// f32 on both sides: PyTorch's own losses differ from f64's by some 1e-6 after ten steps, and these are steps over
/// exponentials of differences.
const TOLERANCE: f64 = 1e-4;

fn close(found: f64, expected: f64, what: &str) {
    let error = (found - expected).abs() / expected.abs().max(1.);
    assert!(error < TOLERANCE, "{what}: found {found}, expected {expected}");
}

fn recipe(run: &Value, model: &Path) -> Recipe {
    let settings: String =
        run["settings"].as_object().unwrap().iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    let text = format!(
        "model = '{}'\n[tokenizer]\nkind = 'characters'\n[data]\nkind = 'task'\ntask = 'preferences'\nitems = 8\n\
         [objective]\nkind = 'ppo'\n{settings}[objective.rollout]\ntemperature = {}\ngeneration_batch_size = 6\n\
         [[objective.rewards]]\nkind = 'length'\ntarget = 3\n\
         [optim]\nkind = 'adamw'\nlr = {}\nbetas = [0.9, 0.95]\nclip = {}\n[train]\nsteps = 20\nbatch = 3\naccumulate = 2\n",
        model.display(),
        run["temperature"],
        run["lr"],
        run["clip"]
    );
    Recipe::parse("ppo.toml", &text, &[]).unwrap()
}

fn completions(rollout: &Value) -> Vec<Completion> {
    let one = |(row, reward): (&Value, &Value)| Completion {
        given: row["given"].as_u64().unwrap() as usize,
        ids: serde_json::from_value(row["ids"].clone()).unwrap(),
        ended: true,
        reward: reward.as_f64(),
        ..Completion::default()
    };
    let rewards = rollout["rewards"].as_array().unwrap();
    rollout["completions"].as_array().unwrap().iter().zip(rewards).map(one).collect()
}

#[test]
fn twenty_updates_equal_torch() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/ppo_run");
    let run: Value = serde_json::from_slice(&std::fs::read(folder.join("run.json")).unwrap()).unwrap();
    let recipe = recipe(&run, &folder);
    let root = tempfile::tempdir().unwrap();
    let mut setup = Setup::new(&recipe, root.path(), None, &Device::Cpu, &mut |_| {}).unwrap();
    let mut optimizer = Optimizer::new(&recipe.optim, &setup.params(), |_| 1.).unwrap();
    let mut step = 0;
    for rollout in run["rollouts"].as_array().unwrap() {
        let rollouts = setup.rollouts.as_mut().unwrap();
        close(rollouts.kl_coef(), rollout["kl_coef"].as_f64().unwrap(), "the price of divergence");
        let mut made = completions(rollout);
        let means = rollouts.value(&setup.model, &mut made).unwrap().values();
        close(means["objective/kl"], rollout["kl"].as_f64().unwrap(), "the divergence");
        rollouts.state.rollouts += 1;
        rollouts.state.completions = made;
        for expected in rollout["steps"].as_array().unwrap() {
            let rollouts = setup.rollouts.as_mut().unwrap();
            let batches = rollouts.batches();
            rollouts.state.taken += 1;
            let stepper = Stepper {
                clip: recipe.optim.clip,
                beside: setup.beside(),
                ..Stepper::new(&setup.model, &recipe.objective)
            };
            step += 1;
            let found = stepper.run(&mut optimizer, &batches, step, recipe.optim.lr).unwrap();
            close(found.loss, expected["loss"].as_f64().unwrap(), &format!("loss of step {step}"));
            close(found.grad_norm, expected["grad_norm"].as_f64().unwrap(), &format!("norm of step {step}"));
        }
        setup.rollouts.as_mut().unwrap().state.taken = 0;
    }
    assert_eq!(step, 20);
}

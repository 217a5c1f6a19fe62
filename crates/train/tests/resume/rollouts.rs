//! Runs that learn from their own completions: killed at any moment they end bit for bit as undisturbed ones, in the middle
//! of a roll-out too; and a judge that fails costs nothing that was learned.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use crate::objectives::ends_alike;
use crate::run::Run;

fn text(objective: &str, train: &str) -> String {
    format!(
        "output = 'ROOT/run'\nseed = 5\n[model]\nmodel_type = 'llama'\nhidden_size = 16\nintermediate_size = 24\n\
         num_hidden_layers = 1\nnum_attention_heads = 2\nmax_position_embeddings = 512\n\
         [tokenizer]\nkind = 'characters'\n\
         [data]\nkind = 'task'\ntask = 'preferences'\nitems = 5\nvalidation_items = 3\n\
         [optim]\nlr = 3e-3\nclip = 1.0\n[schedule]\nkind = 'linear'\nwarmup_steps = 3\n\
         [train]\nsteps = 11\nbatch = 2\nlog_every = 4\neval_every = 3\nsave_every = 2\nkeep_last = 2\n{train}\n\
         [objective]\n{objective}\n"
    )
}

const ROLLOUT: &str = "[objective.rollout]\nmax_completion_length = 12\n";
const LENGTH: &str = "[[objective.rewards]]\nkind = 'length'\ntarget = 3\n";
const REGEX: &str = "[[objective.rewards]]\nkind = 'regex'\npattern = '[aeiou]'\nmost = 9\n";

fn command(script: &str) -> String {
    format!("[[objective.rewards]]\nkind = 'command'\ncommand = ['sh', '-c', '''{script}''']\ntimeout = 20\n")
}

#[test]
fn a_resumed_run_over_roll_outs_ends_bit_for_bit_as_an_undisturbed_one() {
    let cases = [
        (
            "ppo, a price that adapts, several updates of a roll-out over ends of epochs",
            text(
                &format!(
                    "kind = 'ppo'\nnum_ppo_epochs = 2\ntarget_kl = 0.1\nhorizon = 20\nent_coef = 0.01\n\
                     whiten_rewards = true\nmissing_eos_penalty = 0.5\n{ROLLOUT}generation_batch_size = 8\n{LENGTH}"
                ),
                "accumulate = 2\ndropout = { residual = 0.1 }\nsample = { every = 4 }",
            ),
        ),
        (
            "grpo, two judges, a reference, more prompts than there are",
            text(
                &format!(
                    "kind = 'grpo'\nnum_generations = 2\nnum_iterations = 3\nbeta = 0.1\nreward_weights = [1.0, 0.5]\n\
                     {ROLLOUT}generation_batch_size = 16\ntemperature = 0.9\ntop_k = 20\n{LENGTH}{REGEX}"
                ),
                "",
            ),
        ),
        (
            "rloo",
            text(
                &format!("kind = 'rloo'\nnum_generations = 4\nnormalize_advantages = true\n{ROLLOUT}{REGEX}"),
                "accumulate = 2",
            ),
        ),
        ("online dpo", text(&format!("kind = 'online_dpo'\n{ROLLOUT}generation_batch_size = 8\n{REGEX}"), "")),
    ];
    for (name, text) in cases {
        ends_alike(name, &text);
    }
}

#[test]
fn an_adapter_that_learns_from_roll_outs_resumes_too_and_leaves_its_reference_alone() {
    let lm = "[model]\nmodel_type = 'llama'\nhidden_size = 16\nintermediate_size = 24\nnum_hidden_layers = 1\n\
        num_attention_heads = 2\nmax_position_embeddings = 512\n[tokenizer]\nkind = 'characters'\n\
        [data]\nkind = 'stories'\nbytes = 20000\nvalidation_fraction = 0.1\nmax_len = 24\n\
        [optim]\nlr = 1e-3\n[train]\nsteps = 2\nbatch = 2\n";
    let base = Run::new(&format!("output = 'ROOT/run'\n{lm}"));
    base.finish(false);
    let objective = format!("kind = 'ppo'\nnum_ppo_epochs = 2\n{ROLLOUT}generation_batch_size = 8\n{LENGTH}");
    let text = text(&objective, "");
    let (_, rest) = text.split_once("[data]").unwrap();
    let head = format!("output = 'ROOT/run'\nseed = 5\nmodel = '{}'\n", base.root().join("model").display());
    let text = format!("{head}[data]{rest}[method]\nkind = 'lora'\nrank = 2\n");
    ends_alike("ppo over lora", &text);
    // The reference is the model without the adapter: at first both are the same, later they are not.
    let run = Run::new(&text);
    run.finish(false);
    let kl: Vec<f64> = run.rows().iter().filter_map(|row| row.scores.get("objective/kl").copied()).collect();
    assert!(kl[0].abs() < 1e-6 && kl.iter().skip(1).any(|kl| kl.abs() > 1e-6), "{kl:?}");
}

#[test]
fn a_reward_that_fails_is_told_and_what_was_learned_is_kept() {
    let answers = "n=0; while read line; do n=$((n+1)); if [ $n -gt 21 ]; then FAIL; fi; echo 0.$((n % 7)); done";
    for (fail, told) in [
        ("echo out of money >&2; sleep 0.2; exit 7", "it ended before it had answered (exit status: 7)"),
        ("echo maybe", "expected a number"),
        ("echo NaN", "expected a number"),
        ("echo 1e999", "expected a number"),
    ] {
        let text = |script: &str| {
            let objective = format!("kind = 'grpo'\nnum_generations = 2\n{ROLLOUT}{}", command(script));
            // One judge for training alone: evaluation would ask it too.
            text(&objective, "").replace("validation_items = 3", "validation_items = 0")
        };
        let run = Run::new(&text(&answers.replace("FAIL", fail)));
        let output = run.command(false).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{message}");
        assert!(message.contains(told) && message.contains("the run is saved after step 10"), "{message}");
        assert_eq!(run.state()["step"], 10, "{told}");
        // Repaired, it goes on.
        run.recipe(&text("while read line; do echo 1; done"));
        let message = String::from_utf8(run.finish(true).stderr).unwrap();
        assert!(message.contains("the recipe has changed: objective.rewards"), "{message}");
        assert_eq!(run.state()["step"], 11);
    }
}

#[test]
#[cfg(unix)]
fn an_interruption_in_a_roll_out_loses_nothing() {
    // The judge takes its time, so that the signal comes while it does; its answers depend on what it judges alone.
    let judge = "while read line; do sleep 0.02; echo ${#line}; done";
    let objective = format!("kind = 'ppo'\nnum_ppo_epochs = 2\n{ROLLOUT}generation_batch_size = 4\n{}", command(judge));
    let text = text(&objective, "");
    let (whole, broken) = (Run::new(&text), Run::new(&text));
    whole.finish(false);
    let (mut resume, mut interruptions) = (false, 0);
    loop {
        let mut child = broken.command(resume).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(600 + 150 * interruptions));
        if child.try_wait().unwrap().is_none() {
            let output: Output = Command::new("kill").args(["-INT", &child.id().to_string()]).output().unwrap();
            assert!(output.status.success());
            interruptions += 1;
        }
        let status = child.wait().unwrap();
        // Before the run listens, the signal just ends it.
        assert!(status.success() || status.code().is_none(), "an interruption is no error: {status}");
        if broken.root().join("model").exists() {
            break;
        }
        resume = true;
    }
    println!("{interruptions} interruptions");
    assert_eq!(whole.weights(), broken.weights());
    assert_eq!(whole.rows(), broken.rows());
}

//! A run that is killed and resumed ends as one that is not, bit for bit: every update rule, both precisions, every
//! packing, over the ends of epochs.
#![expect(clippy::unwrap_used, reason = "tests")]

mod faults;
mod objectives;
mod rollouts;
mod run;

use run::Run;

/// Not a test of its own: the run that the others start, kill and starve.
#[test]
fn child() {
    run::child();
}

/// What differs from case to case; everything else is chosen so that 13 steps cross several ends of epochs, and that
/// neither logs, evaluations nor checkpoints fall on the same steps.
struct Case {
    name: &'static str,
    top: &'static str,
    model: &'static str,
    data: &'static str,
    optim: &'static str,
    train: &'static str,
}

const LLAMA: &str = "model_type = 'llama'\nhidden_size = 16\nintermediate_size = 24\nnum_hidden_layers = 2\n\
    num_attention_heads = 2\nmax_position_embeddings = 64\ntie_word_embeddings = true";
const GPT2: &str = "model_type = 'gpt2'\nn_embd = 16\nn_layer = 1\nn_head = 2\nn_positions = 64";
const DROPOUT: &str = "dropout = { attention = 0.1, residual = 0.2, embedding = 0.1 }";

fn text(case: &Case) -> String {
    let Case { top, model, data, optim, train, .. } = case;
    format!(
        "output = 'ROOT/run'\nseed = 5\n{top}\n[model]\n{model}\n[tokenizer]\nkind = 'characters'\n\
         [data]\nkind = 'jsonl'\ntrain = 'ROOT/train.jsonl'\nvalidation = 'ROOT/validation.jsonl'\nmax_len = 24\n{data}\n\
         [optim]\nlr = 3e-3\nclip = 1.0\n{optim}\n[schedule]\nkind = 'cosine'\nwarmup_steps = 3\n\
         [train]\nsteps = 13\nbatch = 4\nlog_every = 5\neval_every = 3\nsave_every = 2\nkeep_last = 2\n{train}\n"
    )
}

const CASES: &[Case] = &[
    Case {
        name: "adamw, f32, packed, accumulated, dropout",
        top: "",
        model: LLAMA,
        data: "packing = 'packed'",
        optim: "kind = 'adamw'\nweight_decay = 0.1",
        train: DROPOUT,
    },
    Case {
        name: "adamw, bf16, stream, dropout, checkpointed activations",
        top: "dtype = 'bf16'",
        model: LLAMA,
        data: "packing = 'stream'",
        optim: "kind = 'adamw'",
        train: "activation_checkpointing = true\naccumulate = 2\ndropout = { attention = 0.1, residual = 0.1 }",
    },
    Case {
        name: "sgd with momentum, f32, padded, accumulated, GPT-2 with its own dropout",
        top: "",
        model: GPT2,
        data: "packing = 'padded'",
        optim: "kind = 'sgd'\nmomentum = 0.9\nnesterov = true",
        train: "accumulate = 3",
    },
    Case {
        name: "plain sgd, bf16, packed",
        top: "dtype = 'bf16'",
        model: LLAMA,
        data: "packing = 'packed'",
        optim: "kind = 'sgd'",
        train: "accumulate = 2",
    },
    Case {
        name: "lion, bf16, padded, a frozen table",
        top: "dtype = 'bf16'\n[method]\nkind = 'full'\nfreeze = ['tokens']",
        model: LLAMA,
        data: "packing = 'padded'",
        optim: "kind = 'lion'\nweight_decay = 0.1",
        train: DROPOUT,
    },
    Case {
        name: "adafactor with momentum, f32, stream",
        top: "",
        model: GPT2,
        data: "packing = 'stream'",
        optim: "kind = 'adafactor'\nbeta1 = 0.9",
        train: "",
    },
    Case {
        name: "adafactor, bf16, packed, epochs, early stop",
        top: "dtype = 'bf16'",
        model: LLAMA,
        data: "packing = 'packed'",
        optim: "kind = 'adafactor'",
        train: "early_stop_patience = 2\naccumulate = 2",
    },
];

#[test]
fn a_resumed_run_ends_bit_for_bit_as_an_undisturbed_one() {
    let mut resumptions = 0;
    for (index, case) in CASES.iter().enumerate() {
        let text = text(case);
        let (whole, broken) = (Run::new(&text), Run::new(&text));
        whole.finish(false);
        // Each life of the run dies a little later in its file operations than the one before: within checkpoints,
        // and so after steps that no checkpoint has.
        let mut resume = false;
        for life in 0.. {
            let fault = format!("abort:{}", 61 + 13 * index + 17 * life);
            let output = broken.command(resume).env("PHYLA_FAULT", fault).output().unwrap();
            if output.status.success() {
                break;
            }
            assert_eq!(output.status.code(), None, "{}: {}", case.name, String::from_utf8_lossy(&output.stderr));
            (resume, resumptions) = (true, resumptions + 1);
        }
        assert_eq!(whole.weights(), broken.weights(), "{}: the final weights differ", case.name);
        assert_eq!(whole.rows(), broken.rows(), "{}: the metrics differ", case.name);
        assert_eq!(whole.state(), broken.state(), "{}: the state differs", case.name);
        assert_eq!(whole.kept(), broken.kept(), "{}: other checkpoints are kept", case.name);
        let mut steps: Vec<u64> = whole.rows().iter().filter(|row| row.loss.is_some()).map(|row| row.step).collect();
        steps.dedup();
        if !case.train.contains("early") {
            assert_eq!(steps, [5, 10, 13], "{}", case.name);
            assert!(whole.state()["batches"]["epoch"].as_u64() >= Some(1), "{}: no end of an epoch", case.name);
        }
    }
    println!("{} recipes, {resumptions} resumptions", CASES.len());
    assert!(resumptions >= 2 * CASES.len(), "only {resumptions} resumptions");
}

#[test]
fn an_early_stop_survives_the_kill_after_its_checkpoint() {
    // A learning rate of zero: no evaluation after the first is better.
    let case = Case { optim: "kind = 'sgd'\n", train: "early_stop_patience = 2", ..CASES[0] };
    let text = text(&case).replace("lr = 3e-3", "lr = 0.0");
    let run = Run::new(&text);
    run.finish(false);
    assert_eq!(run.state()["step"], 9);
    let weights = run.weights();
    // As if killed before the model was written.
    std::fs::remove_dir_all(run.root().join("model")).unwrap();
    run.finish(true);
    assert_eq!(run.state()["step"], 9);
    assert_eq!(run.weights(), weights);
}

#[test]
fn another_recipe_is_refused_where_it_does_not_fit_and_told_where_it_does() {
    let before = text(&CASES[0]);
    let run = Run::new(&before);
    run.finish(false);
    let resumed = |text: &str| {
        run.recipe(text);
        let output = run.command(true).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (from, to, expected) in [
        ("batch = 4", "batch = 8", "train.batch: 4 -> 8"),
        ("kind = 'adamw'", "kind = 'lion'", "optim.kind: \"adamw\" -> \"lion\""),
        ("'packed'", "'stream'", "data.packing: \"packed\" -> \"stream\""),
        ("hidden_size = 16", "hidden_size = 32", "model.hidden_size: 16 -> 32"),
        ("seed = 5", "seed = 6", "seed: 5 -> 6"),
        ("max_len = 24", "max_len = 16", "data.max_len: 24 -> 16"),
    ] {
        let (code, message) = resumed(&before.replace(from, to));
        assert_eq!(code, Some(3), "{message}");
        assert!(
            message.contains("the recipe has changed since the run began") && message.contains(expected),
            "{message}"
        );
    }
    let (code, message) = resumed(&before.replace("steps = 13", "steps = 15").replace("lr = 3e-3", "lr = 1e-3"));
    assert_eq!(code, Some(0), "{message}");
    assert!(message.contains("train.steps: 13 -> 15") && message.contains("optim.lr: 0.003 -> 0.001"), "{message}");
    assert_eq!(run.state()["step"], 15);
    // The same path with other text in it.
    run.more_text();
    let (code, message) = resumed(&before.replace("steps = 13", "steps = 17"));
    assert_eq!(code, Some(3), "{message}");
    assert!(message.contains("the training text is not the one that the run began with"), "{message}");
}

#[test]
fn a_damaged_token_cache_is_made_anew() {
    let text = text(&CASES[0]);
    let (whole, damaged) = (Run::new(&text), Run::new(&text.replace("steps = 13", "steps = 4")));
    whole.finish(false);
    damaged.finish(false);
    let path = damaged.corrupt_cache();
    let rotten = std::fs::read(&path).unwrap();
    damaged.recipe(&text);
    let message = String::from_utf8(damaged.finish(true).stderr).unwrap();
    assert!(message.contains("were unusable and are made anew") && message.contains("checksum"), "{message}");
    assert_ne!(std::fs::read(&path).unwrap(), rotten);
}

#[test]
fn divergence_stops_with_advice_and_leaves_the_checkpoints_whole() {
    for (optim, lr) in [("kind = 'sgd'", "1e30"), ("kind = 'adamw'", "1e38"), ("kind = 'adamw'", "3e18")] {
        let case = Case { optim, train: "", ..CASES[0] };
        let text = text(&case).replace("clip = 1.0\n", "");
        let run = Run::new(&text.replace("steps = 13", "steps = 4").replace("eval_every = 3", "eval_every = 4"));
        run.finish(false);
        let (kept, state) = (run.kept(), run.state());
        run.recipe(&text.replace("lr = 3e-3", &format!("lr = {lr}")));
        let output = run.command(true).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{message}");
        let errors: Vec<&str> = message.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{message}");
        assert!(errors[0].starts_with("error: step ") && errors[0].contains("the last"), "{message}");
        assert!(errors[0].contains("warm-up"), "{message}");
        // The run is as it was, or has gone on by checkpoints of finite weights; with the old rate it can go on.
        if run.state()["step"] == 4 {
            assert_eq!((run.kept(), run.state()), (kept, state));
        }
        run.recipe(&text.replace("lr = 3e-3", "lr = 1e-5"));
        run.finish(true);
    }
}

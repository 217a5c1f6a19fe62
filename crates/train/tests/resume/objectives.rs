//! Runs of other objectives than the next token end bit for bit alike, whether killed and resumed or not; and another
//! objective or other data is refused.

use crate::run::Run;

const BERT: &str = "model_type = 'bert'\nhidden_size = 16\nintermediate_size = 24\nnum_hidden_layers = 1\n\
    num_attention_heads = 2\nmax_position_embeddings = 256";
const LLAMA: &str = "model_type = 'llama'\nhidden_size = 16\nintermediate_size = 24\nnum_hidden_layers = 1\n\
    num_attention_heads = 2\nmax_position_embeddings = 256";
const PAPER: &str = "model_type = 'transformer'\nd_model = 16\nd_ff = 24\nencoder_layers = 1\ndecoder_layers = 1\n\
    heads = 2\nmax_position_embeddings = 64";

fn text(model: &str, tokenizer: &str, data: &str, objective: &str, train: &str) -> String {
    format!(
        "output = 'ROOT/run'\nseed = 5\n[model]\n{model}\n[tokenizer]\n{tokenizer}\n[data]\n{data}\n\
         [objective]\n{objective}\n[optim]\nlr = 3e-3\nclip = 1.0\n[schedule]\nkind = 'linear'\nwarmup_steps = 3\n\
         [train]\nsteps = 9\nbatch = 4\nlog_every = 4\neval_every = 3\nsave_every = 2\nkeep_last = 2\n{train}\n"
    )
}

fn cases() -> Vec<(&'static str, String)> {
    let wordpiece = "kind = 'wordpiece'\nvocab_size = 200";
    vec![
        (
            "masks",
            text(
                BERT,
                wordpiece,
                "kind = 'jsonl'\ntrain = 'ROOT/train.jsonl'\nvalidation = 'ROOT/validation.jsonl'",
                "kind = 'mlm'\nmax_len = 24\nmask = { unit = { kind = 'whole_word' } }",
                "sample = { every = 4, prompts = ['a [MASK] ran home', ''] }",
            ),
        ),
        (
            "classes, grouped by length, over ends of epochs",
            text(
                BERT,
                wordpiece,
                "kind = 'task'\ntask = 'sentiment'\nitems = 15\nvalidation_items = 5",
                "kind = 'classify'\nmax_len = 256",
                "group_by_length = true\naccumulate = 2\nsample = { every = 4 }",
            ),
        ),
        (
            "pairs in a budget of tokens, the mean of the last checkpoints",
            text(
                PAPER,
                "kind = 'bpe'\npreset = 'translation'\nvocab_size = 300",
                "kind = 'task'\ntask = 'dates'\nitems = 40\nvalidation_items = 5",
                "kind = 'seq2seq'\nlabel_smoothing = 0.1\nmax_target_len = 16",
                "batch_tokens = 200\naverage_last = 2\neval_generate = 3\nsample = { every = 4 }",
            ),
        ),
        (
            "pairs against a reference, two losses, dropout",
            text(
                LLAMA,
                "kind = 'characters'",
                "kind = 'task'\ntask = 'preferences'\nitems = 15\nvalidation_items = 3",
                "kind = 'dpo'\nloss_type = ['sigmoid', 'sft']\nld_alpha = 0.5\nmax_len = 200\ntruncation_mode = 'keep_end'",
                "accumulate = 2\ndropout = { residual = 0.1 }",
            ),
        ),
        (
            "dialogues, packed, with noise on embeddings",
            text(
                LLAMA,
                "kind = 'bpe'\nvocab_size = 300",
                "kind = 'task'\ntask = 'instructions'\nitems = 15\nvalidation_items = 3",
                "kind = 'sft'\nchat_template = 'alpaca'\nmax_len = 250\ntruncate = 'start'\npacking = true\n\
                 neftune_noise_alpha = 5.0",
                "accumulate = 2\nsample = { every = 4, max_new_tokens = 5 }",
            ),
        ),
        (
            "grades, the mean of the last checkpoints",
            text(
                BERT,
                wordpiece,
                "kind = 'task'\ntask = 'reviews'\nitems = 15\nvalidation_items = 5",
                "kind = 'reward'\nloss_type = 'ordinal'\nmax_len = 200\ngrades = ['1', '2', '3', '4', '5']",
                "average_last = 2\ngroup_by_length = true",
            ),
        ),
        (
            "judgements against a reference",
            text(
                LLAMA,
                "kind = 'characters'",
                "kind = 'task'\ntask = 'preferences'\nitems = 15\nvalidation_items = 3",
                "kind = 'kto'\nmax_len = 200\ntruncation_mode = 'keep_end'",
                "",
            ),
        ),
    ]
}

/// Kills a run again and again at another file operation, and compares where it comes out with a whole one.
pub fn ends_alike(name: &str, text: &str) {
    let (whole, broken) = (Run::new(text), Run::new(text));
    whole.finish(false);
    let (mut resume, mut resumptions) = (false, 0);
    for life in 0.. {
        let fault = format!("abort:{}", 61 + 17 * life);
        let output = broken.command(resume).env("PHYLA_FAULT", fault).output().unwrap();
        if output.status.success() {
            break;
        }
        assert_eq!(output.status.code(), None, "{name}: {}", String::from_utf8_lossy(&output.stderr));
        (resume, resumptions) = (true, resumptions + 1);
    }
    assert!(resumptions >= 2, "{name}: only {resumptions} resumptions");
    assert_eq!(whole.weights(), broken.weights(), "{name}: the final weights differ");
    assert_eq!(whole.rows(), broken.rows(), "{name}: the metrics differ");
    assert_eq!(whole.state(), broken.state(), "{name}: the state differs");
}

#[test]
fn a_resumed_run_of_any_objective_ends_bit_for_bit_as_an_undisturbed_one() {
    for (name, text) in cases() {
        ends_alike(name, &text);
    }
}

#[test]
fn a_resumed_run_of_any_adapter_ends_bit_for_bit_as_an_undisturbed_one() {
    let llama = "model_type = 'llama'\nhidden_size = 32\nintermediate_size = 40\nnum_hidden_layers = 1\n\
        num_attention_heads = 2\nmax_position_embeddings = 64";
    let data = "kind = 'jsonl'\ntrain = 'ROOT/train.jsonl'\nvalidation = 'ROOT/validation.jsonl'\nmax_len = 24";
    let lm = "kind = 'lm'";
    let base = Run::new(&text(llama, "kind = 'bpe'\nvocab_size = 300", data, lm, ""));
    base.finish(false);
    let model = base.root().join("model");
    for (name, method) in [
        ("lora", "kind = 'lora'\nrank = 3\nalpha = 7.0\ndropout = 0.2\nrank_pattern = { '**.q' = 2 }\nlr_ratio = 4.0"),
        ("dora", "kind = 'lora'\nrank = 3\ndora = true\nrslora = true"),
        ("pissa", "kind = 'lora'\nrank = 3\nalpha = 7.0\nrslora = true\ninit = 'pissa'\ndropout = 0.1"),
        ("olora", "kind = 'lora'\nrank = 3\nalpha = 5.0\ndora = true\ninit = 'olora'"),
        ("eva", "kind = 'lora'\nrank = 3\nalpha = 5.0\ninit = 'eva'"),
        ("prompt", "kind = 'prompt'\ntokens = 4\ninit = 'text'\ninit_text = 'Once upon'"),
        ("p_tuning", "kind = 'p_tuning'\ntokens = 4\nencoder = 'lstm'\nhidden = 5"),
        ("prefix", "kind = 'prefix'\ntokens = 4\nprojection = true"),
        ("adalora", "kind = 'adalora'\nrank = 4\ntarget_rank = 2\ntinit = 1\ntfinal = 2\ndelta_t = 2\ndropout = 0.1"),
        ("vera", "kind = 'vera'\nrank = 4"),
        ("ia3", "kind = 'ia3'"),
        ("bottleneck", "kind = 'bottleneck'\ninner = 3"),
    ] {
        // A prompt stands before one text.
        let packing = if method.contains("tokens") { "\npacking = 'padded'" } else { "" };
        let text =
            text("", "", &format!("{data}{packing}"), lm, "").replace("[tokenizer]\n\n", "").replace("[model]\n\n", "");
        let quantize = if name == "lora" { "quantize = 'q8_0'\n" } else { "" };
        let head = format!("model = '{}'\n{quantize}", model.display());
        // Of some the mean of the last checkpoints.
        let text = if ["dora", "ia3"].contains(&name) {
            text.replace("keep_last", "average_last = 2\nkeep_last")
        } else {
            text
        };
        ends_alike(name, &format!("{head}{text}[method]\n{method}\n"));
    }
}

#[test]
fn other_examples_are_refused_and_other_smoothing_is_told() {
    let (_, before) = cases().remove(2);
    let run = Run::new(&before);
    run.finish(false);
    for (from, to, expected) in [
        ("items = 40", "items = 50", "data.items: 40 -> 50"),
        ("max_target_len = 16", "max_target_len = 20", "objective.max_target_len: 16 -> 20"),
        ("batch_tokens = 200", "batch_tokens = 100", "train.batch_tokens: 200 -> 100"),
        ("'dates'", "'numbers'", "data.task: \"dates\" -> \"numbers\""),
    ] {
        run.recipe(&before.replace(from, to));
        let output = run.command(true).output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{message}");
        assert!(
            message.contains("the recipe has changed since the run began") && message.contains(expected),
            "{message}"
        );
    }
    run.recipe(&before.replace("label_smoothing = 0.1", "label_smoothing = 0.2").replace("steps = 9", "steps = 11"));
    let message = String::from_utf8(run.finish(true).stderr).unwrap();
    assert!(message.contains("objective.label_smoothing: 0.1 -> 0.2"), "{message}");
    assert_eq!(run.state()["step"], 11);
}

//! Scores, log-probabilities, states and attention weights against what transformers' generate returns.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use phyla_generate::{Array, Generation, GenerationConfig, Generator, Moment, Outputs, Session};
use phyla_models::{LoadOptions, Model, load};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// A shape, and numbers.
type Expected = (Vec<usize>, Vec<f32>);

#[derive(Deserialize)]
struct Case {
    model: String,
    input_ids: Vec<u32>,
    options: Map<String, Value>,
    sequences: Vec<Known>,
}

#[derive(Deserialize)]
struct Known {
    ids: Vec<u32>,
    scores: Vec<Vec<Option<f32>>>,
    logits: Vec<Vec<Option<f32>>>,
    transitions: Vec<f32>,
    hidden_states: Vec<Vec<Expected>>,
    attentions: Vec<Vec<Expected>>,
    #[serde(default)]
    cross_attentions: Vec<Vec<Expected>>,
    #[serde(default)]
    encoder_hidden_states: Vec<Expected>,
    #[serde(default)]
    encoder_attentions: Vec<Expected>,
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

fn model(name: &str) -> Model {
    load(&golden().join(name), &LoadOptions::default()).unwrap().0
}

fn settings(options: &Map<String, Value>, more: Value) -> GenerationConfig {
    let (config, warnings) = GenerationConfig::of_user(options).unwrap();
    let (more, more_warnings) = GenerationConfig::of_user(more.as_object().unwrap()).unwrap();
    assert!(warnings.is_empty() && more_warnings.is_empty(), "{warnings:?} {more_warnings:?}");
    config.merge(more)
}

fn everything() -> Value {
    json!({
        "output_scores": true, "output_logits": true, "output_hidden_states": true, "output_attentions": true,
        "top_logprobs": 3
    })
}

fn run(model: &Model, prompts: &[Vec<u32>], config: &GenerationConfig) -> Generation {
    Generator::new(model, None).generate(prompts, config, 0, &mut |_| {}).unwrap()
}

/// Six digits, after some layers whose sums come in another order.
fn near(found: f32, expected: f32) -> bool {
    (found - expected).abs() <= 2e-5 * expected.abs().max(1.)
}

#[track_caller]
fn rows_equal(found: &[Vec<f32>], expected: &[Vec<Option<f32>>], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found.len(), expected.len(), "{what}");
        for (x, y) in found.iter().zip(expected) {
            assert!(y.map_or(*x == f32::NEG_INFINITY, |y| near(*x, y)), "{what}: {x} {y:?}");
        }
    }
}

#[track_caller]
fn arrays_equal(found: &[Array], expected: &[Expected], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, (shape, values)) in found.iter().zip(expected) {
        assert_eq!((&found.shape, found.values.len()), (shape, values.len()), "{what}");
        for (x, y) in found.values.iter().zip(values) {
            assert!(near(*x, *y), "{what}: {x} {y}");
        }
    }
}

#[track_caller]
fn steps_equal(found: &[Vec<Array>], expected: &[Vec<Expected>], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    found.iter().zip(expected).for_each(|(found, expected)| arrays_equal(found, expected, what));
}

#[test]
fn outputs_equal_the_reference() {
    let cases: Vec<Case> =
        serde_json::from_str(&std::fs::read_to_string(golden().join("outputs.json")).unwrap()).unwrap();
    assert!(cases.len() >= 8);
    for case in &cases {
        let (model, what) = (model(&case.model), format!("{} {:?}", case.model, case.options));
        let beams = case.options["num_beams"] != 1;
        // Another prompt of another length beside it, in the same rows.
        let prompts = [case.input_ids.clone(), [&case.input_ids[..], &[5, 9, 7]].concat()];
        let answer = run(&model, &prompts, &settings(&case.options, everything()));
        assert_eq!(answer.sequences.len(), 2 * case.sequences.len(), "{what}");
        for (sequence, expected) in answer.sequences.iter().zip(&case.sequences) {
            let outputs = &sequence.outputs;
            assert_eq!(sequence.ids, expected.ids, "{what}");
            rows_equal(&outputs.logits, &expected.logits, &format!("logits of {what}"));
            rows_equal(&outputs.scores, &expected.scores, &format!("scores of {what}"));
            steps_equal(&outputs.hidden_states, &expected.hidden_states, &format!("states of {what}"));
            steps_equal(&outputs.attentions, &expected.attentions, &format!("attentions of {what}"));
            steps_equal(&outputs.cross_attentions, &expected.cross_attentions, &format!("cross of {what}"));
            arrays_equal(
                &outputs.encoder_hidden_states,
                &expected.encoder_hidden_states,
                &format!("encoder of {what}"),
            );
            arrays_equal(&outputs.encoder_attentions, &expected.encoder_attentions, &format!("encoder of {what}"));
            for (t, &id) in sequence.ids.iter().enumerate() {
                // As compute_transition_scores: beams have log-probabilities already.
                let scores = &outputs.scores[t];
                let all = if beams { 0. } else { scores.iter().map(|x| x.exp()).sum::<f32>().ln() };
                assert!(near(scores[id as usize] - all, expected.transitions[t]), "{what}");
                log_probabilities_fit(outputs, t, id, &what);
            }
        }
    }
}

/// Log-probabilities are the softmax of the logits, with the likeliest ids beside.
fn log_probabilities_fit(outputs: &Outputs, t: usize, id: u32, what: &str) {
    let (logits, said) = (&outputs.logits[t], &outputs.logprobs[t]);
    let all = logits.iter().map(|x| x.exp()).sum::<f32>().ln();
    assert!(said.id == id && near(said.logprob, logits[id as usize] - all), "{what}");
    let mut ids: Vec<usize> = (0..logits.len()).collect();
    ids.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    assert_eq!(said.top.iter().map(|(id, _)| *id as usize).collect::<Vec<_>>(), ids[..3], "{what}");
    assert!(said.top.iter().all(|(id, logprob)| near(*logprob, logits[*id as usize] - all)), "{what}");
}

#[test]
fn what_is_not_asked_for_is_not_there_and_asking_changes_no_id() {
    for name in ["beam/gpt2", "beam/bart"] {
        let model = model(name);
        let prompts: Vec<Vec<u32>> = vec![(0..6).map(|i| 3 + i * 5 % 18).collect(), vec![8]];
        for options in [
            json!({ "do_sample": true, "num_return_sequences": 3 }),
            json!({ "num_beams": 4, "num_return_sequences": 2 }),
            json!({ "prompt_lookup_num_tokens": 4 }),
            json!({ "penalty_alpha": 0.6, "top_k": 4 }),
        ] {
            let ends = json!({ "eos_token_id": 2, "decoder_start_token_id": 2, "max_new_tokens": 12 });
            let options = settings(options.as_object().unwrap(), ends);
            let plain = run(&model, &prompts, &options);
            assert!(plain.sequences.iter().all(|sequence| sequence.outputs == Outputs::default()));
            let asked = run(&model, &prompts, &options.clone().merge(settings(&Map::new(), everything())));
            for (asked, plain) in asked.sequences.iter().zip(&plain.sequences) {
                assert_eq!((&asked.ids, asked.score), (&plain.ids, plain.score), "{name} {options:?}");
                let outputs = &asked.outputs;
                let lengths = [outputs.logits.len(), outputs.scores.len(), outputs.logprobs.len()];
                assert_eq!(lengths, [asked.ids.len(); 3], "{name} {options:?}");
                for (t, (states, weights)) in outputs.hidden_states.iter().zip(&outputs.attentions).enumerate() {
                    let prompt = if name == "beam/bart" { 1 } else { prompts[asked.prompt].len() };
                    let (tokens, keys) = if t == 0 { (prompt, prompt) } else { (1, prompt + t) };
                    assert_eq!((states[0].shape[0], &weights[0].shape[1..]), (tokens, &[tokens, keys][..]));
                    // Weights of what is seen sum to 1, whatever was guessed behind it.
                    let sums = weights[0].values.chunks(keys).map(|row| row.iter().sum::<f32>());
                    assert!(sums.into_iter().all(|sum| near(sum, 1.)), "{name} {options:?}");
                }
                let only = settings(&Map::new(), json!({ "logprobs": true }));
                let only = run(&model, &prompts, &options.clone().merge(only)).sequences;
                assert!(only.iter().all(|s| s.outputs.logits.is_empty() && s.outputs.logprobs.len() == s.ids.len()));
            }
        }
    }
}

#[test]
fn outputs_come_beside_a_watcher_and_in_a_session() {
    let model = model("beam/gpt2");
    let config = settings(&Map::new(), json!({ "logprobs": 2, "max_new_tokens": 4 }));
    let heard = AtomicUsize::new(0);
    let watch = |moment: &Moment| {
        heard.fetch_add(usize::from(matches!(moment, Moment::Picked { .. })), Ordering::Relaxed);
    };
    let generator = Generator::new(&model, None).watched_by(&watch);
    let answer = generator.generate_in(&mut Session::new(), &[4, 5], &config, 0, &mut |_| {}).unwrap();
    assert_eq!((heard.into_inner(), answer.sequences[0].outputs.logprobs.len()), (4, 4));
    assert!(answer.sequences[0].outputs.logprobs.iter().all(|said| said.top.len() == 2));
    let wrong = settings(&Map::new(), json!({ "logprobs": false, "top_logprobs": 2 }));
    let error = Generator::new(&model, None).generate(&[vec![4]], &wrong, 0, &mut |_| {}).unwrap_err();
    assert!(error.is_users() && error.to_string().contains("top_logprobs: 2"), "{error}");
}

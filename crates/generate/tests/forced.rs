//! Beams in groups and beams with words to write, against transformers 4.28.1; and what all searches tell and copy.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use phyla_generate::{GenerationConfig, Generator, Sequence};
use phyla_models::{LoadOptions, Model, load};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Case {
    model: String,
    input_ids: Vec<Vec<u32>>,
    attention_mask: Vec<Vec<u8>>,
    options: Map<String, Value>,
    sequences: Vec<Vec<u32>>,
    scores: Option<Vec<f32>>,
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/beam")
}

fn cases<T: serde::de::DeserializeOwned>(file: &str) -> Vec<T> {
    serde_json::from_str(&std::fs::read_to_string(golden().join(file)).unwrap()).unwrap()
}

fn model(name: &str) -> Model {
    load(&golden().join(name), &LoadOptions::default()).unwrap().0
}

fn config(options: &Map<String, Value>) -> GenerationConfig {
    let (config, warnings) = GenerationConfig::from_map(options).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    config
}

fn read(options: Value) -> GenerationConfig {
    config(options.as_object().unwrap())
}

fn run(model: &Model, prompts: &[Vec<u32>], config: &GenerationConfig) -> Vec<Sequence> {
    Generator::new(model, None).generate(prompts, config, 0, &mut |_| {}).unwrap().sequences
}

fn equal_the_reference(file: &str) {
    let models = ["gpt2", "bart"].map(|name| (name, model(name)));
    let cases: Vec<Case> = cases(file);
    assert!(cases.len() >= 40);
    for (number, case) in cases.iter().enumerate() {
        let model = &models.iter().find(|(name, _)| *name == case.model).unwrap().1;
        let found = run(model, &case.input_ids, &config(&case.options));
        assert_eq!(found.len(), case.sequences.len());
        for (i, (sequence, expected)) in found.iter().zip(&case.sequences).enumerate() {
            let what = format!("case {number}, sequence {i}: {} {:?}", case.model, case.options);
            assert_eq!(&sequence.ids, expected, "{what}");
            let score = case.scores.as_ref().unwrap()[i];
            // Some twelve log-probabilities, each off by units of f32 where sums come in another order.
            assert!((sequence.score.unwrap() - score).abs() <= 1e-4 * score.abs().max(1.), "{what}");
            assert_eq!(sequence.beam_indices.as_ref().unwrap().len(), expected.len(), "{what}");
        }
    }
}

#[test]
fn groups_of_beams_equal_the_reference() {
    equal_the_reference("groups.json");
}

#[test]
fn beams_with_words_to_write_equal_the_reference() {
    equal_the_reference("words.json");
}

#[test]
fn beams_tell_which_beam_each_id_continues() {
    let found: Vec<Option<Vec<Vec<u32>>>> = cases("indices.json");
    let cases: Vec<Case> = cases("beam.json");
    let mut checked = 0;
    for (case, expected) in cases.iter().zip(found) {
        let Some(expected) = expected else { continue };
        // Nothing fills rows here: see beam.rs.
        if case.options.contains_key("no_repeat_ngram_size") {
            continue;
        }
        let rows = case.input_ids.iter().zip(&case.attention_mask);
        let prompts: Vec<Vec<u32>> = rows
            .map(|(ids, mask)| ids.iter().zip(mask).filter(|(_, mask)| **mask != 0).map(|(&id, _)| id).collect())
            .collect();
        let found = run(&model(&case.model), &prompts, &config(&case.options));
        for (sequence, expected) in found.iter().zip(expected) {
            assert_eq!(sequence.beam_indices.as_ref(), Some(&expected), "{} {:?}", case.model, case.options);
            checked += 1;
        }
    }
    assert!(checked > 80, "{checked}");
}

fn holds(ids: &[u32], run: &[u32]) -> bool {
    ids.windows(run.len()).any(|ids| ids == run)
}

#[test]
fn words_are_the_same_however_they_are_written() {
    let model = model("gpt2");
    let prompts = [vec![5, 9, 3], vec![20], vec![4, 4, 4, 4]];
    let settings = |key: &str, words: Value| {
        let options = json!({ "num_beams": 4, "max_new_tokens": 12, "eos_token_id": 2 });
        let mut options = options.as_object().unwrap().clone();
        options.insert(key.into(), words);
        config(&options)
    };
    let ids = settings("force_words_ids", json!([[7, 18], [[6, 6], [6, 5]]]));
    let objects = json!([{ "token_ids": [7, 18] }, { "nested_token_ids": [[6, 6], [6, 5]] }]);
    let found = run(&model, &prompts, &ids);
    assert_eq!(found, run(&model, &prompts, &settings("constraints", objects)));
    for sequence in &found {
        let met = holds(&sequence.ids, &[7, 18]) && (holds(&sequence.ids, &[6, 6]) || holds(&sequence.ids, &[6, 5]));
        assert_eq!(sequence.forced_words_met, Some(met));
    }
    assert!(found.iter().all(|best| best.forced_words_met == Some(true)), "{found:?}");
    let free = run(&model, &prompts, &read(json!({ "num_beams": 4, "max_new_tokens": 12, "eos_token_id": 2 })));
    assert!(free.iter().all(|s| !holds(&s.ids, &[7, 18]) && s.forced_words_met.is_none()), "{free:?}");
}

#[test]
fn groups_and_words_are_searched_as_if_alone() {
    for name in ["gpt2", "bart"] {
        let model = model(name);
        let prompts: Vec<Vec<u32>> =
            (0..9).map(|i| (0..1 + i % 5).map(|t| (3 + 5 * i + 7 * t) % 23).collect()).collect();
        for options in [
            json!({ "num_beam_groups": 3, "diversity_penalty": 0.7, "num_return_sequences": 4 }),
            json!({ "force_words_ids": [[7], [[8, 9], [8, 12]]], "num_return_sequences": 2, "length_penalty": 0.5 }),
        ] {
            let mut all =
                json!({ "num_beams": 6, "max_new_tokens": 9, "eos_token_id": 2, "decoder_start_token_id": 2 });
            all.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
            let config = read(all);
            let together = run(&model, &prompts, &config);
            let returns = together.len() / prompts.len();
            for (i, prompt) in prompts.iter().enumerate() {
                for (among, alone) in
                    together[i * returns..].iter().zip(run(&model, std::slice::from_ref(prompt), &config))
                {
                    assert_eq!((&among.ids, among.score), (&alone.ids, alone.score), "{name} {options} {prompt:?}");
                    assert_eq!(among.beam_indices, alone.beam_indices);
                }
            }
        }
    }
}

#[test]
fn words_that_cannot_be_written_are_refused() {
    let model = model("gpt2");
    let error = |words: Value, prompt: &[u32]| {
        let config = read(json!({ "num_beams": 3, "max_new_tokens": 3, "eos_token_id": 2, "force_words_ids": words }));
        let found = Generator::new(&model, None).generate(&[prompt.to_vec()], &config, 0, &mut |_| {});
        found.err().map(|error| error.to_string())
    };
    let expected = "force_words_ids: expected ids of the vocabulary of 23, found 23";
    assert_eq!(error(json!([[[1], [4, 23]]]), &[1]).as_deref(), Some(expected));
    let expected = "force_words_ids: expected at most the 3 ids that may follow prompt 0, found 4; raise max_new_tokens or \
                    force fewer";
    assert_eq!(error(json!([[5, 6], [[7, 8], [9, 1, 1]]]), &[1]).as_deref(), Some(expected));
    // What the prompt has begun is not missing.
    assert_eq!(error(json!([[5, 6], [[7, 8], [9, 1, 1]]]), &[1, 5]), None);
}

#[test]
fn beams_copy_no_whole_cache() {
    let model = json!({
        "model_type": "llama", "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "initializer_range": 0.3,
        "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 400
    });
    let model = phyla_models::fresh(model.as_object().unwrap(), 3, &candle_core::Device::Cpu).unwrap();
    let (beams, prompt, new) = (4, 100, 200);
    let config = read(json!({ "num_beams": beams, "max_new_tokens": new }));
    let ids = (0..prompt).map(|i| i * 31 % 97).collect();
    let generation = Generator::new(&model, None).generate(&[ids], &config, 0, &mut |_| {}).unwrap();
    assert_eq!(generation.sequences[0].ids.len(), new);
    // Keys and values of two layers in f32.
    let (position, copied) = (2 * 2 * 32 * 4, generation.timings.copied);
    // A beam that takes over copies the page that it writes into, of 64 positions; one of the beams at least stays.
    assert!(copied <= (beams - 1) * new * 64 * position, "{copied}");
    // Where rows lie in one piece, each step copies all of them.
    let whole: usize = (1..new).map(|step| beams * (prompt as usize + step) * position).sum();
    assert!(copied > 0 && 4 * copied < whole, "{copied} of {whole}");
}

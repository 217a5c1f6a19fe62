//! Contrastive search against transformers 4.28.1.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::path::Path;

use phyla_generate::{GenerationConfig, Generator};
use phyla_models::{LoadOptions, Model, load};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Case {
    model: String,
    input_ids: Vec<u32>,
    options: Map<String, Value>,
    ids: Vec<u32>,
}

fn cases() -> (Vec<Case>, HashMap<String, Model>) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let text = std::fs::read_to_string(golden.join("contrastive.json")).unwrap();
    let model = |name: &str| {
        let (model, _) = load(&golden.join("beam").join(name), &LoadOptions::default()).unwrap();
        (name.to_string(), model)
    };
    (serde_json::from_str(&text).unwrap(), ["gpt2", "bart"].into_iter().map(model).collect())
}

/// With the ids that `config.json` names, as `Session` has them.
fn config(model: &Model, options: &Map<String, Value>) -> GenerationConfig {
    let folder = tempfile::tempdir().unwrap();
    let (own, _) = GenerationConfig::load(folder.path(), &model.config).unwrap();
    let (asked, warnings) = GenerationConfig::of_user(options).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    own.merge(asked)
}

#[test]
fn contrastive_search_equals_the_reference() {
    let (cases, models) = cases();
    assert!(cases.len() >= 60);
    for case in &cases {
        let model = &models[&case.model];
        let config = config(model, &case.options);
        let prompts = [case.input_ids.clone()];
        let answer = Generator::new(model, None).generate(&prompts, &config, 0, &mut |_| {}).unwrap();
        assert_eq!(answer.sequences[0].ids, case.ids, "{} {:?} {:?}", case.model, case.input_ids, case.options);
    }
    // Several prompts, one after the other, and nothing of one in the other.
    let model = &models["gpt2"];
    let options = json!({ "penalty_alpha": 0.6, "top_k": 4, "max_new_tokens": 12 });
    let config = config(model, options.as_object().unwrap());
    let prompts = vec![vec![5, 6, 7], vec![8], (4..14).collect()];
    let run = |prompts: &[Vec<u32>]| Generator::new(model, None).generate(prompts, &config, 0, &mut |_| {}).unwrap();
    let all = run(&prompts);
    for (i, prompt) in prompts.iter().enumerate() {
        assert_eq!(run(std::slice::from_ref(prompt)).sequences[0].ids, all.sequences[i].ids);
    }
}

#[test]
fn what_it_cannot_be_combined_with_is_refused() {
    let (_, models) = cases();
    let options = json!({ "penalty_alpha": 0.6, "top_k": 4, "num_return_sequences": 2 });
    let config = config(&models["gpt2"], options.as_object().unwrap());
    let error = Generator::new(&models["gpt2"], None).generate(&[vec![5]], &config, 0, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("contrastive search follows one sequence of a prompt"), "{error}");
}

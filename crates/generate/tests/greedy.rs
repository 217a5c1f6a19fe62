//! Greedy decoding against the ids with which transformers continues the same prompts.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use phyla_generate::{FinishReason, GenerationConfig, Generator};
use phyla_models::{LoadOptions, Model, load};
use serde::Deserialize;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

#[derive(Deserialize)]
struct Case {
    case: String,
    prompts: Vec<Vec<u32>>,
    continuations: Vec<Vec<u32>>,
}

fn cases() -> Vec<(Case, Model)> {
    let mut cases = vec![];
    for family in std::fs::read_dir(golden().join("greedy")).unwrap() {
        let text = std::fs::read_to_string(family.unwrap().path()).unwrap();
        for case in serde_json::from_str::<Vec<Case>>(&text).unwrap() {
            let model = load(&golden().join(&case.case), &LoadOptions::default()).unwrap().0;
            cases.push((case, model));
        }
    }
    assert!(cases.len() >= 11);
    cases
}

fn config() -> GenerationConfig {
    GenerationConfig { max_new_tokens: Some(64), ..Default::default() }
}

#[test]
fn greedy_ids_equal_the_reference_alone_and_in_a_batch() {
    for (case, model) in cases() {
        let generator = Generator::new(&model, None);
        let together = generator.generate(&case.prompts, &config(), 0, &mut |_| {}).unwrap();
        assert_eq!(together.sequences.len(), case.prompts.len());
        for (i, (prompt, expected)) in case.prompts.iter().zip(&case.continuations).enumerate() {
            assert_eq!(&together.sequences[i].ids, expected, "{}, prompt {i} in a batch", case.case);
            assert_eq!(together.sequences[i].finish_reason, FinishReason::Length);
            let alone = generator.generate(std::slice::from_ref(prompt), &config(), 0, &mut |_| {}).unwrap();
            assert_eq!(&alone.sequences[0].ids, expected, "{}, prompt {i} alone", case.case);
        }
    }
}

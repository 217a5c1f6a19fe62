//! Constraints: whatever is drawn from a model with random weights is what was asked for.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod grammars;
mod real;
mod schemas;
mod tokens;
mod validate;
mod ways;

use phyla_generate::{Constraint, Generation, GenerationConfig, Generator};
use serde_json::{Value, json};

use tokens::{END, Tokens};

/// Draws `n` answers that have to be as `constraint` says.
fn drawn(tokens: &Tokens, constraint: &Constraint, n: usize, limit: usize, seed: u64) -> Generation {
    let config = GenerationConfig {
        constraint: Some(constraint.clone()),
        max_new_tokens: Some(limit),
        num_return_sequences: Some(n),
        eos_token_id: Some(vec![END]),
        do_sample: Some(true),
        top_k: Some(0),
        // Random weights ramble: what ends something is likelier.
        sequence_bias: Some(tokens.closing.iter().map(|&id| (vec![id], 4.)).collect()),
        ..Default::default()
    };
    let generator = Generator::new(&tokens.model, Some(&tokens.tokenizer));
    generator.generate(&[vec![5, 9]], &config, seed, &mut |_| {}).unwrap()
}

fn config(value: Value) -> GenerationConfig {
    let (config, warnings) = GenerationConfig::of_user(value.as_object().unwrap()).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    GenerationConfig::default().merge(config)
}

fn error(value: Value) -> String {
    GenerationConfig::of_user(value.as_object().unwrap()).unwrap_err().to_string()
}

#[test]
fn an_answer_holds_one_constraint_of_the_right_kind() {
    for (settings, expected) in [
        (json!({ "regex": "a", "choice": ["b"] }), "regex and choice are two constraints"),
        (json!({ "json_object": 1 }), "json_object: expected true or false, found 1"),
        (json!({ "json_schema": "{" }), "json_schema: not valid JSON"),
        (json!({ "json_schema": 3 }), "json_schema: at #: expected a schema"),
        (json!({ "regex": "a(b" }), "regex: the expression \"a(b\" is wrong at character 2: unclosed group"),
        (json!({ "regex": "é(?<x" }), "wrong at character"),
        (json!({ "choice": [] }), "choice: expected texts that are not empty"),
        (json!({ "choice": ["a", ""] }), "choice: expected texts that are not empty"),
        (json!({ "choice": [1] }), "choice: expected strings, found 1"),
        (
            json!({ "grammar": "start: %json { \"uniqueItems\": true }" }),
            "grammar: in %json: json_schema: at #/uniqueItems",
        ),
    ] {
        let error = error(settings.clone());
        assert!(error.contains(expected), "{settings}: {error}");
    }
    assert_eq!(config(json!({ "json_object": false })).constraint, None);
    let schema = json!({ "type": "integer" });
    assert_eq!(config(json!({ "json_schema": schema.to_string() })), config(json!({ "json_schema": schema })));
}

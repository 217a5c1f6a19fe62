//! Expressions, grammars and choices.

use phyla_generate::{Constraint, FinishReason, GenerationConfig, Generator};
use phyla_kernels::rng::Rng;

use super::tokens::{END, byte_level, characters, pieces};
use super::validate::matches;
use super::{config, drawn};

/// A random expression that matches no endless texts.
fn expression(rng: &mut Rng, depth: usize) -> String {
    const ATOMS: [&str; 12] =
        ["a", "xyz", "[a-f]", "[^a-z\\n]", "é", "[α-ω]", "\\d", "日本", "\\.", "\"", "(?:ab|na)", "\\p{Lu}"];
    if depth == 0 {
        return ATOMS[rng.below(12) as usize].into();
    }
    let mut inner = || expression(rng, depth - 1);
    let (a, b, c) = (inner(), inner(), inner());
    match rng.below(5) {
        0 => format!("(?:{a}|{b}|{c})"),
        1 => format!("(?:{a}){{1,3}}{b}"),
        2 => format!("(?:{a})?{b}"),
        3 => format!("{a}(?:{b})*{c}"),
        _ => format!("{a}{b}"),
    }
}

#[test]
fn answers_match_random_expressions_from_end_to_end() {
    let (bytes, pieces) = (byte_level(), pieces());
    let mut rng = Rng::new(5);
    let (mut whole, mut cut) = (0, 0);
    for number in 0..60 {
        let text = expression(&mut rng, 1 + number % 3);
        let constraint = Constraint::regex(&text).unwrap();
        for tokens in [&bytes, &pieces] {
            for sequence in drawn(tokens, &constraint, 2, 300, number as u64).sequences {
                let found = sequence.text.unwrap();
                if sequence.complete == Some(true) {
                    assert!(matches(&format!("^(?s:{text})$"), &found), "{found:?} for {text}");
                    whole += 1;
                } else {
                    assert_eq!(sequence.finish_reason, FinishReason::Length);
                    cut += 1;
                }
            }
        }
    }
    println!("{whole} answers match, {cut} were cut off");
    assert!(whole > 200, "{whole} and {cut}");
}

#[test]
fn answers_are_texts_of_grammars() {
    let tokens = byte_level();
    let sums = r#"
start: sum
sum: product (("+" | "-") product)*
product: atom ("*" atom)*
atom: NUMBER | "(" sum ")"
NUMBER: /[0-9]{1,3}/
"#;
    let lists = r#"
start: "items: " item{1,3} "\n"
item: "<" (WORD | item) ">"
WORD: /é?[a-c]+/
%ignore / /
"#;
    let nested = r#"
start: "call " NAME "(" arguments ")"
NAME: /[a-z]{1,6}/
arguments: %json { "type": "object", "properties": { "day": { "type": "string", "format": "date" } }, "required": ["day"],
    "additionalProperties": false }
"#;
    let mut whole = 0;
    for (grammar, judge) in [
        (sums, is_sum as fn(&str) -> bool),
        (lists, |text| text.starts_with("items: ") && text.ends_with('\n') && balanced(text, '<', '>')),
        (nested, |text| matches(r#"^call [a-z]{1,6}\(\{\s*"day"\s*:\s*"\d{4}-\d\d-\d\d"\s*\}\)$"#, text)),
    ] {
        let constraint = Constraint::grammar(grammar).unwrap();
        for seed in 0..12 {
            for sequence in drawn(&tokens, &constraint, 2, 400, seed).sequences {
                if sequence.complete == Some(true) {
                    let text = sequence.text.unwrap();
                    assert!(judge(&text), "{text:?} for {grammar}");
                    whole += 1;
                }
            }
        }
    }
    assert!(whole > 40, "{whole}");
}

fn is_sum(text: &str) -> bool {
    balanced(text, '(', ')')
        && text.chars().all(|c| c.is_ascii_digit() || "+-*()".contains(c))
        && !matches(r"^[+*-]|[+*-]$|[+*-][+*-]|\(\)|\)\(|\d\(|\)\d|\([+*-]|[+*-]\)|\d{4}", text)
}

fn balanced(text: &str, open: char, close: char) -> bool {
    let mut depth = 0i32;
    text.chars().all(|c| {
        depth += i32::from(c == open) - i32::from(c == close);
        depth >= 0
    }) && depth == 0
}

#[test]
fn a_choice_is_one_of_its_texts_and_beams_find_all() {
    let texts = ["yes", "no", "né\"(.*)", "日本", "yes, but", "🙂"];
    for tokens in [byte_level(), pieces()] {
        let constraint = Constraint::choice(texts.map(String::from).to_vec()).unwrap();
        for seed in 0..6 {
            for sequence in drawn(&tokens, &constraint, 3, 40, seed).sequences {
                assert!(texts.contains(&sequence.text.as_deref().unwrap()), "{:?}", sequence.text);
                assert_eq!(sequence.complete, Some(true));
            }
        }
        let config = GenerationConfig {
            constraint: Some(constraint),
            eos_token_id: Some(vec![END]),
            num_beams: Some(400),
            num_return_sequences: Some(400),
            max_new_tokens: Some(30),
            ..Default::default()
        };
        let generator = Generator::new(&tokens.model, Some(&tokens.tokenizer));
        let mut config = config;
        // There are more ways to spell the texts than texts, and fewer than beams: what is missing is told.
        let error = generator.generate(&[vec![5]], &config, 0, &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("sequences, and 400 are asked for"), "{error}");
        config.num_return_sequences = Some(10);
        let found = generator.generate(&[vec![5]], &config, 0, &mut |_| {}).unwrap();
        assert!(found.sequences.iter().all(|s| texts.contains(&s.text.as_deref().unwrap())));
    }
}

#[test]
fn what_is_wrong_with_a_constraint_says_where() {
    let tokens = byte_level();
    let generator = Generator::new(&tokens.model, Some(&tokens.tokenizer));
    let fails = |constraint: serde_json::Value| {
        let config = config(constraint).merge(GenerationConfig { eos_token_id: Some(vec![END]), ..Default::default() });
        let error = generator.generate(&[vec![5]], &config, 0, &mut |_| {}).unwrap_err();
        assert!(error.is_users(), "{error}");
        error.to_string()
    };
    for (constraint, expected) in [
        (serde_json::json!({ "grammar": "start: \"a\"\nb: (\n" }), "grammar: 2("),
        (serde_json::json!({ "grammar": "a: \"a\"" }), "start"),
        (serde_json::json!({ "grammar": "start: missing" }), "missing"),
        (serde_json::json!({ "regex": "a\\b" }), "regex: "),
        (
            serde_json::json!({ "json_schema": { "properties": { "x": { "oneOf": [{ "type": "number" }, { "minimum": 3 }] } } } }),
            "json_schema: at #/properties/x/oneOf: options that can hold at once",
        ),
        (
            serde_json::json!({ "json_schema": { "type": "object", "properties": { "a": {}, "b": {} }, "maxProperties": 1 } }),
            "at #/maxProperties: these are supported where all of `properties` are required",
        ),
        (
            serde_json::json!({ "json_schema": { "type": "object", "patternProperties": { "^a": {}, "b$": {} } } }),
            "at #/patternProperties: expressions that may match the same name",
        ),
        (
            serde_json::json!({ "json_schema": { "type": "integer", "minimum": 3, "maximum": 2 } }),
            "no document is valid",
        ),
        (serde_json::json!({ "json_schema": { "const": "a", "type": "integer" } }), "no document is valid"),
    ] {
        let error = fails(constraint.clone());
        assert!(error.contains(expected), "{constraint}: {error}");
    }
    // Without a tokenizer, and without an end.
    let object = config(serde_json::json!({ "json_object": true }));
    let error = Generator::new(&tokens.model, None).generate(&[vec![5]], &object, 0, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("json_object needs a tokenizer"), "{error}");
    let error = generator.generate(&[vec![5]], &object, 0, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("no eos_token_id"), "{error}");
}

#[test]
fn what_a_tokenizer_cannot_spell_is_told() {
    let tokens = characters("abc \n");
    let generator = Generator::new(&tokens.model, Some(&tokens.tokenizer));
    let run = |text: &str| {
        let constraint = Some(Constraint::regex(text).unwrap());
        let config = GenerationConfig { constraint, eos_token_id: Some(vec![END]), ..Default::default() };
        generator.generate(&[vec![2]], &config, 0, &mut |_| {})
    };
    assert_eq!(run("ab{2}c").unwrap().sequences[0].text.as_deref(), Some("abbc"));
    let error = run("ab!").unwrap_err();
    assert!(error.is_users(), "{error}");
    assert!(error.to_string().contains("cannot be held behind 2 tokens: this tokenizer has no token"), "{error}");
    let error = run("!").unwrap_err().to_string();
    assert!(error.contains("behind 0 tokens"), "{error}");
}

#[test]
fn at_the_beginning_of_a_text_no_space_is_lost() {
    let tokens = pieces();
    let generator = Generator::new(&tokens.model, Some(&tokens.tokenizer));
    let bos = tokens.tokenizer.token_to_id("<s>").unwrap();
    let letter = tokens.tokenizer.token_to_id("n").unwrap();
    for prompt in [vec![bos], vec![bos, letter]] {
        for seed in 0..8 {
            let config = GenerationConfig {
                constraint: Some(Constraint::regex(" ?(?:yes|no|né)(?: 12)?").unwrap()),
                eos_token_id: Some(vec![END]),
                do_sample: Some(true),
                ..Default::default()
            };
            let answer = generator.generate(std::slice::from_ref(&prompt), &config, seed, &mut |_| {}).unwrap();
            let text = answer.sequences[0].text.as_deref().unwrap();
            assert!(matches("^ ?(?:yes|no|né)(?: 12)?$", text), "{text:?}");
            // The bytes of the ids are the text.
            let bytes = tokens.tokenizer.token_bytes().unwrap();
            let joined: Vec<u8> = answer.sequences[0].ids.iter().flat_map(|&id| bytes[id as usize].clone()).collect();
            assert_eq!(joined, text.as_bytes());
        }
    }
}

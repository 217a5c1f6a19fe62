//! Every way to decode holds a constraint, and decodes otherwise as ever.

use phyla_generate::{Constraint, FinishReason, GenerationConfig, Generator, Session};
use phyla_kernels::rng::Rng;
use serde_json::{Value, json};

use super::config;
use super::tokens::{END, Tokens, byte_level, model};
use super::validate::valid;

fn schema() -> Value {
    json!({
        "type": "object", "additionalProperties": false, "required": ["name", "list"], "properties": {
            "name": { "type": "string", "maxLength": 5 },
            "list": { "type": "array", "maxItems": 3, "items": { "enum": ["é", 12, null, { "x": true }] } },
            "more": { "type": "integer", "minimum": 0, "maximum": 999 }
        }
    })
}

fn settings(more: Value) -> GenerationConfig {
    let mut settings = json!({ "json_schema": schema(), "eos_token_id": [END, 1], "max_new_tokens": 150 });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config(settings)
}

fn prompts() -> Vec<Vec<u32>> {
    vec![vec![5, 9, 200, 31], vec![70], (0..40).map(|i| 2 + i % 7).collect(), vec![5, 9, 200, 32]]
}

fn judge(text: &str) {
    let document: Value = serde_json::from_str(text).unwrap();
    assert!(valid(&document, &schema(), &schema()), "{text}");
}

fn generator(tokens: &Tokens) -> Generator<'_> {
    Generator::new(&tokens.model, Some(&tokens.tokenizer))
}

#[test]
fn every_way_to_decode_holds_it() {
    let tokens = byte_level();
    for way in [
        json!({ "do_sample": true }),
        json!({ "do_sample": true, "temperature": 3.0, "top_p": 0.8, "num_return_sequences": 3 }),
        json!({ "num_beams": 4, "num_return_sequences": 4 }),
        json!({ "num_beams": 3, "do_sample": true, "top_k": 5, "early_stopping": true }),
        json!({ "num_beams": 5, "early_stopping": "never", "length_penalty": 2.0, "renormalize_logits": true }),
        json!({ "do_sample": true, "typical_p": 0.7, "repetition_penalty": 1.2 }),
        json!({ "do_sample": true, "min_p": 0.3, "remove_invalid_values": true, "exponential_decay_length_penalty": [3, 1.2] }),
        json!({ "do_sample": true, "forced_eos_token_id": [0], "presence_penalty": 1.0, "frequency_penalty": 0.5 }),
    ] {
        let found = generator(&tokens).generate(&prompts(), &settings(way.clone()), 3, &mut |_| {}).unwrap();
        let whole = found.sequences.iter().filter(|sequence| sequence.complete == Some(true));
        let count = whole.inspect(|sequence| judge(sequence.text.as_deref().unwrap())).count();
        for sequence in found.sequences.iter().filter(|sequence| sequence.complete != Some(true)) {
            assert_eq!((sequence.complete, sequence.finish_reason), (Some(false), FinishReason::Length), "{way}");
        }
        assert!(4 * count >= 3 * found.sequences.len(), "{way}: {count} of {}", found.sequences.len());
        assert!(found.timings.masks > 0 && found.timings.per_mask() > std::time::Duration::ZERO);
    }
    // Greedy ids of random weights run in circles inside a string: its length ends them.
    for way in [json!({}), json!({ "penalty_alpha": 0.6, "top_k": 4 })] {
        for sequence in generator(&tokens).generate(&prompts(), &settings(way), 3, &mut |_| {}).unwrap().sequences {
            match sequence.complete {
                Some(true) => judge(sequence.text.as_deref().unwrap()),
                _ => assert_eq!(sequence.finish_reason, FinishReason::Length),
            }
        }
    }
}

#[test]
fn an_answer_is_the_same_alone_and_in_any_company() {
    let tokens = byte_level();
    for way in [json!({}), json!({ "do_sample": true, "num_return_sequences": 2 }), json!({ "num_beams": 3 })] {
        let settings = settings(way);
        let together = generator(&tokens).generate(&prompts(), &settings, 5, &mut |_| {}).unwrap();
        let each = together.sequences.len() / prompts().len();
        for (number, prompt) in prompts().into_iter().enumerate() {
            let alone = generator(&tokens).generate(&[prompt], &settings, 5, &mut |_| {}).unwrap();
            for (a, b) in alone.sequences.iter().zip(&together.sequences[number * each..]) {
                assert_eq!((&a.ids, &a.text, a.complete), (&b.ids, &b.text, b.complete));
            }
        }
    }
}

#[test]
fn guesses_change_no_id() {
    let tokens = byte_level();
    let assistant = model(tokens.model.arch.vocab(), 8);
    for way in [json!({}), json!({ "do_sample": true }), json!({ "do_sample": true, "temperature": 0.3 })] {
        let plain = generator(&tokens).generate(&prompts(), &settings(way.clone()), 6, &mut |_| {}).unwrap();
        let mut lookup = settings(way.clone());
        lookup.prompt_lookup_num_tokens = Some(6);
        let looked_up = generator(&tokens).generate(&prompts(), &lookup, 6, &mut |_| {}).unwrap();
        assert_eq!(looked_up.sequences, plain.sequences);
        for assistant in [&assistant, &tokens.model] {
            let generator = generator(&tokens).assisted_by(assistant);
            let assisted = generator.generate(&prompts(), &settings(way.clone()), 6, &mut |_| {}).unwrap();
            assert_eq!(assisted.sequences, plain.sequences);
            assert!(assisted.timings.accepted > 0);
        }
    }
}

#[test]
fn a_session_holds_it_turn_by_turn() {
    let tokens = byte_level();
    let (mut session, mut prompt) = (Session::new(), vec![5, 9]);
    let settings = settings(json!({ "do_sample": true }));
    for turn in 0..4 {
        let answer = generator(&tokens).generate_in(&mut session, &prompt, &settings, turn, &mut |_| {}).unwrap();
        let alone = generator(&tokens).generate(&[prompt.clone()], &settings, turn, &mut |_| {}).unwrap();
        assert_eq!(answer.sequences, alone.sequences);
        let sequence = &answer.sequences[0];
        if sequence.complete == Some(true) {
            judge(sequence.text.as_deref().unwrap());
        }
        prompt.extend(&sequence.ids);
        prompt.push(20);
    }
}

/// Each step's ids are those that the grammar of digits allows, whatever else: a mask is a function of the ids.
#[test]
fn the_likeliest_id_is_taken_among_those_that_may_follow() {
    let tokens = byte_level();
    let vocab = tokens.tokenizer.token_bytes().unwrap();
    let digits = |id: u32| vocab.get(id as usize).is_some_and(|b| !b.is_empty() && b.iter().all(u8::is_ascii_digit));
    let others: Vec<u32> = (0..tokens.model.arch.vocab() as u32).filter(|&id| !digits(id)).collect();
    let mut rng = Rng::new(1);
    for _ in 0..6 {
        let prompt: Vec<u32> = (0..5).map(|_| rng.below(250) as u32).collect();
        let run = |config: GenerationConfig| {
            let config = GenerationConfig { eos_token_id: Some(vec![END]), max_new_tokens: Some(12), ..config };
            generator(&tokens).generate(std::slice::from_ref(&prompt), &config, 0, &mut |_| {}).unwrap().sequences[0]
                .clone()
        };
        let held =
            run(GenerationConfig { constraint: Some(Constraint::regex("[0-9]{40}").unwrap()), ..Default::default() });
        let suppressed = run(GenerationConfig { suppress_tokens: Some(others.clone()), ..Default::default() });
        assert_eq!((held.ids, held.complete), (suppressed.ids, Some(false)));
    }
}

#[test]
fn a_document_that_is_cut_off_says_so_and_one_that_ends_at_the_limit_does_not() {
    let tokens = byte_level();
    let run = |limit: usize, stop: &str| {
        let config = GenerationConfig {
            constraint: Some(Constraint::regex("q{5}").unwrap()),
            eos_token_id: Some(vec![END]),
            max_new_tokens: Some(limit),
            stop_strings: Some(vec![stop.into()]),
            ..Default::default()
        };
        let sequence = generator(&tokens).generate(&[vec![5]], &config, 0, &mut |_| {}).unwrap().sequences[0].clone();
        (sequence.finish_reason, sequence.complete.unwrap())
    };
    assert_eq!(run(4, "!"), (FinishReason::Length, false));
    assert_eq!(run(5, "!"), (FinishReason::Length, true));
    assert_eq!(run(6, "!"), (FinishReason::Stop, true));
    // A text of the user's that ends an answer may end it too soon.
    assert_eq!(run(6, "qqq"), (FinishReason::Stop, false));
}

#[test]
fn a_setting_that_leaves_nothing_is_told() {
    let tokens = byte_level();
    let settings =
        GenerationConfig { min_new_tokens: Some(9), ..config(json!({ "regex": "q{5}", "eos_token_id": END })) };
    let error = generator(&tokens).generate(&[vec![5]], &settings, 0, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("besides a constraint, which leaves few ids"), "{error}");
}

//! Limits, errors, text, stop strings and cancelling, through the whole engine.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Device;
use phyla_data::tokenizer::{BpeSettings, Tokenizer, train_bpe};
use phyla_generate::{Error, Event, FinishReason, GenerationConfig, Generator, Session};
use phyla_models::{Model, fresh};
use serde_json::{Value, json};

fn model(config: Value) -> Model {
    fresh(config.as_object().unwrap(), 3, &Device::Cpu).unwrap()
}

fn llama() -> Model {
    model(json!({
        "model_type": "llama", "vocab_size": 257, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64, "initializer_range": 0.4
    }))
}

/// 16 learned positions, no more.
fn gpt2() -> Model {
    model(json!({
        "model_type": "gpt2", "vocab_size": 257, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 16,
        "initializer_range": 0.4
    }))
}

/// Every token a byte; id 0 is the end.
fn bytes() -> Tokenizer {
    train_bpe([Ok("a")], &BpeSettings { vocab_size: 257, ..BpeSettings::default() }, &mut |_| {}).unwrap()
}

fn greedy(new: usize) -> GenerationConfig {
    GenerationConfig { max_new_tokens: Some(new), ..Default::default() }
}

fn error(model: &Model, prompts: &[Vec<u32>], config: &GenerationConfig) -> Error {
    let mut called = false;
    let error = Generator::new(model, None).generate(prompts, config, 0, &mut |_| called = true).unwrap_err();
    assert!(!called, "something ran before all prompts were checked");
    error
}

#[test]
fn prompts_that_cannot_be_taken_are_refused() {
    let (llama, gpt2) = (llama(), gpt2());
    for (error, expected) in [
        (error(&llama, &[vec![1], vec![]], &greedy(3)), "prompt 1 is empty, and the model names no bos_token_id"),
        (
            error(&llama, &[vec![1], vec![2, 257]], &greedy(3)),
            "prompt 1: token id 257 is outside the vocabulary of 257",
        ),
        (error(&gpt2, &[vec![1; 17]], &greedy(3)), "the prompt has 17 tokens, and this model has learned 16 positions"),
        (
            error(&llama, &[vec![1]], &GenerationConfig { stop_strings: Some(vec!["x".into()]), ..greedy(3) }),
            "the stop string \"x\" needs a tokenizer",
        ),
        (
            error(&llama, &[vec![]], &GenerationConfig { bos_token_id: Some(900), ..greedy(3) }),
            "token id 900 is outside the vocabulary of 257",
        ),
    ] {
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.is_users());
    }
    assert!(Generator::new(&llama, None).generate(&[], &greedy(3), 0, &mut |_| {}).unwrap().sequences.is_empty());
}

#[test]
fn an_empty_prompt_starts_from_the_beginning_of_sequence() {
    let model = llama();
    let config = GenerationConfig { bos_token_id: Some(9), ..greedy(6) };
    let run = |prompt| Generator::new(&model, None).generate(&[prompt], &config, 0, &mut |_| {}).unwrap();
    assert_eq!(run(vec![]).sequences, run(vec![9]).sequences);
}

#[test]
fn the_last_position_is_used_and_none_beyond() {
    let model = gpt2();
    // One sequence meets the limit while others, short and long, go on; none is disturbed.
    let prompts = [vec![1; 16], vec![2; 15], vec![3; 4]];
    let generation = Generator::new(&model, None).generate(&prompts, &greedy(40), 0, &mut |_| {}).unwrap();
    let lengths: Vec<usize> = generation.sequences.iter().map(|s| s.ids.len()).collect();
    assert_eq!(lengths, [1, 2, 13]);
    for (sequence, prompt) in generation.sequences.iter().zip(&prompts) {
        assert_eq!(sequence.finish_reason, FinishReason::Length);
        let alone =
            Generator::new(&model, None).generate(std::slice::from_ref(prompt), &greedy(40), 0, &mut |_| {}).unwrap();
        assert_eq!(alone.sequences[0].ids, sequence.ids);
    }
}

#[test]
fn text_is_streamed_and_ends_before_a_stop_string() {
    let (model, tokenizer) = (llama(), bytes());
    let generator = Generator::new(&model, Some(&tokenizer));
    let prompts: Vec<Vec<u32>> =
        ["Hello", "a", "né"].iter().map(|text| tokenizer.encode(text, false).unwrap()).collect();
    // Ids up to 128 are ASCII characters in this tokenizer or a few others: their text is easily predicted.
    let ascii: Vec<u32> =
        (b'!'..=b'~').flat_map(|byte| tokenizer.encode(&(byte as char).to_string(), false).unwrap()).collect();
    let others: Vec<u32> = (0..257).filter(|id| !ascii.contains(id)).collect();
    let sampled =
        GenerationConfig { do_sample: Some(true), top_k: Some(0), suppress_tokens: Some(others), ..greedy(40) };
    let mut streamed = vec![String::new(); 3];
    let free = generator.generate(&prompts, &sampled, 4, &mut |event| match event {
        Event::Token { sequence, text, .. } | Event::Finished { sequence, text, .. } => streamed[sequence] += text,
    });
    let free = free.unwrap().sequences;
    for (sequence, streamed) in free.iter().zip(&streamed) {
        assert_eq!(sequence.ids.len(), 40);
        assert_eq!(sequence.text.as_ref().unwrap(), streamed);
        assert_eq!(tokenizer.decode(&sequence.ids, true).unwrap(), *streamed);
    }
    // Three characters that come in the middle of the first text.
    let stop = streamed[0][17..20].to_string();
    let at = streamed[0].find(&stop).unwrap();
    let config = GenerationConfig { stop_strings: Some(vec!["never seen".into(), stop.clone()]), ..sampled };
    let mut again = vec![String::new(); 3];
    let stopped = generator.generate(&prompts, &config, 4, &mut |event| match event {
        Event::Token { sequence, text, .. } | Event::Finished { sequence, text, .. } => again[sequence] += text,
    });
    let stopped = &stopped.unwrap().sequences;
    assert_eq!(stopped[0].text.as_deref(), Some(&streamed[0][..at]));
    assert_eq!(stopped[0].ids, free[0].ids[..at + 3]);
    assert_eq!(stopped[0].finish_reason, FinishReason::Stop);
    for (sequence, again) in stopped.iter().zip(&again) {
        assert_eq!(sequence.text.as_ref(), Some(again));
        assert!(!again.contains(&stop));
    }
}

#[test]
fn a_special_token_can_be_a_stop_string() {
    let (model, tokenizer) = (llama(), bytes());
    let generator = Generator::new(&model, Some(&tokenizer));
    // Only the end token remains: as a stop string it ends the sequence, and leaves no text.
    let only = GenerationConfig { suppress_tokens: Some((1..257).collect()), ..greedy(5) };
    let free = generator.generate(&[vec![40]], &only, 0, &mut |_| {}).unwrap().sequences;
    assert_eq!(free[0].ids, [0; 5]);
    let config = GenerationConfig { stop_strings: Some(vec!["<|endoftext|>".into()]), ..only };
    let stopped = generator.generate(&[vec![40]], &config, 0, &mut |_| {}).unwrap().sequences;
    assert_eq!((stopped[0].ids.as_slice(), stopped[0].finish_reason), (&[0][..], FinishReason::Stop));
    assert_eq!(stopped[0].text.as_deref(), Some(""));
    // Not before the shortest length, though: here nothing else may come, which is said.
    let config = GenerationConfig { min_new_tokens: Some(2), ..config };
    let error = generator.generate(&[vec![40]], &config, 0, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("every id has been ruled out"), "{error}");
}

#[test]
fn cancelling_keeps_what_there_is() {
    let model = llama();
    let cancel = AtomicBool::new(false);
    let generator = Generator::new(&model, None).cancelled_by(&cancel);
    let mut tokens = 0;
    let generation = generator
        .generate(&[vec![1], vec![2, 3]], &greedy(50), 0, &mut |event| {
            if let Event::Token { .. } = event {
                tokens += 1;
                cancel.store(tokens >= 7, Ordering::Relaxed);
            }
        })
        .unwrap();
    for sequence in &generation.sequences {
        assert_eq!((sequence.ids.len(), sequence.finish_reason), (4, FinishReason::Cancelled));
    }
    // Already cancelled: nothing runs.
    let none = generator.generate(&[vec![1]], &greedy(50), 0, &mut |_| {}).unwrap();
    assert_eq!((none.sequences[0].ids.len(), none.sequences[0].finish_reason), (0, FinishReason::Cancelled));
}

#[test]
fn ids_without_a_token_have_no_text_and_are_counted() {
    // A table larger than the tokenizer, and every second id from behind its end.
    let model = model(json!({
        "model_type": "llama", "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 1, "num_attention_heads": 4, "max_position_embeddings": 64,
    }));
    let tokenizer = bytes();
    let id = tokenizer.encode("x", false).unwrap()[0];
    let bias = vec![(vec![280], 50.), (vec![280, id], 100.)];
    for beams in [1, 2] {
        let config = GenerationConfig { sequence_bias: Some(bias.clone()), num_beams: Some(beams), ..greedy(6) };
        let mut streamed = String::new();
        let answer = Generator::new(&model, Some(&tokenizer))
            .generate(&[vec![id]], &config, 0, &mut |event| match event {
                Event::Token { text, .. } | Event::Finished { text, .. } => streamed += text,
            })
            .unwrap();
        let sequence = &answer.sequences[0];
        assert_eq!(sequence.ids, [280, id, 280, id, 280, id], "{beams} beams");
        assert_eq!((sequence.text.as_deref(), sequence.silent), (Some("xxx"), 3), "{beams} beams");
        assert_eq!(streamed, "xxx");
    }
}

#[test]
fn time_ends_what_is_being_written() {
    let model = llama();
    for (beams, more) in [(1, 40), (3, 40)] {
        let config = GenerationConfig { max_time: Some(1e-6), num_beams: Some(beams), ..greedy(more) };
        let ended = Generator::new(&model, None).generate(&[vec![1], vec![2, 3]], &config, 0, &mut |_| {}).unwrap();
        for sequence in &ended.sequences {
            // What comes of the prompt is there in any case, and no pass behind it.
            assert_eq!((sequence.ids.len(), sequence.finish_reason), (1, FinishReason::Time), "{beams} beams");
        }
        let config = GenerationConfig { max_time: Some(1e6), ..config };
        let whole = Generator::new(&model, None).generate(&[vec![1]], &config, 0, &mut |_| {}).unwrap();
        assert_eq!(whole.sequences[0].finish_reason, FinishReason::Length);
    }
}

#[test]
fn a_session_reads_only_what_is_new() {
    let model = llama();
    let cancel = AtomicBool::new(false);
    let generator = Generator::new(&model, None).cancelled_by(&cancel);
    let mut session = Session::new();
    let config = GenerationConfig { bos_token_id: Some(9), ..greedy(6) };
    let turn = |session: &mut Session, prompt: &[u32], expected: usize| -> Vec<u32> {
        let fresh = generator.generate(&[prompt.to_vec()], &config, 0, &mut |_| {}).unwrap();
        let ours = generator.generate_in(session, prompt, &config, 0, &mut |_| {}).unwrap();
        assert_eq!(ours.sequences, fresh.sequences);
        assert_eq!(ours.timings.read, expected);
        let all = [prompt, &ours.sequences[0].ids].concat();
        assert_eq!(session.ids(), &all[..all.len() - 1]);
        all
    };
    let first = turn(&mut session, &[1, 2, 3], 3);
    // The answer, whose last id has not been read, and two more.
    let second = turn(&mut session, &[&first[..], &[4, 5]].concat(), 3);
    // The same again: only its last id.
    turn(&mut session, &second, 1);
    turn(&mut session, &second, 1);
    // Another beginning after two ids; another altogether.
    turn(&mut session, &[1, 2, 7, 8], 2);
    turn(&mut session, &[6, 2, 7, 8], 4);
    // Cancelled half-way, it goes on from what was read.
    let halved = generator.generate_in(&mut session, &[6, 2, 7, 8, 9], &config, 0, &mut |event| {
        cancel.store(matches!(event, Event::Token { .. }), Ordering::Relaxed);
    });
    assert_eq!(halved.unwrap().sequences[0].finish_reason, FinishReason::Cancelled);
    cancel.store(false, Ordering::Relaxed);
    assert_eq!(session.ids(), [6, 2, 7, 8, 9]);
    let fresh = generator.generate(&[vec![6, 2, 7, 8, 9, 10]], &config, 0, &mut |_| {}).unwrap();
    let ours = generator.generate_in(&mut session, &[6, 2, 7, 8, 9, 10], &config, 0, &mut |_| {}).unwrap();
    assert_eq!((ours.sequences, ours.timings.read), (fresh.sequences, 1));
    // A mistake in the settings costs nothing; an empty prompt is the beginning of sequence.
    let two = GenerationConfig { num_return_sequences: Some(2), ..greedy(6) };
    assert!(generator.generate_in(&mut session, &[1], &two, 0, &mut |_| {}).unwrap_err().is_users());
    assert_eq!(session.ids().len(), 11);
    generator.generate_in(&mut session, &[], &config, 0, &mut |_| {}).unwrap();
    assert_eq!(session.ids()[0], 9);
}

//! Beam search, and what encoder-decoders answer, against the ids and scores of transformers' generate.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use phyla_data::tokenizer::{BpeSettings, train_bpe};
use phyla_generate::{Event, FinishReason, Generation, GenerationConfig, Generator, Session};
use phyla_models::{LoadOptions, Model, load};
use serde::Deserialize;
use serde_json::{Map, Value};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/beam")
}

#[derive(Deserialize)]
struct Case {
    model: String,
    input_ids: Vec<Vec<u32>>,
    attention_mask: Vec<Vec<u8>>,
    options: Map<String, Value>,
    sequences: Vec<Vec<u32>>,
    scores: Option<Vec<f32>>,
}

impl Case {
    /// The prompts without their padding.
    fn prompts(&self) -> Vec<Vec<u32>> {
        let rows = self.input_ids.iter().zip(&self.attention_mask);
        rows.map(|(ids, mask)| ids.iter().zip(mask).filter(|(_, mask)| **mask != 0).map(|(&id, _)| id).collect())
            .collect()
    }

    fn config(&self) -> GenerationConfig {
        let (config, warnings) = GenerationConfig::from_map(&self.options).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        config
    }
}

fn cases() -> (Vec<Case>, HashMap<String, Model>) {
    let read = |file: &str| -> Vec<Case> {
        serde_json::from_str(&std::fs::read_to_string(golden().join(file)).unwrap()).unwrap()
    };
    let cases: Vec<Case> = read("beam.json").into_iter().chain(read("early.json")).collect();
    assert!(cases.len() >= 90);
    let names = ["t5", "bart", "marian", "gpt2", "llama"];
    let model = |name: &str| (name.to_string(), load(&golden().join(name), &LoadOptions::default()).unwrap().0);
    (cases, names.into_iter().map(model).collect())
}

fn run(model: &Model, prompts: &[Vec<u32>], config: &GenerationConfig) -> Generation {
    Generator::new(model, None).generate(prompts, config, 0, &mut |_| {}).unwrap()
}

#[test]
fn ids_and_scores_equal_the_reference() {
    let (cases, models) = cases();
    for (number, case) in cases.iter().enumerate() {
        let found = run(&models[&case.model], &case.prompts(), &case.config()).sequences;
        assert_eq!(found.len(), case.sequences.len());
        let returns = case.sequences.len() / case.input_ids.len();
        for (i, (sequence, expected)) in found.iter().zip(&case.sequences).enumerate() {
            assert_eq!(sequence.prompt, i / returns);
            // The reference takes what fills a decoder's rows for ids that have been said. Here nothing fills them.
            let filled = case.attention_mask[sequence.prompt][0] == 0;
            if filled && case.options.contains_key("no_repeat_ngram_size") {
                continue;
            }
            let what = format!("case {number}, sequence {i}: {} {:?}", case.model, case.options);
            assert_eq!(&sequence.ids, expected, "{what}");
            match case.scores.as_ref().map(|scores| scores[i]) {
                // Ten log-probabilities, each off by some units of f32 where sums come in another order.
                Some(score) => assert!((sequence.score.unwrap() - score).abs() <= 1e-4 * score.abs().max(1.), "{what}"),
                None => assert_eq!(sequence.score, None),
            }
        }
    }
}

#[test]
fn each_prompt_is_answered_as_if_alone() {
    let (cases, models) = cases();
    for (name, model) in &models {
        // Many more rows than pass through the products together, of many lengths and some equal; ends at all times.
        let prompts: Vec<Vec<u32>> = cases.iter().filter(|c| c.model == *name).flat_map(Case::prompts).collect();
        let prompts: Vec<Vec<u32>> = prompts
            .iter()
            .cycle()
            .take(70)
            .enumerate()
            .map(|(i, p)| p[..p.len() - i % p.len().min(3)].to_vec())
            .collect();
        let ids = cases.iter().find(|c| c.model == *name).unwrap().config();
        let config = |beams, returns, sample: bool| GenerationConfig {
            num_beams: Some(beams),
            num_return_sequences: Some(returns),
            max_new_tokens: Some(9),
            do_sample: Some(sample),
            top_k: Some(0),
            ..ids.clone()
        };
        for (beams, returns, sample) in
            [(1, 1, false), (1, 3, true), (1, 12, true), (4, 2, false), (3, 3, true), (12, 1, false), (40, 2, false)]
        {
            let config = config(beams, returns, sample);
            let all = run(model, &prompts, &config).sequences;
            let lengths: HashSet<usize> = all.iter().map(|s| s.ids.len()).collect();
            assert!(lengths.len() > 1, "{name}, {beams} beams: all end at the same time");
            for i in [0, 1, 33, 69] {
                let alone = run(model, &prompts[i..i + 1], &config).sequences;
                for (number, alone) in alone.iter().enumerate() {
                    let among = &all[i * returns + number];
                    // The very bits of the score: sums come in the same order.
                    assert_eq!(
                        (&among.ids, among.score),
                        (&alone.ids, alone.score),
                        "{name}, {beams} beams, prompt {i}"
                    );
                }
            }
        }
    }
}

fn beams(count: usize) -> GenerationConfig {
    let eos_token_id = Some(vec![2]);
    GenerationConfig { num_beams: Some(count), max_new_tokens: Some(8), eos_token_id, ..Default::default() }
}

fn llama() -> Model {
    load(&golden().join("llama"), &LoadOptions::default()).unwrap().0
}

#[test]
fn returned_sequences_are_different_and_the_best_of_them_first() {
    let model = llama();
    let prompts = [vec![5, 9, 3], vec![20], vec![4, 4, 4, 4, 4]];
    let all = run(&model, &prompts, &GenerationConfig { num_return_sequences: Some(6), ..beams(6) }).sequences;
    for of_one in all.chunks(6) {
        assert!(of_one.windows(2).all(|pair| pair[0].score >= pair[1].score), "{of_one:?}");
        assert_eq!(of_one.iter().map(|s| &s.ids).collect::<HashSet<_>>().len(), 6);
    }
    // Fewer of them are the first of these.
    let two = run(&model, &prompts, &GenerationConfig { num_return_sequences: Some(2), ..beams(6) }).sequences;
    assert_eq!(two.iter().collect::<Vec<_>>(), all.chunks(6).flat_map(|of_one| &of_one[..2]).collect::<Vec<_>>());
    // So wide a search is exhaustive: of two ids, the best of all pairs.
    let two = |count| GenerationConfig { max_new_tokens: Some(2), length_penalty: Some(0.), ..beams(count) };
    let (wide, greedy) = (run(&model, &prompts, &two(600)).sequences, run(&model, &prompts, &two(2)).sequences);
    assert!(wide.iter().zip(&greedy).all(|(wide, narrow)| wide.score >= narrow.score));
}

#[test]
fn drawn_beams_follow_the_seed() {
    let model = llama();
    let config = GenerationConfig { do_sample: Some(true), top_k: Some(0), num_return_sequences: Some(3), ..beams(3) };
    let draw = |seed| {
        let generation = Generator::new(&model, None).generate(&[vec![5, 9, 3], vec![7]], &config, seed, &mut |_| {});
        generation.unwrap().sequences
    };
    assert_eq!(draw(1), draw(1));
    let different: HashSet<Vec<Vec<u32>>> =
        (0..10).map(|seed| draw(seed).into_iter().map(|s| s.ids).collect()).collect();
    assert!(different.len() > 5, "{different:?}");
    // The colder, the nearer to the likeliest.
    let cold = GenerationConfig { temperature: Some(1e-3), ..config.clone() };
    let cold = Generator::new(&model, None).generate(&[vec![5, 9, 3]], &cold, 1, &mut |_| {}).unwrap();
    let greedy = GenerationConfig { num_beams: None, num_return_sequences: None, do_sample: Some(false), ..config };
    assert_eq!(cold.sequences[0].ids, run(&model, &[vec![5, 9, 3]], &greedy).sequences[0].ids);
}

#[test]
fn a_search_tells_what_it_found_at_its_end() {
    let model = llama();
    let config = GenerationConfig { num_return_sequences: Some(2), ..beams(4) };
    let prompts = [vec![5, 9, 3], vec![20], vec![4, 4, 4, 4, 4]];
    let mut events = vec![(vec![], None); 6];
    let generation = Generator::new(&model, None).generate(&prompts, &config, 0, &mut |event| match event {
        Event::Token { sequence, id, .. } => {
            assert_eq!(events[sequence].1, None);
            events[sequence].0.push(id);
        }
        Event::Finished { sequence, reason, .. } => assert_eq!(events[sequence].1.replace(reason), None),
    });
    let sequences = generation.unwrap().sequences;
    for (sequence, events) in sequences.iter().zip(&events) {
        assert_eq!((&sequence.ids, Some(sequence.finish_reason)), (&events.0, events.1));
        let reason = if sequence.ids.ends_with(&[2]) { FinishReason::Stop } else { FinishReason::Length };
        assert_eq!(sequence.finish_reason, reason);
    }
    // Cancelled before it starts: as many sequences, all empty.
    let cancel = AtomicBool::new(true);
    let generation = Generator::new(&model, None).cancelled_by(&cancel).generate(&prompts, &config, 0, &mut |_| {});
    let sequences = generation.unwrap().sequences;
    assert_eq!(sequences.len(), 6);
    assert!(sequences.iter().all(|s| s.ids.is_empty() && s.finish_reason == FinishReason::Cancelled));
    // Cancelled on the way, by what the first prompt to end says: the others give what they have.
    let cancel = AtomicBool::new(false);
    let prompts: Vec<Vec<u32>> = (0..23).map(|id| vec![id, 5]).collect();
    let long = GenerationConfig { max_new_tokens: Some(50), ..config };
    let generator = Generator::new(&model, None).cancelled_by(&cancel);
    let generation = generator.generate(&prompts, &long, 0, &mut |event| {
        cancel.fetch_or(matches!(event, Event::Finished { .. }), Ordering::Relaxed);
    });
    let sequences = generation.unwrap().sequences;
    assert!(sequences.iter().any(|s| s.finish_reason == FinishReason::Stop));
    assert!(sequences.iter().any(|s| s.finish_reason == FinishReason::Cancelled && !s.ids.is_empty()));
}

#[test]
fn a_beam_ends_at_a_stop_string() {
    let tokenizer =
        train_bpe([Ok("a")], &BpeSettings { vocab_size: 257, ..BpeSettings::default() }, &mut |_| {}).unwrap();
    let config = serde_json::json!({
        "model_type": "llama", "vocab_size": 257, "hidden_size": 32, "intermediate_size": 48, "initializer_range": 0.4,
        "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64
    });
    let model = phyla_models::fresh(config.as_object().unwrap(), 3, &candle_core::Device::Cpu).unwrap();
    let ascii: Vec<u32> =
        (b'!'..=b'~').flat_map(|byte| tokenizer.encode(&(byte as char).to_string(), false).unwrap()).collect();
    let others = (0..257).filter(|id| !ascii.contains(id)).collect();
    let config = GenerationConfig { eos_token_id: None, suppress_tokens: Some(others), ..beams(3) };
    let generator = Generator::new(&model, Some(&tokenizer));
    let prompt = tokenizer.encode("Hello", false).unwrap();
    let free = generator.generate(std::slice::from_ref(&prompt), &config, 0, &mut |_| {}).unwrap().sequences;
    let text = free[0].text.clone().unwrap();
    assert_eq!(text.len(), 8);
    // Two characters from the middle of the best text; long ones are worth much, that it is kept.
    let stop = text[3..5].to_string();
    let config = GenerationConfig { stop_strings: Some(vec![stop.clone()]), length_penalty: Some(-2.), ..config };
    let stopped = generator.generate(&[prompt], &config, 0, &mut |_| {}).unwrap().sequences;
    let at = text.find(&stop).unwrap();
    assert_eq!((stopped[0].text.as_deref(), stopped[0].finish_reason), (Some(&text[..at]), FinishReason::Stop));
    assert_eq!(stopped[0].ids, free[0].ids[..at + 2]);
}

#[test]
fn what_cannot_be_searched_is_refused() {
    let model = llama();
    let error = |config: &GenerationConfig| {
        let error = Generator::new(&model, None).generate(&[vec![1]], config, 0, &mut |_| {}).unwrap_err();
        error.to_string()
    };
    let narrow = GenerationConfig { suppress_tokens: Some((2..23).collect()), max_new_tokens: Some(1), ..beams(4) };
    assert!(error(&GenerationConfig { suppress_tokens: Some((0..23).collect()), ..beams(4) }).contains("ruled out"));
    assert_eq!(
        error(&GenerationConfig { num_return_sequences: Some(3), ..narrow.clone() }),
        "num_return_sequences: the settings leave prompt 0 only 2 sequences, and 3 are asked for"
    );
    let both = run(&model, &[vec![1]], &GenerationConfig { num_return_sequences: Some(2), ..narrow }).sequences;
    assert_eq!(both.iter().map(|s| s.ids[0]).collect::<HashSet<_>>(), HashSet::from([0, 1]));
    let mut session = Session::new();
    let error = Generator::new(&model, None).generate_in(&mut session, &[1], &beams(2), 0, &mut |_| {}).unwrap_err();
    assert_eq!(error.to_string(), "num_beams: a session continues with 1 beam, found 2");
    let t5 = load(&golden().join("t5"), &LoadOptions::default()).unwrap().0;
    let error = Generator::new(&t5, None).generate_in(&mut session, &[1], &beams(1), 0, &mut |_| {}).unwrap_err();
    assert!(error.to_string().starts_with("a session continues a text, and t5 answers"), "{error}");
}

#[test]
fn a_decoder_starts_as_it_is_told() {
    let t5 = load(&golden().join("t5"), &LoadOptions::default()).unwrap().0;
    let greedy = |start| GenerationConfig { decoder_start_token_id: start, num_beams: None, ..beams(1) };
    let ids = |config: &GenerationConfig| run(&t5, &[vec![3, 17, 14, 17]], config).sequences[0].ids.clone();
    // config.json says 0.
    assert_eq!(ids(&greedy(None)), ids(&greedy(Some(0))));
    assert_ne!(ids(&greedy(None)), ids(&greedy(Some(9))));
    let config = GenerationConfig { max_new_tokens: None, max_length: Some(4), eos_token_id: None, ..greedy(None) };
    assert_eq!(ids(&config).len(), 3, "the start counts");
    let wrong = |config: &GenerationConfig, prompt: &[u32]| {
        Generator::new(&t5, None).generate(&[prompt.to_vec()], config, 0, &mut |_| {}).unwrap_err().to_string()
    };
    let expected = "decoder_start_token_id: expected an id of the vocabulary of 23, found 23";
    assert_eq!(wrong(&greedy(Some(23)), &[1]), expected);
    assert!(wrong(&greedy(None), &[23]).contains("outside the vocabulary of 23"));
    // The events of a greedy answer come token by token, as a decoder's.
    let mut events = 0;
    let generation = Generator::new(&t5, None).generate(&[vec![3], vec![4, 5]], &greedy(None), 0, &mut |_| events += 1);
    let generation = generation.unwrap();
    assert_eq!(events, generation.sequences.iter().map(|s| s.ids.len() + 1).sum::<usize>());
    assert_eq!(generation.timings.read, 3);
    assert_eq!(generation.timings.steps, generation.sequences.iter().map(|s| s.ids.len() - 1).max().unwrap());
}

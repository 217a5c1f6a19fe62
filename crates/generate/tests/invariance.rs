//! What a prompt is answered depends on nothing but itself, the settings and the seed.
#![expect(clippy::unwrap_used, reason = "tests")]

use candle_core::{DType, Device};
use phyla_generate::{Event, FinishReason, GenerationConfig, Generator, Sequence};
use phyla_models::{LoadOptions, Model, fresh, load};
use serde_json::{Value, json};

/// Big enough for several tiles of every kernel; a vocabulary that is no multiple of any.
fn config(more: Value) -> serde_json::Map<String, Value> {
    let mut config = json!({
        "model_type": "llama", "vocab_size": 331, "hidden_size": 96, "intermediate_size": 200,
        "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "tie_word_embeddings": true, "initializer_range": 0.2
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config.as_object().unwrap().clone()
}

fn model(more: Value) -> Model {
    fresh(&config(more), 7, &Device::Cpu).unwrap()
}

/// Prompts of many lengths: one token, some that fill a chunk of the prefill and more.
fn prompts(lengths: &[usize]) -> Vec<Vec<u32>> {
    lengths
        .iter()
        .enumerate()
        .map(|(i, &n)| (0..n).map(|t| ((t * t + 13 * i + 5 * t) % 331) as u32).collect())
        .collect()
}

fn sampling(new: usize) -> GenerationConfig {
    GenerationConfig { max_new_tokens: Some(new), do_sample: Some(true), top_k: Some(0), ..Default::default() }
}

fn run(model: &Model, prompts: &[Vec<u32>], config: &GenerationConfig, seed: u64) -> Vec<Sequence> {
    Generator::new(model, None).generate(prompts, config, seed, &mut |_| {}).unwrap().sequences
}

fn ids(sequences: &[Sequence]) -> Vec<Vec<u32>> {
    sequences.iter().map(|sequence| sequence.ids.clone()).collect()
}

#[test]
fn sampling_is_the_same_alone_and_in_any_company() {
    let f32s = model(json!({}));
    let folder = tempfile::tempdir().unwrap();
    phyla_models::save(&f32s, folder.path(), DType::BF16).unwrap();
    let (bf16s, _) = load(folder.path(), &LoadOptions::default()).unwrap();
    let rotated = model(json!({ "rope_scaling": { "rope_type": "dynamic", "factor": 4.0 } }));
    // 41 rows: more than pass through the products together.
    let lengths: Vec<usize> = (0..41).map(|i| [1, 3, 33, 64, 100, 530, 7, 40][i % 8]).collect();
    for (name, model) in [("f32", &f32s), ("bf16", &bf16s), ("dynamic rope", &rotated)] {
        let prompts = prompts(&lengths);
        let all = run(model, &prompts, &sampling(12), 5);
        let eight = run(model, &prompts[..8], &sampling(12), 5);
        assert_eq!(all[..8], eight, "{name}");
        for i in [0, 1, 2, 5, 40] {
            let alone = run(model, &prompts[i..i + 1], &sampling(12), 5);
            assert_eq!(alone[0].ids, all[i].ids, "{name}, prompt {i}");
        }
        assert_ne!(ids(&run(model, &prompts[..8], &sampling(12), 6)), ids(&eight), "{name}: another seed");
    }
}

#[test]
fn an_amateur_of_other_numbers_changes_nothing_about_that() {
    let expert = model(json!({}));
    let folder = tempfile::tempdir().unwrap();
    phyla_models::save(&expert, folder.path(), DType::BF16).unwrap();
    let (other, _) = load(folder.path(), &LoadOptions::default()).unwrap();
    let amateur = model(json!({ "num_hidden_layers": 1 }));
    let prompts = prompts(&(0..41).map(|i| [1, 33, 100, 7][i % 4]).collect::<Vec<_>>());
    for (expert, amateur) in [(&other, &amateur), (&expert, &other)] {
        let run = |prompts: &[Vec<u32>]| {
            let generator = Generator::new(expert, None).against(amateur);
            ids(&generator.generate(prompts, &sampling(12), 5, &mut |_| {}).unwrap().sequences)
        };
        let all = run(&prompts);
        for i in [0, 1, 2, 3, 40] {
            assert_eq!(run(&prompts[i..i + 1])[0], all[i], "prompt {i}");
        }
    }
}

#[test]
fn returned_sequences_differ_and_are_the_same_in_any_number() {
    let model = model(json!({}));
    // What learns from the text, and what draws besides, learn and draw for each sequence.
    let looks_back = GenerationConfig {
        mirostat: Some(2),
        mirostat_tau: Some(6.),
        mirostat_eta: Some(0.5),
        xtc_probability: Some(0.5),
        xtc_threshold: Some(0.005),
        ..sampling(10)
    };
    for settings in [sampling(10), looks_back] {
        returned(&model, &settings);
    }
}

fn returned(model: &Model, settings: &GenerationConfig) {
    let config = |n| GenerationConfig { num_return_sequences: Some(n), ..settings.clone() };
    let prompts = prompts(&[5, 80]);
    let eight = run(model, &prompts, &config(8), 1);
    assert_eq!(eight.iter().map(|s| s.prompt).collect::<Vec<_>>(), [[0; 8], [1; 8]].concat());
    let distinct: std::collections::BTreeSet<_> = ids(&eight).into_iter().collect();
    assert_eq!(distinct.len(), 16);
    let three = run(model, &prompts, &config(3), 1);
    assert_eq!(ids(&three[..3]), ids(&eight[..3]));
    assert_eq!(ids(&three[3..]), ids(&eight[8..11]));
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let model = model(json!({ "hidden_size": 240, "intermediate_size": 700 }));
    let prompts = prompts(&[600, 2, 50, 9]);
    // The first call makes the pool, which bounds later ones.
    phyla_kernels::threads::set_threads(2);
    let two = run(&model, &prompts, &sampling(12), 9);
    phyla_kernels::threads::set_threads(1);
    assert_eq!(run(&model, &prompts, &sampling(12), 9), two);
    phyla_kernels::threads::set_threads(2);
}

#[test]
fn sequences_that_end_early_do_not_disturb_the_others() {
    let model = model(json!({}));
    let prompts = prompts(&[4, 9, 30, 2, 6, 11]);
    let free = run(&model, &prompts, &sampling(20), 2);
    // Ends come at different steps, some at the first: whichever ids came there.
    let eos: Vec<u32> = vec![free[0].ids[0], free[1].ids[3], free[2].ids[5], free[3].ids[9], free[4].ids[9]];
    let config = GenerationConfig { eos_token_id: Some(eos.clone()), ..sampling(20) };
    let mut events: Vec<(Vec<u32>, Option<FinishReason>)> = vec![Default::default(); 6];
    let ended = Generator::new(&model, None)
        .generate(&prompts, &config, 2, &mut |event| match event {
            Event::Token { sequence, id, .. } => events[sequence].0.push(id),
            Event::Finished { sequence, reason, .. } => {
                assert!(events[sequence].1.replace(reason).is_none(), "ended twice");
            }
        })
        .unwrap();
    for ((ended, free), events) in ended.sequences.iter().zip(&free).zip(&events) {
        let stop = free.ids.iter().position(|id| eos.contains(id));
        assert_eq!(ended.ids, free.ids[..stop.map_or(20, |at| at + 1)]);
        assert_eq!(ended.finish_reason, if stop.is_some() { FinishReason::Stop } else { FinishReason::Length });
        assert_eq!(events, &(ended.ids.clone(), Some(ended.finish_reason)));
    }
    assert_eq!(ended.sequences[0].ids.len(), 1);
    let decoded: usize = ended.sequences.iter().map(|s| s.ids.len() - 1).sum();
    assert_eq!(ended.timings.tokens, decoded);
    assert_eq!(ended.timings.steps, ended.sequences.iter().map(|s| s.ids.len() - 1).max().unwrap());
}

#[test]
fn what_the_cache_is_made_of_changes_no_text_and_what_it_keeps_hardly_a_number() {
    // Heads of 32, which are whole blocks.
    let model = model(json!({ "num_attention_heads": 3, "num_key_value_heads": 1 }));
    let prompts = prompts(&[1, 30, 64, 65, 7]);
    let with = |text: &str, more: GenerationConfig| {
        let (cache, warnings) =
            GenerationConfig::from_map(serde_json::from_str::<Value>(text).unwrap().as_object().unwrap()).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        cache.merge(more)
    };
    for more in [
        sampling(80),
        GenerationConfig { num_return_sequences: Some(3), ..sampling(70) },
        GenerationConfig { num_beams: Some(4), max_new_tokens: Some(70), ..Default::default() },
    ] {
        let dynamic = run(&model, &prompts, &more, 3);
        for text in [
            r#"{ "cache_implementation": "static" }"#,
            r#"{ "cache_implementation": "static", "max_cache_len": 500 }"#,
            r#"{ "cache_implementation": "hybrid", "cache_config": { "backend": "quanto" } }"#,
            r#"{ "cache_dtype": "f32" }"#,
        ] {
            assert_eq!(run(&model, &prompts, &with(text, more.clone()), 3), dynamic, "{text}");
        }
        for text in [
            r#"{ "cache_dtype": "q8_0" }"#,
            r#"{ "cache_implementation": "quantized", "cache_config": { "nbits": 8 } }"#,
            r#"{ "cache_implementation": "static", "cache_dtype": "bf16" }"#,
            r#"{ "cache_implementation": "quantized" }"#,
        ] {
            let kept = run(&model, &prompts, &with(text, more.clone()), 3);
            for i in [0, 3] {
                let returns = more.num_return_sequences.unwrap_or(1);
                let alone = run(&model, &prompts[i..i + 1], &with(text, more.clone()), 3);
                assert_eq!(ids(&alone), ids(&kept[i * returns..][..returns]), "{text}, prompt {i}");
            }
        }
    }
    let eight =
        |name: &str| with(&format!(r#"{{ "cache_dtype": "{name}" }}"#), GenerationConfig::default()).cache_dtype;
    assert_eq!(eight("q8_0"), with(r#"{ "cache_config": { "nbits": 8 } }"#, Default::default()).cache_dtype);
    // Heads of 16 are no whole blocks.
    let small = crate::model(json!({}));
    let error = Generator::new(&small, None)
        .generate(&prompts, &with(r#"{ "cache_dtype": "q8_0" }"#, sampling(2)), 0, &mut |_| {})
        .unwrap_err();
    assert!(error.to_string().contains("heads of 16 numbers are not whole blocks"), "{error}");
}

#[test]
fn over_quantised_weights_answers_are_deterministic_where_asked() {
    let config = config(json!({ "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4 }));
    let folder = tempfile::tempdir().unwrap();
    phyla_models::save(&fresh(&config, 7, &Device::Cpu).unwrap(), folder.path(), DType::F32).unwrap();
    let quantize = Some("q4_0".parse().unwrap());
    let (model, _) = load(folder.path(), &LoadOptions { quantize, ..Default::default() }).unwrap();
    let prompts = prompts(&[3, 40, 1, 9, 2, 2, 17, 30, 5, 64]);
    let config = GenerationConfig { deterministic: Some(true), ..sampling(30) };
    let all = run(&model, &prompts, &config, 4);
    for i in [0, 4, 9] {
        assert_eq!(ids(&run(&model, &prompts[i..i + 1], &config, 4)), ids(&all[i..i + 1]), "prompt {i}");
    }
}

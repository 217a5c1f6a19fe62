//! Speculation changes how soon a text is there, and not an id of it.
#![expect(clippy::unwrap_used, reason = "tests")]

use candle_core::{DType, Device};
use phyla_data::tokenizer::{BpeSettings, Tokenizer, train_bpe};
use phyla_generate::{Assistant, Generation, GenerationConfig, Generator, Ngrams, Session};
use phyla_models::{LoadOptions, Model, fresh, load};
use serde_json::{Value, json};

fn config(more: Value) -> serde_json::Map<String, Value> {
    let mut config = json!({
        "model_type": "llama", "vocab_size": 97, "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
        "initializer_range": 0.15
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config.as_object().unwrap().clone()
}

fn model(more: Value, seed: u64) -> Model {
    fresh(&config(more), seed, &Device::Cpu).unwrap()
}

/// As loaded in bf16 or quantised.
fn stored(more: Value, dtype: DType, quantize: Option<&str>) -> Model {
    let folder = tempfile::tempdir().unwrap();
    phyla_models::save(&model(more, 3), folder.path(), dtype).unwrap();
    let quantize = quantize.map(|kind| kind.parse().unwrap());
    load(folder.path(), &LoadOptions { quantize, ..Default::default() }).unwrap().0
}

/// Texts that repeat themselves, one that does not, and one id.
fn prompts() -> Vec<Vec<u32>> {
    vec![
        (0..60).map(|i| [5, 9, 11, 40, 2, 77][i % 6]).collect(),
        (0..30).map(|i| (i * i * 7 + 3) % 97).collect(),
        vec![8],
        vec![4, 4, 4, 4],
    ]
}

fn run(generator: Generator, config: &GenerationConfig) -> Generation {
    generator.generate(&prompts(), config, 11, &mut |_| {}).unwrap()
}

fn settings(text: &str) -> GenerationConfig {
    let (config, warnings) =
        GenerationConfig::of_user(serde_json::from_str::<Value>(text).unwrap().as_object().unwrap()).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    config.merge(GenerationConfig { max_new_tokens: Some(70), ..Default::default() })
}

/// Ways to decode, whose ids may not change.
const WAYS: [&str; 6] = [
    "{}",
    r#"{ "repetition_penalty": 1.3, "no_repeat_ngram_size": 4 }"#,
    r#"{ "do_sample": true, "temperature": 0.7 }"#,
    r#"{ "do_sample": true, "mirostat": 2, "mirostat_tau": 2, "xtc_probability": 0.3, "dynatemp_range": 0.4 }"#,
    r#"{ "do_sample": true, "top_k": 0, "eos_token_id": [1, 13, 40] }"#,
    r#"{ "cache_dtype": "q8_0", "do_sample": true, "temperature": 0.3 }"#,
];

#[test]
fn guesses_from_the_text_change_no_id() {
    let moe =
        json!({ "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 20 });
    let mla = json!({
        "model_type": "deepseek_v2", "q_lora_rank": null, "kv_lora_rank": 32, "qk_rope_head_dim": 32,
        "qk_nope_head_dim": 16, "v_head_dim": 16, "num_key_value_heads": 4, "n_routed_experts": 4, "num_experts_per_tok": 2,
        "n_shared_experts": 1, "moe_intermediate_size": 48, "topk_method": "greedy", "n_group": 1, "topk_group": 1,
        "first_k_dense_replace": 1,
    });
    let wide =
        json!({ "hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 1, "intermediate_size": 256 });
    let models = [
        ("f32", model(json!({ "num_attention_heads": 2, "num_key_value_heads": 1 }), 3)),
        ("bf16", stored(json!({ "num_attention_heads": 2 }), DType::BF16, None)),
        ("q4_k_m", stored(wide, DType::F32, Some("q4_k_m"))),
        (
            "experts",
            model(
                {
                    let mut m = moe;
                    m["num_attention_heads"] = json!(2);
                    m
                },
                3,
            ),
        ),
        ("latent", model(mla, 3)),
    ];
    for (name, model) in &models {
        for way in WAYS {
            let plain = run(Generator::new(model, None), &settings(way));
            for tokens in [1, 4, 7, 50] {
                let looked = GenerationConfig { prompt_lookup_num_tokens: Some(tokens), ..settings(way) };
                let looked = run(Generator::new(model, None), &looked);
                assert_eq!(looked.sequences, plain.sequences, "{name} {way} {tokens}");
                assert_eq!(looked.timings.tokens, plain.timings.tokens);
                assert!(looked.timings.drafted >= looked.timings.accepted);
                // Every right guess spares a pass, or was the last id.
                let passes: usize = looked.timings.tokens - looked.timings.accepted;
                assert!(looked.timings.steps >= passes, "{:?}", looked.timings);
            }
        }
    }
}

#[test]
fn a_models_guesses_change_no_id_and_a_twins_are_all_right() {
    let (large, other) = (model(json!({ "num_attention_heads": 2 }), 3), model(json!({ "num_attention_heads": 2 }), 4));
    for way in WAYS.into_iter().filter(|way| !way.contains("q8_0")) {
        let plain = run(Generator::new(&large, None), &settings(way));
        for schedule in ["constant", "heuristic"] {
            let config = GenerationConfig {
                num_assistant_tokens: Some(5),
                num_assistant_tokens_schedule: Some(schedule.into()),
                assistant_confidence_threshold: Some(0.),
                ..settings(way)
            };
            let twin = run(Generator::new(&large, None).assisted_by(&large), &config);
            assert_eq!(twin.sequences, plain.sequences, "{way}");
            let wrong = twin.timings.drafted - twin.timings.accepted;
            // Those behind the end of a sequence come to nothing.
            assert!(
                wrong <= 5 * prompts().len() && twin.timings.steps < plain.timings.tokens / 2,
                "{:?}",
                twin.timings
            );
            let stranger = run(Generator::new(&large, None).assisted_by(&other), &config);
            assert_eq!(stranger.sequences, plain.sequences, "{way}");
        }
    }
}

#[test]
fn a_models_first_layers_guess_and_change_no_id() {
    let model = model(json!({ "num_attention_heads": 2, "num_hidden_layers": 4 }), 3);
    for way in WAYS {
        let plain = run(Generator::new(&model, None), &settings(way));
        for (layers, sure) in [(1, 0.), (3, 0.), (3, 0.4)] {
            let config = GenerationConfig {
                assistant_early_exit: Some(layers),
                assistant_confidence_threshold: Some(sure),
                ..settings(way)
            };
            let skipped = run(Generator::new(&model, None), &config);
            assert_eq!(skipped.sequences, plain.sequences, "{way} {layers}");
            assert!(skipped.timings.drafted > 0, "{way} {layers}");
        }
    }
    for layers in [4, 9] {
        let config = GenerationConfig { assistant_early_exit: Some(layers), ..settings("{}") };
        let error = Generator::new(&model, None).generate(&prompts(), &config, 0, &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains(&format!("found {layers} of 4 in llama")), "{error}");
    }
}

#[test]
fn an_unsure_assistant_guesses_less() {
    let (large, other) = (model(json!({ "num_attention_heads": 2 }), 3), model(json!({ "num_attention_heads": 2 }), 4));
    let guessed = |sure: f32| {
        let config = GenerationConfig {
            num_assistant_tokens_schedule: Some("constant".into()),
            assistant_confidence_threshold: Some(sure),
            ..settings("{}")
        };
        let timings = run(Generator::new(&large, None).assisted_by(&other), &config).timings;
        timings.drafted as f64 / timings.steps as f64
    };
    let (always, never) = (guessed(0.), guessed(1.));
    assert!(always > 5. && never <= 1., "{always} {never}");
}

#[test]
fn counts_of_earlier_texts_guess_and_change_no_id() {
    let model = model(json!({ "num_attention_heads": 2 }), 3);
    for way in WAYS {
        let plain = run(Generator::new(&model, None), &settings(way));
        let ngrams = Ngrams::new(97);
        let first = run(Generator::new(&model, None).assisted_by(&ngrams), &settings(way));
        assert_eq!(first.sequences, plain.sequences, "{way}");
        assert!(!ngrams.is_empty());
        // What has been written before is foreseen, up to the seven ids of a pass.
        let second = run(Generator::new(&model, None).assisted_by(&ngrams), &settings(way));
        assert_eq!(second.sequences, plain.sequences, "{way}");
        assert!(second.timings.accepted > first.timings.accepted, "{way}: {:?} {:?}", first.timings, second.timings);
        assert!(3 * second.timings.steps < plain.timings.tokens, "{way}: {:?}", second.timings);
    }
    let fewer = Ngrams::new(96);
    let error = Generator::new(&model, None).assisted_by(&fewer);
    let error = error.generate(&prompts(), &settings("{}"), 0, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("of a vocabulary of 96, and the model's has 97 tokens"), "{error}");
}

const TALE: &str = "The fox ran over the hill. The fox saw a héron by the lake, and the héron saw the fox. \
                    \"Where do you run?\" said the héron. \"Over the hill,\" said the fox.";

#[test]
fn an_assistant_of_another_tokenizer_is_told_the_text_in_its_own_tokens() {
    let characters = Tokenizer::characters(TALE).unwrap();
    let settings_of = BpeSettings { vocab_size: 300, ..BpeSettings::default() };
    let pieces = train_bpe([Ok(TALE)], &settings_of, &mut |_| {}).unwrap();
    let with = |tokenizer: &Tokenizer, seed| {
        model(json!({ "num_attention_heads": 2, "vocab_size": tokenizer.vocab_size() }), seed)
    };
    let (large, small) = (with(&pieces, 3), with(&characters, 4));
    let prompts: Vec<Vec<u32>> =
        ["The fox", "said the h", "a héron by"].map(|text| pieces.encode(text, false).unwrap()).into();
    for way in WAYS {
        let run = |generator: Generator| generator.generate(&prompts, &settings(way), 11, &mut |_| {}).unwrap();
        let plain = run(Generator::new(&large, Some(&pieces)));
        let told = run(Generator::new(&large, Some(&pieces)).assisted_by(Assistant::Translated(&small, &characters)));
        assert_eq!(told.sequences, plain.sequences, "{way}");
        assert!(told.timings.drafted > 0, "{way}");
    }
    // Told in the same tokens, of which each is a character, a twin is right.
    let way = settings(r#"{ "assistant_confidence_threshold": 0 }"#);
    let twin = Generator::new(&small, Some(&characters)).assisted_by(Assistant::Translated(&small, &characters));
    let prompts = [characters.encode("The fox", false).unwrap(), characters.encode("a héron by", false).unwrap()];
    let twin = twin.generate(&prompts, &way, 11, &mut |_| {}).unwrap().timings;
    assert!(twin.accepted + 14 >= twin.drafted && twin.steps < 30, "{twin:?}");
    let error = Generator::new(&large, None).assisted_by(Assistant::Translated(&small, &characters));
    let error = error.generate(&prompts, &settings("{}"), 0, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("needs the model's own"), "{error}");
}

/// Drawn with guesses, two ids have the probabilities that the model gives them, whoever guesses.
#[test]
fn drawn_ids_are_distributed_as_without_guesses() {
    const VOCAB: usize = 7;
    const DRAWS: usize = 20_000;
    let of = |seed| model(json!({ "num_attention_heads": 2, "vocab_size": VOCAB, "hidden_size": 32 }), seed);
    let (large, small) = (of(5), of(6));
    let prompt = [3u32, 1, 4];
    let next = |ids: &[u32]| -> Vec<f64> {
        let hidden =
            large.forward(ids, None, &mut phyla_nn::Pass::cached(phyla_nn::Cache::new(1).all(), ids.len())).unwrap();
        let logits = large.logits(&hidden).unwrap().into_data().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let last = &logits[logits.len() - VOCAB..];
        let exp: Vec<f64> = last.iter().map(|&x| f64::from(x / 0.8).exp()).collect();
        let sum: f64 = exp.iter().sum();
        exp.iter().map(|x| x / sum).collect()
    };
    let first = next(&prompt);
    let expected: Vec<f64> = (0..VOCAB)
        .flat_map(|a| next(&[&prompt[..], &[a as u32]].concat()).into_iter().map(move |p| (a, p)))
        .map(|(a, p)| first[a] * p * DRAWS as f64)
        .collect();
    let config = settings(r#"{ "do_sample": true, "temperature": 0.8, "top_k": 0 }"#);
    let config = GenerationConfig { max_new_tokens: Some(3), ..config };
    let ngrams = Ngrams::new(VOCAB);
    ngrams.learn(&[3, 1, 4, 1, 4, 1, 5, 1, 4, 1]);
    let exit = GenerationConfig { assistant_early_exit: Some(1), ..config.clone() };
    let plain = Generator::new(&large, None);
    for (name, generator, config) in [
        ("model", plain.assisted_by(&small), &config),
        ("ngrams", plain.assisted_by(&ngrams), &config),
        ("layers", plain, &exit),
    ] {
        let (mut counts, mut accepted) = (vec![0f64; VOCAB * VOCAB], 0);
        for seed in 0..DRAWS as u64 {
            let generation = generator.generate(&[prompt.to_vec()], config, seed, &mut |_| {}).unwrap();
            let ids = &generation.sequences[0].ids;
            counts[ids[0] as usize * VOCAB + ids[1] as usize] += 1.;
            accepted += generation.timings.accepted;
        }
        let chi: f64 = counts.iter().zip(&expected).map(|(found, e)| (found - e) * (found - e) / e).sum();
        // 48 degrees of freedom: 85 is passed once in a thousand times.
        assert!(chi < 85., "{name}: {chi}");
        assert!(accepted > 0, "{name}");
    }
}

#[test]
fn a_session_remembers_what_was_guessed_right_and_nothing_else() {
    let model = model(json!({}), 3);
    let config = GenerationConfig { prompt_lookup_num_tokens: Some(6), ..settings("{}") };
    let (mut with, mut without) = (Session::new(), Session::new());
    let mut prompt = prompts().remove(0);
    for _ in 0..3 {
        let mut answers = vec![];
        for (session, config) in [(&mut with, &config), (&mut without, &settings("{}"))] {
            let generator = Generator::new(&model, None);
            answers.push(generator.generate_in(session, &prompt, config, 1, &mut |_| {}).unwrap().sequences);
        }
        assert_eq!(answers[0], answers[1]);
        assert_eq!(with.ids(), without.ids());
        prompt.extend(&answers[0][0].ids);
        prompt.push(3);
        prompt.truncate(150);
    }
}

#[test]
fn what_cannot_be_guessed_for_is_refused() {
    let large = model(json!({}), 3);
    let config = GenerationConfig { num_beams: Some(3), prompt_lookup_num_tokens: Some(3), ..settings("{}") };
    let error = Generator::new(&large, None).generate(&prompts(), &config, 0, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("speculation follows one sequence of a prompt, found num_beams 3"), "{error}");
    let other = model(json!({ "vocab_size": 98 }), 3);
    let error = Generator::new(&large, None)
        .assisted_by(&other)
        .generate(&prompts(), &settings("{}"), 0, &mut |_| {})
        .unwrap_err();
    assert!(error.to_string().contains("a decoder with the model's 97 tokens, found llama with 98"), "{error}");
}

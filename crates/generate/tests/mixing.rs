//! Logits mixed from more than one distribution: guidance, DoLa and contrastive decoding against references, and alone as in any
//! company.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::path::Path;

use phyla_generate::{Error, GenerationConfig, Generator, Session};
use phyla_models::{LoadOptions, Model, load};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
struct Case {
    kind: String,
    model: String,
    prompt: Vec<u32>,
    settings: Map<String, Value>,
    negative: Option<Vec<u32>>,
    ids: Vec<u32>,
}

fn golden() -> (Vec<Case>, HashMap<&'static str, Model>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/mixing");
    let cases = serde_json::from_str(&std::fs::read_to_string(folder.join("mixing.json")).unwrap()).unwrap();
    let model = |name: &'static str| (name, load(&folder.join(name), &LoadOptions::default()).unwrap().0);
    (cases, ["untied", "tied", "small"].into_iter().map(model).collect())
}

fn config(settings: &Map<String, Value>) -> GenerationConfig {
    let (config, warnings) = GenerationConfig::of_user(settings).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    GenerationConfig::default().merge(config)
}

fn of(value: Value) -> GenerationConfig {
    config(value.as_object().unwrap())
}

fn run(generator: Generator, prompts: &[Vec<u32>], config: &GenerationConfig) -> Vec<Vec<u32>> {
    let answer = generator.generate(prompts, config, 3, &mut |_| {}).unwrap();
    answer.sequences.into_iter().map(|sequence| sequence.ids).collect()
}

#[test]
fn mixed_greedy_ids_equal_the_reference() {
    let (cases, models) = golden();
    assert!(cases.len() >= 60);
    for (number, case) in cases.iter().enumerate() {
        let model = &models[case.model.as_str()];
        let negative: Vec<Vec<u32>> = case.negative.iter().cloned().collect();
        let generator = Generator::new(model, None).guided_from(&negative);
        let generator = if case.kind == "contrast" { generator.against(&models["small"]) } else { generator };
        let found = run(generator, std::slice::from_ref(&case.prompt), &config(&case.settings));
        assert_eq!(found[0], case.ids, "{number}: {} {} {:?}", case.kind, case.model, case.settings);
    }
}

#[test]
fn a_mixed_beams_score_is_that_of_its_ids() {
    let (_, models) = golden();
    let (model, amateur) = (&models["untied"], &models["small"]);
    let prompts: Vec<Vec<u32>> = vec![(0..100).map(|t| (t * t * 5 + t) % 23).collect(), vec![7, 3]];
    let negative = vec![vec![9], (0..70).map(|t| (t * t + 3) % 23).collect()];
    for (way, against) in ways() {
        let guided = way.get("guidance_scale").is_some();
        let generator = Generator::new(model, None);
        let generator = if against { generator.against(amateur) } else { generator };
        let mut settings = way.as_object().unwrap().clone();
        settings
            .extend(json!({ "max_new_tokens": 9, "num_beams": 4, "length_penalty": 0 }).as_object().unwrap().clone());
        let negative: &[Vec<u32>] = if guided { &negative } else { &[] };
        let found = generator.guided_from(negative).generate(&prompts, &config(&settings), 0, &mut |_| {}).unwrap();
        // Each id again, behind all before it read anew.
        let mut single = way.as_object().unwrap().clone();
        single.extend(json!({ "max_new_tokens": 1, "output_scores": true }).as_object().unwrap().clone());
        let single = config(&single);
        for sequence in found.sequences {
            let mut sum = 0.;
            for t in 0..sequence.ids.len() {
                let behind = |text: &[u32]| vec![[text, &sequence.ids[..t]].concat()];
                let negative = if guided { behind(&negative[sequence.prompt]) } else { vec![] };
                let answer = generator.guided_from(&negative).generate(
                    &behind(&prompts[sequence.prompt]),
                    &single,
                    0,
                    &mut |_| {},
                );
                let outputs = answer.unwrap().sequences.remove(0).outputs;
                let row = &outputs.scores[0];
                let total: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
                sum += f64::from(row[sequence.ids[t] as usize]) - total.ln();
            }
            // Nine log-probabilities, each off by some units of f32 where sums come in another order.
            let score = f64::from(sequence.score.unwrap());
            assert!((score - sum).abs() <= 1e-4 * sum.abs().max(1.), "{settings:?}: {score} for {sum}");
        }
    }
}

/// Ways to mix, and what they need.
fn ways() -> Vec<(Value, bool)> {
    vec![
        (json!({ "guidance_scale": 1.8 }), false),
        (json!({ "dola_layers": "high" }), false),
        (json!({ "contrastive_alpha": 0.05, "contrastive_beta": 0.7 }), true),
        (json!({ "dola_layers": [0, 3, 5] }), false),
    ]
}

#[test]
fn a_mixed_prompt_is_answered_alone_as_in_any_company() {
    let (_, models) = golden();
    let (model, amateur) = (&models["untied"], &models["small"]);
    let prompts: Vec<Vec<u32>> =
        (0..21).map(|i| (0..[1, 7, 3, 12][i % 4]).map(|t| ((t * t + 3 * i) % 23) as u32).collect()).collect();
    let negative: Vec<Vec<u32>> = (0..21).map(|i| (0..=i % 5).map(|t| ((5 * i + t) % 23) as u32).collect()).collect();
    for (way, against) in ways() {
        for more in [
            json!({ "max_new_tokens": 9 }),
            json!({ "max_new_tokens": 9, "do_sample": true, "num_return_sequences": 3, "eos_token_id": [4, 5] }),
            json!({ "max_new_tokens": 8, "num_beams": 3, "num_return_sequences": 2, "eos_token_id": 2 }),
            json!({ "max_new_tokens": 8, "num_beams": 2, "do_sample": true }),
            json!({ "max_new_tokens": 6, "penalty_alpha": 0.4, "top_k": 3 }),
        ] {
            let mut settings = way.as_object().unwrap().clone();
            settings.extend(more.as_object().unwrap().clone());
            let config = config(&settings);
            let guided = way.get("guidance_scale").is_some();
            let generator = |negative| {
                let generator = Generator::new(model, None).guided_from(negative);
                if against { generator.against(amateur) } else { generator }
            };
            let all = run(generator(if guided { &negative[..] } else { &[] }), &prompts, &config);
            let returns = all.len() / prompts.len();
            for i in [0, 1, 3, 13, 20] {
                let negative = if guided { &negative[i..=i] } else { &[] };
                let alone = run(generator(negative), &prompts[i..=i], &config);
                assert_eq!(alone, all[i * returns..(i + 1) * returns], "{settings:?}, prompt {i}");
            }
            // And it does mix.
            let plain = more.as_object().unwrap();
            assert_ne!(run(Generator::new(model, None), &prompts, &self::config(plain)), all, "{settings:?}");
        }
    }
}

#[test]
fn guesses_and_sessions_change_no_mixed_id() {
    let (_, models) = golden();
    let model = &models["tied"];
    let prompt: Vec<u32> = [5, 9, 11, 4].repeat(6);
    let negative = [vec![7, 8, 9]];
    for (way, against) in ways() {
        for draws in [false, true] {
            let mut settings = way.as_object().unwrap().clone();
            settings.extend(json!({ "max_new_tokens": 25, "do_sample": draws }).as_object().unwrap().clone());
            let generator = Generator::new(model, None);
            let generator = if against { generator.against(&models["small"]) } else { generator };
            let guided = way.get("guidance_scale").is_some();
            let generator = if guided { generator.guided_from(&negative) } else { generator };
            let plain = run(generator, std::slice::from_ref(&prompt), &config(&settings));
            settings.insert("prompt_lookup_num_tokens".into(), json!(5));
            let config = config(&settings);
            assert_eq!(run(generator, std::slice::from_ref(&prompt), &config), plain, "{settings:?}");
            // A second turn of a conversation reads the negative prompt anew.
            let mut session = Session::new();
            let once = generator.generate_in(&mut session, &prompt, &config, 3, &mut |_| {}).unwrap();
            assert_eq!(once.sequences[0].ids, plain[0]);
            let longer = [&prompt[..], &once.sequences[0].ids, &[6]].concat();
            let second = generator.generate_in(&mut session, &longer, &config, 3, &mut |_| {}).unwrap();
            assert_eq!(second.sequences[0].ids, run(generator, &[longer], &config)[0], "{settings:?}");
        }
    }
}

#[test]
fn what_cannot_be_mixed_is_refused() {
    let (_, models) = golden();
    let (model, small) = (&models["untied"], &models["small"]);
    let prompts = [vec![5, 6], vec![7]];
    let error = |generator: Generator, settings: Value| -> String {
        let error = generator.generate(&prompts, &of(settings), 0, &mut |_| {}).unwrap_err();
        assert!(matches!(error, Error::Settings(_) | Error::Prompt(_)));
        error.to_string()
    };
    let plain = Generator::new(model, None);
    let both = error(plain, json!({ "guidance_scale": 2, "dola_layers": "low" }));
    assert!(both.contains("guidance_scale and dola_layers"), "{both}");
    assert!(error(plain.against(small), json!({ "dola_layers": "low" })).contains("dola_layers and an amateur"));
    assert!(error(plain, json!({ "contrastive_alpha": 0.1 })).contains("none is given"));
    assert!(error(plain, json!({ "dola_layers": [7] })).contains("below the model's 7"));
    assert!(error(plain, json!({ "dola_layers": [] })).contains("none to contrast with"));
    assert!(error(plain.guided_from(&[vec![3]]), json!({})).contains("guidance_scale"));
    let three = [vec![3], vec![4], vec![5]];
    assert!(error(plain.guided_from(&three), json!({ "guidance_scale": 2 })).contains("found 3"));
    assert!(error(plain.guided_from(&[vec![99]]), json!({ "guidance_scale": 2 })).contains("token id 99"));
    assert!(error(plain.decoding_from(&[4]), json!({})).contains("no encoder"));
    let beam = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/beam/bart");
    let (bart, _) = load(&beam, &LoadOptions::default()).unwrap();
    let answer = Generator::new(&bart, None);
    let start = json!({ "guidance_scale": 2, "decoder_start_token_id": 2 });
    assert!(error(answer, start).contains("for decoders alone"));
    assert!(error(plain.against(&bart), json!({})).contains("the amateur is a decoder"));
}

//! Prompts that are more than ids: healed ends, what a decoder is given, what a function allows.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};

use phyla_data::tokenizer::Tokenizer;
use phyla_generate::{Event, GenerationConfig, Generator, PrefixAllowed};
use phyla_models::{LoadOptions, load};
use serde::Deserialize;
use serde_json::{Map, Value};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

fn read<T: serde::de::DeserializeOwned>(file: &str) -> Vec<T> {
    serde_json::from_str(&std::fs::read_to_string(golden().join(file)).unwrap()).unwrap()
}

#[derive(Deserialize)]
struct Healing {
    text: String,
    ids: Vec<u32>,
    new: Vec<u32>,
}

#[test]
fn healed_prompts_equal_the_reference() {
    let (model, _) = load(&golden().join("healing"), &LoadOptions::default()).unwrap();
    let tokenizer = Tokenizer::load(golden().join("healing")).unwrap();
    let config = GenerationConfig { token_healing: Some(true), max_new_tokens: Some(4), ..Default::default() };
    let cases: Vec<Healing> = read("healing/healing.json");
    let prompts: Vec<Vec<u32>> = cases.iter().map(|case| tokenizer.encode(&case.text, true).unwrap()).collect();
    let generator = Generator::new(&model, Some(&tokenizer));
    let mut told = vec![String::new(); prompts.len()];
    let answer = generator
        .generate(&prompts, &config, 0, &mut |event| {
            let (Event::Token { sequence, text, .. } | Event::Finished { sequence, text, .. }) = event;
            told[sequence] += text;
        })
        .unwrap();
    let mut healed = 0;
    for (i, case) in cases.iter().enumerate() {
        assert_eq!(answer.prompts[i], case.ids, "{}", case.text);
        assert_eq!(answer.sequences[i].ids, case.new, "{}", case.text);
        healed += usize::from(answer.prompts[i] != prompts[i]);
        // The text goes on where the prompt that was given ends, whatever has become of its last token.
        let whole = tokenizer.decode(&[&case.ids[..], &case.new].concat(), true).unwrap();
        assert_eq!(format!("{}{}", case.text, answer.sequences[i].text.as_ref().unwrap()), whole);
        assert_eq!(answer.sequences[i].text.as_ref(), Some(&told[i]));
    }
    assert!(healed > 5, "{healed}");
    let error = Generator::new(&model, None).generate(&prompts, &config, 0, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("token_healing needs a tokenizer"));
}

#[derive(Deserialize)]
struct Given {
    model: String,
    source: Vec<u32>,
    decoder: Vec<u32>,
    options: Map<String, Value>,
    ids: Vec<u32>,
}

#[test]
fn a_decoder_goes_on_from_what_it_is_given() {
    for case in read::<Given>("decoder_ids.json") {
        let (model, _) = load(&golden().join("beam").join(&case.model), &LoadOptions::default()).unwrap();
        let (config, _) = GenerationConfig::from_map(&case.options).unwrap();
        let generator = Generator::new(&model, None).decoding_from(&case.decoder);
        let answer = generator.generate(std::slice::from_ref(&case.source), &config, 0, &mut |_| {}).unwrap();
        assert_eq!(answer.sequences[0].ids, case.ids, "{} {:?} {:?}", case.model, case.source, case.decoder);
        // Among others as alone.
        let others = [vec![5; 9], case.source.clone(), vec![6]];
        let all = generator.generate(&others, &config, 0, &mut |_| {}).unwrap();
        assert_eq!(all.sequences[1].ids, case.ids);
        let wrong = Generator::new(&model, None).decoding_from(&[99]);
        assert!(wrong.generate(&others, &config, 0, &mut |_| {}).unwrap_err().to_string().contains("token id 99"));
    }
}

#[test]
fn only_what_a_function_allows_is_written() {
    let (model, _) = load(&golden().join("beam/gpt2"), &LoadOptions::default()).unwrap();
    // Each prompt's own number, then what is one more than the last.
    let allowed = PrefixAllowed::new(|prompt, ids| {
        let last = ids.last().copied().unwrap_or(0);
        vec![(last + 1) % 23, prompt as u32 + 20, 1000]
    });
    for (beams, sample) in [(1, false), (1, true), (3, false)] {
        let config = GenerationConfig {
            prefix_allowed: Some(allowed.clone()),
            max_new_tokens: Some(12),
            num_beams: Some(beams),
            do_sample: Some(sample),
            ..Default::default()
        };
        let prompts = [vec![5, 6], vec![7], vec![3, 3, 3]];
        let answer = Generator::new(&model, None).generate(&prompts, &config, 1, &mut |_| {}).unwrap();
        for sequence in &answer.sequences {
            let mut last = *prompts[sequence.prompt].last().unwrap();
            for &id in &sequence.ids {
                assert!(id == (last + 1) % 23 || id == sequence.prompt as u32 + 20, "{sequence:?}");
                last = id;
            }
        }
    }
    let nothing = GenerationConfig { prefix_allowed: Some(PrefixAllowed::new(|_, _| vec![])), ..Default::default() };
    assert!(Generator::new(&model, None).generate(&[vec![5]], &nothing, 0, &mut |_| {}).is_err());
}

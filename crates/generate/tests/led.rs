//! Texts written behind prompts and prefixes, against those that peft writes.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use phyla_generate::{GenerationConfig, Generator, PrefixCache, Session};
use phyla_models::adapter::Adapter;
use phyla_models::checkpoint::Checkpoint;
use phyla_models::{LoadOptions, Model, load};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

fn prompts(family: &str) -> Vec<Vec<u32>> {
    let text = std::fs::read_to_string(golden().join("adapters").join(family).join("inputs.json")).unwrap();
    serde_json::from_value(serde_json::from_str::<serde_json::Value>(&text).unwrap()["input_ids"].clone()).unwrap()
}

fn open(family: &str, method: &str) -> (Model, Vec<Vec<u32>>) {
    let model = load(&golden().join("adapters").join(family), &LoadOptions::default()).unwrap().0;
    let folder = golden().join("prompts").join(family).join(method);
    model.use_adapters(&[Arc::new(Adapter::load(&model, &folder).unwrap())]);
    let written = Checkpoint::open(folder.join("expected.safetensors")).unwrap().get("written").unwrap();
    let ids = written.bytes().chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap()) as u32);
    let ids: Vec<u32> = ids.collect();
    (model, ids.chunks(written.shape[1]).map(<[u32]>::to_vec).collect())
}

fn config() -> GenerationConfig {
    GenerationConfig { max_new_tokens: Some(6), eos_token_id: Some(vec![]), ..Default::default() }
}

#[test]
fn what_is_written_behind_a_prompt_is_what_peft_writes() {
    for family in ["llama", "gpt2"] {
        for method in ["prompt", "p_tuning_mlp", "p_tuning_lstm", "prefix", "prefix_projection"] {
            let (model, expected) = open(family, method);
            let (prompts, known) = (prompts(family), PrefixCache::new(1 << 20));
            for generator in [Generator::new(&model, None), Generator::new(&model, None).remembering(&known)] {
                for _ in 0..2 {
                    let found = generator.generate(&prompts, &config(), 0, &mut |_| {}).unwrap();
                    let found: Vec<Vec<u32>> = found.sequences.into_iter().map(|sequence| sequence.ids).collect();
                    assert_eq!(found, expected, "{family} {method}");
                }
            }
            let beams = GenerationConfig { num_beams: Some(3), ..config() };
            let both = [prompts[0].clone(), prompts[0][..4].to_vec()];
            let several = Generator::new(&model, None).generate(&both, &beams, 0, &mut |_| {}).unwrap();
            let alone = Generator::new(&model, None).generate(&both[1..], &beams, 0, &mut |_| {}).unwrap();
            assert_eq!(several.sequences[1].ids, alone.sequences[0].ids, "{family} {method}: beams");
        }
    }
}

#[test]
fn a_session_goes_on_behind_its_prompt() {
    let (model, expected) = open("llama", "prefix");
    let (prompts, generator, mut session) = (prompts("llama"), Generator::new(&model, None), Session::default());
    let mut ask = |prompt: &[u32]| generator.generate_in(&mut session, prompt, &config(), 0, &mut |_| {}).unwrap();
    assert_eq!(ask(&prompts[0]).sequences[0].ids, expected[0]);
    let longer = [&prompts[0][..], &expected[0], &[7, 8]].concat();
    let found = ask(&longer).sequences[0].ids.clone();
    let alone = generator.generate(&[longer], &config(), 0, &mut |_| {}).unwrap();
    assert_eq!(found, alone.sequences[0].ids);
    // Another text from its first id: what stands before it is read anew, or kept.
    let other: Vec<u32> = prompts[0].iter().rev().copied().collect();
    let alone = generator.generate(std::slice::from_ref(&other), &config(), 0, &mut |_| {}).unwrap();
    assert_eq!(ask(&other).sequences[0].ids, alone.sequences[0].ids);
}

//! Prompts and prefixes against peft, from the fixtures that `tests/golden/prompts.py` wrote.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{apart, logits_of, with};
use phyla_models::adapter::{Adapter, AdapterSpec};
use phyla_models::checkpoint::Checkpoint;
use phyla_models::{Input, LoadOptions, Model, load};
use phyla_nn::{Cache, Pass};
use serde_json::{Value, json};

/// What f32 sums in another order come to, of the largest number.
const NEAR: f64 = 2e-5;

const METHODS: [&str; 5] = ["prompt", "p_tuning_mlp", "p_tuning_lstm", "prefix", "prefix_projection"];

fn golden(what: &str, family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(what).join(family)
}

fn open(family: &str) -> Model {
    load(&golden("adapters", family), &LoadOptions::default()).unwrap().0
}

fn ids(family: &str) -> Vec<Vec<u32>> {
    let text = std::fs::read_to_string(golden("adapters", family).join("inputs.json")).unwrap();
    serde_json::from_value(serde_json::from_str::<Value>(&text).unwrap()["input_ids"].clone()).unwrap()
}

fn logits(model: &Model, family: &str) -> Vec<f32> {
    let rows = ids(family);
    logits_of(model, &Input { batch: rows.len(), time: rows[0].len(), ids: rows.concat(), ..Input::default() })
}

#[test]
fn texts_behind_a_prompt_are_read_as_by_peft() {
    for family in ["llama", "gpt2"] {
        let model = open(family);
        let plain = logits(&model, family);
        for method in METHODS {
            let folder = golden("prompts", family).join(method);
            let adapter = with(&model, &folder);
            let expected = Checkpoint::open(folder.join("expected.safetensors")).unwrap();
            let expected = expected.get("logits").unwrap().to_f32().unwrap();
            let off = apart(&logits(&model, family), &expected);
            assert!(off < NEAR, "{family} {method}: {off:e} apart");
            assert!(apart(&plain, &expected) > 1e-3, "{family} {method}: the prompt changes nothing");
            let written = match std::env::var_os("PHYLA_PROMPTS_OUT") {
                // For `tests/golden/prompts.py FOLDER`, which opens them in peft.
                Some(out) => Path::new(&out).join(family).join(method),
                None => tempfile::tempdir().unwrap().keep(),
            };
            adapter.save(&model, &written, None).unwrap();
            with(&model, &written);
            assert!(apart(&logits(&model, family), &expected) < NEAR, "{family} {method}, written and read again");
            model.use_adapters(&[]);
            assert_eq!(logits(&model, family), plain, "{family} {method}: something stays");
        }
    }
}

#[test]
fn a_cache_begins_with_the_prompt() {
    for family in ["llama", "gpt2"] {
        for method in METHODS {
            let model = open(family);
            with(&model, &golden("prompts", family).join(method));
            let text = &ids(family)[0];
            let whole = logits_of(&model, &Input::row(text));
            let mut cache = Cache::new(2);
            let mut found = vec![];
            let pieces: Vec<&[u32]> = vec![&text[..2], &text[2..3], &text[3..]];
            for piece in pieces {
                let both = [piece, piece].concat();
                let mut pass = Pass::cached(cache.all(), piece.len());
                let hidden = phyla_ops::no_grad(|| model.forward(&both, None, &mut pass)).unwrap();
                let logits = model.logits(&hidden).unwrap().data().narrow(0, 1, 1).unwrap();
                found.extend(logits.flatten_all().unwrap().to_vec1::<f32>().unwrap());
            }
            assert_eq!(cache.lengths(), [text.len() + 3; 2]);
            let off = apart(&found, &whole);
            assert!(off < NEAR, "{family} {method}: {off:e} apart");
        }
    }
}

#[test]
fn padding_changes_nothing_behind_a_prompt() {
    let model = open("llama");
    for method in METHODS {
        with(&model, &golden("prompts", "llama").join(method));
        let text = &ids("llama")[0][..5];
        let alone = logits_of(&model, &Input::row(text));
        let padded = Input { attention_mask: Some(vec![1, 1, 1, 1, 1, 0, 0]), ..Input::row(&[text, &[0, 0]].concat()) };
        let found = logits_of(&model, &padded);
        assert!(apart(&found[..alone.len()], &alone) < NEAR, "{method}");
    }
}

fn fresh(model: &Model, spec: Value) -> Result<Adapter, String> {
    let spec: AdapterSpec = serde_json::from_value(spec).map_err(|error| error.to_string())?;
    Adapter::fresh(model, &spec, 3).map_err(|error| error.to_string())
}

#[test]
fn a_prompt_that_begins_with_a_text_reads_as_that_text_before() {
    let model = open("llama");
    let text = &ids("llama")[0];
    let before = [5, 9, 2];
    let adapter =
        Arc::new(fresh(&model, json!({ "prompt": { "tokens": 3, "init": "text", "init_text": "x" } })).unwrap());
    adapter.begin_with(&model, &before).unwrap();
    let whole = logits_of(&model, &Input::row(&[&before[..], text].concat()));
    model.use_adapters(&[adapter]);
    let vocab = model.arch.vocab();
    assert!(apart(&logits_of(&model, &Input::row(text)), &whole[3 * vocab..]) < NEAR);
}

#[test]
fn what_no_prompt_can_stand_before_is_refused_by_name() {
    let (llama, bert, t5) = (open("llama"), open("bert"), open("t5"));
    for model in [&bert, &t5] {
        let found = fresh(model, json!({ "prompt": {} })).unwrap_err();
        assert!(found.contains("models that write from left to right"), "{found}");
    }
    let found = fresh(&open("deepseek_v2"), json!({ "prefix": {} })).unwrap_err();
    assert!(found.contains("has none of its own"), "{found}");
    let prefix = Arc::new(fresh(&llama, json!({ "prefix": { "tokens": 2 } })).unwrap());
    let found = phyla_models::adapter::merge(&llama, &prefix).unwrap_err().to_string();
    assert!(found.contains("changes no weight"), "{found}");
    llama.use_adapters(&[prefix]);
    let documents = Input { segments: Some(vec![0, 0, 1, 1]), ..Input::row(&[1, 2, 3, 4]) };
    let found = llama.run(&documents, false).unwrap_err().to_string();
    assert!(found.contains("several documents"), "{found}");
}

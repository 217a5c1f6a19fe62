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

/// The encoder of a classifier's fixture, and what it reads.
fn classifier(family: &str, method: &str) -> (Model, Input, std::path::PathBuf) {
    let base = if family == "bert" { golden("tasks", "bert_classify") } else { golden(family, "classify") };
    let folder = golden("prompts", &format!("{family}_classify")).join(method);
    let batch: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("batch.json")).unwrap()).unwrap();
    let rows = |key: &str| serde_json::from_value::<Vec<Vec<u32>>>(batch[key].clone()).ok();
    let ids = rows("input_ids").unwrap();
    let mask = rows("attention_mask").unwrap().concat().into_iter().map(|x| x as u8).collect();
    let input = Input {
        batch: ids.len(),
        time: ids[0].len(),
        ids: ids.concat(),
        attention_mask: Some(mask),
        token_types: rows("token_type_ids").map(|types| types.concat()),
        ..Input::default()
    };
    (load(&base, &LoadOptions::default()).unwrap().0, input, folder)
}

#[test]
fn classes_of_texts_behind_a_prompt_are_those_of_peft() {
    for family in ["bert", "roberta"] {
        for method in ["prompt", "p_tuning_mlp", "prefix"] {
            let (model, input, folder) = classifier(family, method);
            let plain = logits_of(&model, &input);
            let adapter = with(&model, &folder);
            let expected = Checkpoint::open(folder.join("expected.safetensors")).unwrap();
            let expected = expected.get("logits").unwrap().to_f32().unwrap();
            let off = apart(&logits_of(&model, &input), &expected);
            assert!(off < NEAR, "{family} {method}: {off:e} apart");
            assert!(apart(&plain, &expected) > 1e-3, "{family} {method}: the prompt changes nothing");
            assert!(!adapter.saved().is_empty(), "{family} {method}: the head was not read");
            let written = match std::env::var_os("PHYLA_PROMPTS_OUT") {
                Some(out) => Path::new(&out).join(format!("{family}_classify")).join(method),
                None => tempfile::tempdir().unwrap().keep(),
            };
            adapter.save(&model, &written, None).unwrap();
            let (again, input, _) = classifier(family, method);
            with(&again, &written);
            assert!(apart(&logits_of(&again, &input), &expected) < NEAR, "{family} {method}, written and read again");
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
    let (llama, t5) = (open("llama"), open("t5"));
    let found = fresh(&t5, json!({ "prompt": {} })).unwrap_err();
    assert!(found.contains("reads one and writes another"), "{found}");
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

//! Adapters against peft, from the fixtures that `tests/golden/adapters.py` wrote.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{apart, logits_of, with};
use phyla_models::adapter::{Adapter, AdapterSpec, Combine, Majority, RULES, combine, merge};
use phyla_models::checkpoint::Checkpoint;
use phyla_models::{Input, LoadOptions, Model, load};
use phyla_nn::Pass;
use phyla_ops::{CrossEntropy, Tensor, Weight};
use serde_json::{Value, json};

/// What f32 sums in another order come to, of the largest number; peft's own drift from f64 is 1e-6.
const NEAR: f64 = 2e-5;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/adapters")
}

/// Every family with each of its methods.
fn cases() -> Vec<(PathBuf, String)> {
    let mut cases = vec![];
    for family in std::fs::read_dir(golden()).unwrap() {
        let family = family.unwrap().path();
        for method in std::fs::read_dir(&family).unwrap().map(|entry| entry.unwrap().path()) {
            if method.is_dir() {
                cases.push((family.clone(), method.file_name().unwrap().to_string_lossy().into_owned()));
            }
        }
    }
    cases.sort();
    assert_eq!(cases.len(), 40);
    cases
}

fn open(folder: &Path) -> Model {
    load(folder, &LoadOptions::default()).unwrap().0
}

fn rows(value: &Value) -> Vec<u32> {
    let rows: Vec<Vec<u32>> = serde_json::from_value(value.clone()).unwrap();
    rows.concat()
}

fn input(family: &Path) -> Input {
    let text = std::fs::read_to_string(family.join("inputs.json")).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    let of = |key: &str| {
        let batch = value[key].as_array()?.len();
        let ids = rows(&value[key]);
        Some(Input { batch, time: ids.len() / batch, ids, ..Input::default() })
    };
    let mask = value["attention_mask"].as_array().map(|_| rows(&value["attention_mask"]));
    Input {
        attention_mask: mask.map(|mask| mask.into_iter().map(|keep| keep as u8).collect()),
        decoder: of("decoder_input_ids").map(Box::new),
        ..of("input_ids").unwrap()
    }
}

fn logits(model: &Model, family: &Path) -> Vec<f32> {
    logits_of(model, &input(family))
}

fn expected(folder: &Path) -> Vec<f32> {
    Checkpoint::open(folder.join("expected.safetensors")).unwrap().get("logits").unwrap().to_f32().unwrap()
}

#[test]
fn outputs_equal_pefts() {
    for (family, method) in cases() {
        let (model, folder) = (open(&family), family.join(&method));
        let plain = logits(&model, &family);
        with(&model, &folder);
        let (found, expected) = (logits(&model, &family), expected(&folder));
        let off = apart(&found, &expected);
        assert!(off < NEAR, "{}: {off:e} apart", folder.display());
        assert!(apart(&plain, &expected) > 1e-2, "{}: the adapter changes nothing", folder.display());
        model.use_adapters(&[]);
        if method != "lora" || !model.family.model_type.contains("bert") {
            let whole = Checkpoint::open(folder.join("adapter_model.safetensors")).unwrap();
            let replaces = whole.names().any(|name| name.contains("classifier"));
            assert!(replaces || logits(&model, &family) == plain, "{}: something stays", folder.display());
        }
    }
}

#[test]
fn folders_come_back_as_they_were() {
    for (family, method) in cases() {
        let (model, folder) = (open(&family), family.join(&method));
        let adapter = with(&model, &folder);
        let written = tempfile::tempdir().unwrap();
        adapter.save(&model, written.path(), Some("some/base")).unwrap();
        if let Some(out) = std::env::var_os("PHYLA_ADAPTERS_OUT") {
            // For `tests/golden/adapters.py FOLDER`, which opens them in peft.
            let out = Path::new(&out).join(family.file_name().unwrap()).join(&method);
            adapter.save(&model, &out, None).unwrap();
            std::fs::copy(folder.join("expected.safetensors"), out.join("expected.safetensors")).unwrap();
        }
        let names = |checkpoint: &Checkpoint| checkpoint.names().map(str::to_string).collect::<Vec<_>>();
        let name = "adapter_model.safetensors";
        let [theirs, ours] = [&folder, written.path()].map(|path| Checkpoint::open(path.join(name)).unwrap());
        let where_ = folder.display();
        assert_eq!(names(&ours), names(&theirs), "{where_}");
        for name in theirs.names() {
            let [a, b] = [&ours, &theirs].map(|checkpoint| checkpoint.get(name).unwrap());
            assert_eq!(a.shape, b.shape, "{where_}: {name}");
            assert_eq!(a.to_f32().unwrap(), b.to_f32().unwrap(), "{where_}: {name}");
        }
        let again = open(&family);
        with(&again, written.path());
        assert_eq!(logits(&again, &family), logits(&model, &family), "{where_}");
    }
}

#[test]
fn merged_equals_unmerged() {
    for (family, method) in cases() {
        let (model, folder) = (open(&family), family.join(&method));
        let adapter = with(&model, &folder);
        merge(&model, &adapter).unwrap();
        let off = apart(&logits(&model, &family), &expected(&folder));
        assert!(off < NEAR, "{}: {off:e} apart", folder.display());
        assert!(model.slots().iter().all(|slot| slot.changes().is_empty()));
    }
}

#[test]
fn combined_adapters_answer_as_pefts() {
    for family in ["llama", "gpt2"] {
        let (base, folder) = (golden().join(family), golden().join("../combined").join(family));
        let expected = Checkpoint::open(folder.join("expected.safetensors")).unwrap();
        let expected = |name: &str| expected.get(name).unwrap().to_f32().unwrap();
        let model = open(&base);
        let load = |name: &str| Arc::new(Adapter::load(&model, &folder.join(name)).unwrap());
        let (a, b) = (load("a"), load("b"));
        model.use_adapters(&[a.clone(), b.clone()]);
        let off = apart(&logits(&model, &base), &expected("several"));
        assert!(off < NEAR, "{family}, both at once: {off:e} apart");
        for name in RULES {
            let mut how: Combine = name.parse().unwrap();
            (how.density, how.rank) = match name {
                "ties" => (Some(0.6), None),
                "ties_svd" => (Some(0.6), None),
                "magnitude_prune" => (Some(0.4), None),
                "magnitude_prune_svd" => (Some(0.7), None),
                "svd" => (None, Some(4)),
                _ => (Some(1.), None),
            };
            if name == "ties_svd" {
                how.majority = Majority::Frequency;
            }
            let one = combine(&[(a.clone(), 0.7), (b.clone(), -0.4)], &how).unwrap();
            // Written and read again, as `phyla merge --as-adapter` does.
            let written = tempfile::tempdir().unwrap();
            one.save(&model, written.path(), None).unwrap();
            with(&model, written.path());
            let off = apart(&logits(&model, &base), &expected(name));
            assert!(off < NEAR, "{family} {name}: {off:e} apart");
        }
    }
}

#[test]
fn what_cannot_be_combined_is_refused_by_name() {
    let (base, folder) = (golden().join("llama"), golden().join("../combined/llama"));
    let model = open(&base);
    let load = |path: PathBuf| Arc::new(Adapter::load(&model, &path).unwrap());
    let (a, other) = (load(folder.join("a")), load(base.join("rslora")));
    let of = |name: &str, density: Option<f64>, second: &Arc<Adapter>| {
        let how = Combine { density, ..name.parse().unwrap() };
        combine(&[(a.clone(), 1.), (second.clone(), 1.)], &how).unwrap_err().to_string()
    };
    for (found, expected) in [
        (of("linear", None, &other), "ranks [3, 4] have matrices of unlike shapes"),
        (of("ties", None, &a), "say with a density"),
        (of("dare_linear", Some(0.), &a), "say with a density"),
        (of("cat", None, &load(base.join("ia3"))), "adapters of kind ia3 cannot be combined"),
        (of("cat", None, &load(base.join("dora"))), "DoRA"),
        (of("cat", None, &load(base.join("adalora"))), "adapters of kind adalora cannot be combined"),
        ("tie".parse::<Combine>().unwrap_err(), "`tie`: expected linear, cat, svd, ties"),
    ] {
        assert!(found.contains(expected), "{found}");
    }
}

fn spec(value: Value) -> AdapterSpec {
    serde_json::from_value(value).unwrap()
}

#[test]
fn a_fresh_adapter_changes_nothing_until_it_learns() {
    for family in ["llama", "gpt2", "deepseek_v2", "bert", "t5"] {
        let folder = golden().join(family);
        for wanted in [
            json!({ "lora": { "rank": 3, "targets": ["**.attn.*"] } }),
            json!({ "lora": { "r": 3, "lora_alpha": 6, "use_rslora": true, "init": "gaussian", "targets": ["**.attn.o"] } }),
            json!({ "lora": { "rank": 2, "dora": true, "targets": ["**.attn.o"] } }),
            json!({ "lora": { "rank": 2, "init": "pissa", "targets": ["**.attn.o"] } }),
            json!({ "lora": { "rank": 2, "init": "pissa_niter_2", "dora": true, "targets": ["**.attn.o"] } }),
            json!({ "lora": { "rank": 2, "init": "olora", "rslora": true, "targets": ["**.attn.o"] } }),
            json!({ "adalora": { "rank": 3, "target_rank": 2, "targets": ["**.attn.o"] } }),
            json!({ "vera": { "rank": 4, "targets": ["**.attn.o"] } }),
            json!({ "ia3": { "targets": ["**.attn.o"], "feedforward": ["**.layers.0.mlp.down"] } }),
            json!({ "bottleneck": { "inner": 3, "targets": ["**.attn.o"] } }),
        ] {
            let model = open(&folder);
            let plain = logits(&model, &folder);
            let adapter = Arc::new(Adapter::fresh(&model, &spec(wanted.clone()), 1).unwrap());
            model.use_adapters(std::slice::from_ref(&adapter));
            let off = apart(&logits(&model, &folder), &plain);
            // DoRA divides by a length and multiplies by the same one.
            assert!(off < 1e-6, "{family} {wanted}: {off:e}");
            assert!(adapter.params().iter().any(|param| adapter.learns(param)), "{family} {wanted}");
            let written = tempfile::tempdir().unwrap();
            adapter.save(&model, written.path(), None).unwrap();
            let again = with(&open(&folder), written.path());
            assert_eq!(again.spec().name(), adapter.spec().name());
        }
    }
}

/// Numbers other than 0 in the second matrix of every change.
fn disturb(adapter: &Adapter, by: f32) {
    for param in adapter.params().into_iter().filter(|param| param.path().ends_with("lora_B")) {
        let values: Vec<f32> = (0..param.count()).map(|at| by * ((at % 7) as f32 - 3.)).collect();
        param.set_weight(Weight::Dense(phyla_ops::cpu::tensor(values, param.dims()).unwrap())).unwrap();
    }
}

#[test]
fn what_is_kept_of_an_adapter_follows_its_numbers() {
    let folder = golden().join("llama");
    let wanted = spec(json!({ "lora": { "rank": 2, "dora": true, "targets": ["**.attn.*"] } }));
    let made = |asked_before: bool| {
        let model = open(&folder);
        let adapter = Arc::new(Adapter::fresh(&model, &wanted, 1).unwrap());
        model.use_adapters(std::slice::from_ref(&adapter));
        let before = asked_before.then(|| logits(&model, &folder));
        disturb(&adapter, 0.2);
        let found = logits(&model, &folder);
        assert!(before.is_none_or(|before| apart(&found, &before) > 1e-2));
        found
    };
    assert_eq!(made(true), made(false));
}

#[test]
fn an_adapted_head_answers_alike_by_every_way() {
    let model = open(&golden().join("llama"));
    let wanted = spec(json!({ "lora": { "rank": 2, "targets": ["head"] } }));
    let adapter = Arc::new(Adapter::fresh(&model, &wanted, 1).unwrap());
    disturb(&adapter, 0.3);
    let hidden: Tensor = {
        let found = model.run(&Input::row(&[3, 14, 15, 9]), false).unwrap();
        found.into_iter().find(|(name, _)| name == "last_hidden_state").unwrap().1
    };
    let targets = [4, 0, -100, 30];
    let ask = || {
        let logits: Vec<Vec<f32>> = model.logits(&hidden).unwrap().data().squeeze(0).unwrap().to_vec2().unwrap();
        let direct: Vec<f32> = (logits.iter().zip(targets).filter(|(_, target)| *target >= 0))
            .map(|(row, target)| row[target as usize] - row.iter().map(|x| x.exp()).sum::<f32>().ln())
            .collect();
        let probs = model.log_probs(&hidden, &targets, &mut Pass::idle()).unwrap().data().to_vec1::<f32>().unwrap();
        let args = CrossEntropy { label_smoothing: 0., scale: 1. };
        let loss = model.loss(&hidden, &targets, args).unwrap().data().to_scalar::<f32>().unwrap();
        assert!(apart(&probs, &direct) < NEAR, "{probs:?} and {direct:?}");
        assert!((loss + direct.iter().sum::<f32>()).abs() < 1e-4, "{loss} and {direct:?}");
        direct
    };
    let plain = ask();
    model.use_adapters(&[adapter]);
    assert!(apart(&ask(), &plain) > 1e-2);
}

/// What is said of an adapter's folder after `change`.
fn complaint(family: &str, change: impl FnOnce(&Path)) -> String {
    let copy = tempfile::tempdir().unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(golden().join("llama/lora").join(name), copy.path().join(name)).unwrap();
    }
    change(copy.path());
    Adapter::load(&open(&golden().join(family)), copy.path()).unwrap_err().to_string()
}

#[test]
fn wrong_folders_are_refused_by_name() {
    let set = |folder: &Path, key: &str, value: Value| {
        let path = folder.join("adapter_config.json");
        let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        config[key] = value;
        std::fs::write(path, config.to_string()).unwrap();
    };
    let remove = |name: &'static str| move |folder: &Path| std::fs::remove_file(folder.join(name)).unwrap();
    for (found, expected) in [
        (complaint("gpt2", |_| ()), "nothing in this model takes 12 of its 12 tensors"),
        (complaint("llama", remove("adapter_config.json")), "is this an adapter's folder?"),
        (complaint("llama", remove("adapter_model.safetensors")), "adapter_model.safetensors"),
        (complaint("llama", |at| set(at, "peft_type", json!("LOHA"))), "peft_type LOHA is not supported"),
        (complaint("llama", |at| set(at, "peft_type", Value::Null)), "expected peft_type"),
        (complaint("llama", |at| set(at, "lora_bias", json!(true))), "lora_bias is true"),
        (complaint("llama", |at| set(at, "use_dora", json!(true))), "lora_magnitude_vector"),
        (complaint("llama", |at| set(at, "alpha_pattern", json!({ "(": 3 }))), "alpha_pattern"),
        (complaint("llama", |at| std::fs::write(at.join("adapter_config.json"), "{").unwrap()), "adapter_config.json"),
    ] {
        assert!(found.contains(expected), "{found}");
    }
    let model = open(&golden().join("llama"));
    let none = Adapter::fresh(&model, &spec(json!({ "lora": { "targets": ["**.atn.q"] } })), 0).unwrap_err();
    assert!(none.to_string().contains("**.atn.q"), "{none}");
    let wide = json!({ "lora": { "rank": 99, "init": "pissa", "targets": ["**.attn.q"] } });
    let wide = Adapter::fresh(&model, &spec(wide), 0).unwrap_err();
    assert!(wide.to_string().contains("takes rank 99 from a weight"), "{wide}");
    let unknown = serde_json::from_value::<AdapterSpec>(json!({ "lora": { "init": "pisa" } })).unwrap_err();
    assert!(unknown.to_string().contains("`pisa`: expected default, gaussian, pissa"), "{unknown}");
}

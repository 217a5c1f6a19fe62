//! Every family against the fixtures that `tests/golden/decoder.py` made with transformers.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};

use phyla_models::checkpoint::Checkpoint;
use phyla_models::{Input, LoadOptions, Model, load, registry};
use phyla_nn::Cache;
use phyla_ops::Data;

/// Relative to the largest reference value. Both sides sum in f32 in different orders: 24-bit sums of a few
/// dozen terms over a few layers agree to some 1e-6; a wrong formula misses by 1e-3 and more.
const TOLERANCE: f32 = 2e-5;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

/// All cases of a family, as folders.
fn cases(family: &str) -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> = std::fs::read_dir(golden().join(family))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|p| p.is_dir())
        .collect();
    cases.sort();
    assert!(cases.len() >= 5, "{family}: too few fixtures");
    cases
}

/// A row for each family.
const FAMILIES: [&str; 5] = ["gpt2", "llama", "mistral", "qwen2", "qwen3"];

fn families() -> impl Iterator<Item = &'static str> {
    assert_eq!(FAMILIES.len(), registry::FAMILIES.len(), "a family of the registry has no row here");
    FAMILIES.into_iter()
}

fn read_input(case: &Path) -> Input {
    let text = std::fs::read_to_string(case.join("inputs.json")).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rows = |key: &str| -> Option<Vec<Vec<u32>>> {
        value.get(key).map(|rows| serde_json::from_value(rows.clone()).unwrap())
    };
    let ids = rows("input_ids").unwrap();
    let flat = |rows: Option<Vec<Vec<u32>>>| rows.map(|rows| rows.concat());
    Input {
        batch: ids.len(),
        time: ids[0].len(),
        ids: ids.concat(),
        attention_mask: flat(rows("attention_mask")).map(|mask| mask.iter().map(|&m| m as u8).collect()),
        positions: flat(rows("position_ids")),
        segments: flat(rows("document_ids")),
        token_types: flat(rows("token_type_ids")),
    }
}

fn open(case: &Path) -> Model {
    load(case, &LoadOptions::default()).unwrap_or_else(|e| panic!("{}: {e}", case.display())).0
}

fn values(data: &Data) -> Vec<f32> {
    data.flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest difference over the unmasked tokens, relative to the largest reference value there.
fn error(ours: &[f32], theirs: &[f32], input: &Input) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let width = ours.len() / (input.batch * input.time);
    let (mut worst, mut largest) = (0f32, 0f32);
    for (token, (a, b)) in ours.chunks(width).zip(theirs.chunks(width)).enumerate() {
        if input.attention_mask.as_ref().is_some_and(|mask| mask[token] == 0) {
            continue;
        }
        for (a, b) in a.iter().zip(b) {
            assert!(a.is_finite(), "token {token}: {a}");
            (worst, largest) = (worst.max((a - b).abs()), largest.max(b.abs()));
        }
    }
    worst / largest
}

#[test]
fn matches_reference() {
    let mut failed = vec![];
    for case in families().flat_map(cases) {
        let (model, input) = (open(&case), read_input(&case));
        let expected = Checkpoint::open(case.join("expected.safetensors")).unwrap();
        let mut pass = input.pass(&model.arch).unwrap();
        pass.hidden_states = Some(vec![]);
        let hidden = model.forward(&input.ids, input.token_types.as_deref(), &mut pass).unwrap();
        let mut ours =
            vec![("last_hidden_state".to_string(), hidden.clone()), ("logits".into(), model.logits(&hidden).unwrap())];
        for (i, state) in pass.hidden_states.take().unwrap().into_iter().enumerate() {
            ours.push((format!("hidden_states.{i}"), state));
        }
        assert_eq!(expected.names().len(), ours.len(), "{}", case.display());
        for (name, ours) in ours {
            let theirs = expected.get(&name).unwrap().to_f32().unwrap();
            let error = error(&values(ours.data()), &theirs, &input);
            if error > TOLERANCE || error.is_nan() {
                failed.push(format!("{}: {name}: {error:.1e}", case.strip_prefix(golden()).unwrap().display()));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn cached_decoding_equals_full() {
    for case in families().flat_map(cases) {
        let name = case.file_name().unwrap().to_string_lossy().to_string();
        // Their rotation depends on the length of the input: keys in a cache keep the one they came with.
        if name.contains("dynamic") || name.contains("longrope") {
            continue;
        }
        let (model, input) = (open(&case), read_input(&case));
        let ids = &input.ids[..input.time];
        let mut pass = Input::row(ids).pass(&model.arch).unwrap();
        let full = model.forward(ids, None, &mut pass).unwrap();
        let full = values(model.logits(&full).unwrap().data());
        let mut cache = Cache::new(1);
        let (mut cached, mut start) = (vec![], 0);
        // Chunks of 1, 2, 3, … tokens.
        for size in 1.. {
            let chunk = &ids[start..ids.len().min(start + size)];
            if chunk.is_empty() {
                break;
            }
            let mut pass = phyla_nn::Pass::cached(cache.all(), chunk.len());
            let hidden = model.forward(chunk, None, &mut pass).unwrap();
            cached.extend(values(model.logits(&hidden).unwrap().data()));
            start += chunk.len();
        }
        assert_eq!(cache.lengths(), [ids.len()]);
        let error = error(&cached, &full, &Input::row(ids));
        assert!(error <= TOLERANCE, "{}: {error:.1e}", case.display());
    }
}

#[test]
fn padding_changes_nothing() {
    for case in families().flat_map(cases) {
        let (model, input) = (open(&case), read_input(&case));
        let ids = &input.ids[..input.time.min(5)];
        let alone = Input::row(ids);
        let run = |input: &Input| {
            let mut pass = input.pass(&model.arch).unwrap();
            let hidden = model.forward(&input.ids, None, &mut pass).unwrap();
            values(model.logits(&hidden).unwrap().data())
        };
        let expected = run(&alone);
        for (left, right) in [(2, 0), (0, 2), (1, 1)] {
            let time = left + ids.len() + right;
            if time > model.arch.context {
                continue;
            }
            let pad = |value: u32, n: usize| std::iter::repeat_n(value, n);
            let padded = Input {
                ids: pad(3, left).chain(ids.iter().copied()).chain(pad(3, right)).collect(),
                batch: 1,
                time,
                attention_mask: Some((0..time).map(|t| (left..left + ids.len()).contains(&t) as u8).collect()),
                positions: Some((0..time).map(|t| t.saturating_sub(left).min(ids.len() - 1) as u32).collect()),
                ..Input::default()
            };
            let all = run(&padded);
            let width = all.len() / time;
            let error = error(&all[left * width..][..ids.len() * width], &expected, &alone);
            assert!(error <= TOLERANCE, "{} {left} {right}: {error:.1e}", case.display());
        }
    }
}

#[test]
fn names_round_trip() {
    for case in families().flat_map(cases) {
        let (model, input) = (open(&case), read_input(&case));
        let folder = tempfile::tempdir().unwrap();
        phyla_models::save(&model, folder.path(), candle_core::DType::F32).unwrap();
        let (again, report) = load(folder.path(), &LoadOptions::default()).unwrap();
        assert!(report.warnings.is_empty(), "{}: {:?}", case.display(), report.warnings);
        let run = |model: &Model| {
            let hidden = model.forward(&input.ids, None, &mut input.pass(&model.arch).unwrap()).unwrap();
            values(model.logits(&hidden).unwrap().data())
        };
        assert_eq!(run(&model), run(&again), "{}", case.display());
        // What we call it is what the original called it.
        let (ours, theirs) = (Checkpoint::open(folder.path()).unwrap(), Checkpoint::open(&case).unwrap());
        let bare = !theirs.names().any(|name| name.starts_with(model.family.prefix));
        for name in ours.names() {
            let name = if bare { name.strip_prefix(model.family.prefix).unwrap_or(name) } else { name };
            assert!(
                theirs.contains(name) || name == "lm_head.weight" || theirs.contains("lm_head.weight"),
                "{}: {name}",
                case.display()
            );
        }
    }
}

#[test]
fn every_trainable_weight_gets_a_gradient() {
    for case in families().flat_map(cases) {
        let (model, input) = (open(&case), read_input(&case));
        for param in model.params() {
            param.set_trainable(true).unwrap();
        }
        let hidden = model.forward(&input.ids, None, &mut input.pass(&model.arch).unwrap()).unwrap();
        let targets: Vec<i32> = input.ids.iter().map(|&id| id as i32).collect();
        let loss = model.loss(&hidden, &targets, phyla_ops::CrossEntropy { label_smoothing: 0., scale: 0.1 }).unwrap();
        loss.backward().unwrap();
        for param in model.params() {
            let grad =
                values(&param.grad().unwrap_or_else(|| panic!("{}: {} has no gradient", case.display(), param.path())));
            assert!(grad.iter().all(|g| g.is_finite()), "{}: {}", case.display(), param.path());
            // With one token a softmax over one key is constant: q, k and their rotation cannot matter.
            let idle = input.time == 1 && (param.path().contains(".attn.q") || param.path().contains(".attn.k"));
            // A bias on every key shifts all scores of a query alike, if no rotation tells them apart.
            let shift = param.path().ends_with(".attn.k.bias");
            assert!(idle || shift || grad.iter().any(|&g| g != 0.), "{}: {} is all zero", case.display(), param.path());
        }
    }
}

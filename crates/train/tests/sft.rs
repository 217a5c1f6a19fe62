//! Supervised fine-tuning against trl: ids, labels and losses of the fixtures that `tests/golden/sft.py` wrote, and
//! packing, which changes no loss.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use phyla_data::batch::Batch;
use phyla_data::dataset::{Part, Position};
use phyla_data::supervised::loader::Examples;
use phyla_data::supervised::records::{Dialogue, Record};
use phyla_data::supervised::sft::{Sft, SftSettings};
use phyla_data::supervised::table::Row;
use phyla_data::tokenizer::Tokenizer;
use phyla_kernels::rng::Rng;
use phyla_models::{Input, LoadOptions, Model, load};
use phyla_ops::Tensor;
use phyla_train::beside::Beside;
use phyla_train::objective::{Counts, Mode};
use phyla_train::recipe::{self, Objective};
use serde_json::{Value, json};

/// Sums in another order, in f32.
const LOSS: f64 = 1e-5;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/sft")
}

fn cases() -> Vec<Value> {
    serde_json::from_str(&std::fs::read_to_string(folder().join("cases.json")).unwrap()).unwrap()
}

fn model() -> Model {
    load(&folder(), &LoadOptions::default()).unwrap().0
}

fn dialogue(row: &Value) -> Dialogue {
    let position = Position::at(&Path::new("cases.json").into(), Part::Row, 1);
    let row = Row { fields: row.as_object().unwrap().clone(), position, numbered: false };
    Dialogue::from_row(row, &BTreeMap::new(), &mut Default::default()).unwrap()
}

fn made(case: &Value, settings: &SftSettings) -> Sft {
    let rows = case["rows"].as_array().unwrap().iter().map(|row| Ok(dialogue(row)));
    Sft::new(rows, &Tokenizer::load(folder()).unwrap(), settings).unwrap()
}

fn whole(sft: &Sft) -> Batch {
    sft.collate(&(0..sft.count() as u32).collect::<Vec<_>>())
}

/// The mean over what is learned.
fn loss(model: &Model, batch: &Batch) -> f64 {
    let objective = Objective::Sft(recipe::Sft::default());
    let (parts, _) = objective.examine(model, batch, Beside::default()).unwrap();
    parts.iter().map(|(_, sum)| sum).sum::<f64>() / batch.tokens as f64
}

#[test]
fn ids_labels_and_losses_equal_trls() {
    let model = model();
    let cases = cases();
    assert_eq!(cases.len(), 11);
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let settings: SftSettings = serde_json::from_value(case["settings"].clone()).unwrap();
        let batch = whole(&made(case, &settings));
        let expected: Vec<Vec<u32>> = serde_json::from_value(case["input_ids"].clone()).unwrap();
        let labels: Vec<Vec<i32>> = serde_json::from_value(case["labels"].clone()).unwrap();
        assert_eq!(batch.batch, expected.len(), "{name}");
        for (row, (ids, labels)) in expected.iter().zip(&labels).enumerate() {
            let from = row * batch.time;
            assert_eq!(batch.lengths[row], ids.len(), "{name}, row {row}");
            assert_eq!(&batch.ids[from..from + ids.len()], ids, "{name}, row {row}");
            // The label of the first token is of no use to anyone.
            assert_eq!(&batch.targets[from..from + ids.len() - 1], &labels[1..], "{name}, row {row}");
        }
        let (ours, theirs) = (loss(&model, &batch), case["loss"].as_f64().unwrap());
        assert!((ours - theirs).abs() < LOSS * theirs, "{name}: {ours}, trl {theirs}");
    }
}

#[test]
fn packing_changes_no_loss_and_no_gradient() {
    let model = model();
    for param in model.params() {
        param.set_trainable(!model.is_fixed(param)).unwrap();
    }
    for case in cases().iter().filter(|case| case["settings"].get("max_len").is_none()) {
        let settings: SftSettings = serde_json::from_value(case["settings"].clone()).unwrap();
        let apart = whole(&made(case, &settings));
        let longest = apart.time;
        let packed = SftSettings { packing: true, max_len: 2 * longest, ..settings };
        let packed = whole(&made(case, &packed));
        assert!(packed.batch < apart.batch, "{}", case["name"]);
        let gradients = |batch: &Batch| {
            let objective = Objective::Sft(recipe::Sft::default());
            let losses = objective.losses(&model, batch, Counts::of(batch), &Mode::default()).unwrap();
            let (value, loss) = losses.total().unwrap();
            model.params().iter().for_each(|param| param.zero_grad());
            loss.backward().unwrap();
            let gradient = |param: &std::sync::Arc<phyla_ops::Param>| {
                param.grad().map(|grad| grad.flatten_all().unwrap().to_vec1::<f32>().unwrap()).unwrap_or_default()
            };
            (value, model.params().iter().flat_map(gradient).collect::<Vec<f32>>())
        };
        let ((one, of_one), (other, of_other)) = (gradients(&apart), gradients(&packed));
        assert!((one - other).abs() < LOSS * one, "{}: {one} {other}", case["name"]);
        let norm = of_one.iter().map(|x| x * x).sum::<f32>().sqrt();
        let apart = of_one.iter().zip(&of_other).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
        assert!(apart < 1e-5 * norm && norm > 0., "{}: {apart} of {norm}", case["name"]);
    }
}

#[test]
fn noise_on_embeddings_is_for_training_alone() {
    let model = model();
    let batch = whole(&made(&json!({"rows": [{"text": "hello, how are you?"}]}), &SftSettings::default()));
    let value = |alpha: Option<f64>, rng: Option<u64>| {
        let objective = Objective::Sft(recipe::Sft { neftune_noise_alpha: alpha, ..recipe::Sft::default() });
        let mode = Mode { rng: rng.map(Rng::new), ..Mode::default() };
        objective.losses(&model, &batch, Counts::of(&batch), &mode).unwrap().total().unwrap().0
    };
    let plain = value(None, Some(1));
    assert_eq!(value(Some(5.), None), value(None, None));
    assert_eq!(value(Some(0.), Some(1)), plain);
    assert_ne!(value(Some(5.), Some(1)), plain);
    assert_ne!(value(Some(5.), Some(1)), value(Some(5.), Some(2)));
}

/// NEFTune's algorithm 1: every number of a row of `time` vectors of `dim` gets one between plus and minus
/// `alpha / √(time · dim)`.
#[test]
fn noise_on_embeddings_is_uniform_up_to_its_bound() {
    let (model, time, dim) = (model(), 40, 24);
    for alpha in [1f32, 5.] {
        let mut pass = Input::row(&vec![1; time]).pass(&model.arch).unwrap().training(Rng::new(3));
        pass.neftune = Some(alpha);
        let nothing = Tensor::from(phyla_ops::cpu::tensor(vec![0f32; time * dim], (1, time, dim)).unwrap());
        let noise = pass.noisy(nothing).unwrap().data().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let bound = alpha / ((time * dim) as f32).sqrt();
        let largest = noise.iter().fold(0f32, |top, x| top.max(x.abs()));
        assert!(largest <= bound && largest > 0.99 * bound, "{largest} of {bound}");
        // A uniform number's square is a third of the bound's on average; of 960 within 4 deviations of 0.03.
        let square = noise.iter().map(|x| x * x).sum::<f32>() / noise.len() as f32;
        assert!((square / (bound * bound) - 1. / 3.).abs() < 0.04, "{square}");
    }
}

//! Ten steps of training with other objectives than the next token, and under a teacher, against PyTorch's, from the fixtures
//! that `tests/golden/tasks_losses.py` and `tests/golden/distill.py` wrote.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use phyla_data::batch::{Batch, IGNORE, Labels, Source};
use phyla_models::adapter::Adapter;
use phyla_models::checkpoint::Checkpoint;
use phyla_models::{LoadOptions, Task, load};
use phyla_train::beside::Beside;
use phyla_train::optimizer::Optimizer;
use phyla_train::recipe::{AdamW, Lm, Objective, Optim, Rule};
use phyla_train::step::Stepper;
use phyla_train::teacher::Teacher;
use serde_json::Value;

/// Sums in another order; PyTorch's own f32 losses are within 1e-5 of f64's on these fixtures.
const LOSS: f64 = 1e-4;

fn folder(task: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tasks").join(task)
}

fn json(path: PathBuf) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn rows<T: serde::de::DeserializeOwned>(value: &Value) -> Option<Vec<Vec<T>>> {
    serde_json::from_value(value.clone()).ok()
}

fn lengths(mask: &Value, time: usize, count: usize) -> Vec<usize> {
    match rows::<usize>(mask) {
        Some(mask) => mask.iter().map(|row| row.iter().sum()).collect(),
        None => vec![time; count],
    }
}

/// The batch as our collators would have made it.
fn batch(value: &Value, task: Task) -> Batch {
    let (main, mask) = match value.get("decoder_input_ids") {
        Some(ids) => (ids, &value["decoder_attention_mask"]),
        None => (&value["input_ids"], &value["attention_mask"]),
    };
    let ids: Vec<Vec<u32>> = rows(main).unwrap();
    let (count, time) = (ids.len(), ids[0].len());
    let source = value.get("decoder_input_ids").map(|_| {
        let ids: Vec<Vec<u32>> = rows(&value["input_ids"]).unwrap();
        let time = ids[0].len();
        Source { lengths: lengths(&value["attention_mask"], time, ids.len()), ids: ids.concat(), time }
    });
    let choices = value.get("num_choices").map_or(0, |n| n.as_u64().unwrap() as usize);
    let whole = |key: &str| -> Vec<i32> { serde_json::from_value(value[key].clone()).unwrap() };
    let (mut targets, mut labels) = (vec![], Labels::None);
    match (task, &value["labels"]) {
        (Task::QuestionAnswering, _) => {
            labels = Labels::Span { start: whole("start_positions"), end: whole("end_positions") };
        }
        (Task::SequenceClassification, given) => {
            labels = match (rows::<f32>(given), given.as_array().is_some_and(|all| all.iter().all(Value::is_i64))) {
                (Some(many), _) if many.concat().iter().all(|x| *x == 0. || *x == 1.) => Labels::Many(many.concat()),
                (Some(values), _) => Labels::Value(values.concat()),
                (None, true) => Labels::Class(whole("labels")),
                (None, false) => Labels::Value(serde_json::from_value(given.clone()).unwrap()),
            };
        }
        (Task::MultipleChoice, _) => labels = Labels::Class(whole("labels")),
        (Task::CausalLm, given) => {
            let shifted = rows::<i32>(given).unwrap().into_iter();
            targets = shifted.flat_map(|row| row[1..].iter().copied().chain([IGNORE]).collect::<Vec<_>>()).collect();
        }
        (_, given) => targets = rows::<i32>(given).unwrap().concat(),
    }
    if value.get("next_sentence_label").is_some() {
        labels = Labels::Class(whole("next_sentence_label"));
    }
    Batch {
        lengths: lengths(mask, time, count),
        ids: ids.concat(),
        targets,
        token_types: rows::<u32>(&value["token_type_ids"]).map(|types| types.concat()),
        labels,
        source,
        choices,
        batch: count,
        time,
        ..Batch::default()
    }
}

/// Ten steps of a fixture's model on its batch as `train.json` says; what is unlike PyTorch's.
fn unlike(name: &str, source: &Path, expected: &Value, teacher: Option<&Teacher>) -> Option<String> {
    let model = load(source, &LoadOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}")).0;
    for param in model.params() {
        param.set_trainable(!model.is_fixed(param)).unwrap();
    }
    let batch = batch(&json(source.join("batch.json")), model.arch.task);
    let number = |key: &str| expected[key].as_f64().unwrap();
    let betas = [expected["betas"][0].as_f64().unwrap(), expected["betas"][1].as_f64().unwrap()];
    let optim = Optim {
        rule: Rule::Adamw(AdamW { betas, eps: number("eps") }),
        lr: number("lr"),
        weight_decay: number("weight_decay"),
        clip: Some(number("clip")),
        ..Optim::default()
    };
    let mut optimizer = Optimizer::new(&optim, model.params(), |_| 1.).unwrap();
    let label_smoothing = if name.contains("smoothed") { 0.1 } else { 0. };
    let objective = Objective::Lm(Lm { label_smoothing });
    let beside = Beside { teacher, ..Beside::default() };
    let stepper = Stepper { clip: optim.clip, beside, ..Stepper::new(&model, &objective) };
    for step in 0..10 {
        let result = stepper.run(&mut optimizer, std::slice::from_ref(&batch), step as u64 + 1, optim.lr).unwrap();
        let (loss, norm) = (&expected["losses"][step], &expected["gradient_norms"][step]);
        let (loss, norm) = (loss.as_f64().unwrap(), norm.as_f64().unwrap());
        if (result.loss - loss).abs() > LOSS * loss.max(1.) {
            return Some(format!("{name} step {step}: loss {}, PyTorch {loss}", result.loss));
        }
        if (result.grad_norm - norm).abs() > 1e-3 * norm {
            return Some(format!("{name} step {step}: norm {}, PyTorch {norm}", result.grad_norm));
        }
    }
    None
}

fn names(folder: PathBuf) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn ten_losses_equal_pytorchs() {
    let tasks = names(folder("."));
    assert!(tasks.len() >= 15, "too few fixtures");
    let one = |task: &String| unlike(task, &folder(task), &json(folder(task).join("train.json")), None);
    let failed: Vec<String> = tasks.iter().filter_map(one).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn ten_losses_under_a_teacher_equal_pytorchs() {
    let golden = folder("../.");
    let cases = names(golden.join("distill"));
    assert!(cases.len() >= 8, "too few fixtures");
    let one = |case: &String| {
        let at = golden.join("distill").join(case);
        let expected = json(at.join("train.json"));
        let mut settings = expected["distill"].clone();
        settings["teacher"] = case.as_str().into();
        let settings = serde_json::from_value(settings).unwrap();
        let teacher = Teacher { model: load(&at, &LoadOptions::default()).unwrap().0, settings };
        unlike(case, &golden.join(expected["student"].as_str().unwrap()), &expected, Some(&teacher))
    };
    let failed: Vec<String> = cases.iter().filter_map(one).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Prompt and head learn together; the encoder stays as it is.
#[test]
fn ten_losses_behind_a_prompt_equal_pefts() {
    for method in ["prompt", "prefix"] {
        let at = folder("../prompts/bert_classify").join(method);
        let model = load(&folder("bert_classify"), &LoadOptions::default()).unwrap().0;
        let adapter = Arc::new(Adapter::load(&model, &at).unwrap());
        model.use_adapters(std::slice::from_ref(&adapter));
        let params: Vec<_> = adapter.params().into_iter().chain(adapter.saved()).cloned().collect();
        model.params().iter().for_each(|param| param.set_trainable(false).unwrap());
        params.iter().for_each(|param| param.set_trainable(true).unwrap());
        let optim = Optim { lr: 1e-2, weight_decay: 0., ..Optim::default() };
        let mut optimizer = Optimizer::new(&optim, &params, |_| 1.).unwrap();
        let objective = Objective::Lm(Lm::default());
        let stepper = Stepper::new(&model, &objective);
        let batch = batch(&json(at.join("batch.json")), model.arch.task);
        let expected = Checkpoint::open(at.join("expected.safetensors")).unwrap();
        let view = expected.get("losses").unwrap();
        let (words, _) = view.bytes().as_chunks::<8>();
        assert_eq!(words.len(), 10);
        for (step, word) in words.iter().enumerate() {
            let result = stepper.run(&mut optimizer, std::slice::from_ref(&batch), step as u64 + 1, optim.lr).unwrap();
            let loss = f64::from_le_bytes(*word);
            assert!((result.loss - loss).abs() < LOSS * loss, "{method} {step}: {} {loss}", result.loss);
        }
    }
}

//! Adapters over quantised weights: loss, answers and every gradient are those beside the numbers that the blocks stand for, and
//! over NF4 ten losses are those of peft beside what bitsandbytes makes of the weights (`tests/golden/nf4.py`).

use std::process::Command;

use candle_core::{DType, Device};
use phyla_kernels::isa::{Isa, isa};
use phyla_kernels::rng::Rng;
use phyla_models::adapter::{AdapterSpec, merge};
use phyla_models::{Quantize, fresh, save};
use phyla_ops::{Data, Weight, cpu};
use phyla_train::beside::Beside;
use serde_json::json;

use super::*;

const VOCABULARY: usize = 37;
const KINDS: [&str; 7] = ["nf4", "q8_0", "q4_0", "q4_k_m", "q6_k", "q2_k", "iq4_xs"];

fn drawn(rows: usize, time: usize) -> Batch {
    let mut rng = Rng::new(5);
    let mut row = || (0..time).map(|_| rng.below(VOCABULARY as u64) as u32).collect();
    continued(&(0..rows).map(|_| row()).collect::<Vec<_>>())
}

/// A small model with rows of whole blocks of every kind.
fn folder() -> tempfile::TempDir {
    let config = json!({"model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": 256, "intermediate_size": 512,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "initializer_range": 0.08});
    let folder = tempfile::tempdir().unwrap();
    save(&fresh(config.as_object().unwrap(), 3, &Device::Cpu).unwrap(), folder.path(), DType::F32).unwrap();
    folder
}

fn options(kind: &str) -> LoadOptions {
    let quantize = Some(kind.parse::<Quantize>().unwrap());
    LoadOptions { quantize, dtype: Some(DType::F32), ..LoadOptions::default() }
}

/// LoRA beside every linear map of the layers, none of its numbers 0.
fn lora(model: &Model) -> Adapter {
    let spec = json!({ "lora": { "rank": 3, "alpha": 6, "targets": ["**.attn.*", "**.mlp.*"] } });
    let spec: AdapterSpec = serde_json::from_value(spec).unwrap();
    let adapter = Adapter::fresh(model, &spec, 7).unwrap();
    let mut rng = Rng::new(8);
    for param in adapter.params() {
        let mut values = vec![0f32; param.count()];
        rng.fill_normal(&mut values, 0., 0.05);
        param.set_weight(Weight::Dense(cpu::tensor(values, param.dims()).unwrap())).unwrap();
    }
    assert_eq!(adapter.params().len(), 2 * 7 * 2);
    adapter
}

fn numbers(data: &Data) -> Vec<f32> {
    data.flatten_all().unwrap().to_vec1().unwrap()
}

/// The length of the difference over that of what is expected.
fn apart(found: &[f32], expected: &[f32]) -> f64 {
    let length = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    assert_eq!(found.len(), expected.len());
    length(&mut found.iter().zip(expected).map(|(a, b)| a - b)) / length(&mut expected.iter().copied())
}

/// Compares a quantised base with one in f32 that holds the same numbers; `[answers, loss, gradients]` may differ by so much.
fn compare(folder: &Path, kind: &str, batch: &Batch, most: [f64; 3]) {
    let [quantised, dense] = [(); 2].map(|()| load(folder, &options(kind)).unwrap().0);
    let mut blocks = 0;
    for param in dense.params() {
        if let Weight::Blocks(_) = param.weight() {
            blocks += 1;
            param.set_weight(Weight::Dense(param.weight().to_f32().unwrap())).unwrap();
        }
    }
    assert!(blocks >= 2 * 7, "{kind}: {blocks} matrices in blocks");
    let [ours, theirs] = [&quantised, &dense].map(|model| learning(model, lora(model)).1);
    let answers = apart(&logits(&quantised, batch), &logits(&dense, batch));
    let loss = [(&quantised, &ours), (&dense, &theirs)].map(|(model, params)| steps(model, params, batch, 1, 0.)[0]);
    let loss = (loss[0] - loss[1]).abs();
    let mut worst = (0f64, String::new());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        let gradients = apart(&numbers(&ours.grad().unwrap()), &numbers(&theirs.grad().unwrap()));
        if gradients.is_nan() || gradients > worst.0 {
            worst = (gradients, ours.path().to_string());
        }
    }
    let rows = batch.ids.len();
    println!("{kind:7} {rows:2} rows, {}: answers {answers:.1e} loss {loss:.1e} gradients {worst:?}", isa().name());
    assert!(answers < most[0] && loss < most[1] && worst.0 < most[2], "{kind} {rows}: {answers} {loss} {worst:?}");
}

/// The slope of the loss along a random direction of every adapter matrix, by differences.
fn differences(folder: &Path, kind: &str, batch: &Batch) {
    let model = load(folder, &options(kind)).unwrap().0;
    let (_, params) = learning(&model, lora(&model));
    steps(&model, &params, batch, 1, 0.);
    let loss =
        || Objective::Lm(Lm::default()).examine(&model, batch, Beside::default()).unwrap().0[0].1 / batch.tokens as f64;
    let mut rng = Rng::new(9);
    let mut worst = 0f64;
    for param in &params {
        let (start, gradient) = (param.numbers().unwrap(), numbers(&param.grad().unwrap()));
        let mut way = vec![0f32; start.len()];
        rng.fill_normal(&mut way, 0., 1.);
        // Along the gradient for a part, so that the slope is not by chance next to nothing.
        let size = gradient.iter().map(|x| x * x).sum::<f32>().sqrt();
        way.iter_mut().zip(&gradient).for_each(|(way, x)| *way = *way / (start.len() as f32).sqrt() + x / size);
        let slope: f64 = way.iter().zip(&gradient).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
        let mut at = |by: f32| {
            let values: Vec<f32> = start.iter().zip(&way).map(|(x, way)| x + by * way).collect();
            param.set_weight(Weight::Dense(cpu::tensor(values, param.dims()).unwrap())).unwrap();
            loss()
        };
        const STEP: f32 = 2e-3;
        let [two_down, down, up, two_up] = [-2. * STEP, -STEP, STEP, 2. * STEP].map(&mut at);
        at(0.);
        // Of the fourth order, so that a step can be long beside the noise of f32.
        let found = (8. * (up - down) - (two_up - two_down)) / (12. * f64::from(STEP));
        worst = worst.max((found - slope).abs() / slope.abs());
    }
    println!("{kind:7} {}: slopes {worst:.1e}", isa().name());
    // The loss is exact to about 1e-7 of 4, and differs by some 1e-3 between the ends of a step.
    assert!(worst < 5e-3, "{kind}: {worst}");
}

/// Runs the test `name` again with products in plain Rust, where all are in f32 and only sums are in another order; false in that
/// process, which is to do the work.
fn in_plain_rust(name: &str) -> bool {
    if isa() == Isa::Portable {
        return false;
    }
    let test = std::env::current_exe().unwrap();
    let done = Command::new(test).args(["--exact", name, "--nocapture"]).env("PHYLA_ISA", "portable").output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    println!("{said}");
    let passed = done.status.success() && said.contains("1 passed");
    assert!(passed, "{said}{}", String::from_utf8_lossy(&done.stderr));
    true
}

/// With the machine's best instructions: products of few rows take them in bytes or in bf16, those of many and all gradients take
/// both factors in bf16. A factor is rounded by up to 2^-8 of itself, and in a sum of products most of that cancels: half a percent
/// is left. There are about ten such products on the way through this model and ten more back, and attention magnifies what
/// comes to its scores.
#[test]
fn gradients_are_those_beside_the_numbers_that_the_blocks_stand_for() {
    let folder = folder();
    for kind in KINDS {
        for (rows, time) in [(2, 7), (3, 19)] {
            compare(folder.path(), kind, &drawn(rows, time), [2e-2, 1e-2, 5e-2]);
        }
    }
}

#[test]
fn gradients_are_exact_where_products_are() {
    if in_plain_rust("qlora::gradients_are_exact_where_products_are") {
        return;
    }
    let folder = folder();
    for kind in KINDS {
        for (rows, time) in [(2, 7), (3, 19)] {
            compare(folder.path(), kind, &drawn(rows, time), [1e-5, 1e-5, 1e-4]);
        }
        differences(folder.path(), kind, &drawn(2, 7));
    }
}

#[test]
fn ten_losses_over_nf4_equal_those_beside_what_bitsandbytes_makes() {
    if in_plain_rust("qlora::ten_losses_over_nf4_equal_those_beside_what_bitsandbytes_makes") {
        return;
    }
    let golden = golden("nf4");
    let expected = Checkpoint::open(golden.join("lora/expected.safetensors")).unwrap();
    let bytes = expected.get("input_ids").unwrap().bytes().to_vec();
    let ids: Vec<u32> = bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
    let batch = continued(&ids.chunks(7).map(<[u32]>::to_vec).collect::<Vec<_>>());
    let (model, report) = load(&golden, &options("nf4")).unwrap();
    assert_eq!(report.warnings, Vec::<String>::new());
    assert_eq!(model.params().iter().filter(|param| param.weight().stored() == "nf4").count(), 7);
    let (_, params) = learning(&model, Adapter::load(&model, &golden.join("lora")).unwrap());
    let answers = apart(&logits(&model, &batch), &expected.get("logits").unwrap().to_f32().unwrap());
    assert!(answers < 2e-5, "{answers}");
    let theirs = losses_of(&expected);
    let ours = steps(&model, &params, &batch, 10, 1e-2);
    let worst = ours.iter().zip(theirs).map(|(ours, theirs)| (ours - theirs).abs()).fold(0., f64::max);
    println!("answers {answers:.1e}, losses {worst:.1e}");
    assert!(worst < 1e-4, "{worst}");
}

/// What an adapter learned beside NF4 is written into the numbers that it stands for.
#[test]
fn an_adapter_over_nf4_is_merged_into_what_it_stands_for() {
    if in_plain_rust("qlora::an_adapter_over_nf4_is_merged_into_what_it_stands_for") {
        return;
    }
    let folder = folder();
    let batch = drawn(2, 7);
    let beside = load(folder.path(), &options("nf4")).unwrap().0;
    learning(&beside, lora(&beside));
    let into = load(folder.path(), &options("nf4")).unwrap().0;
    merge(&into, &lora(&into)).unwrap();
    let merged = tempfile::tempdir().unwrap();
    save(&into, merged.path(), DType::F32).unwrap();
    let read = load(merged.path(), &LoadOptions::default()).unwrap().0;
    let found = apart(&logits(&read, &batch), &logits(&beside, &batch));
    assert!(found < 1e-5, "{found}");
}

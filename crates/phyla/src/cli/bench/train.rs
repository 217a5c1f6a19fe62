//! Training steps as `phyla train` makes them, on random ids.

use candle_core::DType;
use phyla_data::batch::Batch;
use phyla_kernels::rng::Rng;
use phyla_models::Dropouts;
use phyla_train::optimizer::Optimizer;
use phyla_train::recipe::{Lm, Objective, Optim, Rule};
use phyla_train::step::Stepper;

use super::Train;
use super::infer::check;
use super::limit::Work;
use super::machine;
use super::report::Measured;
use crate::cli::error::usage;
use crate::cli::model::{self, Dtype};

/// Steps before the clock counts: in the first the optimiser's state is paged in.
const WARM_UP: u64 = 2;

pub fn run(args: &Train) -> anyhow::Result<()> {
    let (subject, rows, time) = (&args.subject, args.subject.rows(), args.seq as usize);
    if subject.dtype == Dtype::F16 {
        return Err(usage("training in f16 would need loss scaling, which there is none", "give --dtype bf16 or f32"));
    }
    if let Some(p) = args.dropout.filter(|p| !(0. ..1.).contains(p)) {
        return Err(usage(format!("--dropout is {p}"), "give at least 0 and less than 1"));
    }
    if let Some(kind) = model::quantize(subject.dtype, subject.bits)? {
        return Err(usage(
            format!("weights in {kind} cannot be trained: a step is smaller than what they can tell apart"),
            "leave --quantize out; --dtype bf16 trains with f32 weights and bf16 products",
        ));
    }
    let dropouts = Dropouts { attention: args.dropout, residual: args.dropout, embedding: args.dropout };
    let before = machine::measure();
    let model = subject.open(Some(DType::F32), dropouts)?;
    check(&model, time)?;
    for param in model.params() {
        param.set_trainable(true)?;
        let low = subject.dtype == Dtype::Bf16 && param.dims().len() > 1;
        param.set_compute_dtype(low.then_some(DType::BF16))?;
    }
    let optim = Optim { rule: Rule::default(), lr: 1e-4, weight_decay: 0.1, clip: Some(1.), ..Optim::default() };
    let mut optimizer = Optimizer::new(&optim, model.params(), |_| 1.)?;
    let objective = Objective::Lm(Lm::default());
    let stepper = Stepper { clip: optim.clip, rng: Rng::new(subject.seed), ..Stepper::new(&model, &objective) };
    let batch = batch(subject.ids(&model, rows * (time + 1)), rows, time);
    let mut steps = vec![];
    for step in 1..=WARM_UP + args.steps {
        let result = stepper.run(&mut optimizer, std::slice::from_ref(&batch), step, optim.lr)?;
        if step > WARM_UP {
            steps.push(result.time.as_secs_f64());
        }
    }
    let settings = vec![("batch", rows), ("seq", time)];
    let work = Work::training(&model, rows, time);
    Measured { name: "train", settings, steps, tokens: rows * time, work, before }.show(subject, &model)
}

/// Rows of `time` ids, each to be followed by the next.
fn batch(ids: Vec<u32>, rows: usize, time: usize) -> Batch {
    let row = |row: usize| &ids[row * (time + 1)..][..time + 1];
    Batch {
        ids: (0..rows).flat_map(|r| row(r)[..time].to_vec()).collect(),
        targets: (0..rows).flat_map(|r| row(r)[1..].iter().map(|&id| id as i32).collect::<Vec<_>>()).collect(),
        positions: (0..rows).flat_map(|_| 0..time as u32).collect(),
        segments: None,
        lengths: vec![time; rows],
        batch: rows,
        time,
        tokens: rows * time,
        ..Batch::default()
    }
}

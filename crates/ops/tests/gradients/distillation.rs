//! Targets and a teacher's logits together, from logits and fused with both products.

use std::sync::Arc;

use phyla_ops::loss::IGNORE;
use phyla_ops::{
    CrossEntropy, Distillation, Divergence, Param, Tensor, distillation, linear_distillation, no_grad, scale,
};

use crate::check::{Case, data, param};

fn targets(rows: usize, vocab: usize) -> Vec<i32> {
    (0..rows).map(|row| (row * 7 % vocab) as i32).collect()
}

const WAYS: [(Divergence, f32, f32); 4] = [
    (Divergence::Forward, 1., 0.),
    (Divergence::Reverse, 2., 0.5),
    (Divergence::Between(0.5), 0.7, 1.),
    (Divergence::Between(0.9), 3., 0.1),
];

/// With a single class all slopes are 0, and what is left is the rounding of terms near 1.
fn floor(vocab: usize) -> f64 {
    if vocab == 1 { 1e-2 } else { 1e-3 }
}

fn args(rows: usize, (divergence, temperature, hard): (Divergence, f32, f32)) -> Distillation {
    let hard = CrossEntropy { label_smoothing: 0.1, scale: hard / rows as f32 };
    Distillation { hard, divergence, temperature, soft: 1.5 / rows as f32 }
}

#[test]
fn from_logits() {
    for (rows, vocab, theirs) in [(1, 1, 1), (3, 2, 2), (17, 65, 60), (5, 1003, 1024)] {
        for way in WAYS {
            let (targets, teacher) = (targets(rows, vocab.min(theirs)), data(9, &[rows, theirs]));
            let args = args(rows, way);
            let run = |x: &[Tensor], _: &[Arc<Param>]| Ok(distillation(&x[0], &teacher, &targets, args)?.0);
            let mut case =
                Case::new(format!("[{rows}, {vocab}], {way:?}"), vec![data(1, &[rows, vocab])], vec![], &run);
            case.floor = floor(vocab);
            case.check();
            let scaled = |x: &[Tensor], p: &[Arc<Param>]| scale(&run(x, p)?, 3.);
            let mut case = Case::new("three times the loss", vec![data(1, &[rows, vocab])], vec![], &scaled);
            case.floor = floor(vocab);
            case.check();
        }
    }
}

#[test]
fn fused_with_both_products() {
    for (rows, vocab, k) in [(1, 1, 1), (3, 17, 5), (2, 1003, 17), (65, 33, 31)] {
        for (way, bias) in WAYS.into_iter().zip([None, Some(false), Some(true), None]) {
            let (targets, args) = (targets(rows, vocab), args(rows, way));
            let mut params = vec![param(2, &[vocab, k])];
            if let Some(learns) = bias {
                params.push(param(3, &[vocab]));
                params[1].set_trainable(learns).unwrap();
            }
            let (theirs, teacher_b) = (param(4, &[vocab + 3, k + 2]), param(5, &[vocab + 3]));
            let (w, b) = (theirs.clone(), teacher_b.clone());
            w.set_trainable(false).unwrap();
            b.set_trainable(false).unwrap();
            let teacher = Tensor::from(data(6, &[rows, k + 2]));
            let run = |x: &[Tensor], p: &[Arc<Param>]| {
                let found = linear_distillation([&x[0], &teacher], [&p[0], &w], [p.get(1), Some(&b)], &targets, args)?;
                Ok(found.0)
            };
            let name = format!("{rows} x {k} -> {vocab}, bias {bias:?}, {way:?}");
            let mut case = Case::new(name, vec![data(1, &[rows, k])], params, &run);
            case.floor = floor(vocab);
            case.check();
        }
    }
}

#[test]
fn fused_in_several_chunks() {
    let (rows, vocab, k) = (900, 40_000, 3);
    let (targets, args) = (targets(rows, vocab), args(rows, WAYS[2]));
    let (w, teacher) = (param(4, &[vocab, k]), Tensor::from(data(6, &[rows, k])));
    w.set_trainable(false).unwrap();
    let run = |x: &[Tensor], p: &[Arc<Param>]| {
        Ok(linear_distillation([&x[0], &teacher], [&p[0], &w], [None, None], &targets, args)?.0)
    };
    let mut case = Case::new("two chunks", vec![data(1, &[rows, k])], vec![param(2, &[vocab, k])], &run);
    // As for cross-entropy.
    (case.numeric, case.tolerance) = (false, 1e-4);
    case.check();
}

#[test]
fn both_terms_are_told_and_what_does_not_fit_is_refused() {
    let (x, teacher) = (Tensor::from(data(1, &[2, 5])), data(2, &[2, 5]));
    let (_, told) = no_grad(|| distillation(&x, &teacher, &[1, 2], args(2, WAYS[0]))).unwrap();
    assert!(told.hard > 0. && told.soft > 0.);
    let refused = |teacher, targets: &[i32]| distillation(&x, &teacher, targets, args(2, WAYS[0])).is_err();
    assert!(refused(data(2, &[3, 5]), &[1, 2]));
    assert!(refused(data(2, &[2, 5]), &[1, IGNORE]));
    assert!(refused(data(2, &[2, 5]), &[1, 5]));
}

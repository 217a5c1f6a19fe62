//! Cross-entropy, from logits and fused with the product that makes them.

use std::sync::Arc;

use phyla_ops::loss::IGNORE;
use phyla_ops::{CrossEntropy, Param, Tensor, cross_entropy, linear_cross_entropy, scale};

use crate::check::{Case, apart, data, param, wide};

/// Targets all over the vocabulary, every fourth ignored.
fn targets(rows: usize, vocab: usize) -> Vec<i32> {
    (0..rows).map(|row| if row % 4 == 3 { IGNORE } else { (row * 7 % vocab) as i32 }).collect()
}

const SMOOTHING: [f32; 2] = [0., 0.1];

#[test]
fn from_logits() {
    for (rows, vocab) in [(1, 1), (3, 2), (17, 65), (5, 1003)] {
        for label_smoothing in SMOOTHING {
            let targets = targets(rows, vocab);
            let args = CrossEntropy { label_smoothing, scale: 1. / rows as f32 };
            let run = |x: &[Tensor], _: &[Arc<Param>]| cross_entropy(&x[0], &targets, args);
            let name = format!("cross_entropy [{rows}, {vocab}], smoothing {label_smoothing}");
            Case::new(name, vec![data(1, &[rows, vocab])], vec![], &run).check();
            // Not at the root of the backward pass.
            let scaled = |x: &[Tensor], _: &[Arc<Param>]| scale(&cross_entropy(&x[0], &targets, args)?, 3.);
            Case::new("three times the loss", vec![data(1, &[rows, vocab])], vec![], &scaled).check();
        }
    }
}

#[test]
fn fused_with_the_product() {
    for (rows, vocab, k) in [(1, 1, 1), (3, 17, 5), (2, 1003, 17), (65, 33, 31)] {
        for label_smoothing in SMOOTHING {
            for bias in [None, Some(false), Some(true)] {
                let targets = targets(rows, vocab);
                let args = CrossEntropy { label_smoothing, scale: 1. / rows as f32 };
                let mut params = vec![param(2, &[vocab, k])];
                if let Some(learns) = bias {
                    params.push(param(3, &[vocab]));
                    params[1].set_trainable(learns).unwrap();
                }
                let run = |x: &[Tensor], p: &[Arc<Param>]| linear_cross_entropy(&x[0], &p[0], p.get(1), &targets, args);
                let name = format!("linear_cross_entropy {rows} x {k} -> {vocab}, bias {bias:?}, {label_smoothing}");
                Case::new(name, vec![data(1, &[rows, k])], params, &run).check();
            }
        }
    }
}

#[test]
fn fused_in_several_chunks() {
    // The logits are made 16 MiB at a time, at least 128 rows: here 3 chunks, the last of 44 rows.
    let (rows, vocab, k) = (300, 40_000, 3);
    let targets = targets(rows, vocab);
    let args = CrossEntropy { label_smoothing: 0.1, scale: 1. / rows as f32 };
    let run = |x: &[Tensor], p: &[Arc<Param>]| linear_cross_entropy(&x[0], &p[0], None, &targets, args);
    let mut case = Case::new("three chunks", vec![data(1, &[rows, k])], vec![param(2, &[vocab, k])], &run);
    // Finite differences over 12 million logits in f64 take minutes; the smaller cases above have them.
    case.numeric = false;
    // Sums of 40,000 terms, which the reference adds one after the other in f32.
    case.tolerance = 1e-4;
    case.check();
}

#[test]
fn a_frozen_head_and_an_untracked_input_are_left_alone() {
    let (rows, vocab, k) = (5, 17, 3);
    let (targets, args) = (targets(rows, vocab), CrossEntropy { label_smoothing: 0., scale: 0.2 });
    let w = param(2, &[vocab, k]);
    w.set_trainable(false).unwrap();
    let run = |x: &[Tensor], p: &[Arc<Param>]| linear_cross_entropy(&x[0], &p[0], None, &targets, args);
    Case::new("frozen head", vec![data(1, &[rows, k])], vec![w.clone()], &run).check();
    assert!(w.grad().is_none());
    w.set_trainable(true).unwrap();
    let frozen = run(&[data(1, &[rows, k]).into()], std::slice::from_ref(&w)).unwrap();
    frozen.backward().unwrap();
    assert!(w.grad().is_some());
    let unrecorded =
        phyla_ops::no_grad(|| run(&[Tensor::leaf(data(1, &[rows, k]))], std::slice::from_ref(&w))).unwrap();
    assert!(!unrecorded.tracked());
    // The last bits of the sums differ where the logits are not overwritten.
    assert!(apart(&wide(unrecorded.data()), &wide(frozen.data())) < 1e-6);
}

#[test]
fn gradients_over_micro_batches_add_up() {
    let (rows, vocab, k) = (12, 17, 5);
    let (x, w, all) = (data(1, &[rows, k]), param(2, &[vocab, k]), targets(rows, vocab));
    let args = CrossEntropy { label_smoothing: 0., scale: 1. / 9. };
    let step = |start: usize, len: usize| {
        let part = Tensor::leaf(x.narrow(0, start, len).unwrap());
        linear_cross_entropy(&part, &w, None, &all[start..][..len], args).unwrap().backward().unwrap();
    };
    step(0, rows);
    let whole = wide(&w.grad().unwrap());
    w.zero_grad();
    assert!(w.grad().is_none());
    [(0, 5), (5, 1), (6, 6)].into_iter().for_each(|(start, len)| step(start, len));
    // The same terms added in another order.
    assert!(apart(&wide(&w.grad().unwrap()), &whole) < 1e-6);
}

#[test]
fn what_cannot_be_is_an_error() {
    let (x, w) = (Tensor::leaf(data(1, &[3, 5])), param(2, &[7, 5]));
    let args = CrossEntropy { label_smoothing: 0., scale: 1. };
    let message = |targets: &[i32]| linear_cross_entropy(&x, &w, None, targets, args).unwrap_err().to_string();
    assert!(message(&[0, 1]).contains("3 rows of logits, 2 targets"));
    assert!(message(&[0, 7, 1]).contains("target 7 of row 1 is outside the vocabulary of 7"));
    assert!(message(&[0, 1, -1]).contains("target -1 of row 2"));
    assert!(linear_cross_entropy(&x, &w, Some(&param(3, &[6])), &[0, 1, 2], args).is_err());
    assert!(cross_entropy(&data(1, &[3, 0]).into(), &[0, 1, 2], args).is_err());
    let loss = linear_cross_entropy(&x, &w, None, &[0, 1, 2], args).unwrap();
    let twice = scale(&loss, 2.).unwrap().backward().unwrap_err().to_string();
    assert!(twice.contains("must be where the backward pass starts"), "{twice}");
}

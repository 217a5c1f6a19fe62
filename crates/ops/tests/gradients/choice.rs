//! Log-probabilities with entropies, and what is made of few numbers.

use std::sync::Arc;

use phyla_ops::{Param, Tensor, linear_choices, reduced};

use crate::check::{Case, data, param};

fn targets(rows: usize, vocab: usize) -> Vec<u32> {
    (0..rows).map(|row| (row * 7 % vocab) as u32).collect()
}

#[test]
fn of_the_product() {
    for (rows, vocab, k) in [(1, 1, 1), (3, 17, 5), (2, 1003, 17), (65, 33, 31)] {
        for (bias, temperature) in [(None, 1.), (Some(false), 0.7), (Some(true), 2.)] {
            let targets = targets(rows, vocab);
            let mut params = vec![param(2, &[vocab, k])];
            if let Some(learns) = bias {
                params.push(param(3, &[vocab]));
                params[1].set_trainable(learns).unwrap();
            }
            let run = |x: &[Tensor], p: &[Arc<Param>]| linear_choices(&x[0], &p[0], p.get(1), &targets, temperature);
            Case::new(format!("{rows} x {k} -> {vocab}, {bias:?}"), vec![data(1, &[rows, k])], params, &run).check();
        }
    }
}

#[test]
fn in_several_chunks() {
    let (rows, vocab, k) = (900, 40_000, 3);
    let targets = targets(rows, vocab);
    let run = |x: &[Tensor], p: &[Arc<Param>]| linear_choices(&x[0], &p[0], None, &targets, 1.);
    let mut case = Case::new("two chunks", vec![data(1, &[rows, k])], vec![param(2, &[vocab, k])], &run);
    // As for cross-entropy.
    (case.numeric, case.tolerance) = (false, 1e-4);
    case.check();
}

#[test]
fn a_number_sends_back_the_gradient_it_was_given() {
    let x = Tensor::leaf(data(1, &[2, 3]));
    let twice = phyla_ops::scale(&reduced(&x, 7., (0..6).map(|at| at as f32).collect()).unwrap(), 2.).unwrap();
    assert_eq!(twice.data().to_scalar::<f32>().unwrap(), 14.);
    twice.backward().unwrap();
    assert_eq!(x.grad().unwrap().to_vec2::<f32>().unwrap(), [[0., 2., 4.], [6., 8., 10.]]);
    assert!(reduced(&x, 7., vec![1.]).is_err());
}

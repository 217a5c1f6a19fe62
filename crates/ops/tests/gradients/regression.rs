//! Losses of numbers against numbers.

use std::sync::Arc;

use candle_core::{Device, Result};
use phyla_ops::{Data, Param, Tensor, bce_with_logits, mse, scale};

use crate::check::{Case, data, numbers, wide};

#[test]
fn squares_and_yes_or_no() {
    for dims in [&[1][..], &[3, 1], &[5, 13], &[2, 3, 65]] {
        let count: usize = dims.iter().product();
        let targets = numbers(5, count);
        // Between 0 and 1, both included.
        let shares: Vec<f32> = (0..count).map(|i| (i % 5) as f32 / 4.).collect();
        for by in [1., 1. / count as f32] {
            let squares = |x: &[Tensor], _: &[Arc<Param>]| mse(&x[0], &targets, by);
            Case::new(format!("mse of {dims:?}"), vec![data(1, dims)], vec![], &squares).check();
            // Not where the backward pass starts.
            let labels = |x: &[Tensor], _: &[Arc<Param>]| scale(&bce_with_logits(&x[0], &shares, by)?, 3.);
            Case::new(format!("bce of {dims:?}"), vec![data(1, dims)], vec![], &labels).check();
        }
    }
}

#[test]
fn known_answers() {
    let x = Tensor::leaf(Data::new(&[[0f32, 3.], [-100., 100.]], &Device::Cpu).unwrap());
    assert_eq!(wide(mse(&x, &[1., 1., -100., 97.], 0.5).unwrap().data()), [7.]);
    // ln 2, ln(1 + e^-3), and two that are as wrong as they are sure.
    let loss = bce_with_logits(&x, &[0.5, 1., 1., 0.], 1.).unwrap();
    assert!((wide(loss.data())[0] - (std::f64::consts::LN_2 + 0.0485874 + 200.)).abs() < 2e-5);
    loss.backward().unwrap();
    assert_eq!(wide(&x.grad().unwrap())[2..], [-1., 1.]);
}

#[test]
fn nothing_and_too_little() {
    let none = Tensor::leaf(data(1, &[0, 3]));
    let loss = mse(&none, &[], 1.).unwrap();
    loss.backward().unwrap();
    assert_eq!((wide(loss.data()), none.grad().unwrap().dims()), (vec![0.], none.dims()));
    let message = |y: Result<Tensor>| y.unwrap_err().to_string();
    let x: Tensor = data(1, &[2, 3]).into();
    assert!(message(mse(&x, &[0.; 5], 1.)).contains("6 numbers in [2, 3] need as many targets, found 5"));
    assert!(bce_with_logits(&x, &[0.; 7], 1.).is_err());
}

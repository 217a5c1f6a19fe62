//! Convolution over time.

use std::sync::Arc;

use candle_core::{DType, Device};
use phyla_ops::{Conv1d, Data, Param, Tensor, Weight, conv1d};

use crate::check::{Case, data, param, wide};

/// Batch, time, channels in, channels out, taps, groups; then zeros on either side.
const SIZES: &[([usize; 6], [usize; 2])] = &[
    ([1, 1, 1, 1, 1, 1], [0, 0]),
    ([2, 5, 3, 4, 3, 1], [1, 1]),
    ([1, 1, 2, 3, 3, 1], [1, 1]),
    ([2, 7, 6, 4, 3, 2], [2, 0]),
    ([1, 9, 5, 5, 4, 5], [1, 2]),
    ([3, 4, 4, 6, 2, 1], [0, 0]),
    ([2, 3, 2, 2, 5, 1], [3, 4]),
    ([3, 65, 17, 9, 3, 1], [1, 1]),
];

#[test]
fn windows_of_every_kind() {
    for &([batch, time, channels, out, taps, groups], [left, right]) in SIZES {
        for bias in [false, true] {
            let mut params = vec![param(2, &[out, channels / groups, taps])];
            params.extend(bias.then(|| param(3, &[out])));
            let args = Conv1d { groups, left, right };
            let run = |x: &[Tensor], p: &[Arc<Param>]| conv1d(&x[0], &p[0], p.get(1), args);
            let name = format!("[{batch}, {time}, {channels}] -> {out}, {taps} taps, {args:?}, bias {bias}");
            Case::new(name, vec![data(1, &[batch, time, channels])], params, &run).check();
        }
    }
}

#[test]
fn several_stretches_of_sequences() {
    // 1,024 rows at a time are unfolded: 3, 3 and 1 sequences.
    let run = |x: &[Tensor], p: &[Arc<Param>]| conv1d(&x[0], &p[0], p.get(1), Conv1d::same(3, 1));
    let mut case = Case::new("7 x 300", vec![data(1, &[7, 300, 3])], vec![param(2, &[2, 3, 3]), param(3, &[2])], &run);
    // The weight's gradient is a sum of 2,100 terms.
    case.tolerance = 1e-4;
    case.check();
}

#[test]
fn a_known_answer() {
    let x: Tensor = Data::new(&[[[1f32], [2.], [4.]]], &Device::Cpu).unwrap().into();
    let w = Arc::new(Param::new("w", Weight::Dense(Data::new(&[[[1f32, 10., 100.]]], &Device::Cpu).unwrap())));
    let run = |args| wide(conv1d(&x, &w, None, args).unwrap().data());
    assert_eq!(run(Conv1d::same(3, 1)), [210., 421., 42.]);
    assert_eq!(run(Conv1d::causal(3, 1)), [100., 210., 421.]);
    assert_eq!(run(Conv1d { groups: 1, left: 0, right: 0 }), [421.]);
    assert_eq!(Conv1d::same(4, 2), Conv1d { groups: 2, left: 1, right: 2 });
}

#[test]
fn short_formats_frozen_weights_and_no_rows() {
    for dtype in [DType::BF16, DType::F16] {
        let weight = data(2, &[4, 2, 3]).to_dtype(dtype).unwrap();
        let params = vec![Arc::new(Param::new("frozen", Weight::Dense(weight))), param(3, &[4])];
        let run = |x: &[Tensor], p: &[Arc<Param>]| conv1d(&x[0], &p[0], p.get(1), Conv1d::same(3, 2));
        let mut case = Case::new(format!("{dtype:?}"), vec![data(1, &[2, 5, 4])], params.clone(), &run);
        // Activations may be rounded to bf16 too, as in `linear`.
        case.tolerance = if dtype == DType::BF16 { 1e-2 } else { 1e-5 };
        case.check();
        assert!(params[0].grad().is_none());
    }
    for dims in [[0, 5, 4], [2, 0, 4]] {
        let x = Tensor::leaf(data(1, &dims));
        let y = conv1d(&x, &param(2, &[3, 4, 3]), None, Conv1d::same(3, 1));
        // No step at all, and a window that stands on zeros alone.
        let y = if dims[1] == 0 {
            assert!(y.is_err());
            continue;
        } else {
            y.unwrap()
        };
        y.backward_with(y.data().clone()).unwrap();
        assert_eq!((y.dims(), x.grad().unwrap().dims()), (&[0, 5, 3][..], &dims[..]));
    }
}

#[test]
fn sizes_that_do_not_fit_are_errors() {
    let x: Tensor = data(1, &[2, 5, 4]).into();
    let message = |w: &[usize], args| conv1d(&x, &param(2, w), None, args).unwrap_err().to_string();
    assert!(message(&[3, 4], Conv1d::same(3, 1)).contains("[batch, time, in]"));
    assert!(message(&[3, 3, 3], Conv1d::same(3, 1)).contains("in 1 groups does not fit an input of [2, 5, 4]"));
    assert!(message(&[3, 2, 3], Conv1d::same(3, 2)).contains("in 2 groups"));
    assert!(message(&[3, 4, 3], Conv1d::same(3, 0)).contains("in 0 groups"));
    assert!(message(&[3, 4, 8], Conv1d { groups: 1, left: 1, right: 1 }).contains("a window of 8 steps"));
    assert!(conv1d(&x, &param(2, &[3, 4, 3]), Some(&param(3, &[4])), Conv1d::same(3, 1)).is_err());
}

//! Activations, gates, sums, factors, dropout, views.

use std::sync::Arc;

use candle_core::Device;
use phyla_kernels::activation::Act;
use phyla_kernels::rng::Rng;
use phyla_ops::{Data, Dropout, Param, Tensor, activate, add, dropout, gated, plain, scale};

use crate::check::{Case, data, spread, wide};

const DIMS: &[&[usize]] = &[&[1], &[3, 1], &[17], &[5, 13], &[2, 3, 65]];

const ACTS: &[Act] = &[
    Act::Identity,
    Act::Relu,
    Act::Relu2,
    Act::Relu6,
    Act::LeakyRelu,
    Act::Silu,
    Act::Gelu,
    Act::GeluTanh,
    Act::QuickGelu,
    Act::ClippedGelu,
    Act::Sigmoid,
    Act::Tanh,
    Act::Mish,
    Act::Laplace,
    Act::Elu,
    Act::Selu,
];

/// Wide enough for the bends at 6 and 10.
fn wide_data(seed: u64, dims: &[usize]) -> Data {
    Data::from_vec(spread(seed, dims.iter().product(), 12 * 64), dims, &Device::Cpu).unwrap()
}

#[test]
fn every_activation_alone_and_as_a_gate() {
    for &act in ACTS {
        // Fails to compile when an activation is added and not listed above.
        match act {
            Act::Identity | Act::Relu | Act::Relu2 | Act::Relu6 | Act::LeakyRelu | Act::Silu | Act::Gelu => {}
            Act::GeluTanh | Act::QuickGelu | Act::ClippedGelu | Act::Sigmoid | Act::Tanh | Act::Mish => {}
            Act::Laplace | Act::Elu | Act::Selu => {}
        }
        for dims in DIMS {
            let alone = |x: &[Tensor], _: &[Arc<Param>]| activate(&x[0], act);
            let mut case = Case::new(format!("{act:?} of {dims:?}"), vec![wide_data(1, dims)], vec![], &alone);
            // Slopes are made from differences such as 1 - s, which lose what f32 cannot keep beside 1.
            case.floor = 1.;
            case.check();
            let gate = |x: &[Tensor], _: &[Arc<Param>]| gated(&x[0], &x[1], act);
            let inputs = vec![wide_data(1, dims), data(2, dims)];
            let mut case = Case::new(format!("gate of {act:?}, {dims:?}"), inputs, vec![], &gate);
            case.floor = 1.;
            case.check();
        }
    }
    assert!(gated(&data(1, &[2, 3]).into(), &data(1, &[3, 2]).into(), Act::Silu).is_err());
}

#[test]
fn references_agree_with_the_kernels_at_kinks_and_extremes() {
    let at = [-100f32, -30., 0., 6., 30., 100.];
    for &act in ACTS {
        let pass = || {
            let x = Tensor::leaf(Data::new(&at, &Device::Cpu).unwrap());
            let y = activate(&x, act).unwrap();
            y.backward_with(y.data().ones_like().unwrap()).unwrap();
            (wide(y.data()), wide(&x.grad().unwrap()))
        };
        let ((fast, fast_grad), (plain, plain_grad)) = (pass(), plain::forced(pass));
        for i in 0..at.len() {
            // Relative to the argument: an activation of 100 may be 100 times as far off as one of 1.
            let bound = 1e-5 * (1. + at[i].abs() as f64 * (1. + plain[i].abs() / 100.));
            assert!((fast[i] - plain[i]).abs() <= bound, "{act:?}({}): {} and {}", at[i], fast[i], plain[i]);
            let (a, b) = (fast_grad[i], plain_grad[i]);
            assert!((a - b).abs() <= bound, "slope of {act:?} at {}: {a} and {b}", at[i]);
        }
    }
}

#[test]
fn sums_factors_and_views() {
    for dims in DIMS {
        let sum = |x: &[Tensor], _: &[Arc<Param>]| add(&x[0], &x[1]);
        Case::new(format!("add {dims:?}"), vec![data(1, dims), data(2, dims)], vec![], &sum).check();
        let twice = |x: &[Tensor], _: &[Arc<Param>]| add(&x[0], &x[0]);
        Case::new(format!("x + x, {dims:?}"), vec![data(1, dims)], vec![], &twice).check();
        let factor = |x: &[Tensor], _: &[Arc<Param>]| scale(&x[0], -1.7);
        Case::new(format!("scale {dims:?}"), vec![data(1, dims)], vec![], &factor).check();
        let count: usize = dims.iter().product();
        let flat = |x: &[Tensor], _: &[Arc<Param>]| x[0].reshape((count, 1));
        Case::new(format!("reshape {dims:?}"), vec![data(1, dims)], vec![], &flat).check();
    }
    for (dim, start, len) in [(0, 0, 1), (0, 2, 1), (1, 1, 3), (1, 0, 5), (2, 16, 1), (2, 3, 7)] {
        let part = |x: &[Tensor], _: &[Arc<Param>]| x[0].narrow(dim, start, len);
        let name = format!("entries {start} and {len} from there of dimension {dim}");
        Case::new(name, vec![data(1, &[3, 5, 17])], vec![], &part).check();
    }
    assert!(add(&data(1, &[3]).into(), &data(1, &[1]).into()).is_err());
    assert!(Tensor::from(data(1, &[3])).narrow(0, 2, 2).is_err());
}

fn drop_out(p: f32, offset: u64) -> Dropout {
    Dropout { p, rng: Rng::new(5), offset }
}

#[test]
fn dropout_keeps_its_mask_for_the_gradient() {
    for dims in DIMS {
        for p in [0., 0.1, 0.5, 1.] {
            let run = |x: &[Tensor], _: &[Arc<Param>]| dropout(&x[0], &drop_out(p, 17));
            Case::new(format!("dropout {p} of {dims:?}"), vec![data(1, dims)], vec![], &run).check();
        }
    }
    let dropped = dropout(&data(1, &[10_000]).into(), &drop_out(0.3, 0)).unwrap();
    let share = wide(dropped.data()).iter().filter(|&&x| x == 0.).count() as f64 / 1e4;
    // No number drawn is 0. Five standard deviations of the share: 5 √(0.3 · 0.7 / 10,000).
    assert!((share - 0.3).abs() < 0.023, "{share} dropped");
}

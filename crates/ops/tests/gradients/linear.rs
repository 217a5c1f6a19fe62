//! The product with a weight.

use std::sync::Arc;

use candle_core::{DType, Result};
use phyla_kernels::map::{MappedFile, MappedSlice, bytes_of};
use phyla_kernels::quant::Quant;
use phyla_ops::activation::Act;
use phyla_ops::{Data, Mapped, Param, Quantised, Tensor, Weight, linear, linear_act};

use crate::check::{Case, data, numbers, param};

fn run(x: &[Tensor], params: &[Arc<Param>]) -> Result<Tensor> {
    linear(&x[0], &params[0], params.get(1))
}

/// Input dimensions, outputs: single elements, primes, sizes just beside the tiles of the kernels.
const SHAPES: &[(&[usize], usize)] =
    &[(&[1, 1], 1), (&[3, 17], 1), (&[1, 65], 3), (&[2, 3, 17], 33), (&[5, 13, 31], 65), (&[129, 127], 17), (&[7], 5)];

#[test]
fn products_with_and_without_bias() {
    for &(dims, n) in SHAPES {
        let k = dims[dims.len() - 1];
        for bias in [false, true] {
            let mut params = vec![param(2, &[n, k])];
            params.extend(bias.then(|| param(3, &[n])));
            Case::new(format!("linear {dims:?} -> {n}, bias {bias}"), vec![data(1, dims)], params, &run).check();
        }
    }
}

#[test]
fn an_input_that_is_not_contiguous_is_read_right() {
    let transposed = |x: &[Tensor], params: &[Arc<Param>]| linear(&transpose(&x[0])?, &params[0], None);
    Case::new("linear of a transposed input", vec![data(1, &[17, 5])], vec![param(2, &[3, 17])], &transposed).check();
}

/// `xᵀ`, not made contiguous; its gradient neither.
fn transpose(x: &Tensor) -> Result<Tensor> {
    Ok(Tensor::record(x.data().t()?, &[x], false, |dy| Ok(vec![Some(dy.t()?)])))
}

#[test]
fn weights_in_short_formats() {
    for dtype in [DType::BF16, DType::F16] {
        for &(dims, n) in SHAPES {
            let k = dims[dims.len() - 1];
            let weight = data(2, &[n, k]).to_dtype(dtype).unwrap();
            let params = vec![Arc::new(Param::new("frozen", Weight::Dense(weight))), param(3, &[n])];
            let name = format!("linear {dims:?} -> {n}, {dtype:?} weight");
            let mut case = Case::new(name, vec![data(1, dims)], params, &run);
            case.tolerance = low_tolerance(dtype);
            case.check();
            // Mixed precision: an f32 master learns, its low copy is multiplied.
            let params = vec![param(2, &[n, k])];
            params[0].set_compute_dtype(Some(dtype)).unwrap();
            let name = format!("linear {dims:?} -> {n}, {dtype:?} copy");
            let mut case = Case::new(name, vec![data(1, dims)], params, &run);
            case.tolerance = low_tolerance(dtype);
            case.check();
        }
    }
}

/// With a bf16 weight a kernel may round the activations, or their gradients, to bf16 too (8 bits: 2^-9 each, so at
/// most that share of the sum of the terms' sizes, which the largest output may fall short of by some factor).
fn low_tolerance(dtype: DType) -> f64 {
    if dtype == DType::BF16 { 1e-2 } else { 1e-5 }
}

#[test]
fn weights_mapped_from_a_file_are_used_in_place() {
    let (n, k) = (17, 65);
    let values = numbers(2, n * k);
    let dir = tempfile::tempdir().unwrap();
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let bytes = match dtype {
            DType::BF16 => bytes_of(&values.iter().map(|&x| half::bf16::from_f32(x)).collect::<Vec<_>>()).to_vec(),
            DType::F16 => bytes_of(&values.iter().map(|&x| half::f16::from_f32(x)).collect::<Vec<_>>()).to_vec(),
            _ => bytes_of(&values).to_vec(),
        };
        let path = dir.path().join(format!("{dtype:?}"));
        std::fs::write(&path, &bytes).unwrap();
        let slice = || MappedSlice::new(MappedFile::open(&path).unwrap(), 0..bytes.len()).unwrap();
        assert!(Mapped::new(slice(), dtype, vec![n, k + 1]).is_none(), "a wrong shape must not map");
        let mapped = Weight::Mapped(Arc::new(Mapped::new(slice(), dtype, vec![n, k]).unwrap()));
        let params = vec![Arc::new(Param::new("mapped", mapped)), param(3, &[n])];
        let mut case = Case::new(format!("linear, mapped {dtype:?}"), vec![data(1, &[3, 5, k])], params, &run);
        case.tolerance = low_tolerance(dtype);
        case.check();
    }
}

#[test]
fn quantised_weights_multiply_embed_and_hand_gradients_through() {
    let (n, k, kind) = (19, 256, Quant::Q4_K);
    let mut bytes = vec![0u8; n * k / kind.block() * kind.bytes()];
    kind.quantize(&numbers(2, n * k), &mut bytes);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("blocks");
    std::fs::write(&path, &bytes).unwrap();
    let slice = || MappedSlice::new(MappedFile::open(&path).unwrap(), 0..bytes.len()).unwrap();
    assert!(Quantised::mapped(slice(), kind, vec![n + 1, k]).is_none(), "a wrong shape must not map");
    assert!(Quantised::mapped(slice(), kind, vec![n * 2, k / 2]).is_none(), "a row must be whole blocks");
    let mapped = Weight::Blocks(Arc::new(Quantised::mapped(slice(), kind, vec![n, k]).unwrap()));
    let owned = Weight::Blocks(Arc::new(Quantised::owned(bytes.clone(), kind, vec![n, k]).unwrap()));
    assert_eq!((mapped.stored(), mapped.bytes(), mapped.dims()), ("q4_k", bytes.len(), &[n, k][..]));
    let dense = Weight::Dense(mapped.to_f32().unwrap());
    let results = [dense, mapped, owned].map(|weight| {
        let weight = Arc::new(Param::new("w", weight));
        let x = Tensor::leaf(data(1, &[40, k]));
        let y = linear(&x, &weight, None).unwrap();
        let rows = phyla_ops::embedding(&weight, &[3, 0, 18], &[3], None).unwrap();
        y.backward_with(data(3, &[40, n])).unwrap();
        [y.data(), rows.data(), &x.grad().unwrap()].map(|data| data.flatten_all().unwrap().to_vec1::<f32>().unwrap())
    });
    let [dense, blocks @ ..] = results;
    for blocks in &blocks {
        // The products round their factors to bf16; rows of the table are the blocks' own values.
        for (at, rounding) in [(0, 1e-2), (1, 0.), (2, 1e-2)] {
            let largest = dense[at].iter().fold(0f32, |m, x| m.max(x.abs()));
            let apart = dense[at].iter().zip(&blocks[at]).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(apart <= rounding * largest, "{at}: {apart} of {largest}");
        }
    }
}

#[test]
fn sizes_that_do_not_fit_are_errors() {
    let x: Tensor = data(1, &[3, 17]).into();
    let message = |w: &[usize], b: &[usize]| linear(&x, &param(2, w), Some(&param(3, b))).unwrap_err().to_string();
    assert!(message(&[5, 16], &[5]).contains("does not fit an input of [3, 17]"));
    assert!(message(&[5, 17], &[4]).contains("does not fit an output of 5"));
}

#[test]
fn frozen_weights_get_no_gradient_and_keep_no_input() {
    let frozen = Arc::new(Param::new("frozen", Weight::Dense(data(2, &[5, 3]))));
    let x: Tensor = data(1, &[2, 3]).into();
    assert!(!linear(&x, &frozen, None).unwrap().tracked());
    let leaf = Tensor::leaf(data(1, &[2, 3]));
    linear(&leaf, &frozen, None)
        .unwrap()
        .backward_with(Data::ones((2, 5), DType::F32, leaf.device()).unwrap())
        .unwrap();
    assert!(leaf.grad().is_some() && frozen.grad().is_none());
}

#[test]
fn weights_in_int8_multiply_rows_apart_and_refuse_gradients() {
    let (n, k) = (19, 70);
    let dense = Weight::Dense(data(2, &[n, k]));
    let int8 = dense.to_int8().unwrap();
    assert_eq!((int8.stored(), int8.dims(), int8.dtype()), ("int8", &[n, k][..], DType::F32));
    let [dense, int8] = [dense, int8].map(|weight| Arc::new(Param::new("w", weight)));
    let bias = param(3, &[n]);
    let x: Tensor = data(1, &[40, k]).into();
    let all = linear(&x, &int8, Some(&bias)).unwrap();
    let exact = linear(&x, &dense, Some(&bias)).unwrap();
    let numbers = |x: &Tensor| x.data().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let [rounded, exact] = [&all, &exact].map(numbers);
    let largest = exact.iter().fold(0f32, |m, x| m.max(x.abs()));
    // Half a step of 127 in either factor, over 70 products of which few add up.
    assert!(rounded.iter().zip(&exact).all(|(a, b)| (a - b).abs() < 2e-2 * largest) && rounded != exact);
    for row in [0, 39] {
        let alone = linear(&x.data().narrow(0, row, 1).unwrap().into(), &int8, Some(&bias)).unwrap();
        assert_eq!(numbers(&alone), rounded[row * n..][..n]);
    }
    for weight in [&dense, &int8] {
        let apart = phyla_ops::activate(&linear(&x, weight, Some(&bias)).unwrap(), Act::Gelu).unwrap();
        assert_eq!(numbers(&linear_act(&x, weight, Some(&bias), Act::Gelu).unwrap()), numbers(&apart));
    }
    let tracked = Tensor::leaf(data(1, &[40, k]));
    assert!(linear_act(&tracked, &int8, None, Act::Gelu).is_err());
    let message = linear(&tracked, &int8, None).unwrap_err().to_string();
    assert!(message.contains("w: a weight in int8 is for inference"), "{message}");
    assert!(phyla_ops::no_grad(|| linear(&tracked, &int8, None)).is_ok());
    assert!(Weight::Dense(data(1, &[k])).to_int8().err().unwrap().to_string().contains("for matrices"));
}

//! Operations on whole rows: embeddings, norms, rotary positions.

use std::sync::Arc;

use candle_core::DType;
use phyla_ops::rope::Style;
use phyla_ops::{Param, RopeRows, Tensor, Weight, embedding, layer_norm, rms_norm, rope, scale_columns};

use crate::check::{Case, apart, data, param, wide};

const DIMS: &[&[usize]] = &[&[1, 1, 3], &[3, 17], &[2, 5, 65], &[33, 129], &[7], &[4, 1]];

#[test]
fn rms_norms() {
    let run = |x: &[Tensor], p: &[Arc<Param>]| rms_norm(&x[0], &p[0], 1e-5);
    for dims in DIMS {
        let w = param(2, &dims[dims.len() - 1..]);
        Case::new(format!("rms_norm {dims:?}"), vec![data(1, dims)], vec![w], &run).check();
    }
}

#[test]
fn layer_norms_with_and_without_bias() {
    let run = |x: &[Tensor], p: &[Arc<Param>]| layer_norm(&x[0], &p[0], p.get(1), 1e-5);
    // A single element has no variance, only 1e-5 to be divided by: nothing but noise to compare there.
    for dims in DIMS.iter().filter(|dims| dims[dims.len() - 1] > 1) {
        for bias in [false, true] {
            let dim = &dims[dims.len() - 1..];
            let mut params = vec![param(2, dim)];
            params.extend(bias.then(|| param(3, dim)));
            let mut case = Case::new(format!("layer_norm {dims:?}, bias {bias}"), vec![data(1, dims)], params, &run);
            // A row of three close numbers magnifies by 1 / its deviation, some 10 at worst.
            case.tolerance = 1e-4;
            case.check();
        }
    }
}

#[test]
fn weighed_columns() {
    for dims in DIMS {
        let columns = dims[dims.len() - 1];
        for by in [None, Some((0..columns).map(|at| at as f32 / 3. - 1.).collect::<Arc<[f32]>>())] {
            for shape in [vec![columns], vec![columns, 1]] {
                let run = |x: &[Tensor], p: &[Arc<Param>]| scale_columns(&x[0], &p[0], by.clone());
                Case::new(format!("columns of {dims:?}"), vec![data(1, dims)], vec![param(2, &shape)], &run).check();
            }
        }
    }
    let x: Tensor = data(1, &[5, 17]).into();
    assert!(scale_columns(&x, &param(2, &[16]), None).unwrap_err().to_string().contains("does not fit 17 columns"));
}

#[test]
fn norms_leave_frozen_weights_alone_and_check_sizes() {
    for frozen in [[true, false], [false, true], [true, true]] {
        let params: Vec<_> = (2..4).map(|seed| param(seed, &[17])).collect();
        for (param, frozen) in params.iter().zip(frozen) {
            param.set_trainable(!frozen).unwrap();
        }
        let run = |x: &[Tensor], p: &[Arc<Param>]| layer_norm(&x[0], &p[0], p.get(1), 1e-5);
        Case::new(format!("layer_norm, frozen {frozen:?}"), vec![data(1, &[5, 17])], params.clone(), &run).check();
        assert!(params.iter().zip(frozen).all(|(param, frozen)| param.grad().is_none() == frozen));
    }
    let x: Tensor = data(1, &[5, 17]).into();
    assert!(rms_norm(&x, &param(2, &[16]), 1e-5).is_err());
    assert!(layer_norm(&x, &param(2, &[17]), Some(&param(3, &[1])), 1e-5).is_err());
}

#[test]
fn embeddings_add_up_repeated_ids_and_skip_the_padding_row() {
    let ids = [4u32, 0, 4, 2, 9, 0, 4, 1, 1, 8, 3, 4, 6, 5, 0];
    for dim in [1, 3, 17, 65] {
        for padding in [None, Some(0), Some(7)] {
            let run = |_: &[Tensor], p: &[Arc<Param>]| embedding(&p[0], &ids, &[3, 5], padding);
            let mut case =
                Case::new(format!("embedding of {dim}, padding {padding:?}"), vec![], vec![param(2, &[10, dim])], &run);
            // The row of padding deliberately gets none of its gradient: checked below instead.
            case.numeric = padding != Some(0);
            case.check();
            let (rows, grad) = (wide(&data(99, &[15, dim])), wide(&case.params[0].grad().unwrap()));
            let mut expected = vec![0f64; 10 * dim];
            for (row, &id) in ids.iter().enumerate().filter(|&(_, &id)| Some(id) != padding) {
                (0..dim).for_each(|j| expected[id as usize * dim + j] += rows[row * dim + j]);
            }
            // Sums of at most four numbers of 8 bits each: exact.
            assert_eq!(apart(&grad, &expected), 0., "{}", case.name);
        }
    }
    let table = param(2, &[10, 3]);
    assert!(embedding(&table, &[10], &[1], None).unwrap_err().to_string().contains("id 10"));
    for dtype in [DType::BF16, DType::F16] {
        let low = Arc::new(Param::new("low", Weight::Dense(data(2, &[10, 3]).to_dtype(dtype).unwrap())));
        let (a, b) = (embedding(&low, &ids, &[15], None).unwrap(), embedding(&table, &ids, &[15], None).unwrap());
        // 8 bits are enough for these numbers.
        assert_eq!(wide(a.data()), wide(b.data()));
    }
}

fn table(positions: usize, rows: Vec<u32>, rotary_dim: usize, style: Style) -> RopeRows {
    let angle = |i: usize| (i / (rotary_dim / 2)) as f32 * 0.7 + (i % (rotary_dim / 2)) as f32 * 0.3;
    let each = |f: fn(f32) -> f32| Arc::new((0..positions * rotary_dim / 2).map(|i| f(angle(i))).collect());
    RopeRows { cos: each(f32::cos), sin: each(f32::sin), rows: Arc::new(rows), rotary_dim, style }
}

#[test]
fn rotary_positions_in_both_styles_whole_and_partial() {
    for style in [Style::Half, Style::Interleaved] {
        for (dims, rotary) in [([1, 1, 1, 2], 2), ([2, 3, 5, 6], 6), ([1, 17, 3, 65], 64), ([3, 5, 2, 33], 10)] {
            let count = dims[0] * dims[1];
            // In order, and out of order with repetitions, as left-padded or packed batches have them.
            let scattered = (0..count).map(|i| (i * 7 % count.min(5)) as u32).collect();
            for rows in [(0..count as u32).collect(), scattered] {
                let table = table(count, rows, rotary, style);
                let run = |x: &[Tensor], _: &[Arc<Param>]| rope(&x[0], &table);
                Case::new(format!("rope {dims:?} turning {rotary}, {style:?}"), vec![data(1, &dims)], vec![], &run)
                    .check();
            }
        }
    }
}

#[test]
fn rotary_tables_that_do_not_fit_are_errors() {
    let x: Tensor = data(1, &[1, 3, 2, 8]).into();
    let fails = |table: &RopeRows| rope(&x, table).is_err();
    assert!(!fails(&table(3, vec![0, 1, 2], 8, Style::Half)));
    assert!(fails(&table(3, vec![0, 1, 3], 8, Style::Half)), "a position beyond the table");
    assert!(fails(&table(3, vec![0, 1], 8, Style::Half)), "a token without position");
    assert!(fails(&table(3, vec![0, 1, 2], 10, Style::Half)), "more than the head has");
    let whole = table(3, vec![0, 1, 2], 8, Style::Half);
    assert!(fails(&RopeRows { rotary_dim: 7, ..whole.clone() }), "an odd number of elements");
    assert!(fails(&RopeRows { sin: Arc::new(vec![0.; 2]), ..whole }), "too few sines");
}

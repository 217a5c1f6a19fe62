//! Rows picked, cut, joined, repeated, weighed, masked.

use std::sync::Arc;

use candle_core::{Device, Result};
use phyla_ops::{
    Data, Param, Tensor, add, broadcast_heads, concat_last, gather_rows, keep_rows, scale, scale_rows, split_last,
};

use crate::check::{Case, data, wide};

const DIMS: &[&[usize]] = &[&[1], &[1, 1], &[3, 17], &[2, 5, 65], &[33, 129]];

/// Nothing but copies and factors: fast and plain must agree to the last bit or nearly so.
const EXACT: f64 = 1e-7;

type Run<'a> = dyn Fn(&[Tensor]) -> Result<Tensor> + 'a;

fn check(name: String, inputs: Vec<Data>, tolerance: f64, run: &Run) {
    let run = |x: &[Tensor], _: &[Arc<Param>]| run(x);
    let mut case = Case::new(name, inputs, vec![], &run);
    case.tolerance = tolerance;
    case.check();
}

#[test]
fn gathered_rows_add_up_where_they_came_from() {
    for dims in DIMS {
        let rows = dims[..dims.len() - 1].iter().product::<usize>() as u32;
        let repeated: Vec<u32> = (0..3 * rows).map(|i| i * 7 % rows).collect();
        // Rows that are never picked still get a gradient: zeros.
        for ids in [vec![0], vec![rows - 1; 5], repeated] {
            check(format!("rows {ids:?} of {dims:?}"), vec![data(1, dims)], 1e-6, &|x| gather_rows(&x[0], &ids));
        }
    }
}

#[test]
fn joined_and_cut_again() {
    for (leading, sizes) in [
        (vec![1], vec![1]),
        (vec![], vec![3, 2]),
        (vec![3], vec![17, 1, 4]),
        (vec![2, 3], vec![5, 65]),
        (vec![2, 2, 3], vec![1, 2, 3, 4]),
    ] {
        let dims = |last: usize| [&leading[..], &[last]].concat();
        let parts: Vec<Data> = sizes.iter().enumerate().map(|(i, &size)| data(i as u64, &dims(size))).collect();
        let name = format!("{leading:?} of {sizes:?}");
        check(format!("concat {name}"), parts, EXACT, &|x| concat_last(&x.iter().collect::<Vec<_>>()));
        let whole = || vec![data(7, &dims(sizes.iter().sum()))];
        // Each piece counted differently and joined in another order.
        check(format!("split {name}"), whole(), EXACT, &|x| {
            let pieces = split_last(&x[0], &sizes)?;
            let pieces: Result<Vec<_>> = pieces.iter().enumerate().map(|(i, y)| scale(y, 1. + i as f64)).collect();
            concat_last(&pieces?.iter().rev().collect::<Vec<_>>())
        });
        // Pieces unused, used twice, and beside another use of the whole.
        check(format!("split, some pieces only, {name}"), whole(), 1e-6, &|x| {
            let pieces = split_last(&x[0], &sizes)?;
            let last = &pieces[pieces.len() - 1];
            let sum = add(&scale(&x[0], 0.5)?, &x[0])?;
            concat_last(&[last, &sum, last])
        });
    }
}

#[test]
fn a_piece_of_a_plain_tensor_is_not_recorded() {
    let x: Tensor = data(1, &[2, 5]).into();
    assert!(split_last(&x, &[2, 3]).unwrap().iter().all(|piece| !piece.tracked()));
    assert!(!concat_last(&[&x, &x]).unwrap().tracked());
}

#[test]
fn one_head_for_all() {
    for (dims, heads) in [([1, 1, 1, 1], 1), ([2, 3, 1, 5], 4), ([1, 7, 1, 64], 16)] {
        check(format!("{heads} heads of {dims:?}"), vec![data(1, &dims)], 1e-6, &|x| broadcast_heads(&x[0], heads));
    }
}

#[test]
fn weighed_rows() {
    for dims in DIMS {
        let rows: usize = dims[..dims.len() - 1].iter().product();
        for shape in [vec![rows], vec![rows, 1], [&dims[..dims.len() - 1], &[1]].concat()] {
            let inputs = vec![data(1, dims), data(2, &shape)];
            check(format!("{dims:?} times {shape:?}"), inputs, 1e-6, &|x| scale_rows(&x[0], &x[1]));
        }
    }
    // A gradient for one of the two alone.
    let (x, w) = (Tensor::leaf(data(1, &[3, 5])), Tensor::leaf(data(2, &[3])));
    let (plain_x, plain_w): (Tensor, Tensor) = (x.data().clone().into(), w.data().clone().into());
    for y in [scale_rows(&x, &plain_w), scale_rows(&plain_x, &w)] {
        let y = y.unwrap();
        y.backward_with(y.data().ones_like().unwrap()).unwrap();
    }
    assert!(x.grad().is_some() && w.grad().is_some());
}

#[test]
fn masked_rows_are_zero_whatever_they_held() {
    for dims in DIMS {
        let rows = dims[..dims.len() - 1].iter().product::<usize>();
        for modulo in [1, 2, 3] {
            let keep: Vec<u8> = (0..rows).map(|row| (row % modulo == 0) as u8).collect();
            check(format!("{dims:?}, each {modulo}th"), vec![data(1, dims)], EXACT, &|x| keep_rows(&x[0], &keep));
        }
    }
    let x = Tensor::from(Data::new(&[[f32::NAN, f32::INFINITY], [1., 2.]], &Device::Cpu).unwrap());
    assert_eq!(wide(keep_rows(&x, &[0, 1]).unwrap().data()), [0., 0., 1., 2.]);
}

#[test]
fn nothing_is_a_size_too() {
    let none = |dims: &[usize]| Tensor::leaf(data(1, dims));
    for (x, y) in [
        (none(&[3, 4]), &(|x: &Tensor| gather_rows(x, &[])) as &dyn Fn(&Tensor) -> Result<Tensor>),
        (none(&[0, 4]), &|x: &Tensor| gather_rows(x, &[])),
        (none(&[3, 0]), &|x: &Tensor| concat_last(&[x, x])),
        (none(&[0, 4]), &|x: &Tensor| concat_last(&[x, x])),
        (none(&[0, 4]), &|x: &Tensor| concat_last(&split_last(x, &[1, 3])?.iter().collect::<Vec<_>>())),
        (none(&[3, 4]), &|x: &Tensor| concat_last(&split_last(x, &[0, 4])?.iter().collect::<Vec<_>>())),
        (none(&[0, 4]), &|x: &Tensor| scale_rows(x, &data(2, &[0]).into())),
        (none(&[0, 4]), &|x: &Tensor| keep_rows(x, &[])),
        (none(&[0, 3, 1, 4]), &|x: &Tensor| broadcast_heads(x, 2)),
        (none(&[2, 3, 1, 4]), &|x: &Tensor| broadcast_heads(x, 0)),
    ] {
        let y = y(&x).unwrap();
        y.backward_with(y.data().ones_like().unwrap()).unwrap();
        assert_eq!(x.grad().unwrap().dims(), x.dims());
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let x: Tensor = data(1, &[3, 4]).into();
    let message = |y: Result<Tensor>| y.unwrap_err().to_string();
    assert!(message(gather_rows(&x, &[0, 3])).contains("row 3 was asked for, but [3, 4] has 3 rows"));
    assert!(message(concat_last(&[&x, &data(1, &[4, 3]).into()])).contains("[3, 4] and [4, 3]"));
    assert!(concat_last(&[]).is_err());
    assert!(split_last(&x, &[1, 2]).unwrap_err().to_string().contains("[1, 2]"));
    assert!(message(broadcast_heads(&x, 2)).contains("[batch, time, 1, dim]"));
    assert!(message(scale_rows(&x, &x)).contains("3 rows of [3, 4]"));
    assert!(message(keep_rows(&x, &[1])).contains("found 1"));
}

//! Products of heads with their rows of one weight.

use std::sync::Arc;

use candle_core::DType;
use phyla_kernels::map::{MappedFile, MappedSlice, bytes_of};
use phyla_ops::{Data, Mapped, Param, Tensor, Weight, per_head_down, per_head_up};

use crate::check::{Case, data, numbers, param, wide};

/// Leading dimensions, heads, rows for each, offset, size, rank.
const SIZES: &[(&[usize], [usize; 5])] = &[
    (&[1], [1, 1, 0, 1, 1]),
    (&[1, 1], [3, 5, 2, 3, 17]),
    (&[], [2, 4, 0, 4, 3]),
    (&[2, 4], [4, 7, 3, 2, 33]),
    (&[3, 15], [2, 9, 1, 5, 19]),
];

fn dims(leading: &[usize], heads: usize, last: usize) -> Vec<usize> {
    [leading, &[heads, last]].concat()
}

#[test]
fn up_and_down() {
    for &(leading, [heads, stride, offset, size, rank]) in SIZES {
        let name = format!("{leading:?} x {heads} heads, rows {offset} + {size} of {stride}, rank {rank}");
        let up = |x: &[Tensor], p: &[Arc<Param>]| per_head_up(&x[0], &p[0], offset);
        let w = || vec![param(2, &[heads * stride, rank])];
        Case::new(format!("up, {name}"), vec![data(1, &dims(leading, heads, size))], w(), &up).check();
        let down = |x: &[Tensor], p: &[Arc<Param>]| per_head_down(&x[0], &p[0], offset, size);
        Case::new(format!("down, {name}"), vec![data(1, &dims(leading, heads, rank))], w(), &down).check();
    }
}

#[test]
fn weights_in_short_formats_copied_and_mapped() {
    let dir = tempfile::tempdir().unwrap();
    for dtype in [DType::BF16, DType::F16] {
        let values = numbers(2, 3 * 7 * 17);
        let bytes = match dtype {
            DType::BF16 => bytes_of(&values.iter().map(|&x| half::bf16::from_f32(x)).collect::<Vec<_>>()).to_vec(),
            _ => bytes_of(&values.iter().map(|&x| half::f16::from_f32(x)).collect::<Vec<_>>()).to_vec(),
        };
        let path = dir.path().join(format!("{dtype:?}"));
        std::fs::write(&path, &bytes).unwrap();
        let slice = MappedSlice::new(MappedFile::open(&path).unwrap(), 0..bytes.len()).unwrap();
        let mapped = Weight::Mapped(Arc::new(Mapped::new(slice, dtype, vec![21, 17]).unwrap()));
        let learning = param(2, &[21, 17]);
        learning.set_compute_dtype(Some(dtype)).unwrap();
        for w in [Arc::new(Param::new("mapped", mapped)), learning] {
            let up = |x: &[Tensor], p: &[Arc<Param>]| per_head_up(&x[0], &p[0], 4);
            let down = |x: &[Tensor], p: &[Arc<Param>]| per_head_down(&x[0], &p[0], 1, 3);
            let run: [&crate::check::Run; 2] = [&up, &down];
            for (run, last) in run.into_iter().zip([3, 17]) {
                let name = format!("{dtype:?}, {last} elements");
                let mut case = Case::new(name, vec![data(1, &[2, 3, last])], vec![w.clone()], run);
                // Activations may be rounded to bf16 too, as in `linear`.
                case.tolerance = if dtype == DType::BF16 { 1e-2 } else { 1e-5 };
                case.check();
            }
        }
    }
}

#[test]
fn absorbed_projections_give_the_scores_and_values_of_full_ones() {
    // q · (W_k c) = (q W_k) · c, and W_v (Σ p c) = Σ p (W_v c): the two halves of one weight.
    let (heads, a, b, rank) = (2, 3, 5, 7);
    let w = param(2, &[heads * (a + b), rank]);
    let (q, c): (Tensor, Tensor) = (data(1, &[1, heads, a]).into(), data(3, &[1, rank]).into());
    let kv = wide(phyla_ops::linear(&c, &w, None).unwrap().data());
    let absorbed = wide(per_head_up(&q, &w, 0).unwrap().data());
    let latent = wide(c.data());
    let both = Data::cat(&[c.data(), c.data()], 0).unwrap().reshape((1, heads, rank)).unwrap();
    let values = wide(per_head_down(&both.into(), &w, a, b).unwrap().data());
    for h in 0..heads {
        let full: f64 = (0..a).map(|i| wide(q.data())[h * a + i] * kv[h * (a + b) + i]).sum();
        let score: f64 = (0..rank).map(|l| absorbed[h * rank + l] * latent[l]).sum();
        assert!((full - score).abs() < 1e-4, "{full} {score}");
        assert!((0..b).all(|i| (values[h * b + i] - kv[h * (a + b) + a + i]).abs() < 1e-5));
    }
}

#[test]
fn no_rows_and_frozen_weights() {
    let w = param(2, &[6, 5]);
    let x = Tensor::leaf(data(1, &[0, 2, 3]));
    let y = per_head_up(&x, &w, 0).unwrap();
    y.backward_with(y.data().clone()).unwrap();
    assert_eq!((y.dims(), x.grad().unwrap().dims()), (&[0, 2, 5][..], &[0, 2, 3][..]));
    w.set_trainable(false).unwrap();
    w.zero_grad();
    let x = Tensor::leaf(data(1, &[4, 2, 5]));
    let y = per_head_down(&x, &w, 1, 2).unwrap();
    y.backward_with(y.data().clone()).unwrap();
    assert!(x.grad().is_some() && w.grad().is_none());
    assert!(!per_head_down(&x.into_data().into(), &w, 1, 2).unwrap().tracked());
}

#[test]
fn sizes_that_do_not_fit_are_errors() {
    let w = param(2, &[6, 5]);
    let up = |dims: &[usize], offset| per_head_up(&data(1, dims).into(), &w, offset).unwrap_err().to_string();
    assert!(up(&[1, 2, 3], 1).contains("read from row 1 of each head, does not fit heads of [1, 2, 3]"));
    assert!(up(&[1, 4, 1], 0).contains("does not fit"));
    assert!(up(&[3], 0).contains("[.., heads, dim]"));
    let down = |dims: &[usize], size| per_head_down(&data(1, dims).into(), &w, 2, size).unwrap_err().to_string();
    assert!(down(&[1, 2, 5], 2).contains("rows 2..4 of a head that has 3"));
    assert!(down(&[1, 2, 4], 1).contains("does not fit"));
}

//! Whole rows cut, joined, repeated, weighed and masked: data that moves and is hardly computed with. Rows picked out
//! by number are in `embed`.

use crate::chunk::{self, Parts};
use crate::vector::{self, Math, per_isa};

fn whole(name: &str, len: usize, rows: usize, dim: usize) {
    assert!(len == rows * dim, "{name}: expected {rows} rows of {dim}, found {len} values");
}

/// `y[rows, dim] = x[.., at..at + dim]`, the columns of `x[rows, wide]`.
///
/// # Panics
/// If a length does not fit the sizes; so do all functions here.
pub fn take_columns(y: &mut [f32], x: &[f32], [rows, wide, at, dim]: [usize; 4]) {
    whole("take_columns, source", x.len(), rows, wide);
    whole("take_columns, target", y.len(), rows, dim);
    assert!(at + dim <= wide, "take_columns: columns {at}..{} of {wide}", at + dim);
    if dim > 0 {
        chunk::each_mut(y, dim, |start, y| {
            for (y, x) in y.chunks_exact_mut(dim).zip(x.chunks_exact(wide).skip(start / dim)) {
                y.copy_from_slice(&x[at..at + dim]);
            }
        });
    }
}

/// `y[.., at..at + dim] = x[rows, dim]`: writes these columns of `y[rows, wide]` and no others.
pub fn put_columns(y: &mut [f32], x: &[f32], [rows, wide, at, dim]: [usize; 4]) {
    whole("put_columns, source", x.len(), rows, dim);
    whole("put_columns, target", y.len(), rows, wide);
    assert!(at + dim <= wide, "put_columns: columns {at}..{} of {wide}", at + dim);
    if dim > 0 {
        chunk::each_mut(y, wide, |start, y| {
            for (y, x) in y.chunks_exact_mut(wide).zip(x.chunks_exact(dim).skip(start / wide)) {
                y[at..at + dim].copy_from_slice(x);
            }
        });
    }
}

/// `y[rows, times, dim]`: each row of `x[rows, dim]` `times` times over.
pub fn repeat(y: &mut [f32], x: &[f32], times: usize, dim: usize) {
    whole("repeat", y.len(), x.len() / dim.max(1) * times, dim);
    if !y.is_empty() {
        chunk::each_mut(y, dim, |start, y| {
            for (row, y) in (start / dim..).zip(y.chunks_exact_mut(dim)) {
                y.copy_from_slice(&x[row / times * dim..][..dim]);
            }
        });
    }
}

/// The gradient of [`repeat`]: `dx[rows, dim]`, the sum of `dy[rows, times, dim]` from the first copy on.
pub fn sum_repeats(dx: &mut [f32], dy: &[f32], times: usize, dim: usize) {
    whole("sum_repeats", dy.len(), dx.len() / dim.max(1) * times, dim);
    if !dx.is_empty() {
        chunk::each_mut(dx, dim, |start, dx| {
            for (row, dx) in (start / dim..).zip(dx.chunks_exact_mut(dim)) {
                dx.fill(0.0);
                for dy in dy[row * times * dim..][..times * dim].chunks_exact(dim) {
                    dx.iter_mut().zip(dy).for_each(|(sum, dy)| *sum += dy);
                }
            }
        });
    }
}

/// `y[rows, dim] = x[rows, dim] · w[rows]`: one factor for each row.
pub fn scale(y: &mut [f32], x: &[f32], w: &[f32], dim: usize) {
    whole("scale, source", x.len(), w.len(), dim);
    whole("scale, target", y.len(), w.len(), dim);
    if dim > 0 {
        chunk::each_mut(y, dim, |start, y| {
            let rows = y.chunks_exact_mut(dim).zip(x[start..].chunks_exact(dim)).zip(&w[start / dim..]);
            for ((y, x), &w) in rows {
                y.iter_mut().zip(x).for_each(|(y, x)| *y = x * w);
            }
        });
    }
}

/// `dw[row] = Σ dy[row] x[row]`: the gradient of the factors of [`scale`], each sum in one fixed order.
pub fn scale_factors_backward(dw: &mut [f32], dy: &[f32], x: &[f32], dim: usize) {
    whole("scale_factors_backward, gradient", dy.len(), dw.len(), dim);
    whole("scale_factors_backward, input", x.len(), dw.len(), dim);
    let dw = Parts::new(dw);
    chunk::each(dy.len(), dim, |range| {
        for row in range.start / dim..range.end / dim {
            let at = row * dim..(row + 1) * dim;
            // SAFETY: chunks are whole rows, and each row belongs to one.
            unsafe { dw.set(row, dot(&dy[at.clone()], &x[at])) };
        }
    });
}

#[inline(always)]
fn dot_loop<M: Math>(a: &[f32], b: &[f32]) -> f32 {
    vector::sum2::<M>(a, b, |sum, a, b| M::fma(a, b, sum))
}

per_isa! { pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 = dot_loop; }

/// `y[rows, dim]`: the rows of `x` whose `keep` is not 0; the others become zeros.
pub fn keep(y: &mut [f32], x: &[f32], keep: &[u8], dim: usize) {
    whole("keep, source", x.len(), keep.len(), dim);
    whole("keep, target", y.len(), keep.len(), dim);
    if dim > 0 {
        chunk::each_mut(y, dim, |start, y| {
            for ((y, x), &keep) in y.chunks_exact_mut(dim).zip(x[start..].chunks_exact(dim)).zip(&keep[start / dim..]) {
                // Not a product: a masked row may hold infinities.
                if keep != 0 { y.copy_from_slice(x) } else { y.fill(0.0) }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::threads::tests::with_threads;

    fn normal(seed: u64, n: usize) -> Vec<f32> {
        let mut x = vec![0.0; n];
        Rng::new(seed).fill_normal(&mut x, 0.0, 1.0);
        x
    }

    /// Rows, columns; the last takes several chunks.
    const SIZES: [(usize, usize); 6] = [(0, 3), (1, 1), (5, 0), (7, 13), (65, 200), (400, 130)];

    #[test]
    fn columns_are_taken_and_put_back() {
        for (rows, wide) in SIZES {
            for (at, dim) in [(0, wide), (wide / 3, wide - wide / 3), (wide, 0), (wide / 2, wide.min(1) * wide / 4)] {
                let (x, mut y) = (normal(1, rows * wide), vec![9.0; rows * dim]);
                take_columns(&mut y, &x, [rows, wide, at, dim]);
                let expect = |i: usize| x[i / dim * wide + at + i % dim];
                assert!((0..rows * dim).all(|i| y[i] == expect(i)), "{rows} {wide} {at} {dim}");
                let mut back = vec![7.0; rows * wide];
                put_columns(&mut back, &y, [rows, wide, at, dim]);
                let inside = |i: usize| (at..at + dim).contains(&(i % wide));
                assert!((0..rows * wide).all(|i| back[i] == if inside(i) { x[i] } else { 7.0 }));
            }
        }
    }

    #[test]
    fn repeats_and_their_sums() {
        for (rows, dim) in SIZES {
            for times in [1, 3, 16] {
                let (x, mut y) = (normal(1, rows * dim), vec![9.0; rows * times * dim]);
                repeat(&mut y, &x, times, dim);
                assert!((0..y.len()).all(|i| y[i] == x[i / dim / times * dim + i % dim]));
                let (dy, mut dx) = (normal(2, y.len()), vec![9.0; x.len()]);
                sum_repeats(&mut dx, &dy, times, dim);
                for (i, sum) in dx.iter().enumerate() {
                    let terms = (0..times).map(|t| dy[(i / dim * times + t) * dim + i % dim]);
                    assert_eq!(*sum, terms.fold(0.0, |sum, term| sum + term));
                }
            }
        }
    }

    #[test]
    fn factors_and_masks() {
        for (rows, dim) in SIZES {
            let (x, w, dy) = (normal(1, rows * dim), normal(2, rows), normal(3, rows * dim));
            let mut y = vec![9.0; rows * dim];
            scale(&mut y, &x, &w, dim);
            assert!((0..y.len()).all(|i| y[i] == x[i] * w[i / dim]));
            let mut dw = vec![9.0; rows];
            if dim > 0 {
                with_threads(1, || scale_factors_backward(&mut dw, &dy, &x, dim));
                for (r, dw) in dw.iter().enumerate() {
                    let at = r * dim..(r + 1) * dim;
                    let products = dy[at.clone()].iter().zip(&x[at]).map(|(a, b)| f64::from(*a) * f64::from(*b));
                    let (truth, size) = products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
                    // 64 partial sums of up to 4 terms and their fold: a few roundings of the terms' size.
                    assert!((f64::from(*dw) - truth).abs() <= 5e-7 * size, "{dw} {truth}");
                }
                let mut two = vec![9.0; rows];
                with_threads(2, || scale_factors_backward(&mut two, &dy, &x, dim));
                assert_eq!(dw, two);
            }
            let mut x = x;
            let mask: Vec<u8> = (0..rows).map(|r| (r % 3 == 0) as u8 * 2).collect();
            (0..rows * dim).filter(|i| mask[i / dim] == 0).for_each(|i| x[i] = f32::NAN);
            keep(&mut y, &x, &mask, dim);
            assert!((0..y.len()).all(|i| y[i] == if mask[i / dim] != 0 { x[i] } else { 0.0 }));
        }
    }
}

//! Products of few rows (decoding): bound by reading the weight, so each of its rows is read once for up to eight
//! rows of `x` and turned to f32 in registers. Many rows go to `blocked` instead.
//!
//! Floor: the bytes of the weight over the read bandwidth. Every dot product keeps one vector of partial sums, in the
//! order of `k`, whatever is computed beside it: a row's result has the same bits alone and in company.

use super::MatRef;
use crate::isa::Isa;
use crate::simd::{Kernel, Load, Simd, dispatch};
use crate::threads::{self, Shared};
use half::{bf16, f16};

/// Rows of `x` that share one reading of the weight.
const GROUP: usize = 8;

/// `y[m, n] = x[m, k] · wᵀ + bias`.
pub(super) struct Dot<'a> {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub x: &'a [f32],
    pub w: MatRef<'a>,
    pub bias: Option<&'a [f32]>,
}

/// Runs the product over the threads, each on a stretch of the weight's rows.
pub(super) fn run(isa: Isa, y: &mut [f32], p: &Dot) {
    if p.m == 0 || p.n == 0 {
        return;
    }
    let bytes = p.w.bytes();
    let work = bytes.max(2 * p.m * p.n * p.k / 16);
    // Stretches long enough to stream, enough of them to even out; where they are cut changes no result.
    let columns = p.n.div_ceil(4 * threads::threads()).next_multiple_of(8).max(32);
    let out = Shared(y.as_mut_ptr());
    threads::for_each(p.n.div_ceil(columns), work, |task| {
        let from = task * columns;
        dispatch(isa, Stretch { p, y: out, from, to: p.n.min(from + columns) });
    });
}

struct Stretch<'a, 'b> {
    p: &'a Dot<'b>,
    y: Shared<f32>,
    from: usize,
    to: usize,
}

impl Kernel for Stretch<'_, '_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: `dispatch` found S; `linear` checked the lengths.
        unsafe {
            match self.p.w {
                MatRef::F32(w) => self.rows::<S, f32>(w.as_ptr()),
                MatRef::Bf16(w) => self.rows::<S, bf16>(w.as_ptr()),
                MatRef::F16(w) => self.rows::<S, f16>(w.as_ptr()),
                MatRef::Blocks(_) | MatRef::Bytes(_) => {} // `blocks` and `bytes` multiply those
            }
        }
    }
}

impl Stretch<'_, '_> {
    #[inline(always)]
    unsafe fn rows<S: Simd, W: Load>(&self, w: *const W) {
        let p = self.p;
        let mut j = self.from;
        // SAFETY: columns from..to and rows 0..m exist.
        unsafe {
            while j < self.to {
                let left = self.to - j;
                // Row by row the weight is one stream, which reads fastest; but every weight then loads all of x, so
                // with more of x than half the first-level cache three columns share its loads.
                let columns = if p.m == 1 || p.m <= 4 && p.m * p.k <= 4096 { 1 } else { left.min(3) };
                for i in (0..p.m).step_by(GROUP) {
                    match (p.m - i, columns) {
                        (1, 1) => self.block::<S, W, 1, 1>(w, i, j),
                        (2, 1) => self.block::<S, W, 2, 1>(w, i, j),
                        (3, 1) => self.block::<S, W, 3, 1>(w, i, j),
                        (4, 1) => self.block::<S, W, 4, 1>(w, i, j),
                        (1, 3) => self.block::<S, W, 1, 3>(w, i, j),
                        (2, 3) => self.block::<S, W, 2, 3>(w, i, j),
                        (3, 3) => self.block::<S, W, 3, 3>(w, i, j),
                        (4, 3) => self.block::<S, W, 4, 3>(w, i, j),
                        (5, 3) => self.block::<S, W, 5, 3>(w, i, j),
                        (6, 3) => self.block::<S, W, 6, 3>(w, i, j),
                        (7, 3) => self.block::<S, W, 7, 3>(w, i, j),
                        (8.., 3) => self.block::<S, W, 8, 3>(w, i, j),
                        (rows, columns) => {
                            for i in i..i + rows.min(GROUP) {
                                for j in j..j + columns {
                                    self.block::<S, W, 1, 1>(w, i, j);
                                }
                            }
                        }
                    }
                }
                j += columns;
            }
        }
    }

    /// R rows of `x` by C rows of `w`.
    #[inline(always)]
    unsafe fn block<S: Simd, W: Load, const R: usize, const C: usize>(&self, w: *const W, i: usize, j: usize) {
        let (k, n) = (self.p.k, self.p.n);
        let whole = k - k % S::LANES;
        // SAFETY: rows i..i + R of x and j..j + C of w exist, each k long.
        unsafe {
            let x = self.p.x.as_ptr().add(i * k);
            let w = w.add(j * k);
            let mut sum = [[S::splat(0.0); C]; R];
            // Short rows give the hardware little time to notice the stream, so it is asked for here, 4 KiB ahead.
            let ahead = (4 << 10) / size_of::<W>();
            let mut l = 0;
            while l < whole {
                let mut weights = [S::splat(0.0); C];
                for (c, weight) in weights.iter_mut().enumerate() {
                    if i == 0 {
                        S::prefetch(w.wrapping_add(c * k + l + ahead));
                    }
                    *weight = W::load::<S>(w.add(c * k + l));
                }
                for (r, sum) in sum.iter_mut().enumerate() {
                    let x = S::load(x.add(r * k + l));
                    for c in 0..C {
                        sum[c] = S::fma(x, weights[c], sum[c]);
                    }
                }
                l += S::LANES;
            }
            for (r, sums) in sum.into_iter().enumerate() {
                // Of four at a time the sums cost half; places beyond C repeat a column and are dropped.
                let totals = if C == 1 {
                    [S::sum(sums[0]); 4]
                } else {
                    S::sum4([sums[0], sums[1 % C], sums[2 % C], sums[3 % C]])
                };
                for (c, mut total) in totals.into_iter().enumerate().take(C) {
                    for l in whole..k {
                        total += *x.add(r * k + l) * (*w.add(c * k + l)).value();
                    }
                    if let Some(bias) = self.p.bias {
                        total += bias[j + c];
                    }
                    *self.y.0.add((i + r) * n + j + c) = total;
                }
            }
        }
    }
}

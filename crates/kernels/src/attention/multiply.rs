//! The products that the tiled passes are made of. There are two ways to make them: `exact`, in f32, and `rounded`, whose
//! factors are bf16. Tiles of scores, and whatever has their shape, are `[BK, BQ]`: keys by queries.

use super::tiles::{BQ, Block};
use crate::simd::Simd;

/// The products of the forward pass, for one block of queries after another.
///
/// # Safety
/// Of all methods: the machine has `S`, pointers are good for a tile, keys `k0..k0 + nk` are there.
pub(super) trait Forward {
    /// Floats of scratch.
    fn scratch(&self) -> usize;
    /// Packs the queries of a block and clears its sums.
    unsafe fn begin<S: Simd>(&mut self, at: Block, scratch: &mut [f32]);
    /// `st = scale · k · q`.
    unsafe fn scores<S: Simd>(&mut self, k0: usize, nk: usize, st: *mut f32);
    /// `sums[q] = alpha[q] · sums[q] + Σ_k weights[k, q] v[k]`.
    unsafe fn add_values<S: Simd>(&mut self, k0: usize, nk: usize, weights: *const f32, alpha: &[f32; BQ]);
    /// Writes the block's rows of the result: `factors[q] · sums[q]`.
    unsafe fn finish<S: Simd>(&mut self, factors: &[f32; BQ]);
}

/// The products of the backward pass, likewise.
///
/// # Safety
/// As for [`Forward`]; nobody else writes the rows of the gradients that are asked for.
pub(super) trait Backward {
    /// Floats of scratch.
    fn scratch(&self) -> usize;
    /// Packs the queries of a block and the gradient of their result; clears the gradient of the queries.
    unsafe fn begin<S: Simd>(&mut self, at: Block, scratch: &mut [f32]);
    /// `st = scale · k · q`.
    unsafe fn scores<S: Simd>(&mut self, k0: usize, nk: usize, st: *mut f32);
    /// `dst = v · dout`: the gradient of the weights.
    unsafe fn d_weights<S: Simd>(&mut self, k0: usize, nk: usize, dst: *mut f32);
    /// `dv[k] += Σ_q weights[k, q] dout[q]`.
    unsafe fn add_dv<S: Simd>(&mut self, k0: usize, nk: usize, weights: *const f32);
    /// `dk[k] += Σ_q ds[k, q] q[q]`.
    unsafe fn add_dk<S: Simd>(&mut self, k0: usize, nk: usize, ds: *const f32);
    /// `dq[q] += Σ_k ds[k, q] k[k]`.
    unsafe fn add_dq<S: Simd>(&mut self, k0: usize, nk: usize, ds: *const f32);
    /// Writes the block's rows of `dq`, if that has not been done.
    unsafe fn finish<S: Simd>(&mut self);
}

//! The products of the tiled passes in f32.

use super::backward::{Gradient, Makes};
use super::forward::Pass;
use super::multiply;
use super::tiles::{BQ, Block, NOWHERE, pack};
use crate::simd::Simd;
use crate::threads::Shared;
use crate::tile::{Start, Tile};

/// Of the forward pass.
pub(super) struct Forward<'a> {
    f: &'a Pass<'a>,
    at: Block,
    /// `[dim, BQ]`, scaled, and `[BQ, v_dim]`.
    queries: *mut f32,
    sums: *mut f32,
    /// For a tile of keys or values that are not kept in f32.
    tile: *mut f32,
}

impl<'a> Forward<'a> {
    pub fn new(f: &'a Pass<'a>) -> Self {
        let none = std::ptr::null_mut();
        Self { f, at: NOWHERE, queries: none, sums: none, tile: none }
    }
}

impl multiply::Forward for Forward<'_> {
    fn scratch(&self) -> usize {
        let (f, s) = (self.f, &self.f.a.shape);
        (s.dim + s.v_dim) * BQ + f.k.scratch(s.dim).max(f.v.scratch(s.v_dim))
    }

    #[inline(always)]
    unsafe fn begin<S: Simd>(&mut self, at: Block, scratch: &mut [f32]) {
        let (a, s) = (self.f.a, &self.f.a.shape);
        self.at = at;
        let (queries, rest) = scratch.split_at_mut(s.dim * BQ);
        let (sums, tile) = rest.split_at_mut(s.v_dim * BQ);
        sums.fill(0.0);
        (self.queries, self.sums, self.tile) = (queries.as_mut_ptr(), sums.as_mut_ptr(), tile.as_mut_ptr());
        // SAFETY: `check` compared the lengths with the shape.
        unsafe {
            let q = self.f.q.as_ptr().add(at.row(s) * s.dim);
            pack::<S>(q, s.heads * s.dim, at.nq, s.dim, self.queries, a.scale);
        }
    }

    #[inline(always)]
    unsafe fn scores<S: Simd>(&mut self, k0: usize, nk: usize, st: *mut f32) {
        let (s, at) = (&self.f.a.shape, self.at);
        // SAFETY: the caller's promise.
        unsafe {
            let (k, k_row) = self.f.k.tile::<S>([at.b, at.kv(s)], k0, nk, s.dim, self.tile);
            scores::<S>(k, k_row, s.dim, [nk, at.nq.next_multiple_of(S::LANES)], self.queries, st)
        }
    }

    #[inline(always)]
    unsafe fn add_values<S: Simd>(&mut self, k0: usize, nk: usize, weights: *const f32, alpha: &[f32; BQ]) {
        let (s, at, n) = (&self.f.a.shape, self.at, self.f.a.shape.v_dim);
        // SAFETY: the caller's promise.
        unsafe {
            let (b, b_row) = self.f.v.tile::<S>([at.b, at.kv(s)], k0, nk, n, self.tile);
            let (c, start) = (self.sums, Start::Scale(alpha.as_ptr()));
            S::tile(&Tile { m: self.at.nq, n, k: nk, a: weights, a_i: 1, a_p: BQ, b, b_row, c, c_row: n, start });
        }
    }

    #[inline(always)]
    unsafe fn finish<S: Simd>(&mut self, factors: &[f32; BQ]) {
        let s = &self.f.a.shape;
        for (i, factor) in factors.iter().enumerate().take(self.at.nq) {
            // SAFETY: these rows are this block's; the sums are `begin`'s.
            unsafe {
                let out = self.f.out.slice((self.at.row(s) + i * s.heads) * s.v_dim, s.v_dim);
                for (d, out) in out.iter_mut().enumerate() {
                    *out = *self.sums.add(i * s.v_dim + d) * factor;
                }
            }
        }
    }
}

/// `st[m, n] = a[m, dim] · b[dim, n]`.
#[inline(always)]
unsafe fn scores<S: Simd>(a: *const f32, a_i: usize, dim: usize, [m, n]: [usize; 2], b: *const f32, st: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        S::tile(&Tile { m, n, k: dim, a, a_i, a_p: 1, b, b_row: BQ, c: st, c_row: BQ, start: Start::Zero });
    }
}

/// Of the backward pass.
pub(super) struct Backward<'a> {
    g: &'a Gradient<'a>,
    makes: Makes,
    at: Block,
    /// `[dim, BQ]`, scaled, and `[v_dim, BQ]`.
    queries: *mut f32,
    douts: *mut f32,
    k: *const f32,
    v: *const f32,
}

impl<'a> Backward<'a> {
    pub fn new(g: &'a Gradient<'a>, makes: Makes) -> Self {
        let (null, none) = (std::ptr::null(), std::ptr::null_mut());
        Self { g, makes, at: NOWHERE, queries: none, douts: none, k: null, v: null }
    }
}

impl Backward<'_> {
    /// `sums[k] += Σ_q by[k, q] rows[q]`, rows of `dim`.
    ///
    /// # Safety
    /// As for [`multiply::Backward`].
    #[inline(always)]
    unsafe fn add_to_keys<S: Simd>(
        &self,
        k0: usize,
        nk: usize,
        by: *const f32,
        rows: &[f32],
        sums: &Shared<f32>,
        dim: usize,
    ) {
        let s = &self.g.a.shape;
        // SAFETY: the caller's promise.
        unsafe {
            let (b, c) = (rows.as_ptr().add(self.at.row(s) * dim), sums.0.add(self.at.key_row(s, k0) * dim));
            let (b_row, c_row) = (s.heads * dim, s.kv_heads * dim);
            let (m, n, k, start) = (nk, dim, self.at.nq, Start::Add);
            S::tile(&Tile { m, n, k, a: by, a_i: BQ, a_p: 1, b, b_row, c, c_row, start });
        }
    }
}

impl multiply::Backward for Backward<'_> {
    fn scratch(&self) -> usize {
        (self.g.a.shape.dim + self.g.a.shape.v_dim) * BQ
    }

    #[inline(always)]
    unsafe fn begin<S: Simd>(&mut self, at: Block, scratch: &mut [f32]) {
        let (a, s) = (self.g.a, &self.g.a.shape);
        (self.k, self.v) = a.head(self.g.k, self.g.v, at.b, at.h);
        self.at = at;
        let (queries, douts) = scratch.split_at_mut(s.dim * BQ);
        (self.queries, self.douts) = (queries.as_mut_ptr(), douts.as_mut_ptr());
        // SAFETY: `check` compared the lengths with the shape; these rows of dq are this block's.
        unsafe {
            let (q, dout) = (self.g.q.as_ptr().add(at.row(s) * s.dim), self.g.dout.as_ptr().add(at.row(s) * s.v_dim));
            pack::<S>(q, s.heads * s.dim, at.nq, s.dim, self.queries, a.scale);
            pack::<S>(dout, s.heads * s.v_dim, at.nq, s.v_dim, self.douts, 1.0);
            if self.makes != Makes::Keys {
                for i in 0..at.nq {
                    self.g.dq.slice((at.row(s) + i * s.heads) * s.dim, s.dim).fill(0.0);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn scores<S: Simd>(&mut self, k0: usize, nk: usize, st: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            scores::<S>(
                self.k.add(k0 * self.g.a.k.time),
                self.g.a.k.time,
                self.g.a.shape.dim,
                [nk, self.at.nq.next_multiple_of(S::LANES)],
                self.queries,
                st,
            )
        }
    }

    #[inline(always)]
    unsafe fn d_weights<S: Simd>(&mut self, k0: usize, nk: usize, dst: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            scores::<S>(
                self.v.add(k0 * self.g.a.v.time),
                self.g.a.v.time,
                self.g.a.shape.v_dim,
                [nk, self.at.nq.next_multiple_of(S::LANES)],
                self.douts,
                dst,
            )
        }
    }

    #[inline(always)]
    unsafe fn add_dv<S: Simd>(&mut self, k0: usize, nk: usize, weights: *const f32) {
        // SAFETY: the caller's promise.
        unsafe { self.add_to_keys::<S>(k0, nk, weights, self.g.dout, &self.g.dv, self.g.a.shape.v_dim) }
    }

    #[inline(always)]
    unsafe fn add_dk<S: Simd>(&mut self, k0: usize, nk: usize, ds: *const f32) {
        // SAFETY: the caller's promise.
        unsafe { self.add_to_keys::<S>(k0, nk, ds, self.g.q, &self.g.dk, self.g.a.shape.dim) }
    }

    #[inline(always)]
    unsafe fn add_dq<S: Simd>(&mut self, k0: usize, nk: usize, ds: *const f32) {
        let (a, s) = (self.g.a, &self.g.a.shape);
        // SAFETY: the caller's promise.
        unsafe {
            let (b, b_row) = (self.k.add(k0 * a.k.time), a.k.time);
            let (c, c_row) = (self.g.dq.0.add(self.at.row(s) * s.dim), s.heads * s.dim);
            let (m, n, k, start) = (self.at.nq, s.dim, nk, Start::Add);
            S::tile(&Tile { m, n, k, a: ds, a_i: 1, a_p: BQ, b, b_row, c, c_row, start });
        }
    }

    unsafe fn finish<S: Simd>(&mut self) {}
}

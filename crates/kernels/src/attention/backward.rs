//! The tiled backward pass (FlashAttention-2, algorithm 2): probabilities are computed again from the log-sum-exp.
//!
//! Five tile products for each tile of scores. Where there are enough key heads to go round, a task has one to itself
//! and does all five; else one pass over blocks of queries makes `dq` and one over tiles of keys `dk` and `dv`, seven
//! products in all. Both sum in the same order and give the same bits.

use super::Attention;
use super::dropout::Tosses;
use super::tiles::{BK, BQ, Block, Scores, Seen, pack, turn, with_scratch};
use crate::isa::Isa;
use crate::simd::{Kernel, Simd, dispatch};
use crate::threads::{self, Shared};
use crate::tile::{Start, Tile};
use std::ops::Range;

/// The tensors of a backward pass.
#[derive(Clone, Copy)]
pub(super) struct Backward<'a> {
    pub a: &'a Attention<'a>,
    pub dq: Shared<f32>,
    pub dk: Shared<f32>,
    pub dv: Shared<f32>,
    pub dbias: Option<Shared<f32>>,
    pub dout: &'a [f32],
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    pub out: &'a [f32],
    pub lse: &'a [f32],
}

/// What a task makes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Makes {
    All,
    Queries,
    Keys,
}

pub(super) fn run(isa: Isa, g: &Backward) {
    let s = &g.a.shape;
    let work = 4 * s.batch * s.heads * s.time_q * s.keys * (s.dim + s.v_dim);
    let group = s.heads / s.kv_heads;
    // A bias gradient that the batch shares is summed over the batch: one task then takes all sequences.
    let shared = g.dbias.is_some() && g.a.bias_is_shared();
    let (outer, inner) = if shared { (1, s.batch) } else { (s.batch, 1) };
    let task = |b: usize, kv: usize, h: Range<usize>, queries: Range<usize>, keys: Range<usize>, makes| {
        for b in b * inner..(b + 1) * inner {
            let (h, queries, keys) = (h.clone(), queries.clone(), keys.clone());
            with_scratch((s.dim + s.v_dim) * BQ + 3 * BK * BQ, |scratch| {
                dispatch(isa, Task { g, b, kv, h, queries, keys, makes, scratch });
            });
        }
    };
    let heads = outer * s.kv_heads;
    if heads >= threads::threads() || work < threads::INLINE_WORK {
        threads::for_each(heads, work, |i| {
            let (b, kv) = (i / s.kv_heads, i % s.kv_heads);
            task(b, kv, kv * group..(kv + 1) * group, 0..s.time_q, 0..s.keys, Makes::All);
        });
        return;
    }
    let blocks = s.time_q.div_ceil(BQ);
    threads::for_each(outer * s.heads * blocks, work, |i| {
        let (head, q0) = (i / blocks, i % blocks * BQ);
        let (b, h) = (head / s.heads, head % s.heads);
        task(b, h / group, h..h + 1, q0..s.time_q.min(q0 + BQ), 0..s.keys, Makes::Queries);
    });
    let tiles = s.keys.div_ceil(BK);
    threads::for_each(heads * tiles, work, |i| {
        let (head, k0) = (i / tiles, i % tiles * BK);
        let (b, kv) = (head / s.kv_heads, head % s.kv_heads);
        task(b, kv, kv * group..(kv + 1) * group, 0..s.time_q, k0..s.keys.min(k0 + BK), Makes::Keys);
    });
}

struct Task<'a, 'b> {
    g: &'a Backward<'b>,
    b: usize,
    kv: usize,
    h: Range<usize>,
    queries: Range<usize>,
    keys: Range<usize>,
    makes: Makes,
    scratch: &'a mut [f32],
}

impl Kernel for Task<'_, '_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        let s = &self.g.a.shape;
        if self.makes != Makes::Queries {
            for j in self.keys.clone() {
                let row = (self.b * s.keys + j) * s.kv_heads + self.kv;
                // SAFETY: this task alone writes these rows.
                unsafe {
                    self.g.dk.slice(row * s.dim, s.dim).fill(0.0);
                    self.g.dv.slice(row * s.v_dim, s.v_dim).fill(0.0);
                }
            }
        }
        for h in self.h.clone() {
            for q0 in self.queries.clone().step_by(BQ) {
                let at = Block { b: self.b, h, q0, nq: BQ.min(self.queries.end - q0) };
                // SAFETY: `dispatch` found S.
                unsafe { self.block::<S>(at) };
            }
        }
    }
}

impl Task<'_, '_> {
    #[inline(always)]
    unsafe fn block<S: Simd>(&mut self, at: Block) {
        let g = self.g;
        let (a, s) = (g.a, &g.a.shape);
        let (qt, rest) = self.scratch.split_at_mut(s.dim * BQ);
        let (dot, rest) = rest.split_at_mut(s.v_dim * BQ);
        let (st, rest) = rest.split_at_mut(BK * BQ);
        let (slope, dst) = rest.split_at_mut(BK * BQ);
        let lanes = at.nq.next_multiple_of(S::LANES);
        let seen = Seen::new(a, at);
        let tosses = Tosses::new(a, at);
        let keep = a.dropped.map_or(1.0, |dropped| dropped.keep());
        let row = (at.b * s.time_q + at.q0) * s.heads + at.h;
        let (mut lse, mut delta) = ([0f32; BQ], [0f32; BQ]);
        for i in 0..at.nq {
            let row = (row + i * s.heads) * s.v_dim;
            delta[i] = g.dout[row..][..s.v_dim].iter().zip(&g.out[row..][..s.v_dim]).map(|(x, y)| x * y).sum();
            // Of a query that sees nothing every score is minus infinity, and exp(that - 0) is zero.
            let value = g.lse[(at.b * s.heads + at.h) * s.time_q + at.q0 + i];
            lse[i] = if value == f32::NEG_INFINITY { 0.0 } else { value };
        }
        // SAFETY: `check` compared every length with the shape, scratch is as large as `run` asked for, and no other
        // task writes the rows of dq, dk, dv and dbias touched here.
        unsafe {
            let (q, dout) = (g.q.as_ptr().add(row * s.dim), g.dout.as_ptr().add(row * s.v_dim));
            let dq = g.dq.0.add(row * s.dim);
            pack::<S>(q, s.heads * s.dim, at.nq, s.dim, qt.as_mut_ptr(), a.scale);
            pack::<S>(dout, s.heads * s.v_dim, at.nq, s.v_dim, dot.as_mut_ptr(), 1.0);
            if self.makes != Makes::Keys {
                for i in 0..at.nq {
                    g.dq.slice((row + i * s.heads) * s.dim, s.dim).fill(0.0);
                }
            }
            let (k, v) = a.head(g.k, g.v, at.b, at.h);
            let (st, dst, slope) = (st.as_mut_ptr(), dst.as_mut_ptr(), slope.as_mut_ptr());
            for (k0, nk) in seen.tiles(self.keys.clone()) {
                let key_row = (at.b * s.keys + k0) * s.kv_heads + self.kv;
                let scores = Scores { a, at, seen: &seen, k0, nk };
                scores.fill::<S>(k, qt.as_ptr(), st, slope, dst);
                for q in (0..lanes).step_by(S::LANES) {
                    let lse = S::load(lse.as_ptr().add(q));
                    for i in 0..nk {
                        let at = st.add(i * BQ + q);
                        S::store(at, S::exp(S::sub(S::load(at), lse)));
                    }
                }
                let mut left = st;
                if let Some(tosses) = &tosses {
                    // What is dropped is negative from here on; `left` is what is not, as the forward pass had it.
                    tosses.drop::<S>(st, k0, nk, lanes, -1.0);
                    left = dst;
                    for i in (0..nk).filter(|_| self.makes != Makes::Queries) {
                        for q in (0..lanes).step_by(S::LANES) {
                            let p = S::max(S::load(st.add(i * BQ + q)), S::splat(0.0));
                            S::store(dst.add(i * BQ + q), S::mul(p, S::splat(keep)));
                        }
                    }
                }
                // The products below: (rows, columns, depth), then a, b and c with their strides.
                if self.makes != Makes::Queries {
                    let c = g.dv.0.add(key_row * s.v_dim);
                    let (b_row, c_row) = (s.heads * s.v_dim, s.kv_heads * s.v_dim);
                    let (m, n, k) = (nk, s.v_dim, at.nq);
                    S::tile(&Tile { m, n, k, a: left, a_i: BQ, a_p: 1, b: dout, b_row, c, c_row, start: Start::Add });
                }
                let (m, n, depth, b) = (nk, lanes, s.v_dim, dot.as_ptr());
                let (values, a_i) = (v.add(k0 * a.v.time), a.v.time);
                let (b_row, c_row, start) = (BQ, BQ, Start::Zero);
                S::tile(&Tile { m, n, k: depth, a: values, a_i, a_p: 1, b, b_row, c: dst, c_row, start });
                for q in (0..lanes).step_by(S::LANES) {
                    let delta = S::load(delta.as_ptr().add(q));
                    for i in 0..nk {
                        let at = i * BQ + q;
                        let (mut p, mut dp) = (S::load(st.add(at)), S::load(dst.add(at)));
                        if tosses.is_some() {
                            let zero = S::splat(0.0);
                            dp = S::select_lt(p, zero, zero, S::mul(dp, S::splat(keep)));
                            p = S::max(p, S::sub(zero, p));
                        }
                        S::store(dst.add(at), S::mul(p, S::sub(dp, delta)));
                    }
                }
                if let (Some(dbias), true) = (g.dbias, self.makes != Makes::Keys) {
                    add_turned::<S>(dst, nk, at.nq, dbias.0.add(a.bias_row(at.b, at.h, at.q0) + k0), s.keys);
                }
                for q in (0..lanes).step_by(S::LANES) {
                    for i in 0..nk {
                        let at = i * BQ + q;
                        let mut ds = S::mul(S::load(dst.add(at)), S::splat(a.scale));
                        if a.softcap.is_some() {
                            ds = S::mul(ds, S::load(slope.add(at)));
                        }
                        S::store(dst.add(at), ds);
                    }
                }
                if self.makes != Makes::Queries {
                    let c = g.dk.0.add(key_row * s.dim);
                    let (b_row, c_row) = (s.heads * s.dim, s.kv_heads * s.dim);
                    let (m, n, k) = (nk, s.dim, at.nq);
                    S::tile(&Tile { m, n, k, a: dst, a_i: BQ, a_p: 1, b: q, b_row, c, c_row, start: Start::Add });
                }
                if self.makes != Makes::Keys {
                    let (m, n, depth, b, b_row) = (at.nq, s.dim, nk, k.add(k0 * a.k.time), a.k.time);
                    let (c_row, start) = (s.heads * s.dim, Start::Add);
                    S::tile(&Tile { m, n, k: depth, a: dst, a_i: 1, a_p: BQ, b, b_row, c: dq, c_row, start });
                }
            }
        }
    }
}

/// `to[q, j] += from[j, q]`.
#[inline(always)]
unsafe fn add_turned<S: Simd>(from: *const f32, nk: usize, nq: usize, to: *mut f32, to_row: usize) {
    let mut square = [0f32; 256];
    // SAFETY: j < nk, q < nq; a square holds 16 rows of 16.
    unsafe {
        for j in (0..nk).step_by(S::LANES) {
            for q in (0..nq).step_by(S::LANES) {
                let (columns, rows) = (S::LANES.min(nk - j), S::LANES.min(nq - q));
                turn::<S>(from.add(j * BQ + q), BQ, columns, rows, square.as_mut_ptr(), S::LANES);
                for r in 0..rows {
                    let at = to.add((q + r) * to_row + j);
                    let sum = S::add(S::load_n(at, columns), S::load(square.as_ptr().add(r * S::LANES)));
                    S::store_n(at, sum, columns);
                }
            }
        }
    }
}

//! The tiled backward pass (FlashAttention-2, algorithm 2): probabilities are computed again from the log-sum-exp.
//!
//! Five tile products for each tile of scores. Where there are enough key heads to go round, a task has one to itself
//! and does all five; else one pass over blocks of queries makes `dq` and one over tiles of keys `dk` and `dv`, seven
//! products in all. Both sum in the same order and give the same bits.

use super::Attention;
use super::dropout::Tosses;
use super::exact;
use super::multiply::Backward;
use super::tiles::{BK, BQ, Block, Scores, Seen, turn, with_scratch};
use crate::isa::Isa;
use crate::simd::{Kernel, Simd, dispatch};
use crate::threads::{self, Shared};
use std::ops::Range;

/// The tensors of a backward pass.
#[derive(Clone, Copy)]
pub(super) struct Gradient<'a> {
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
pub(super) enum Makes {
    All,
    Queries,
    Keys,
}

/// What a task goes over: queries of some heads of a key head, and keys.
#[derive(Clone)]
pub(super) struct Cut {
    pub b: usize,
    pub kv: usize,
    pub h: Range<usize>,
    pub queries: Range<usize>,
    pub keys: Range<usize>,
    pub makes: Makes,
}

pub(super) fn run(isa: Isa, g: &Gradient) {
    each_cut(g, |cut| {
        let products = exact::Backward::new(g, cut.makes);
        with_scratch(scratch(&products), |scratch| dispatch(isa, Task { g, cut, scratch, products }));
    });
}

/// Whether a task has a key head to itself.
pub(super) fn whole_heads(g: &Gradient) -> bool {
    outer(g) * g.a.shape.kv_heads >= threads::threads() || work(g) < threads::INLINE_WORK
}

/// A bias gradient that the batch shares is summed over the batch: one task then takes all sequences.
fn outer(g: &Gradient) -> usize {
    if g.dbias.is_some() && g.a.bias_is_shared() { 1 } else { g.a.shape.batch }
}

fn work(g: &Gradient) -> usize {
    let s = &g.a.shape;
    4 * s.batch * s.heads * s.time_q * s.keys * (s.dim + s.v_dim)
}

/// Runs `task` over the whole pass, on all threads.
pub(super) fn each_cut(g: &Gradient, task: impl Fn(Cut) + Sync) {
    let (s, work, outer) = (&g.a.shape, work(g), outer(g));
    let (group, inner, heads) = (s.heads / s.kv_heads, s.batch / outer.max(1), outer * s.kv_heads);
    let all = |cut: Cut| {
        for b in cut.b * inner..(cut.b + 1) * inner {
            task(Cut { b, ..cut.clone() });
        }
    };
    if whole_heads(g) {
        threads::for_each(heads, work, |i| {
            let (b, kv, makes) = (i / s.kv_heads, i % s.kv_heads, Makes::All);
            all(Cut { b, kv, h: kv * group..(kv + 1) * group, queries: 0..s.time_q, keys: 0..s.keys, makes });
        });
        return;
    }
    let blocks = s.time_q.div_ceil(BQ);
    threads::for_each(outer * s.heads * blocks, work, |i| {
        let (head, q0) = (i / blocks, i % blocks * BQ);
        let (b, h, makes) = (head / s.heads, head % s.heads, Makes::Queries);
        all(Cut { b, kv: h / group, h: h..h + 1, queries: q0..s.time_q.min(q0 + BQ), keys: 0..s.keys, makes });
    });
    let tiles = s.keys.div_ceil(BK);
    threads::for_each(heads * tiles, work, |i| {
        let (head, k0) = (i / tiles, i % tiles * BK);
        let (b, kv, makes) = (head / s.kv_heads, head % s.kv_heads, Makes::Keys);
        let keys = k0..s.keys.min(k0 + BK);
        all(Cut { b, kv, h: kv * group..(kv + 1) * group, queries: 0..s.time_q, keys, makes });
    });
}

/// Floats of scratch for one task.
pub(super) fn scratch(products: &impl Backward) -> usize {
    3 * BK * BQ + products.scratch()
}

pub(super) struct Task<'a, P> {
    pub g: &'a Gradient<'a>,
    pub cut: Cut,
    pub scratch: &'a mut [f32],
    pub products: P,
}

impl<P: Backward> Kernel for Task<'_, P> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        let (s, cut) = (&self.g.a.shape, self.cut.clone());
        if cut.makes != Makes::Queries {
            for j in cut.keys {
                let row = (cut.b * s.keys + j) * s.kv_heads + cut.kv;
                // SAFETY: this task alone writes these rows.
                unsafe {
                    self.g.dk.slice(row * s.dim, s.dim).fill(0.0);
                    self.g.dv.slice(row * s.v_dim, s.v_dim).fill(0.0);
                }
            }
        }
        for h in cut.h {
            for q0 in cut.queries.clone().step_by(BQ) {
                let at = Block { b: cut.b, h, q0, nq: BQ.min(cut.queries.end - q0) };
                // SAFETY: `dispatch` found S.
                unsafe { self.block::<S>(at) };
            }
        }
    }
}

impl<P: Backward> Task<'_, P> {
    #[inline(always)]
    unsafe fn block<S: Simd>(&mut self, at: Block) {
        let (g, makes) = (self.g, self.cut.makes);
        let (a, s) = (g.a, &g.a.shape);
        let (st, rest) = self.scratch.split_at_mut(BK * BQ);
        let (slope, rest) = rest.split_at_mut(BK * BQ);
        let (dst, rest) = rest.split_at_mut(BK * BQ);
        let (st, dst, slope) = (st.as_mut_ptr(), dst.as_mut_ptr(), slope.as_mut_ptr());
        let products = &mut self.products;
        let lanes = at.nq.next_multiple_of(S::LANES);
        let seen = Seen::new(a, at);
        let tosses = Tosses::new(a, at);
        let keep = a.dropped.map_or(1.0, |dropped| dropped.keep());
        let (mut lse, mut delta) = ([0f32; BQ], [0f32; BQ]);
        for i in 0..at.nq {
            let row = (at.row(s) + i * s.heads) * s.v_dim;
            delta[i] = g.dout[row..][..s.v_dim].iter().zip(&g.out[row..][..s.v_dim]).map(|(x, y)| x * y).sum();
            // Of a query that sees nothing every score is minus infinity, and exp(that - 0) is zero.
            let value = g.lse[(at.b * s.heads + at.h) * s.time_q + at.q0 + i];
            lse[i] = if value == f32::NEG_INFINITY { 0.0 } else { value };
        }
        // SAFETY: `check` compared every length with the shape, scratch is as large as `scratch` says, and no other task
        // writes the rows of dq, dk, dv and dbias touched here.
        unsafe {
            products.begin::<S>(at, rest);
            for (k0, nk) in seen.tiles(self.cut.keys.clone()) {
                products.scores::<S>(k0, nk, st);
                Scores { a, at, seen: &seen, k0, nk }.finish::<S>(st, slope, dst);
                for q in (0..lanes).step_by(S::LANES) {
                    let lse = S::load(lse.as_ptr().add(q));
                    for i in 0..nk {
                        let at = st.add(i * BQ + q);
                        S::store(at, S::exp_falling(S::sub(S::load(at), lse)));
                    }
                }
                let mut left = st;
                if let Some(tosses) = &tosses {
                    // What is dropped is negative from here on; `left` is what is not, as the forward pass had it.
                    tosses.drop::<S>(st, k0, nk, lanes, -1.0);
                    left = dst;
                    for i in (0..nk).filter(|_| makes != Makes::Queries) {
                        for q in (0..lanes).step_by(S::LANES) {
                            let p = S::max(S::load(st.add(i * BQ + q)), S::splat(0.0));
                            S::store(dst.add(i * BQ + q), S::mul(p, S::splat(keep)));
                        }
                    }
                }
                if makes != Makes::Queries {
                    products.add_dv::<S>(k0, nk, left);
                }
                products.d_weights::<S>(k0, nk, dst);
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
                if let (Some(dbias), true) = (g.dbias, makes != Makes::Keys) {
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
                if makes != Makes::Queries {
                    products.add_dk::<S>(k0, nk, dst);
                }
                if makes != Makes::Keys {
                    products.add_dq::<S>(k0, nk, dst);
                }
            }
            if makes != Makes::Keys {
                products.finish::<S>();
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

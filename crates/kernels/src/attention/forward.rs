//! The tiled forward pass: one task for each block of queries of each head, keys streaming by with a running maximum
//! and sum (Milakov and Gimelshein 2018; FlashAttention-2, algorithm 1). Few queries go to `decode` instead.

use super::Attention;
use super::dropout::Tosses;
use super::tiles::{BK, BQ, Block, LOWEST, Scores, Seen, pack, with_scratch};
use crate::isa::Isa;
use crate::simd::{Kernel, Simd, dispatch};
use crate::threads::{self, Shared};
use crate::tile::{Start, Tile};

/// The tensors of a forward pass.
#[derive(Clone, Copy)]
pub(super) struct Forward<'a> {
    pub a: &'a Attention<'a>,
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    pub out: Shared<f32>,
    pub lse: Option<Shared<f32>>,
}

pub(super) fn run(isa: Isa, f: &Forward) {
    let s = &f.a.shape;
    let blocks = s.time_q.div_ceil(BQ);
    let work = s.batch * s.heads * s.time_q * s.keys * (s.dim + s.v_dim);
    threads::for_each(s.batch * s.heads * blocks, work, |task| {
        // The last block first: under a causal mask it has the most to do.
        let q0 = (blocks - 1 - task % blocks) * BQ;
        let head = task / blocks;
        let at = Block { b: head / s.heads, h: head % s.heads, q0, nq: BQ.min(s.time_q - q0) };
        with_scratch(s.dim * BQ + 3 * BK * BQ + BQ * s.v_dim, |scratch| dispatch(isa, Task { f, at, scratch }));
    });
}

struct Task<'a, 'b> {
    f: &'a Forward<'b>,
    at: Block,
    scratch: &'a mut [f32],
}

impl Kernel for Task<'_, '_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Task { f, at, scratch } = self;
        let (a, s) = (f.a, &f.a.shape);
        let (qt, rest) = scratch.split_at_mut(s.dim * BQ);
        let (st, rest) = rest.split_at_mut(BK * BQ);
        let (slope, rest) = rest.split_at_mut(BK * BQ);
        let (spare, sums) = rest.split_at_mut(BK * BQ);
        sums.fill(0.0);
        let (mut max, mut total, mut alpha) = ([LOWEST; BQ], [0f32; BQ], [0f32; BQ]);
        let lanes = at.nq.next_multiple_of(S::LANES);
        let seen = Seen::new(a, at);
        let tosses = Tosses::new(a, at);
        // SAFETY: `check` compared every length with the shape; scratch is as large as `run` asked for.
        unsafe {
            let row = ((at.b * s.time_q + at.q0) * s.heads + at.h) * s.dim;
            pack::<S>(f.q.as_ptr().add(row), s.heads * s.dim, at.nq, s.dim, qt.as_mut_ptr(), a.scale);
            let (k, v) = a.head(f.k, f.v, at.b, at.h);
            for (k0, nk) in seen.tiles(0..s.keys) {
                let scores = Scores { a, at, seen: &seen, k0, nk };
                scores.fill::<S>(k, qt.as_ptr(), st.as_mut_ptr(), slope.as_mut_ptr(), spare.as_mut_ptr());
                for q in (0..lanes).step_by(S::LANES) {
                    let st = st.as_mut_ptr().add(q);
                    let old = S::load(max.as_ptr().add(q));
                    let mut new = old;
                    for i in 0..nk {
                        new = S::max(new, S::load(st.add(i * BQ)));
                    }
                    let mut sum = S::splat(0.0);
                    for i in 0..nk {
                        let p = S::exp(S::sub(S::load(st.add(i * BQ)), new));
                        S::store(st.add(i * BQ), p);
                        sum = S::add(sum, p);
                    }
                    let factor = S::exp(S::sub(old, new));
                    S::store(alpha.as_mut_ptr().add(q), factor);
                    S::store(max.as_mut_ptr().add(q), new);
                    let total = total.as_mut_ptr().add(q);
                    S::store(total, S::fma(S::load(total), factor, sum));
                }
                if let Some(tosses) = &tosses {
                    // The sum is that of all weights, the product is of those that are left.
                    tosses.drop::<S>(st.as_mut_ptr(), k0, nk, lanes, 0.0);
                }
                S::tile(&Tile {
                    m: at.nq,
                    n: s.v_dim,
                    k: nk,
                    a: st.as_ptr(),
                    a_i: 1,
                    a_p: BQ,
                    b: v.add(k0 * a.v.time),
                    b_row: a.v.time,
                    c: sums.as_mut_ptr(),
                    c_row: s.v_dim,
                    start: Start::Scale(alpha.as_ptr()),
                });
            }
            let keep = a.dropped.map_or(1.0, |dropped| dropped.keep());
            for i in 0..at.nq {
                let row = ((at.b * s.time_q + at.q0 + i) * s.heads + at.h) * s.v_dim;
                let out = f.out.slice(row, s.v_dim);
                let factor = if total[i] > 0.0 { keep / total[i] } else { 0.0 };
                for (out, sum) in out.iter_mut().zip(&sums[i * s.v_dim..]) {
                    *out = sum * factor;
                }
                if let Some(lse) = f.lse {
                    let value = if total[i] > 0.0 { max[i] + total[i].ln() } else { f32::NEG_INFINITY };
                    lse.slice((at.b * s.heads + at.h) * s.time_q + at.q0 + i, 1)[0] = value;
                }
            }
        }
    }
}

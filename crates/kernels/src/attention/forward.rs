//! The tiled forward pass: one task for each block of queries of each head, keys streaming by with a running maximum
//! and sum (Milakov and Gimelshein 2018; FlashAttention-2, algorithm 1). Few queries go to `decode` instead.

use super::Attention;
use super::dropout::Tosses;
use super::exact;
use super::layout::Rows;
use super::multiply::Forward;
use super::tiles::{BK, BQ, Block, LOWEST, Scores, Seen, with_scratch};
use crate::isa::Isa;
use crate::simd::{Kernel, Simd, dispatch};
use crate::threads::{self, Shared};

/// The tensors of a forward pass.
#[derive(Clone, Copy)]
pub(super) struct Pass<'a> {
    pub a: &'a Attention<'a>,
    pub q: &'a [f32],
    pub k: Rows<'a>,
    pub v: Rows<'a>,
    pub out: Shared<f32>,
    pub lse: Option<Shared<f32>>,
}

impl Pass<'_> {
    /// Operations, all heads together.
    pub fn work(&self) -> usize {
        let s = &self.a.shape;
        s.batch * s.heads * s.time_q * s.keys * (s.dim + s.v_dim)
    }

    /// Blocks of queries of a head.
    pub fn blocks(&self) -> usize {
        self.a.shape.time_q.div_ceil(BQ)
    }

    /// Block `i` of head `h`, the last first: under a causal mask it has the most to do.
    pub fn block(&self, b: usize, h: usize, i: usize) -> Block {
        let q0 = (self.blocks() - 1 - i) * BQ;
        Block { b, h, q0, nq: BQ.min(self.a.shape.time_q - q0) }
    }
}

pub(super) fn run(isa: Isa, f: &Pass) {
    let (s, blocks) = (&f.a.shape, f.blocks());
    threads::for_each(s.batch * s.heads * blocks, f.work(), |task| {
        let head = task / blocks;
        let at = f.block(head / s.heads, head % s.heads, task % blocks);
        let products = exact::Forward::new(f);
        with_scratch(scratch(&products), |scratch| dispatch(isa, Task { f, at, scratch, products }));
    });
}

/// Floats of scratch for one task.
pub(super) fn scratch(products: &impl Forward) -> usize {
    3 * BK * BQ + products.scratch()
}

/// One block of queries.
pub(super) struct Task<'a, P> {
    pub f: &'a Pass<'a>,
    pub at: Block,
    pub scratch: &'a mut [f32],
    pub products: P,
}

impl<P: Forward> Kernel for Task<'_, P> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Task { f, at, scratch, mut products } = self;
        let (a, s) = (f.a, &f.a.shape);
        let (st, rest) = scratch.split_at_mut(BK * BQ);
        let (slope, rest) = rest.split_at_mut(BK * BQ);
        let (spare, rest) = rest.split_at_mut(BK * BQ);
        let (st, slope, spare) = (st.as_mut_ptr(), slope.as_mut_ptr(), spare.as_mut_ptr());
        let (mut max, mut total, mut alpha) = ([LOWEST; BQ], [0f32; BQ], [0f32; BQ]);
        let lanes = at.nq.next_multiple_of(S::LANES);
        let seen = Seen::new(a, at);
        let tosses = Tosses::new(a, at);
        // SAFETY: `check` compared every length with the shape; scratch is as large as `scratch` says.
        unsafe {
            products.begin::<S>(at, rest);
            for (k0, nk) in seen.tiles(0..s.keys) {
                products.scores::<S>(k0, nk, st);
                Scores { a, at, seen: &seen, k0, nk }.finish::<S>(st, slope, spare);
                for q in (0..lanes).step_by(S::LANES) {
                    let st = st.add(q);
                    let old = S::load(max.as_ptr().add(q));
                    let mut new = old;
                    for i in 0..nk {
                        new = S::max(new, S::load(st.add(i * BQ)));
                    }
                    let mut sum = S::splat(0.0);
                    for i in 0..nk {
                        let p = S::exp_falling(S::sub(S::load(st.add(i * BQ)), new));
                        S::store(st.add(i * BQ), p);
                        sum = S::add(sum, p);
                    }
                    let factor = S::exp_falling(S::sub(old, new));
                    S::store(alpha.as_mut_ptr().add(q), factor);
                    S::store(max.as_mut_ptr().add(q), new);
                    let total = total.as_mut_ptr().add(q);
                    S::store(total, S::fma(S::load(total), factor, sum));
                }
                if let Some(tosses) = &tosses {
                    // The sum is that of all weights, the product is of those that are left.
                    tosses.drop::<S>(st, k0, nk, lanes, 0.0);
                }
                products.add_values::<S>(k0, nk, st, &alpha);
            }
            let keep = a.dropped.map_or(1.0, |dropped| dropped.keep());
            let mut factors = [0f32; BQ];
            for (factor, total) in factors.iter_mut().zip(total) {
                *factor = if total > 0.0 { keep / total } else { 0.0 };
            }
            products.finish::<S>(&factors);
            if let Some(lse) = f.lse {
                let lse = lse.slice((at.b * s.heads + at.h) * s.time_q + at.q0, at.nq);
                for (i, lse) in lse.iter_mut().enumerate() {
                    *lse = if total[i] > 0.0 { max[i] + total[i].ln() } else { f32::NEG_INFINITY };
                }
            }
        }
    }
}

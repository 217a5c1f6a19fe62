//! The product of NF4 with `x` in f32: a block's table is multiplied by its scale, codes are looked up in it, and what is found
//! is multiplied at once. No value of the weight is ever written to memory.

use std::ops::Range;

use crate::product::dot::Dot;
use crate::quant::{Nf4Ref, nf4};
use crate::simd::{Kernel, Simd};
use crate::threads::Shared;

/// Some rows of the weight, columns of `y`.
pub(super) struct Columns<'a, 'b> {
    pub p: &'a Dot<'b>,
    pub w: Nf4Ref<'a>,
    pub y: Shared<f32>,
    pub rows: Range<usize>,
}

impl Kernel for Columns<'_, '_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // As many rows of `x` at once as leave their sums in registers.
        let most = if S::LANES == 16 { 4 } else { 2 };
        for j in self.rows.clone() {
            let mut i = 0;
            while i < self.p.m {
                let rows = most.min(self.p.m - i);
                // SAFETY: `dispatch` found S; row j of the weight and these rows of `x` exist.
                unsafe {
                    match rows {
                        4 => self.block::<S, 4>(i, j),
                        3 => self.block::<S, 3>(i, j),
                        2 => self.block::<S, 2>(i, j),
                        _ => self.block::<S, 1>(i, j),
                    }
                }
                i += rows;
            }
        }
    }
}

impl Columns<'_, '_> {
    /// `R` rows of `x` by row `j` of the weight. Each has four sums, which take turns: its result does not depend on `R`.
    #[inline(always)]
    unsafe fn block<S: Simd, const R: usize>(&self, i: usize, j: usize) {
        const SUMS: usize = 4;
        let Dot { n, k, bias, .. } = *self.p;
        let blocks = k / nf4::BLOCK;
        // SAFETY: the caller's promise; a block is 32 bytes of codes, each 16 of them 32 numbers.
        unsafe {
            let x = self.p.x.as_ptr().add(i * k);
            let codes = self.w.codes().as_ptr().add(j * blocks * nf4::BYTES);
            let mut sums = [[S::splat(0.0); SUMS]; R];
            for block in 0..blocks {
                let codes = codes.add(block * nf4::BYTES);
                S::prefetch(codes.wrapping_add(AHEAD));
                let table = S::table(&nf4::TABLE, self.w.scale(j * blocks + block));
                for half in 0..2 {
                    for at in (0..16).step_by(S::LANES) {
                        let found = S::look_up(table, codes.add(16 * half + at));
                        let turn = (32 * half + 2 * at) / S::LANES % SUMS;
                        for (r, sums) in sums.iter_mut().enumerate() {
                            let x = x.add(r * k + block * nf4::BLOCK + 32 * half + at);
                            sums[turn] = S::fma(S::load(x), found[0], sums[turn]);
                            sums[turn + 1] = S::fma(S::load(x.add(16)), found[1], sums[turn + 1]);
                        }
                    }
                }
            }
            for (r, sums) in sums.into_iter().enumerate() {
                let total = S::sum(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])));
                *self.y.0.add((i + r) * n + j) = total + bias.map_or(0.0, |bias| bias[j]);
            }
        }
    }
}

/// Bytes of codes that are asked for ahead.
const AHEAD: usize = 1024;

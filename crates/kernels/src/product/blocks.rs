//! Products of few rows with quantised weights: bound by reading the blocks, so each row of them is unpacked once for
//! all rows of `x`.
//!
//! Where the machine multiplies bytes (`lanes` with AVX-512 VNNI, `halves` with AVX2), `x` is brought to bytes, with a scale
//! for every 32, and multiplied with the codes as they are. Elsewhere a row of the weight becomes f32 in the first-level
//! cache. The codes of `nf4` are no whole numbers: they are looked up in registers, and `x` stays as it is.
//!
//! Floor: the bytes of the blocks over the read bandwidth. A row's result has the same bits alone and in company.

#[cfg(target_arch = "x86_64")]
pub(super) mod codes;
#[cfg(target_arch = "x86_64")]
mod halves;
#[cfg(target_arch = "x86_64")]
mod lanes;
mod nf4;
#[cfg(target_arch = "x86_64")]
mod widen;

#[cfg(target_arch = "x86_64")]
pub(crate) use widen::to_bf16;
#[cfg(target_arch = "x86_64")]
pub(super) use widen::{STRETCH, rows_to_bf16};

use super::Blocks;
use super::dot::Dot;
use crate::isa::Isa;
use crate::simd::{Kernel, Simd, dispatch};
use crate::threads::{self, Shared};
use std::cell::RefCell;

thread_local! {
    /// A row of the weight in f32.
    static ROW: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// `y[m, n] = x[m, k] · wᵀ + bias` for the weight `w` of `p`, which is `blocks`.
pub(super) fn run(isa: Isa, y: &mut [f32], p: &Dot, blocks: Blocks) {
    if p.m == 0 || p.n == 0 {
        return;
    }
    if p.k == 0 {
        for y in y.chunks_exact_mut(p.n) {
            match p.bias {
                Some(bias) => y.copy_from_slice(bias),
                None => y.fill(0.0),
            }
        }
        return;
    }
    let columns = p.n.div_ceil(4 * threads::threads()).next_multiple_of(8).max(16);
    let work = blocks.bytes().len().max(2 * p.m * p.n * p.k / 16);
    let out = Shared(y.as_mut_ptr());
    let blocks = match blocks {
        Blocks::Gguf(blocks) => blocks,
        Blocks::Nf4(blocks) => {
            return threads::for_each(p.n.div_ceil(columns), work, |task| {
                let rows = task * columns..p.n.min((task + 1) * columns);
                dispatch(isa, nf4::Columns { p, w: blocks, y: out, rows });
            });
        }
    };
    #[cfg(target_arch = "x86_64")]
    if isa.has_int8() {
        // SAFETY: the instruction set is there; rows of blocks are multiples of 32 long.
        let x = unsafe { lanes::Bytes::of(p.x, p.k, blocks.kind()) };
        threads::for_each(p.n.div_ceil(columns), work, |task| {
            let rows = task * columns..p.n.min((task + 1) * columns);
            // SAFETY: the instruction set is there; tasks write different columns.
            unsafe { lanes::run(p, blocks, &x, rows, out) };
        });
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx2 {
        // SAFETY: as above.
        let x = unsafe { halves::bytes_of(p.x, p.k, blocks.kind()) };
        threads::for_each(p.n.div_ceil(columns), work, |task| {
            let rows = task * columns..p.n.min((task + 1) * columns);
            // SAFETY: as above.
            unsafe { halves::run(p, blocks, &x, rows, out) };
        });
        return;
    }
    threads::for_each(p.n.div_ceil(columns), work, |task| {
        ROW.with_borrow_mut(|row| {
            row.resize(p.k, 0.0);
            for j in task * columns..p.n.min((task + 1) * columns) {
                let (kind, bytes) = (blocks.kind(), blocks.bytes());
                let bytes_of = p.k / kind.block() * kind.bytes();
                kind.dequantize(&bytes[j * bytes_of..(j + 1) * bytes_of], row);
                dispatch(isa, Column { p, w: row, y: out, j });
            }
        });
    });
}

/// One column of `y`, from a row of the weight in f32.
struct Column<'a, 'b> {
    p: &'a Dot<'b>,
    w: &'a [f32],
    y: Shared<f32>,
    j: usize,
}

impl Kernel for Column<'_, '_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        const CHAINS: usize = 4;
        let Self { p, w, y, j } = self;
        for (i, x) in p.x.chunks_exact(p.k).enumerate() {
            // SAFETY: rows of blocks are multiples of 32 long, hence of every LANES; column j of row i is ours.
            unsafe {
                let mut sums = [S::splat(0.0); CHAINS];
                for l in (0..p.k).step_by(S::LANES) {
                    let sum = &mut sums[l / S::LANES % CHAINS];
                    *sum = S::fma(S::load(x.as_ptr().add(l)), S::load(w.as_ptr().add(l)), *sum);
                }
                let total = S::sum(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])));
                *y.0.add(i * p.n + j) = total + p.bias.map_or(0.0, |bias| bias[j]);
            }
        }
    }
}

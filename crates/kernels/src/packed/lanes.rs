//! A block of results by AVX-512 BF16: 16 rows, eight at a time, by up to three vectors of columns.

use super::{Block, SIDE, Start, TILE};
use std::arch::x86_64::*;

/// Rows whose sums stand in registers: with three vectors of columns and the factors 28 of 32.
const ROWS: usize = 8;

/// # Safety
/// The machine has AVX-512 BF16, the factors are packed over the block, and nobody else touches its elements.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c,bmi1,bmi2")]
pub(super) unsafe fn run(block: &Block) {
    for row in (0..block.rows).step_by(ROWS) {
        // SAFETY: the caller's promise.
        unsafe {
            match block.columns.div_ceil(SIDE) {
                1 => rows::<1>(block, row),
                2 => rows::<2>(block, row),
                _ => rows::<3>(block, row),
            }
        }
    }
}

/// 32 bits as a pair of bf16, lane by lane.
#[inline(always)]
fn pairs(x: __m512i) -> __m512bh {
    // SAFETY: both are 512 bits of anything.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(x) }
}

#[inline(always)]
unsafe fn rows<const V: usize>(block: &Block, first: usize) {
    let here = ROWS.min(block.rows - first);
    let mask = |v: usize| -> __mmask16 {
        let columns = block.columns - v * SIDE;
        if columns >= SIDE { u16::MAX } else { (1 << columns) - 1 }
    };
    // SAFETY: masked lanes are neither read nor written; packed tiles are whole, whatever rows and columns exist.
    unsafe {
        let c = block.c.add(first * block.c_row);
        let mut sum = [[_mm512_setzero_ps(); V]; ROWS];
        for (i, sums) in sum.iter_mut().enumerate().take(here) {
            for (v, sum) in sums.iter_mut().enumerate() {
                match block.start {
                    Start::Zero => {}
                    Start::Add => *sum = _mm512_maskz_loadu_ps(mask(v), c.add(i * block.c_row + v * SIDE)),
                    Start::Row(row) => *sum = _mm512_maskz_loadu_ps(mask(v), row.as_ptr().add(v * SIDE)),
                }
            }
        }
        for step in 0..block.steps {
            let left = block.left.add(step * TILE + first * SIDE);
            let right = block.right.add(step * TILE);
            for pair in 0..SIDE {
                let mut columns = [_mm512_setzero_si512(); V];
                for (v, column) in columns.iter_mut().enumerate() {
                    *column = _mm512_loadu_si512(right.add(v * block.right_column + pair * SIDE).cast());
                }
                for (i, sums) in sum.iter_mut().enumerate() {
                    let x = _mm512_set1_epi32(*left.add(i * SIDE + pair) as i32);
                    for (sum, column) in sums.iter_mut().zip(columns) {
                        *sum = _mm512_dpbf16_ps(*sum, pairs(x), pairs(column));
                    }
                }
            }
        }
        for (i, sums) in sum.into_iter().enumerate().take(here) {
            for (v, sum) in sums.into_iter().enumerate() {
                _mm512_mask_storeu_ps(c.add(i * block.c_row + v * SIDE), mask(v), sum);
            }
        }
    }
}

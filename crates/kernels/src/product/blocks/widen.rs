//! Quantised blocks as bf16, the factors of products of many rows.

use std::arch::x86_64::*;
use std::ops::Range;

use half::bf16;

use super::codes::{Codes, each_64, row_scales, with_codes, words16};
use crate::product::Blocks;
use crate::quant::{Nf4Ref, nf4};

/// Elements that are brought to bf16 at once: whole blocks of every kind, whose scales stay in the first-level cache.
pub(crate) const STRETCH: usize = 256;
/// Scales of a stretch, at most; whole vectors.
const SCALES: usize = STRETCH / 16;
/// Elements that are written in one piece.
const PIECE: usize = 32;

/// The elements of `blocks`, all of one row, rounded to bf16.
///
/// # Safety
/// The machine has AVX-512 BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c,bmi1,bmi2")]
pub(crate) unsafe fn to_bf16(blocks: Blocks, to: &mut [bf16]) {
    // SAFETY: the caller's promise.
    unsafe {
        match blocks {
            Blocks::Gguf(blocks) => with_codes!(blocks.kind(), row(blocks.bytes(), to)),
            Blocks::Nf4(blocks) => {
                assert!(blocks.len() == to.len(), "{} numbers in NF4 are not {}", blocks.len(), to.len());
                nf4_stretch(blocks, to.as_mut_ptr(), PIECE);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c,bmi1,bmi2")]
unsafe fn row<K: Codes>(blocks: &[u8], to: &mut [bf16]) {
    let k = to.len();
    assert!(blocks.len() / K::BYTES * K::BLOCK == k, "{} bytes of blocks are not {k} elements", blocks.len());
    for from in (0..k).step_by(STRETCH) {
        let (row, k) = (blocks[from / K::BLOCK * K::BYTES..].as_ptr(), STRETCH.min(k - from));
        // SAFETY: the stretch is there, and is written inside `to`.
        unsafe { stretch::<K>(row, k, to[from..].as_mut_ptr(), PIECE) };
    }
}

/// Elements `at`, at most a stretch of them, of some rows of `k`, rounded to bf16: 32 of each row, then the next 32 of each.
/// There is room for `apart` rows. After each row `each` is called.
///
/// # Safety
/// The machine has AVX-512 BF16; rows and room are there; `at` begins and ends with blocks and with 32s.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c,bmi1,bmi2")]
pub(crate) unsafe fn rows_to_bf16(
    blocks: Blocks,
    k: usize,
    rows: Range<usize>,
    at: Range<usize>,
    to: *mut bf16,
    apart: usize,
    each: impl FnMut(),
) {
    // SAFETY: the caller's promise.
    unsafe {
        match blocks {
            Blocks::Gguf(blocks) => with_codes!(blocks.kind(), rows_of(blocks.bytes(), k, rows, at, to, apart, each)),
            Blocks::Nf4(blocks) => nf4_rows(blocks, k, rows, at, to, apart, each),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c,bmi1,bmi2")]
unsafe fn rows_of<K: Codes>(
    blocks: &[u8],
    k: usize,
    rows: Range<usize>,
    at: Range<usize>,
    to: *mut bf16,
    apart: usize,
    mut each: impl FnMut(),
) {
    for (i, row) in rows.enumerate() {
        let row = blocks[(row * k + at.start) / K::BLOCK * K::BYTES..].as_ptr();
        // SAFETY: the caller's promise.
        unsafe { stretch::<K>(row, at.len(), to.add(i * PIECE), apart * PIECE) };
        each();
    }
}

/// `k` elements in pieces of 32, `apart` from one to the next.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c,bmi1,bmi2")]
unsafe fn stretch<K: Codes>(row: *const u8, k: usize, to: *mut bf16, apart: usize) {
    let groups = (k.next_multiple_of(64) / K::GROUP).next_multiple_of(16);
    // Where scales stand beside the codes they are taken from there: nothing then waits for those of a whole row.
    let groups = if K::BESIDE { 0 } else { groups };
    let (mut scales, mut offs) = ([0f32; SCALES], [0f32; SCALES]);
    let (scales, offs) = (&mut scales[..groups], &mut offs[..groups]);
    // SAFETY: the blocks are whole, and what is written lies inside the caller's room.
    unsafe {
        if !K::BESIDE {
            row_scales::<K>(row, k, scales, offs);
            // What is taken off: the minimum and what the code for 0 comes to.
            for (scale, off) in scales.chunks_exact(16).zip(offs.chunks_exact_mut(16)) {
                let at = off.as_mut_ptr();
                let min = if K::MINS { _mm512_loadu_ps(at) } else { _mm512_setzero_ps() };
                let (scale, zero) = (_mm512_loadu_ps(scale.as_ptr()), _mm512_set1_ps(K::ZERO as f32));
                _mm512_storeu_ps(at, _mm512_fmadd_ps(scale, zero, min));
            }
        }
        let (scales, offs) = (scales.as_ptr(), offs.as_ptr());
        if let Some(table) = K::TABLE {
            let table = _mm512_loadu_ps(table.as_ptr());
            for group in 0..k / PIECE {
                let [scale, off] = if K::BESIDE {
                    K::beside(row, group)
                } else {
                    [_mm512_set1_ps(*scales.add(group)), _mm512_set1_ps(*offs.add(group))]
                };
                let values = _mm512_cvtneps_pbh(_mm512_fmsub_ps(table, scale, off));
                let values = _mm512_castsi256_si512(std::mem::transmute::<__m256bh, __m256i>(values));
                let found = _mm512_permutexvar_epi16(K::places(row, group), values);
                _mm512_storeu_si512(to.add(group * apart).cast(), found);
            }
            return;
        }
        each_64!(K, row, k, |i, codes| {
            let quarters = [
                _mm512_extracti32x4_epi32::<0>(codes),
                _mm512_extracti32x4_epi32::<1>(codes),
                _mm512_extracti32x4_epi32::<2>(codes),
                _mm512_extracti32x4_epi32::<3>(codes),
            ];
            let mut values = [_mm512_setzero_ps(); 4];
            let mut both = [_mm512_setzero_ps(); 2];
            for (q, (value, quarter)) in values.iter_mut().zip(quarters).enumerate() {
                let (group, code) = ((64 * i + 16 * q) / K::GROUP, _mm512_cvtepu8_epi32(quarter));
                if !K::BESIDE {
                    both = [_mm512_set1_ps(*scales.add(group)), _mm512_set1_ps(*offs.add(group))];
                } else if q % 2 == 0 && 32 * group < k {
                    both = K::beside(row, group);
                }
                *value = _mm512_fmsub_ps(_mm512_cvtepi32_ps(code), both[0], both[1]);
            }
            let at = to.add(2 * i * apart);
            _mm512_storeu_si512(at.cast(), pairs(values[1], values[0]));
            if 64 * i + 32 < k {
                _mm512_storeu_si512(at.add(apart).cast(), pairs(values[3], values[2]));
            }
        });
    }
}

/// As [`rows_of`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c,bmi1,bmi2")]
unsafe fn nf4_rows(
    blocks: Nf4Ref,
    k: usize,
    rows: Range<usize>,
    at: Range<usize>,
    to: *mut bf16,
    apart: usize,
    mut each: impl FnMut(),
) {
    for (i, row) in rows.enumerate() {
        let here = (row * k + at.start) / nf4::BLOCK..(row * k + at.end) / nf4::BLOCK;
        // SAFETY: the caller's promise.
        unsafe { nf4_stretch(blocks.slice(here), to.add(i * PIECE), apart * PIECE) };
        each();
    }
}

/// As [`stretch`]: the table is brought to bf16 with each scale, and the codes' places are looked up there.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c,bmi1,bmi2")]
unsafe fn nf4_stretch(blocks: Nf4Ref, to: *mut bf16, apart: usize) {
    // SAFETY: a block is 32 bytes of codes for two pieces, which lie inside the caller's room.
    unsafe {
        let table = _mm512_loadu_ps(nf4::TABLE.as_ptr());
        for (block, codes) in blocks.codes().as_chunks::<{ nf4::BYTES }>().0.iter().enumerate() {
            let values = _mm512_cvtneps_pbh(_mm512_mul_ps(table, _mm512_set1_ps(blocks.scale(block))));
            let values = _mm512_castsi256_si512(std::mem::transmute::<__m256bh, __m256i>(values));
            let to = to.add(2 * block * apart);
            _mm512_storeu_si512(to.cast(), _mm512_permutexvar_epi16(words16(codes.as_ptr()), values));
            let second = _mm512_permutexvar_epi16(words16(codes.as_ptr().add(16)), values);
            _mm512_storeu_si512(to.add(apart).cast(), second);
        }
    }
}

/// 32 elements in bf16, the last 16 first.
#[inline(always)]
unsafe fn pairs(high: __m512, low: __m512) -> __m512i {
    // SAFETY: both are 512 bits of anything.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

//! Quantised blocks as bf16, the factors of products of many rows.

use std::arch::x86_64::*;
use std::cell::RefCell;

use half::bf16;

use super::codes::{Codes, each_64, row_scales, with_codes};
use crate::product::Blocks;

thread_local! {
    static SCRATCH: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// The elements of `blocks`, all of one row, rounded to bf16.
///
/// # Safety
/// The machine has AVX-512 BF16.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c,bmi1,bmi2")]
pub(crate) unsafe fn to_bf16(blocks: Blocks, to: &mut [bf16]) {
    SCRATCH.with_borrow_mut(|scratch| {
        // SAFETY: the caller's promise.
        unsafe { with_codes!(blocks.kind(), row(blocks.bytes(), to, scratch)) }
    });
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c,bmi1,bmi2")]
unsafe fn row<K: Codes>(bytes: &[u8], to: &mut [bf16], [scales, mins]: &mut [Vec<f32>; 2]) {
    let k = to.len();
    assert!(bytes.len() / K::BYTES * K::BLOCK == k, "{} bytes of blocks are not {k} elements", bytes.len());
    let groups = (k.next_multiple_of(64) / K::GROUP).next_multiple_of(16);
    scales.resize(groups, 0.0);
    mins.resize(if K::MINS { groups } else { 0 }, 0.0);
    // SAFETY: the blocks are whole, and what is written lies inside `to`.
    unsafe {
        row_scales::<K>(bytes.as_ptr(), k, scales, mins);
        each_64!(K, bytes.as_ptr(), k, |i, codes| {
            let quarters = [
                _mm512_extracti32x4_epi32::<0>(codes),
                _mm512_extracti32x4_epi32::<1>(codes),
                _mm512_extracti32x4_epi32::<2>(codes),
                _mm512_extracti32x4_epi32::<3>(codes),
            ];
            let mut values = [_mm512_setzero_ps(); 4];
            for (q, (value, quarter)) in values.iter_mut().zip(quarters).enumerate() {
                let group = (64 * i + 16 * q) / K::GROUP;
                let scale = scales[group];
                let off = scale * K::ZERO as f32 + if K::MINS { mins[group] } else { 0.0 };
                let code = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(quarter));
                *value = _mm512_fmsub_ps(code, _mm512_set1_ps(scale), _mm512_set1_ps(off));
            }
            let at = to.as_mut_ptr().add(64 * i);
            _mm512_storeu_si512(
                at.cast(),
                std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(values[1], values[0])),
            );
            if 64 * i + 32 < k {
                _mm512_storeu_si512(
                    at.add(32).cast(),
                    std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(values[3], values[2])),
                );
            }
        });
    }
}

//! Blocks of 256, whose groups of 16 or 32 have scales of few bits.

use std::arch::x86_64::*;

use super::*;

#[expect(non_camel_case_types, reason = "the formats' own names")]
pub(in crate::product) struct IQ4_XS;

impl Codes for IQ4_XS {
    const BYTES: usize = 136;
    const BLOCK: usize = 256;
    const ZERO: i32 = 128;
    const TABLE: Option<[f32; 16]> = Some(RAISED_VALUES);

    #[inline(always)]
    unsafe fn places(row: *const u8, group: usize) -> __m512i {
        // SAFETY: the caller's row holds the block.
        unsafe { words16(row.add(group / 8 * Self::BYTES + 8 + 16 * (group % 8))) }
    }

    #[inline(always)]
    unsafe fn scales(block: *const u8, scales: &mut [f32], _: &mut [f32]) {
        // SAFETY: the caller's block is whole.
        unsafe {
            let (scale, high) = (half(block), block.add(2).cast::<u16>().read_unaligned());
            for (i, out) in scales.iter_mut().enumerate().take(8) {
                let low = *block.add(4 + i / 2) >> (4 * (i % 2)) & 15;
                *out = scale * f32::from((u16::from(low) | (high >> (2 * i) & 3) << 4) as i16 - 32);
            }
        }
    }

    #[inline(always)]
    unsafe fn unpack(block: *const u8, i: usize) -> __m512i {
        // SAFETY: as above, and i < 4.
        unsafe { looked_up(nibbles16(block.add(8 + 32 * i), block.add(24 + 32 * i))) }
    }
}

/// The eight scales and minima at the head of a block of Q4_K or Q5_K: one f16 of each, then both in 6 bits.
#[inline(always)]
unsafe fn sixes(block: *const u8, scales: &mut [f32], mins: &mut [f32]) {
    const SIX: u32 = 0x3f3f_3f3f;
    const FOUR: u32 = 0x0f0f_0f0f;
    // SAFETY: the caller's block is whole; both slices hold eight.
    unsafe {
        let (scale, min) = (half(block), half(block.add(2)));
        let word = |i: usize| block.add(4).cast::<u32>().add(i).read_unaligned();
        let (a, b, c) = (word(0), word(1), word(2));
        let whole = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let s = whole(a & SIX, c & FOUR | (a >> 6 & 0x0303_0303) << 4);
        let m = whole(b & SIX, c >> 4 & FOUR | (b >> 6 & 0x0303_0303) << 4);
        let wide = |x: u64| _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(x as i64)));
        _mm256_storeu_ps(scales[..8].as_mut_ptr(), _mm256_mul_ps(wide(s), _mm256_set1_ps(scale)));
        _mm256_storeu_ps(mins[..8].as_mut_ptr(), _mm256_mul_ps(wide(m), _mm256_set1_ps(min)));
    }
}

#[expect(non_camel_case_types, reason = "the formats' own names")]
pub(in crate::product) struct Q4_K;

impl Codes for Q4_K {
    const BYTES: usize = 144;
    const BLOCK: usize = 256;
    const ZERO: i32 = 0;
    const MINS: bool = true;
    const TABLE: Option<[f32; 16]> = Some(FOUR_BITS);

    #[inline(always)]
    unsafe fn places(row: *const u8, group: usize) -> __m512i {
        let (block, pair, high) = (group / 8, group % 8 / 2, group % 2);
        // SAFETY: the caller's row holds the block.
        unsafe {
            let bytes = row.add(block * Self::BYTES + 16 + 32 * pair);
            let words = _mm512_cvtepu8_epi16(_mm256_loadu_si256(bytes.cast()));
            let words = _mm512_srl_epi16(words, _mm_cvtsi32_si128(4 * high as i32));
            _mm512_and_si512(words, _mm512_set1_epi16(15))
        }
    }

    #[inline(always)]
    unsafe fn scales(block: *const u8, scales: &mut [f32], mins: &mut [f32]) {
        // SAFETY: the caller's block is whole.
        unsafe { sixes(block, scales, mins) }
    }

    #[inline(always)]
    unsafe fn unpack(block: *const u8, i: usize) -> __m512i {
        // SAFETY: as above, and i < 4.
        unsafe { nibbles32(block.add(16 + 32 * i)) }
    }
}

#[expect(non_camel_case_types, reason = "the formats' own names")]
pub(in crate::product) struct Q5_K;

impl Codes for Q5_K {
    const BYTES: usize = 176;
    const BLOCK: usize = 256;
    const ZERO: i32 = 0;
    const MINS: bool = true;

    #[inline(always)]
    unsafe fn scales(block: *const u8, scales: &mut [f32], mins: &mut [f32]) {
        // SAFETY: the caller's block is whole.
        unsafe { sixes(block, scales, mins) }
    }

    #[inline(always)]
    unsafe fn unpack(block: *const u8, i: usize) -> __m512i {
        let bit = 2 * i as i64;
        // SAFETY: as above, and i < 4.
        unsafe { with_bits::<4>(nibbles32(block.add(48 + 32 * i)), shifted32(block.add(16), bit, bit + 1), 1) }
    }
}

#[expect(non_camel_case_types, reason = "the formats' own names")]
pub(in crate::product) struct Q6_K;

impl Codes for Q6_K {
    const BYTES: usize = 210;
    const BLOCK: usize = 256;
    const GROUP: usize = 16;
    const ZERO: i32 = 32;

    #[inline(always)]
    unsafe fn scales(block: *const u8, scales: &mut [f32], _: &mut [f32]) {
        // SAFETY: the caller's block is whole; there are sixteen scales.
        unsafe {
            let scale = _mm256_set1_ps(half(block.add(208)));
            for (i, scales) in scales[..16].chunks_exact_mut(8).enumerate() {
                let bytes = _mm_loadl_epi64(block.add(192 + 8 * i).cast());
                let whole = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
                _mm256_storeu_ps(scales.as_mut_ptr(), _mm256_mul_ps(whole, scale));
            }
        }
    }

    #[inline(always)]
    unsafe fn unpack(block: *const u8, i: usize) -> __m512i {
        // 64 bytes hold the low bits of 128 elements: the low nibbles of the first 64, then the high ones.
        let (half, high) = (i / 2, 4 * (i % 2) as i64);
        // SAFETY: as above, and i < 4.
        unsafe {
            let low = _mm512_loadu_si512(block.add(64 * half).cast());
            let low = low4(_mm512_srlv_epi64(low, _mm512_set1_epi64(high)));
            with_bits::<4>(low, shifted32(block.add(128 + 32 * half), high, high + 2), 3)
        }
    }
}

#[expect(non_camel_case_types, reason = "the formats' own names")]
pub(in crate::product) struct Q2_K;

impl Codes for Q2_K {
    const BYTES: usize = 84;
    const BLOCK: usize = 256;
    const GROUP: usize = 16;
    const ZERO: i32 = 0;
    const MINS: bool = true;

    #[inline(always)]
    unsafe fn scales(block: *const u8, scales: &mut [f32], mins: &mut [f32]) {
        // SAFETY: the caller's block is whole; there are sixteen of each.
        unsafe {
            let (scale, min) = (_mm256_set1_ps(half(block.add(80))), _mm256_set1_ps(half(block.add(82))));
            for (i, (scales, mins)) in scales[..16].chunks_exact_mut(8).zip(mins.chunks_exact_mut(8)).enumerate() {
                let both = _mm256_cvtepu8_epi32(_mm_loadl_epi64(block.add(8 * i).cast()));
                let (low, high) = (_mm256_and_si256(both, _mm256_set1_epi32(15)), _mm256_srli_epi32::<4>(both));
                _mm256_storeu_ps(scales.as_mut_ptr(), _mm256_mul_ps(_mm256_cvtepi32_ps(low), scale));
                _mm256_storeu_ps(mins.as_mut_ptr(), _mm256_mul_ps(_mm256_cvtepi32_ps(high), min));
            }
        }
    }

    #[inline(always)]
    unsafe fn unpack(block: *const u8, i: usize) -> __m512i {
        let shift = 4 * (i % 2) as i64;
        // SAFETY: as above, and i < 4.
        unsafe {
            let bits = shifted32(block.add(16 + 32 * (i / 2)), shift, shift + 2);
            _mm512_and_si512(bits, _mm512_set1_epi8(3))
        }
    }
}

#[expect(non_camel_case_types, reason = "the formats' own names")]
pub(in crate::product) struct Q3_K;

impl Codes for Q3_K {
    const BYTES: usize = 110;
    const BLOCK: usize = 256;
    const GROUP: usize = 16;
    const ZERO: i32 = 4;

    #[inline(always)]
    unsafe fn scales(block: *const u8, scales: &mut [f32], _: &mut [f32]) {
        // SAFETY: the caller's block is whole; there are sixteen scales.
        unsafe {
            let scale = half(block.add(108));
            let packed = block.add(96);
            for (i, out) in scales.iter_mut().enumerate().take(16) {
                let low = *packed.add(i % 8) >> (4 * (i / 8)) & 15;
                let high = *packed.add(8 + i % 4) >> (2 * (i / 4)) & 3;
                *out = scale * f32::from((low | high << 4) as i8 - 32);
            }
        }
    }

    #[inline(always)]
    unsafe fn unpack(block: *const u8, i: usize) -> __m512i {
        let (shift, bit) = (4 * (i % 2) as i64, 2 * i as i64);
        // SAFETY: as above, and i < 4.
        unsafe {
            let low = shifted32(block.add(32 + 32 * (i / 2)), shift, shift + 2);
            let low = _mm512_and_si512(low, _mm512_set1_epi8(3));
            with_bits::<2>(low, shifted32(block, bit, bit + 1), 1)
        }
    }
}

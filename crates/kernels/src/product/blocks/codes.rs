//! Codes of quantised blocks as unsigned bytes, 64 at a time, and the numbers that turn them into weights.
//!
//! A weight is `scale · (code - ZERO) - min`. AVX-512, but for the scales of one block; the formats
//! themselves are described in `crate::quant`.

mod large;

use std::arch::x86_64::*;

use crate::quant::iq4;
pub(in crate::product) use large::{IQ4_XS, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};

/// A kind of blocks.
pub(in crate::product) trait Codes {
    /// Bytes of a block.
    const BYTES: usize;
    /// Elements of a block.
    const BLOCK: usize;
    /// Elements that share a scale: 16 or 32.
    const GROUP: usize = 32;
    /// The code that means 0, where there is no minimum.
    const ZERO: i32;
    /// Whether there are minima.
    const MINS: bool = false;

    /// The scales of `blocks` blocks of a row, and their minima if they have any, for each group; the slices hold whole
    /// vectors of 16, which may be overwritten.
    #[inline(always)]
    unsafe fn row_scales(row: *const u8, blocks: usize, scales: &mut [f32], mins: &mut [f32]) {
        let each = Self::BLOCK / Self::GROUP;
        for b in 0..blocks {
            // SAFETY: the caller's row holds so many blocks.
            unsafe {
                let mins = if Self::MINS { &mut mins[b * each..][..each] } else { &mut mins[..0] };
                Self::scales(row.add(b * Self::BYTES), &mut scales[b * each..][..each], mins);
            }
        }
    }

    /// The scales of a block, and its minima if it has any, for each group; with AVX2 alone.
    unsafe fn scales(block: *const u8, scales: &mut [f32], mins: &mut [f32]);

    /// The codes' values by their four bits, where codes are looked up in the table of those. A table for each group is made
    /// in fewer steps than its codes are converted.
    const TABLE: Option<[f32; 16]> = None;

    /// Of a row with such a table, the places in it of group `group`, as words.
    #[inline(always)]
    unsafe fn places(_row: *const u8, _group: usize) -> __m512i {
        // SAFETY: AVX-512 is there.
        unsafe { _mm512_setzero_si512() }
    }

    /// Whether a group has its scale, and its minimum if it has any, beside it: [`Codes::beside`].
    const BESIDE: bool = false;

    /// The scale of group `group` of such a row in all lanes, and what is taken off its codes' products with it: the minimum
    /// and what the code for 0 comes to.
    #[inline(always)]
    unsafe fn beside(_row: *const u8, _group: usize) -> [__m512; 2] {
        // SAFETY: AVX-512 is there.
        unsafe { [_mm512_setzero_ps(); 2] }
    }

    /// The scales of such a row's groups `2 i` and, unless the row ends before it, `2 i + 1`: eight lanes each.
    #[inline(always)]
    unsafe fn two_beside(row: *const u8, i: usize, ends: bool) -> __m512 {
        // SAFETY: the caller's row holds the blocks, which begin with their scales.
        unsafe {
            let scale = |group: usize| row.add(group * Self::BYTES).cast::<i16>().read_unaligned();
            let first = _mm256_maskz_set1_epi16(0x00FF, scale(2 * i));
            _mm512_cvtph_ps(if ends { first } else { _mm256_mask_set1_epi16(first, 0xFF00, scale(2 * i + 1)) })
        }
    }

    /// 64 codes in the order of their elements: those from `64 i` on of the block, or of two neighbouring blocks of 32.
    unsafe fn unpack(block: *const u8, i: usize) -> __m512i;
}

#[inline(always)]
unsafe fn half(p: *const u8) -> f32 {
    // SAFETY: the caller's pointer is good for two bytes; F16C comes with AVX-512. All lanes get it: an insertion into one
    // would wait for what the register held.
    unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_set1_epi16(p.cast::<i16>().read_unaligned()))) }
}

/// The same in all lanes of a wide vector.
#[inline(always)]
unsafe fn halves(p: *const u8) -> __m512 {
    // SAFETY: the caller's pointer is good for two bytes.
    unsafe { _mm512_cvtph_ps(_mm256_set1_epi16(p.cast::<i16>().read_unaligned())) }
}

/// Two times 16 bytes of nibbles: the low ones of the first, its high ones, then the second's.
#[inline(always)]
unsafe fn nibbles16(a: *const u8, b: *const u8) -> __m512i {
    // SAFETY: the caller's pointers are good for 16 bytes.
    unsafe {
        let a = _mm256_broadcastsi128_si256(_mm_loadu_si128(a.cast()));
        let b = _mm256_broadcastsi128_si256(_mm_loadu_si128(b.cast()));
        let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b);
        low4(_mm512_srlv_epi64(both, _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0)))
    }
}

/// 16 bytes of nibbles as words: the low ones, then the high ones.
#[inline(always)]
pub(super) unsafe fn words16(p: *const u8) -> __m512i {
    // SAFETY: the caller's pointer is good for 16 bytes.
    unsafe {
        let low = _mm256_cvtepu8_epi16(_mm_loadu_si128(p.cast()));
        let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), _mm256_srli_epi16::<4>(low));
        _mm512_and_si512(both, _mm512_set1_epi16(15))
    }
}

/// 32 bytes of nibbles: the low ones, then the high ones.
#[inline(always)]
unsafe fn nibbles32(p: *const u8) -> __m512i {
    // SAFETY: the caller's pointer is good for 32 bytes.
    unsafe { low4(shifted32(p, 0, 4)) }
}

/// 32 bytes shifted right by `low` bits, then the same by `high`.
#[inline(always)]
unsafe fn shifted32(p: *const u8, low: i64, high: i64) -> __m512i {
    // SAFETY: the caller's pointer is good for 32 bytes.
    unsafe {
        let both = _mm512_broadcast_i64x4(_mm256_loadu_si256(p.cast()));
        _mm512_srlv_epi64(both, _mm512_set_epi64(high, high, high, high, low, low, low, low))
    }
}

#[inline(always)]
unsafe fn low4(x: __m512i) -> __m512i {
    // SAFETY: AVX-512 is there.
    unsafe { _mm512_and_si512(x, _mm512_set1_epi8(15)) }
}

/// Bits `bits` of `x`, moved up by `up`, added to codes that lack them.
#[inline(always)]
unsafe fn with_bits<const UP: u32>(codes: __m512i, x: __m512i, bits: i8) -> __m512i {
    // SAFETY: AVX-512 is there. Bits moved beyond a byte's end are masked away before.
    unsafe { _mm512_or_si512(codes, _mm512_slli_epi64::<UP>(_mm512_and_si512(x, _mm512_set1_epi8(bits)))) }
}

/// 32 bits of each of two blocks as bytes of 16 or 0.
#[inline(always)]
unsafe fn fifths(a: *const u8, b: *const u8) -> __m512i {
    // SAFETY: the caller's pointers are good for 4 bytes.
    unsafe {
        let (a, b) = (a.cast::<u32>().read_unaligned(), b.cast::<u32>().read_unaligned());
        _mm512_maskz_set1_epi8(u64::from(a) | u64::from(b) << 32, 16)
    }
}

/// The scales, and perhaps minima, at the heads of blocks of `BYTES`: sixteen at a time.
#[inline(always)]
unsafe fn heads<const BYTES: i32, const MINS: bool>(
    row: *const u8,
    blocks: usize,
    scales: &mut [f32],
    mins: &mut [f32],
) {
    // SAFETY: the caller's row holds so many blocks, each of more than four bytes; the slices hold whole vectors.
    unsafe {
        let places = _mm512_mullo_epi32(
            _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
            _mm512_set1_epi32(BYTES),
        );
        for b in (0..blocks).step_by(16) {
            let mask = if blocks - b >= 16 { u16::MAX } else { (1 << (blocks - b)) - 1 };
            let row = row.add(b * BYTES as usize).cast::<i32>();
            let heads = _mm512_mask_i32gather_epi32::<1>(_mm512_setzero_si512(), mask, places, row);
            let scale = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(heads));
            _mm512_storeu_ps(scales[b..][..16].as_mut_ptr(), scale);
            if MINS {
                // Theirs is added, ours is taken off.
                let min = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(heads)));
                _mm512_storeu_ps(mins[b..][..16].as_mut_ptr(), _mm512_sub_ps(_mm512_setzero_ps(), min));
            }
        }
    }
}

/// Blocks of 32 with a scale, and perhaps a minimum, before the codes.
macro_rules! small {
    ($(#[$meta:meta])* $name:ident, $bytes:literal, zero $zero:literal, mins $mins:literal,
        |$block:ident| $unpack:expr $(, table $table:expr, at $at:literal)?) => {
        $(#[$meta])*
        pub(in crate::product) struct $name;

        impl Codes for $name {
            const BYTES: usize = $bytes;
            const BLOCK: usize = 32;
            const ZERO: i32 = $zero;
            const MINS: bool = $mins;
            $(
                const TABLE: Option<[f32; 16]> = Some($table);

                #[inline(always)]
                unsafe fn places(row: *const u8, group: usize) -> __m512i {
                    // SAFETY: the caller's row holds the block, whose last 16 bytes are its codes.
                    unsafe { words16(row.add(group * $bytes + $at)) }
                }
            )?

            const BESIDE: bool = true;

            #[inline(always)]
            unsafe fn beside(row: *const u8, group: usize) -> [__m512; 2] {
                // SAFETY: the caller's row holds the block.
                unsafe {
                    let scale = halves(row.add(group * $bytes));
                    // Theirs is added, ours is taken off.
                    let min = if $mins { halves(row.add(group * $bytes + 2)) } else { _mm512_setzero_ps() };
                    let min = _mm512_sub_ps(_mm512_setzero_ps(), min);
                    [scale, _mm512_fmadd_ps(scale, _mm512_set1_ps($zero as f32), min)]
                }
            }

            #[inline(always)]
            unsafe fn row_scales(row: *const u8, blocks: usize, scales: &mut [f32], mins: &mut [f32]) {
                // SAFETY: the caller's row holds so many blocks, the slices whole vectors.
                unsafe { heads::<$bytes, $mins>(row, blocks, scales, mins) }
            }

            #[inline(always)]
            unsafe fn scales(block: *const u8, scales: &mut [f32], mins: &mut [f32]) {
                // SAFETY: the caller's block is whole.
                unsafe {
                    scales[0] = half(block);
                    if $mins {
                        // Theirs is added, ours is taken off.
                        mins[0] = -half(block.add(2));
                    }
                }
            }

            #[inline(always)]
            unsafe fn unpack($block: *const u8, _: usize) -> __m512i {
                // SAFETY: the caller's two blocks are whole.
                unsafe { $unpack }
            }
        }
    };
}

small!(Q4_0, 18, zero 8, mins false, |block| nibbles16(block.add(2), block.add(20)), table FOUR_BITS, at 2);
small!(Q4_1, 20, zero 0, mins true, |block| nibbles16(block.add(4), block.add(24)), table FOUR_BITS, at 4);
small!(Q5_0, 22, zero 16, mins false, |block| {
    _mm512_or_si512(nibbles16(block.add(6), block.add(28)), fifths(block.add(2), block.add(24)))
});
small!(Q5_1, 24, zero 0, mins true, |block| {
    _mm512_or_si512(nibbles16(block.add(8), block.add(32)), fifths(block.add(4), block.add(28)))
});
small!(Q8_0, 34, zero 128, mins false, |block| {
    let first = _mm512_castsi256_si512(_mm256_loadu_si256(block.add(2).cast()));
    let both = _mm512_inserti64x4::<1>(first, _mm256_loadu_si256(block.add(36).cast()));
    _mm512_xor_si512(both, _mm512_set1_epi8(-128))
});
small!(
    #[expect(non_camel_case_types, reason = "the format's own name")]
    IQ4_NL, 18, zero 128, mins false, |block| looked_up(nibbles16(block.add(2), block.add(20))),
    table RAISED_VALUES, at 2
);

/// Codes of four bits that stand for themselves.
const FOUR_BITS: [f32; 16] = values([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);

/// The values that other codes of four bits stand for, raised by 128.
const RAISED: [u8; 16] = {
    let (mut raised, mut i) = ([0; 16], 0);
    while i < 16 {
        raised[i] = iq4::TABLE[i] as u8 ^ 128;
        i += 1;
    }
    raised
};
const RAISED_VALUES: [f32; 16] = values(RAISED);

const fn values(codes: [u8; 16]) -> [f32; 16] {
    let (mut values, mut i) = ([0.0; 16], 0);
    while i < 16 {
        values[i] = codes[i] as f32;
        i += 1;
    }
    values
}

/// Those values of codes of 4 bits.
#[inline(always)]
unsafe fn looked_up(codes: __m512i) -> __m512i {
    // SAFETY: AVX-512 is there.
    unsafe { _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(RAISED.as_ptr().cast())), codes) }
}

/// Calls `$f::<K>` with the codes of a kind.
macro_rules! with_codes {
    ($kind:expr, $f:ident($($arg:expr),*)) => {{
        use $crate::product::blocks::codes;
        use $crate::quant::Quant;
        match $kind {
            Quant::Q4_0 => $f::<codes::Q4_0>($($arg),*),
            Quant::Q4_1 => $f::<codes::Q4_1>($($arg),*),
            Quant::Q5_0 => $f::<codes::Q5_0>($($arg),*),
            Quant::Q5_1 => $f::<codes::Q5_1>($($arg),*),
            Quant::Q8_0 => $f::<codes::Q8_0>($($arg),*),
            Quant::Q2_K => $f::<codes::Q2_K>($($arg),*),
            Quant::Q3_K => $f::<codes::Q3_K>($($arg),*),
            Quant::Q4_K => $f::<codes::Q4_K>($($arg),*),
            Quant::Q5_K => $f::<codes::Q5_K>($($arg),*),
            Quant::Q6_K => $f::<codes::Q6_K>($($arg),*),
            Quant::IQ4_NL => $f::<codes::IQ4_NL>($($arg),*),
            Quant::IQ4_XS => $f::<codes::IQ4_XS>($($arg),*),
        }
    }};
}
pub(in crate::product) use with_codes;

/// The scales (and minima) of a row of `k` elements, and zeros up to the end of the slices, which hold whole vectors of 16.
#[inline(always)]
pub(in crate::product) unsafe fn row_scales<K: Codes>(row: *const u8, k: usize, scales: &mut [f32], mins: &mut [f32]) {
    let (blocks, groups) = (k / K::BLOCK, k / K::GROUP);
    // SAFETY: the caller's row holds so many blocks.
    unsafe { K::row_scales(row, blocks, scales, mins) };
    scales[groups..].fill(0.0);
    if K::MINS {
        mins[groups..].fill(0.0);
    }
}

/// Calls `f(i, codes)` for each 64 elements of a row; a last 32 come with 32 more whose scale is 0.
///
/// A macro, since a closure would be compiled without the instruction set.
macro_rules! each_64 {
    ($K:ident, $row:expr, $k:expr, |$i:ident, $codes:ident| $body:block) => {{
        let (row, k): (*const u8, usize) = ($row, $k);
        let whole = k / 64;
        for $i in 0..whole {
            let (block, part) = (64 * $i / $K::BLOCK, 64 * $i % $K::BLOCK / 64);
            let $codes = $K::unpack(row.add(block * $K::BYTES), part);
            $body
        }
        if k % 64 != 0 {
            let mut pair = [0u8; 68];
            row.add((k / 32 - 1) * $K::BYTES).copy_to_nonoverlapping(pair.as_mut_ptr(), $K::BYTES.min(34));
            let $i = whole;
            let $codes = $K::unpack(pair.as_ptr(), 0);
            $body
        }
    }};
}
pub(in crate::product) use each_64;

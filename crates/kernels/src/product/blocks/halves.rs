//! The product of codes with bytes of `x` by AVX2, 32 at a time: what `lanes` does, for machines that multiply bytes only in
//! pairs, into 16 bits. Codes beyond 7 bits would overflow those, so their signs change sides first.

use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;

use super::codes::{self, Codes, with_codes};
use super::lanes::{AHEAD, Bytes};
use crate::product::Gguf;
use crate::product::dot::Dot;
use crate::quant::{Quant, iq4};
use crate::threads::Shared;

/// Codes for AVX2.
trait Half: Codes {
    /// 32 codes in the order of their elements: those from `32 i` on of the block.
    unsafe fn unpack_32(block: *const u8, i: usize) -> __m256i;
}

macro_rules! halves {
    ($($name:ident |$block:ident, $i:ident| $unpack:expr;)*) => {$(
        impl Half for codes::$name {
            #[inline(always)]
            unsafe fn unpack_32($block: *const u8, $i: usize) -> __m256i {
                let _ = $i;
                // SAFETY: the caller's block is whole.
                unsafe { $unpack }
            }
        }
    )*};
}

halves! {
    Q4_0 |block, i| nibbles(block.add(2));
    Q4_1 |block, i| nibbles(block.add(4));
    Q5_0 |block, i| _mm256_or_si256(nibbles(block.add(6)), fifths(block.add(2)));
    Q5_1 |block, i| _mm256_or_si256(nibbles(block.add(8)), fifths(block.add(4)));
    Q8_0 |block, i| _mm256_xor_si256(_mm256_loadu_si256(block.add(2).cast()), _mm256_set1_epi8(-128));
    IQ4_NL |block, i| looked_up(nibbles(block.add(2)));
    IQ4_XS |block, i| looked_up(nibbles(block.add(8 + 16 * i)));
    Q4_K |block, i| bits(block.add(16 + 32 * (i / 2)), 4 * (i % 2), 15);
    Q5_K |block, i| {
        let low = bits(block.add(48 + 32 * (i / 2)), 4 * (i % 2), 15);
        _mm256_or_si256(low, _mm256_slli_epi64::<4>(bits(block.add(16), i, 1)))
    };
    Q6_K |block, i| {
        let (half, i) = (i / 4, i % 4);
        let low = bits(block.add(64 * half + 32 * (i % 2)), 4 * (i / 2), 15);
        _mm256_or_si256(low, _mm256_slli_epi64::<4>(bits(block.add(128 + 32 * half), 2 * i, 3)))
    };
    Q2_K |block, i| bits(block.add(16 + 32 * (i / 4)), 2 * (i % 4), 3);
    Q3_K |block, i| {
        let low = bits(block.add(32 + 32 * (i / 4)), 2 * (i % 4), 3);
        _mm256_or_si256(low, _mm256_slli_epi64::<2>(bits(block, i, 1)))
    };
}

/// 16 bytes of nibbles: the low ones, then the high ones.
#[inline(always)]
unsafe fn nibbles(p: *const u8) -> __m256i {
    // SAFETY: the caller's pointer is good for 16 bytes.
    unsafe {
        let both = _mm_loadu_si128(p.cast());
        _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi64::<4>(both), both), _mm256_set1_epi8(15))
    }
}

/// 32 bytes shifted right, and of them some bits.
#[inline(always)]
unsafe fn bits(p: *const u8, shift: usize, mask: i8) -> __m256i {
    // SAFETY: the caller's pointer is good for 32 bytes.
    unsafe {
        let shifted = _mm256_srl_epi64(_mm256_loadu_si256(p.cast()), _mm_cvtsi32_si128(shift as i32));
        _mm256_and_si256(shifted, _mm256_set1_epi8(mask))
    }
}

/// 32 bits as bytes of 16 or 0.
#[inline(always)]
unsafe fn fifths(p: *const u8) -> __m256i {
    const EACH: i64 = 0x8040_2010_0804_0201_u64 as i64;
    // SAFETY: the caller's pointer is good for 4 bytes.
    unsafe {
        let all = _mm256_set1_epi32(p.cast::<i32>().read_unaligned());
        let byte = |i: i64| i * 0x0101_0101_0101_0101;
        let spread = _mm256_shuffle_epi8(all, _mm256_set_epi64x(byte(3), byte(2), byte(1), byte(0)));
        let mine = _mm256_set1_epi64x(EACH);
        let set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, mine), mine);
        _mm256_and_si256(set, _mm256_set1_epi8(16))
    }
}

/// The values that codes of 4 bits stand for, raised by 128.
#[inline(always)]
unsafe fn looked_up(codes: __m256i) -> __m256i {
    // SAFETY: AVX2 is there; the table holds 16 bytes.
    unsafe {
        let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(iq4::TABLE.as_ptr().cast()));
        _mm256_xor_si256(_mm256_shuffle_epi8(table, codes), _mm256_set1_epi8(-128))
    }
}

/// Rows of `x` in bytes, as [`Bytes::of`] has them but for rows that are not finite.
///
/// # Safety
/// The machine has AVX2; rows are multiples of 32 long.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn bytes_of(x: &[f32], k: usize, kind: Quant) -> Bytes {
    let mut to = Bytes::room(x.len() / k, k, kind);
    for (row, x) in x.chunks_exact(k).enumerate() {
        for (i, x) in x.chunks_exact(32).enumerate() {
            let largest = x.iter().fold(0f32, |most, x| most.max(x.abs()));
            let scale = if x.iter().any(|x| x.is_nan()) { f32::NAN } else { largest / 127.0 };
            let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            let mut bytes = [0i8; 32];
            for (byte, x) in bytes.iter_mut().zip(x) {
                *byte = (x * inverse).round_ties_even() as i8;
            }
            to.set(row, i, &bytes, scale);
        }
    }
    to
}

thread_local! {
    /// Scales and minima of a row of the weight.
    static SCALES: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// Rows of `x` for which a row of the weight is unpacked at once.
const ROWS: usize = 4;

/// Columns `columns` of `y`.
///
/// # Safety
/// The machine has AVX2; nobody else writes these columns.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run(p: &Dot, blocks: Gguf, x: &Bytes, columns: Range<usize>, y: Shared<f32>) {
    SCALES.with_borrow_mut(|scales| {
        // SAFETY: the caller's promise.
        unsafe { with_codes!(blocks.kind(), of_kind(p, blocks, x, columns, y, scales)) }
    });
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn of_kind<K: Half>(
    p: &Dot,
    blocks: Gguf,
    x: &Bytes,
    columns: Range<usize>,
    y: Shared<f32>,
    [scales, mins]: &mut [Vec<f32>; 2],
) {
    let (groups, each, blocks_of_row) = (p.k / K::GROUP, K::BLOCK / K::GROUP, p.k / K::BLOCK);
    scales.resize(groups, 0.0);
    mins.resize(if K::MINS { groups } else { 0 }, 0.0);
    let row_bytes = blocks_of_row * K::BYTES;
    for j in columns {
        let row = blocks.bytes()[j * row_bytes..].as_ptr();
        // SAFETY: the row is whole; `y` holds m rows of n. What is asked for ahead may be any address.
        unsafe {
            for line in (0..row_bytes).step_by(64) {
                _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(AHEAD + line).cast());
            }
            for b in 0..blocks_of_row {
                let mins = if K::MINS { &mut mins[b * each..][..each] } else { &mut mins[..0] };
                K::scales(row.add(b * K::BYTES), &mut scales[b * each..][..each], mins);
            }
            for first in (0..p.m).step_by(ROWS) {
                let few = Few { x, first, scales, mins, k: p.k };
                let y = y.0.add(first * p.n + j);
                let bias = p.bias.map_or(0.0, |bias| bias[j]);
                match p.m - first {
                    1 => few.dots::<K, 1>(row, y, p.n, bias),
                    2 => few.dots::<K, 2>(row, y, p.n, bias),
                    3 => few.dots::<K, 3>(row, y, p.n, bias),
                    _ => few.dots::<K, ROWS>(row, y, p.n, bias),
                }
            }
        }
    }
}

/// Some rows of `x`, and the scales of one row of the weight.
struct Few<'a> {
    x: &'a Bytes,
    first: usize,
    scales: &'a [f32],
    mins: &'a [f32],
    k: usize,
}

impl Few<'_> {
    #[inline(always)]
    unsafe fn dots<K: Half, const R: usize>(&self, row: *const u8, y: *mut f32, n: usize, bias: f32) {
        let Self { x, first, scales, mins, k } = *self;
        // SAFETY: the row is k codes, of x there are as many bytes, and of either a scale for each group.
        unsafe {
            let mut sum = [_mm256_setzero_ps(); R];
            for i in 0..k / 32 {
                let codes = K::unpack_32(row.add(32 * i / K::BLOCK * K::BYTES), 32 * i % K::BLOCK / 32);
                let ours = if K::GROUP == 32 {
                    _mm256_set1_ps(scales[i])
                } else {
                    _mm256_set_m128(_mm_set1_ps(scales[2 * i + 1]), _mm_set1_ps(scales[2 * i]))
                };
                for (r, sum) in sum.iter_mut().enumerate() {
                    let at = (first + r) * x.padded + 32 * i;
                    let bytes = _mm256_loadu_si256(x.bytes.as_ptr().add(at).cast());
                    let fours = if K::ZERO >= 64 {
                        let signed = _mm256_sub_epi8(codes, _mm256_set1_epi8(K::ZERO as i8));
                        pairs(_mm256_abs_epi8(signed), _mm256_sign_epi8(bytes, signed))
                    } else if K::ZERO == 0 {
                        pairs(codes, bytes)
                    } else {
                        let start = _mm256_loadu_si256(x.starts.as_ptr().add(at / 4).cast());
                        _mm256_add_epi32(start, pairs(codes, bytes))
                    };
                    let scale = _mm256_mul_ps(ours, _mm256_set1_ps(x.scales[at / 32]));
                    *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(fours), scale, *sum);
                }
            }
            for (r, sum) in sum.into_iter().enumerate() {
                let halves = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps::<1>(sum));
                let pair = _mm_add_ps(halves, _mm_movehl_ps(halves, halves));
                let mut total = _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
                if K::MINS {
                    let sums = &x.sums[(first + r) * x.padded / K::GROUP..];
                    total -= mins.iter().zip(sums).map(|(min, sum)| min * sum).sum::<f32>();
                }
                *y.add(r * n) = total + bias;
            }
        }
    }
}

/// The sums of four products each.
#[inline(always)]
unsafe fn pairs(codes: __m256i, bytes: __m256i) -> __m256i {
    // SAFETY: AVX2 is there.
    unsafe { _mm256_madd_epi16(_mm256_maddubs_epi16(codes, bytes), _mm256_set1_epi16(1)) }
}

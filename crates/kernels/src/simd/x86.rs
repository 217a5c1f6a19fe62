//! AVX-512 and AVX2 vectors.

use super::Simd;
use crate::tile::{self, Tile};
use half::{bf16, f16};
use std::arch::x86_64::*;

#[derive(Clone, Copy)]
pub(crate) struct Avx512;

#[derive(Clone, Copy)]
pub(crate) struct Avx2;

// SAFETY of all blocks below: `Simd`'s conditions (the instruction set is there, pointers are good for the lanes).
impl Simd for Avx512 {
    type F = __m512;
    const LANES: usize = 16;
    type Table = __m512;

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_n(p: *const f32, n: usize) -> __m512 {
        unsafe { _mm512_maskz_loadu_ps(first(n), p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: __m512) {
        unsafe { _mm512_storeu_ps(p, x) }
    }
    #[inline(always)]
    unsafe fn store_n(p: *mut f32, x: __m512, n: usize) {
        unsafe { _mm512_mask_storeu_ps(p, first(n), x) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const bf16) -> __m512 {
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const f16) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn table(values: &[f32; 16], by: f32) -> __m512 {
        unsafe { _mm512_mul_ps(_mm512_loadu_ps(values.as_ptr()), _mm512_set1_ps(by)) }
    }
    #[inline(always)]
    unsafe fn look_up(table: __m512, bytes: *const u8) -> [__m512; 2] {
        // Of a place the lowest four bits count.
        unsafe {
            let low = _mm512_cvtepu8_epi32(_mm_loadu_si128(bytes.cast()));
            let high = _mm512_srli_epi32::<4>(low);
            [_mm512_permutexvar_ps(low, table), _mm512_permutexvar_ps(high, table)]
        }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn select_lt(a: __m512, b: __m512, x: __m512, y: __m512) -> __m512 {
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), y, x) }
    }
    #[inline(always)]
    unsafe fn round(a: __m512) -> __m512 {
        unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    unsafe fn scale2(a: __m512, n: __m512) -> __m512 {
        unsafe { _mm512_scalef_ps(a, n) }
    }
    #[inline(always)]
    unsafe fn sum(a: __m512) -> f32 {
        unsafe {
            let low = _mm512_castps512_ps256(a);
            let high = _mm512_extractf32x8_ps::<1>(a);
            Avx2::sum(_mm256_add_ps(low, high))
        }
    }
    #[inline(always)]
    unsafe fn sum4(a: [__m512; 4]) -> [f32; 4] {
        unsafe {
            let mut halves = [_mm256_setzero_ps(); 4];
            for (half, a) in halves.iter_mut().zip(a) {
                *half = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            }
            Avx2::sum4(halves)
        }
    }
    #[inline(always)]
    unsafe fn prefetch<T>(p: *const T) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn prefetch_write<T>(p: *mut T) {
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn transpose(src: *const f32, src_row: usize, dst: *mut f32, dst_row: usize) {
        unsafe {
            // Four rounds, each halving the distance to the diagonal: pairs, quads within 128 bits, then 128-bit lanes.
            // Loops, not closures: a closure would be compiled without the instruction set.
            let mut r = [_mm512_setzero_ps(); 16];
            for (i, r) in r.iter_mut().enumerate() {
                *r = _mm512_loadu_ps(src.add(i * src_row));
            }
            let mut t = [_mm512_setzero_ps(); 16];
            for i in 0..8 {
                t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
            }
            let mut d = [_mm512_setzero_pd(); 16];
            for (d, t) in d.iter_mut().zip(t) {
                *d = _mm512_castps_pd(t);
            }
            let mut u = [_mm512_setzero_ps(); 16];
            for i in 0..4 {
                u[4 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(d[4 * i], d[4 * i + 2]));
                u[4 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(d[4 * i], d[4 * i + 2]));
                u[4 * i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(d[4 * i + 1], d[4 * i + 3]));
                u[4 * i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(d[4 * i + 1], d[4 * i + 3]));
            }
            // u[4 g + c] holds, in 128-bit lane l, column 4 l + c of rows 4 g .. 4 g + 4.
            for c in 0..4 {
                let low = _mm512_shuffle_f32x4::<0x88>(u[c], u[4 + c]);
                let high = _mm512_shuffle_f32x4::<0xdd>(u[c], u[4 + c]);
                let low2 = _mm512_shuffle_f32x4::<0x88>(u[8 + c], u[12 + c]);
                let high2 = _mm512_shuffle_f32x4::<0xdd>(u[8 + c], u[12 + c]);
                _mm512_storeu_ps(dst.add(c * dst_row), _mm512_shuffle_f32x4::<0x88>(low, low2));
                _mm512_storeu_ps(dst.add((8 + c) * dst_row), _mm512_shuffle_f32x4::<0xdd>(low, low2));
                _mm512_storeu_ps(dst.add((4 + c) * dst_row), _mm512_shuffle_f32x4::<0x88>(high, high2));
                _mm512_storeu_ps(dst.add((12 + c) * dst_row), _mm512_shuffle_f32x4::<0xdd>(high, high2));
            }
        }
    }
    #[inline(always)]
    unsafe fn tile(tile: &Tile) {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi1,bmi2")]
        #[inline(never)]
        unsafe fn tile_avx512(tile: &Tile) {
            unsafe { tile::run::<Avx512>(tile) }
        }
        unsafe { tile_avx512(tile) }
    }
}

/// A mask of the first `n <= 16` lanes.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

impl Simd for Avx2 {
    type F = __m256;
    const LANES: usize = 8;
    type Table = [__m256; 2];

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_n(p: *const f32, n: usize) -> __m256 {
        unsafe { _mm256_maskload_ps(p, first8(n)) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: __m256) {
        unsafe { _mm256_storeu_ps(p, x) }
    }
    #[inline(always)]
    unsafe fn store_n(p: *mut f32, x: __m256, n: usize) {
        unsafe { _mm256_maskstore_ps(p, first8(n), x) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const bf16) -> __m256 {
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const f16) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn table(values: &[f32; 16], by: f32) -> [__m256; 2] {
        unsafe {
            let by = _mm256_set1_ps(by);
            let (low, high) = (_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(8)));
            [_mm256_mul_ps(low, by), _mm256_mul_ps(high, by)]
        }
    }
    #[inline(always)]
    unsafe fn look_up([first, second]: [__m256; 2], bytes: *const u8) -> [__m256; 2] {
        // Of a place the lowest three bits count; the fourth chooses between the halves of the table.
        unsafe {
            let low = _mm256_cvtepu8_epi32(_mm_loadl_epi64(bytes.cast()));
            let places = [low, _mm256_srli_epi32::<4>(low)];
            let mut found = [_mm256_setzero_ps(); 2];
            for (found, place) in found.iter_mut().zip(places) {
                let upper = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(place));
                let (first, second) = (_mm256_permutevar8x32_ps(first, place), _mm256_permutevar8x32_ps(second, place));
                *found = _mm256_blendv_ps(first, second, upper);
            }
            found
        }
    }
    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn select_lt(a: __m256, b: __m256, x: __m256, y: __m256) -> __m256 {
        unsafe { _mm256_blendv_ps(y, x, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)) }
    }
    #[inline(always)]
    unsafe fn round(a: __m256) -> __m256 {
        unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
    }
    #[inline(always)]
    unsafe fn scale2(a: __m256, n: __m256) -> __m256 {
        unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
        }
    }
    #[inline(always)]
    unsafe fn sum(a: __m256) -> f32 {
        unsafe {
            // The tree of `sum4`: neighbours, neighbouring pairs, halves.
            let pairs = _mm256_hadd_ps(a, a);
            let quads = _mm256_hadd_ps(pairs, pairs);
            _mm_cvtss_f32(_mm_add_ss(_mm256_castps256_ps128(quads), _mm256_extractf128_ps::<1>(quads)))
        }
    }
    #[inline(always)]
    unsafe fn sum4(a: [__m256; 4]) -> [f32; 4] {
        unsafe {
            let quads = _mm256_hadd_ps(_mm256_hadd_ps(a[0], a[1]), _mm256_hadd_ps(a[2], a[3]));
            let sums = _mm_add_ps(_mm256_castps256_ps128(quads), _mm256_extractf128_ps::<1>(quads));
            let mut out = [0f32; 4];
            _mm_storeu_ps(out.as_mut_ptr(), sums);
            out
        }
    }
    #[inline(always)]
    unsafe fn prefetch<T>(p: *const T) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn prefetch_write<T>(p: *mut T) {
        unsafe { _mm_prefetch::<_MM_HINT_ET0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn transpose(src: *const f32, src_row: usize, dst: *mut f32, dst_row: usize) {
        unsafe {
            let mut r = [_mm256_setzero_ps(); 8];
            for (i, r) in r.iter_mut().enumerate() {
                *r = _mm256_loadu_ps(src.add(i * src_row));
            }
            let mut u = [_mm256_setzero_ps(); 8];
            for g in 0..2 {
                let (a, b, c, d) = (r[4 * g], r[4 * g + 1], r[4 * g + 2], r[4 * g + 3]);
                let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
                let (ab2, cd2) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
                u[4 * g] = _mm256_shuffle_ps::<0x44>(ab, cd);
                u[4 * g + 1] = _mm256_shuffle_ps::<0xee>(ab, cd);
                u[4 * g + 2] = _mm256_shuffle_ps::<0x44>(ab2, cd2);
                u[4 * g + 3] = _mm256_shuffle_ps::<0xee>(ab2, cd2);
            }
            for c in 0..4 {
                _mm256_storeu_ps(dst.add(c * dst_row), _mm256_permute2f128_ps::<0x20>(u[c], u[4 + c]));
                _mm256_storeu_ps(dst.add((4 + c) * dst_row), _mm256_permute2f128_ps::<0x31>(u[c], u[4 + c]));
            }
        }
    }
    #[inline(always)]
    unsafe fn tile(tile: &Tile) {
        #[target_feature(enable = "avx2,fma,f16c")]
        #[inline(never)]
        unsafe fn tile_avx2(tile: &Tile) {
            unsafe { tile::run::<Avx2>(tile) }
        }
        unsafe { tile_avx2(tile) }
    }
}

/// A mask of the first `n <= 8` lanes.
#[inline(always)]
unsafe fn first8(n: usize) -> __m256i {
    const ONES: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: `8 - n` is at most 8, and eight elements follow it.
    unsafe { _mm256_loadu_si256(ONES.as_ptr().add(8 - n.min(8)).cast()) }
}

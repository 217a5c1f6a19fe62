//! Vectors as arrays of eight: what the compiler's baseline (SSE2, NEON) makes of them.

use super::Simd;
use crate::tile::{self, Tile};
use half::{bf16, f16};

#[derive(Clone, Copy)]
pub(crate) struct Portable;

type F = [f32; 8];

#[inline(always)]
fn zip(a: F, b: F, f: impl Fn(f32, f32) -> f32) -> F {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Portable {
    type F = F;
    const LANES: usize = 8;
    type Table = [f32; 16];

    #[inline(always)]
    unsafe fn splat(x: f32) -> F {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> F {
        // SAFETY: the caller's promise of eight elements; arrays of f32 need no more alignment than f32.
        unsafe { p.cast::<F>().read() }
    }
    #[inline(always)]
    unsafe fn load_n(p: *const f32, n: usize) -> F {
        // SAFETY: reads the first `n` alone.
        std::array::from_fn(|i| if i < n { unsafe { *p.add(i) } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, x: F) {
        // SAFETY: the caller's promise of eight elements.
        unsafe { p.cast::<F>().write(x) }
    }
    #[inline(always)]
    unsafe fn store_n(p: *mut f32, x: F, n: usize) {
        for (i, x) in x.into_iter().enumerate().take(n) {
            // SAFETY: writes the first `n` alone.
            unsafe { *p.add(i) = x }
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const bf16) -> F {
        // SAFETY: the caller's promise of eight elements.
        std::array::from_fn(|i| f32::from_bits(u32::from(unsafe { *p.add(i) }.to_bits()) << 16))
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const f16) -> F {
        // SAFETY: the caller's promise of eight elements.
        std::array::from_fn(|i| unsafe { *p.add(i) }.to_f32_const())
    }
    #[inline(always)]
    unsafe fn table(values: &[f32; 16], by: f32) -> [f32; 16] {
        values.map(|value| value * by)
    }
    #[inline(always)]
    unsafe fn look_up(table: [f32; 16], bytes: *const u8) -> [F; 2] {
        // SAFETY: the caller's promise of eight bytes.
        let bytes = unsafe { bytes.cast::<[u8; 8]>().read() };
        [bytes.map(|byte| table[usize::from(byte & 15)]), bytes.map(|byte| table[usize::from(byte >> 4)])]
    }
    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: F, b: F) -> F {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: F, b: F) -> F {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn max(a: F, b: F) -> F {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        // Two roundings: without the instruction, `mul_add` would be a call into the C library.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn select_lt(a: F, b: F, x: F, y: F) -> F {
        std::array::from_fn(|i| if a[i] < b[i] { x[i] } else { y[i] })
    }
    #[inline(always)]
    unsafe fn round(a: F) -> F {
        // Adding 1.5 * 2^23 pushes the fraction out; right for |a| < 2^22, far beyond what `exp` asks for.
        const MAGIC: f32 = 12_582_912.0;
        a.map(|a| (a + MAGIC) - MAGIC)
    }
    #[inline(always)]
    unsafe fn scale2(a: F, n: F) -> F {
        std::array::from_fn(|i| a[i] * f32::from_bits(((n[i] as i32 + 127) << 23) as u32))
    }
    #[inline(always)]
    unsafe fn sum(a: F) -> f32 {
        ((a[0] + a[4]) + (a[1] + a[5])) + ((a[2] + a[6]) + (a[3] + a[7]))
    }
    #[inline(always)]
    unsafe fn prefetch<T>(_: *const T) {}
    #[inline(always)]
    unsafe fn prefetch_write<T>(_: *mut T) {}
    #[inline(always)]
    unsafe fn transpose(src: *const f32, src_row: usize, dst: *mut f32, dst_row: usize) {
        for i in 0..8 {
            for j in 0..8 {
                // SAFETY: the caller's promise of eight rows of eight on both sides.
                unsafe { *dst.add(j * dst_row + i) = *src.add(i * src_row + j) }
            }
        }
    }
    #[inline(always)]
    unsafe fn tile(tile: &Tile) {
        #[inline(never)]
        unsafe fn tile_portable(tile: &Tile) {
            // SAFETY: the caller's promise.
            unsafe { tile::run::<Portable>(tile) }
        }
        // SAFETY: the caller's promise.
        unsafe { tile_portable(tile) }
    }
}

//! Element-wise arithmetic, dropout and conversions between float formats: what has neither rows nor parameters.

use half::{bf16, f16};

use crate::chunk::{self, Parts};
use crate::rng::{self, Rng};
use crate::vector::{Math, per_isa};

fn same(name: &str, lengths: &[usize]) {
    assert!(lengths.iter().all(|n| *n == lengths[0]), "{name}: expected slices of one length, found {lengths:?}");
}

macro_rules! binary {
    ($(#[$meta:meta])* $name:ident, $kernel:ident, $body:ident, |$a:ident, $b:ident| $value:expr) => {
        $(#[$meta])*
        pub fn $name(y: &mut [f32], a: &[f32], b: &[f32]) {
            same(stringify!($name), &[y.len(), a.len(), b.len()]);
            chunk::each_mut(y, 1, |at, y| $kernel(y, &a[at..], &b[at..]));
        }
        #[inline(always)]
        fn $body(y: &mut [f32], a: &[f32], b: &[f32]) {
            for ((y, &$a), &$b) in y.iter_mut().zip(a).zip(b) {
                *y = $value;
            }
        }
        per_isa! { fn $kernel(y: &mut [f32], a: &[f32], b: &[f32]) = plain $body; }
    };
}
binary! {
    /// `y = a + b`.
    add, add_isa, add_loop, |a, b| a + b
}
binary! {
    /// `y = a b`, element by element.
    mul, mul_isa, mul_loop, |a, b| a * b
}

/// `y += x`.
pub fn add_assign(y: &mut [f32], x: &[f32]) {
    same("add_assign", &[y.len(), x.len()]);
    chunk::each_mut(y, 1, |at, y| add_assign_isa(y, &x[at..]));
}

/// `y += a x`.
pub fn axpy(y: &mut [f32], a: f32, x: &[f32]) {
    same("axpy", &[y.len(), x.len()]);
    chunk::each_mut(y, 1, |at, y| axpy_isa(y, a, &x[at..]));
}

/// `y *= a`.
pub fn scale(y: &mut [f32], a: f32) {
    chunk::each_mut(y, 1, |_, y| scale_isa(y, a));
}

/// `y[rows, dim] += bias[dim]` on every row.
pub fn add_bias(y: &mut [f32], bias: &[f32]) {
    assert!(!bias.is_empty() && y.len().is_multiple_of(bias.len()), "add_bias: {} values on {}", bias.len(), y.len());
    chunk::each_mut(y, bias.len(), |_, y| y.chunks_exact_mut(bias.len()).for_each(|y| add_assign_isa(y, bias)));
}

#[inline(always)]
fn add_assign_loop(y: &mut [f32], x: &[f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

#[inline(always)]
fn axpy_loop<M: Math>(y: &mut [f32], a: f32, x: &[f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = M::fma(a, x, *y);
    }
}

#[inline(always)]
fn scale_loop(y: &mut [f32], a: f32) {
    for y in y {
        *y *= a;
    }
}

per_isa! { fn add_assign_isa(y: &mut [f32], x: &[f32]) = plain add_assign_loop; }
per_isa! { fn axpy_isa(y: &mut [f32], a: f32, x: &[f32]) = axpy_loop; }
per_isa! { fn scale_isa(y: &mut [f32], a: f32) = plain scale_loop; }

/// Dropout (Srivastava et al. 2014, inverted): element `i` is dropped with probability `p`, by the word at position
/// `offset + i` of `rng`'s stream, and kept as `x / (1 - p)` otherwise. Calls that must not share a mask take offsets
/// at least a length apart, or different streams. `p` is cut to [0, 1].
pub fn dropout(y: &mut [f32], x: &[f32], p: f32, rng: &Rng, offset: u64) {
    same("dropout", &[y.len(), x.len()]);
    if p <= 0.0 {
        y.copy_from_slice(x);
        return;
    }
    let rule = Drop::new(p, rng, offset);
    chunk::each_mut(y, 1, |at, y| dropout_isa(y, &x[at..], &rule, at));
}

/// The gradient of [`dropout`] with the same `p`, `rng` and `offset`: the same mask on `dy`.
pub fn dropout_backward(dx: &mut [f32], dy: &[f32], p: f32, rng: &Rng, offset: u64) {
    dropout(dx, dy, p, rng, offset);
}

/// [`dropout`] in place; also its gradient.
pub fn dropout_in_place(y: &mut [f32], p: f32, rng: &Rng, offset: u64) {
    if p > 0.0 {
        let rule = Drop::new(p, rng, offset);
        chunk::each_mut(y, 1, |at, y| drop_isa(y, &rule, at));
    }
}

/// What decides over an element.
struct Drop<'a> {
    rng: &'a Rng,
    offset: u64,
    /// Words below this drop.
    below: u32,
    keep: f32,
}

impl<'a> Drop<'a> {
    fn new(p: f32, rng: &'a Rng, offset: u64) -> Self {
        let below = (f64::from(p) * 4_294_967_296.0).round() as u32;
        let keep = if p < 1.0 { (1.0 / (1.0 - f64::from(p))) as f32 } else { 0.0 };
        Self { rng, offset, below, keep }
    }
}

/// Elements per tile: a block less than a tile has words, for offsets inside a block.
const TILE: usize = 4 * (rng::BLOCKS - 1);

/// Calls `each(range, words)` for the elements `at..at + len`, tile by tile.
#[inline(always)]
fn drop_tiles(len: usize, rule: &Drop, at: usize, mut each: impl FnMut(std::ops::Range<usize>, &[u32])) {
    let mut words = [0u32; 4 * rng::BLOCKS];
    for start in (0..len).step_by(TILE) {
        let first = rule.offset.wrapping_add((at + start) as u64);
        rng::fill_words(&mut words, rule.rng, first / 4);
        each(start..len.min(start + TILE), &words[(first % 4) as usize..][..TILE]);
    }
}

#[inline(always)]
fn dropout_loop(y: &mut [f32], x: &[f32], rule: &Drop, at: usize) {
    drop_tiles(y.len(), rule, at, |range, words| {
        for ((y, &x), &word) in y[range.clone()].iter_mut().zip(&x[range]).zip(words) {
            *y = if word < rule.below { 0.0 } else { x * rule.keep };
        }
    });
}

#[inline(always)]
fn drop_loop(y: &mut [f32], rule: &Drop, at: usize) {
    drop_tiles(y.len(), rule, at, |range, words| {
        for (y, &word) in y[range].iter_mut().zip(words) {
            *y = if word < rule.below { 0.0 } else { *y * rule.keep };
        }
    });
}

per_isa! { fn dropout_isa(y: &mut [f32], x: &[f32], rule: &Drop, at: usize) = plain dropout_loop; }
per_isa! { fn drop_isa(y: &mut [f32], rule: &Drop, at: usize) = plain drop_loop; }

/// A float as bf16, rounded to nearest even.
#[inline(always)]
pub fn to_bf16(x: f32) -> bf16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16;
    // Rounding could carry a NaN's payload away: its quiet bit is set instead.
    bf16::from_bits(if x.is_nan() { bits >> 16 | 0x40 } else { rounded } as u16)
}

/// A bf16 as float; exact.
#[inline(always)]
pub fn from_bf16(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

/// A float as f16, rounded to nearest even; beyond 65,519 infinite.
#[inline(always)]
pub fn to_f16(x: f32) -> f16 {
    let (sign, magnitude) = (x.to_bits() >> 16 & 0x8000, x.to_bits() & 0x7FFF_FFFF);
    // Normal: move the exponent's bias from 127 to 15 and round off 13 bits, the carry going where it should.
    let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0xFFF + (magnitude >> 13 & 1)) >> 13;
    // Subnormal: between 1/2 and 1 a float counts in steps of 2^-24, f16's smallest; adding rounds to those.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0x3F00_0000);
    let finite = if magnitude < 0x3880_0000 { subnormal } else { normal };
    let large = if magnitude > 0x7F80_0000 { 0x7E00 } else { 0x7C00 };
    f16::from_bits((sign | if magnitude >= 0x4780_0000 { large } else { finite }) as u16)
}

/// An f16 as float; exact.
#[inline(always)]
pub fn from_f16(x: f16) -> f32 {
    let bits = u32::from(x.to_bits());
    // The exponent's bias moves from 15 to 127 by a multiplication, which normalises subnormals too.
    let value = f32::from_bits((bits & 0x7FFF) << 13) * f32::from_bits((127 + 112) << 23);
    let special = if bits & 0x7C00 == 0x7C00 { 0x7F80_0000 } else { 0 };
    f32::from_bits(value.to_bits() | special | (bits & 0x8000) << 16)
}

macro_rules! conversion {
    ($(#[$meta:meta])* $name:ident, $kernel:ident, $body:ident, $from:ty, $to:ty, $each:path) => {
        $(#[$meta])*
        pub fn $name(y: &mut [$to], x: &[$from]) {
            same(stringify!($name), &[y.len(), x.len()]);
            chunk::each_mut(y, 1, |at, y| $kernel(y, &x[at..]));
        }
        #[inline(always)]
        fn $body(y: &mut [$to], x: &[$from]) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = $each(x);
            }
        }
        per_isa! { pub(crate) fn $kernel(y: &mut [$to], x: &[$from]) = plain $body; }
    };
}
conversion! {
    /// `y = x` in bf16, rounded to nearest even.
    f32_to_bf16, f32_to_bf16_isa, f32_to_bf16_loop, f32, bf16, to_bf16
}
conversion! {
    /// `y = x` in f32; exact.
    bf16_to_f32, bf16_to_f32_isa, bf16_to_f32_loop, bf16, f32, from_bf16
}
conversion! {
    /// `y = x` in f16, rounded to nearest even.
    f32_to_f16, f32_to_f16_isa, f32_to_f16_loop, f32, f16, to_f16
}
conversion! {
    /// `y = x` in f32; exact.
    f16_to_f32, f16_to_f32_isa, f16_to_f32_loop, f16, f32, from_f16
}

/// The sum of squares, in f64, the same on any thread count.
pub fn sum_squares(x: &[f32]) -> f64 {
    let mut partial = vec![0f64; x.len().div_ceil(chunk::CHUNK)];
    let parts = Parts::new(&mut partial);
    chunk::each(x.len(), 1, |range| {
        let i = range.start / chunk::CHUNK;
        // SAFETY: one chunk, one partial sum.
        unsafe { parts.set(i, sum_squares_isa(&x[range])) };
    });
    partial.iter().sum()
}

#[inline(always)]
fn sum_squares_loop(x: &[f32]) -> f64 {
    // In f64 throughout: the square of a large gradient must not overflow, and reading is the limit anyway.
    let mut acc = [0f64; 32];
    let (body, tail) = x.as_chunks::<32>();
    for x in body {
        for i in 0..32 {
            acc[i] += f64::from(x[i]) * f64::from(x[i]);
        }
    }
    acc.iter().sum::<f64>() + tail.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>()
}

per_isa! { fn sum_squares_isa(x: &[f32]) -> f64 = plain sum_squares_loop; }

/// Whether no element is infinite or NaN.
pub fn all_finite(x: &[f32]) -> bool {
    let bad = std::sync::atomic::AtomicBool::new(false);
    chunk::each(x.len(), 1, |range| {
        if !bad.load(std::sync::atomic::Ordering::Relaxed) && !finite_isa(&x[range]) {
            bad.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    });
    !bad.into_inner()
}

#[inline(always)]
fn finite_loop(x: &[f32]) -> bool {
    // Infinities and NaN have the largest magnitudes as integers: a maximum vectorises where a search would not.
    x.iter().fold(0, |most, x| most.max(x.to_bits() & 0x7FFF_FFFF)) < 0x7F80_0000
}

per_isa! { fn finite_isa(x: &[f32]) -> bool = plain finite_loop; }

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize) -> Vec<f32> {
        let mut x = vec![0.0; n];
        Rng::new(n as u64).fill_normal(&mut x, 0.1, 3.0);
        x
    }

    #[test]
    fn arithmetic_at_odd_sizes() {
        for n in [0, 1, 17, 1000, 50_001] {
            let (a, b) = (values(n), values(n + 1));
            let (b, mut y) = (&b[1..], vec![9.0; n]);
            let expect = |y: &[f32], f: &dyn Fn(f32, f32) -> f32| {
                // A fused multiply-add rounds once where two operations round twice.
                assert!(y.iter().zip(&a).zip(b).all(|((y, a), b)| (y - f(*a, *b)).abs() <= 1e-5));
            };
            add(&mut y, &a, b);
            expect(&y, &|a, b| a + b);
            mul(&mut y, &a, b);
            expect(&y, &|a, b| a * b);
            y.copy_from_slice(&a);
            add_assign(&mut y, b);
            axpy(&mut y, -3.0, b);
            scale(&mut y, 0.5);
            expect(&y, &|a, b| 0.5 * (a - 2.0 * b));
            let truth: f64 = a.iter().map(|&x| f64::from(x).powi(2)).sum();
            assert!((sum_squares(&a) - truth).abs() <= 1e-12 * truth);
        }
        let mut y = vec![1.0; 6];
        add_bias(&mut y, &[1.0, 2.0, 3.0]);
        assert_eq!(y, [2.0, 3.0, 4.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn dropout_masks_by_position() {
        let (n, rng) = (70_001, Rng::new(4).split("dropout"));
        let x = vec![1.0; n + 5];
        let (mut all, mut part, mut dx) = (vec![0.0; n + 5], vec![0.0; n], vec![0.0; n]);
        dropout(&mut all, &x, 0.3, &rng, 0);
        dropout(&mut part, &x[..n], 0.3, &rng, 5);
        assert_eq!(part, all[5..]);
        dropout_backward(&mut dx, &x[..n], 0.3, &rng, 5);
        assert_eq!(part, dx);
        let mut same = x[..n].to_vec();
        dropout_in_place(&mut same, 0.3, &rng, 5);
        assert_eq!(part, same);
        for (i, y) in all.iter().enumerate() {
            let dropped = rng.word_at(i as u64) < (0.3f64 * 2f64.powi(32)) as u32;
            assert_eq!(*y, if dropped { 0.0 } else { 1.0 / 0.7 });
        }
        // Five standard errors of a proportion.
        let share = all.iter().filter(|y| **y == 0.0).count() as f64 / all.len() as f64;
        assert!((share - 0.3).abs() < 5.0 * (0.21f64 / all.len() as f64).sqrt());
        dropout(&mut part, &x[..n], 0.0, &rng, 0);
        assert!(part.iter().all(|y| *y == 1.0));
        dropout(&mut part, &x[..n], 1.0, &rng, 0);
        assert!(part.iter().all(|y| *y == 0.0));
    }

    #[test]
    fn conversions_equal_halfs_bit_for_bit() {
        // Every 16-bit pattern back and forth, and floats around every rounding border.
        let patterns: Vec<u16> = (0..=u16::MAX).collect();
        let brains: Vec<bf16> = patterns.iter().map(|&b| bf16::from_bits(b)).collect();
        let halves: Vec<f16> = patterns.iter().map(|&b| f16::from_bits(b)).collect();
        let mut y = vec![0.0; patterns.len()];
        bf16_to_f32(&mut y, &brains);
        assert!(y.iter().zip(&brains).all(|(y, x)| y.to_bits() == u32::from(x.to_bits()) << 16));
        let mut floats: Vec<f32> = Vec::new();
        for &x in &y {
            floats.extend([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF].map(|low| f32::from_bits(x.to_bits() | low)));
        }
        f16_to_f32(&mut y, &halves);
        assert!(y.iter().zip(&halves).all(|(y, x)| *y == x.to_f32() || y.is_nan() && x.is_nan()));
        for &x in &y {
            floats.extend([0, 1, 0xFFF, 0x1000, 0x1001, 0x1FFF].map(|low| f32::from_bits(x.to_bits() | low)));
        }
        let (mut b, mut h) = (vec![bf16::ZERO; floats.len()], vec![f16::ZERO; floats.len()]);
        f32_to_bf16(&mut b, &floats);
        f32_to_f16(&mut h, &floats);
        for ((x, b), h) in floats.iter().zip(b).zip(h) {
            assert!(b.to_bits() == bf16::from_f32(*x).to_bits() || b.is_nan() && x.is_nan(), "{x:e}");
            assert!(h.to_bits() == f16::from_f32(*x).to_bits() || h.is_nan() && x.is_nan(), "{x:e}");
        }
    }

    #[test]
    fn one_bad_value_is_found_anywhere() {
        let mut x = values(100_003);
        assert!(all_finite(&x) && all_finite(&[]) && all_finite(&[f32::MAX]));
        for (at, bad) in [(0, f32::NAN), (77_777, f32::INFINITY), (100_002, f32::NEG_INFINITY)] {
            let good = std::mem::replace(&mut x[at], bad);
            assert!(!all_finite(&x));
            x[at] = good;
        }
    }
}

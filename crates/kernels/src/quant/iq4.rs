//! Blocks whose codes of 4 bits stand for sixteen values spaced as a normal distribution wants them: IQ4_NL with one
//! scale for 32, IQ4_XS with scales of 6 bits in a block of 256.

use super::{bits, fit, half, put_half};
use crate::vector::per_isa;

per_isa! { pub(super) fn nl_values(blocks: &[u8], out: &mut [f32]) = plain nl_values_loop; }
per_isa! { pub(super) fn xs_values(blocks: &[u8], out: &mut [f32]) = plain xs_values_loop; }
per_isa! { pub(super) fn nl_blocks(values: &[f32], out: &mut [u8]) = plain nl_blocks_loop; }
per_isa! { pub(super) fn xs_blocks(values: &[f32], out: &mut [u8]) = plain xs_blocks_loop; }

/// What the codes stand for.
pub(crate) const TABLE: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

// Scale, codes.
#[inline(always)]
fn nl_values_loop(blocks: &[u8], out: &mut [f32]) {
    for (block, out) in blocks.as_chunks::<18>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        scaled(out, &block[2..], half(block, 0));
    }
}

// Scale, 2 bytes of the scales' high 2 bits, 4 of their low 4, codes.
#[inline(always)]
fn xs_values_loop(blocks: &[u8], out: &mut [f32]) {
    for (block, out) in blocks.as_chunks::<136>().0.iter().zip(out.as_chunks_mut::<256>().0) {
        let scale = half(block, 0);
        let high = u16::from_le_bytes([block[2], block[3]]);
        for (i, (out, codes)) in out.chunks_exact_mut(32).zip(block[8..].chunks_exact(16)).enumerate() {
            let low = block[4 + i / 2] >> (4 * (i % 2)) & 15;
            let whole = i32::from(u16::from(low) | (high >> (2 * i) & 3) << 4) - 32;
            scaled(out, codes, scale * whole as f32);
        }
    }
}

#[inline(always)]
fn scaled(out: &mut [f32], bytes: &[u8], scale: f32) {
    let mut codes = [0u8; 32];
    bits::nibbles::<16>(&mut codes, bytes);
    for (y, code) in out.iter_mut().zip(codes) {
        *y = scale * f32::from(TABLE[usize::from(code & 15)]);
    }
}

/// The code whose value is next to `x`, the upper one in the middle between two: as many as there are middles up to
/// `x`, which asks no branches.
#[inline(always)]
fn code(x: f32) -> u8 {
    let twice = x + x;
    TABLE.windows(2).map(|pair| u8::from(twice >= middle(pair))).sum()
}

/// The value next to `x`: as [`code`], summing the steps of the table.
#[inline(always)]
fn level(x: f32) -> f32 {
    let twice = x + x;
    TABLE.windows(2).fold(f32::from(TABLE[0]), |value, pair| {
        value + if twice >= middle(pair) { f32::from(pair[1]) - f32::from(pair[0]) } else { 0.0 }
    })
}

/// Twice the middle of two values of the table.
#[inline(always)]
fn middle(pair: &[i8]) -> f32 {
    f32::from(pair[0]) + f32::from(pair[1])
}

/// Searches the scales of eight groups of 32.
#[inline(always)]
fn search(x: &[f32]) -> [f32; 8] {
    fit::table(&fit::lanes::<8, 32>(x), f32::from(TABLE[0]), level)
}

#[inline(always)]
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

#[inline(always)]
fn put_codes(bytes: &mut [u8], x: &[f32], inverse: f32) {
    let mut codes = [0; 32];
    for (to, x) in codes.iter_mut().zip(x) {
        *to = code(inverse * x);
    }
    bits::put_nibbles::<16>(bytes, &codes);
}

#[inline(always)]
fn nl_blocks_loop(values: &[f32], out: &mut [u8]) {
    // Eight blocks at a time; the last may be fewer, and zeros stand in for the rest.
    for (x, blocks) in values.chunks(256).zip(out.chunks_mut(8 * 18)) {
        for ((block, x), scale) in blocks.as_chunks_mut::<18>().0.iter_mut().zip(x.chunks_exact(32)).zip(search(x)) {
            put_half(block, 0, scale);
            put_codes(&mut block[2..], x, inverse(scale));
        }
    }
}

#[inline(always)]
fn xs_blocks_loop(values: &[f32], out: &mut [u8]) {
    for (x, block) in values.as_chunks::<256>().0.iter().zip(out.as_chunks_mut::<136>().0) {
        let scales = search(x);
        let extreme = scales.iter().fold(0f32, |extreme, &x| if x.abs() > extreme.abs() { x } else { extreme });
        let unit = -extreme / 32.0;
        put_half(block, 0, unit);
        block[2..8].fill(0);
        let mut high = 0;
        for (i, (x, scale)) in x.chunks_exact(32).zip(scales).enumerate() {
            let whole = fit::nearest(inverse(unit) * scale, -32.0, 31.0);
            put_codes(&mut block[8 + 16 * i..][..16], x, inverse(unit * whole));
            let whole = (whole + 32.0) as u8;
            block[4 + i / 2] |= (whole & 15) << (4 * (i % 2));
            high |= u16::from(whole >> 4) << (2 * i);
        }
        block[2..4].copy_from_slice(&high.to_le_bytes());
    }
}

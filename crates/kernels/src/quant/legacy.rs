//! Blocks of 32 with one scale, and perhaps a minimum, in f16: the oldest formats, whose scale is the extreme value's
//! and needs no search.

use super::{HALF_MAX, bits, half, put_half};
use crate::vector::per_isa;

per_isa! { pub(super) fn q4_0_values(blocks: &[u8], out: &mut [f32]) = plain q4_0_values_loop; }
per_isa! { pub(super) fn q4_1_values(blocks: &[u8], out: &mut [f32]) = plain q4_1_values_loop; }
per_isa! { pub(super) fn q5_0_values(blocks: &[u8], out: &mut [f32]) = plain q5_0_values_loop; }
per_isa! { pub(super) fn q5_1_values(blocks: &[u8], out: &mut [f32]) = plain q5_1_values_loop; }
per_isa! { pub(super) fn q8_0_values(blocks: &[u8], out: &mut [f32]) = plain q8_0_values_loop; }
per_isa! { pub(super) fn q4_0_blocks(values: &[f32], out: &mut [u8]) = plain q4_0_blocks_loop; }
per_isa! { pub(super) fn q4_1_blocks(values: &[f32], out: &mut [u8]) = plain q4_1_blocks_loop; }
per_isa! { pub(super) fn q5_0_blocks(values: &[f32], out: &mut [u8]) = plain q5_0_blocks_loop; }
per_isa! { pub(super) fn q5_1_blocks(values: &[f32], out: &mut [u8]) = plain q5_1_blocks_loop; }
per_isa! { pub(super) fn q8_0_blocks(values: &[f32], out: &mut [u8]) = plain q8_0_blocks_loop; }

// Scale, then 16 bytes of codes.
#[inline(always)]
fn q4_0_values_loop(blocks: &[u8], out: &mut [f32]) {
    for (block, out) in blocks.as_chunks::<18>().0.iter().zip(out.as_chunks_mut().0) {
        centred(out, &codes4(&block[2..]), 8, half(block, 0));
    }
}

// Scale, minimum, codes.
#[inline(always)]
fn q4_1_values_loop(blocks: &[u8], out: &mut [f32]) {
    for (block, out) in blocks.as_chunks::<20>().0.iter().zip(out.as_chunks_mut().0) {
        raised(out, &codes4(&block[4..]), half(block, 0), half(block, 2));
    }
}

// Scale, the fifth bits, the other four.
#[inline(always)]
fn q5_0_values_loop(blocks: &[u8], out: &mut [f32]) {
    for (block, out) in blocks.as_chunks::<22>().0.iter().zip(out.as_chunks_mut().0) {
        centred(out, &codes5(&block[2..]), 16, half(block, 0));
    }
}

// Scale, minimum, the fifth bits, the other four.
#[inline(always)]
fn q5_1_values_loop(blocks: &[u8], out: &mut [f32]) {
    for (block, out) in blocks.as_chunks::<24>().0.iter().zip(out.as_chunks_mut().0) {
        raised(out, &codes5(&block[4..]), half(block, 0), half(block, 2));
    }
}

// Scale, 32 signed bytes.
#[inline(always)]
fn q8_0_values_loop(blocks: &[u8], out: &mut [f32]) {
    for (block, out) in blocks.as_chunks::<34>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let scale = half(block, 0);
        for (y, code) in out.iter_mut().zip(&block[2..]) {
            *y = f32::from(*code as i8) * scale;
        }
    }
}

#[inline(always)]
fn codes4(bytes: &[u8]) -> [u8; 32] {
    let mut codes = [0; 32];
    bits::nibbles::<16>(&mut codes, bytes);
    codes
}

/// From 4 bytes of fifth bits and 16 of the other four.
#[inline(always)]
fn codes5(bytes: &[u8]) -> [u8; 32] {
    let mut codes = codes4(&bytes[4..]);
    let fifth = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    for (i, code) in codes.iter_mut().enumerate() {
        *code |= ((fifth >> i & 1) << 4) as u8;
    }
    codes
}

#[inline(always)]
fn centred(out: &mut [f32; 32], codes: &[u8; 32], zero: i32, scale: f32) {
    for (y, code) in out.iter_mut().zip(codes) {
        *y = (i32::from(*code) - zero) as f32 * scale;
    }
}

#[inline(always)]
fn raised(out: &mut [f32; 32], codes: &[u8; 32], scale: f32, min: f32) {
    for (y, code) in out.iter_mut().zip(codes) {
        *y = f32::from(*code) * scale + min;
    }
}

#[inline(always)]
fn q4_0_blocks_loop(values: &[f32], out: &mut [u8]) {
    for (x, block) in values.as_chunks().0.iter().zip(out.as_chunks_mut::<18>().0) {
        let (scale, codes) = centre(x, 8);
        put_half(block, 0, scale);
        bits::put_nibbles::<16>(&mut block[2..], &codes);
    }
}

#[inline(always)]
fn q4_1_blocks_loop(values: &[f32], out: &mut [u8]) {
    for (x, block) in values.as_chunks().0.iter().zip(out.as_chunks_mut::<20>().0) {
        let (scale, min, codes) = raise(x, 15);
        put_half(block, 0, scale);
        put_half(block, 2, min);
        bits::put_nibbles::<16>(&mut block[4..], &codes);
    }
}

#[inline(always)]
fn q5_0_blocks_loop(values: &[f32], out: &mut [u8]) {
    for (x, block) in values.as_chunks().0.iter().zip(out.as_chunks_mut::<22>().0) {
        let (scale, codes) = centre(x, 16);
        put_half(block, 0, scale);
        put_codes5(&mut block[2..], &codes);
    }
}

#[inline(always)]
fn q5_1_blocks_loop(values: &[f32], out: &mut [u8]) {
    for (x, block) in values.as_chunks().0.iter().zip(out.as_chunks_mut::<24>().0) {
        let (scale, min, codes) = raise(x, 31);
        put_half(block, 0, scale);
        put_half(block, 2, min);
        put_codes5(&mut block[4..], &codes);
    }
}

#[inline(always)]
fn q8_0_blocks_loop(values: &[f32], out: &mut [u8]) {
    for (x, block) in values.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<34>().0) {
        let scale = x.iter().fold(0f32, |top, x| top.max(x.abs())) / 127.0;
        let inverse = inverse(scale);
        put_half(block, 0, scale);
        for (code, x) in block[2..].iter_mut().zip(x) {
            // To the nearest, and from the middle away from zero, as C's `roundf`.
            let x = x * inverse;
            let whole = x as i32;
            let rest = x - whole as f32;
            *code = (whole + i32::from(rest >= 0.5) - i32::from(rest <= -0.5)).clamp(-127, 127) as i8 as u8;
        }
    }
}

#[inline(always)]
fn put_codes5(bytes: &mut [u8], codes: &[u8; 32]) {
    let fifth = codes.iter().enumerate().fold(0, |all, (i, code)| all | u32::from(code >> 4) << i);
    bytes[..4].copy_from_slice(&fifth.to_le_bytes());
    bits::put_nibbles::<16>(&mut bytes[4..], codes);
}

#[inline(always)]
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// Scale and codes of 0 to 2 `zero` - 1: the value of the largest magnitude, whatever its sign, becomes code 0, which
/// reaches one step further than the other end.
#[inline(always)]
fn centre(x: &[f32; 32], zero: i32) -> (f32, [u8; 32]) {
    let extreme = x.iter().fold(0f32, |extreme, &x| if x.abs() > extreme.abs() { x } else { extreme });
    let scale = extreme / -(zero as f32);
    let inverse = inverse(scale);
    (scale, x.map(|x| ((x * inverse + (zero as f32 + 0.5)) as i32).clamp(0, 2 * zero - 1) as u8))
}

/// Scale, minimum, and codes of 0 to `top`.
#[inline(always)]
fn raise(x: &[f32; 32], top: i32) -> (f32, f32, [u8; 32]) {
    let min = x.iter().fold(HALF_MAX, |min, &x| if x < min { x } else { min });
    let max = x.iter().fold(-HALF_MAX, |max, &x| if x > max { x } else { max });
    let scale = (max - min) / top as f32;
    let inverse = inverse(scale);
    (scale, min, x.map(|x| (((x - min) * inverse + 0.5) as i32).clamp(0, top) as u8))
}

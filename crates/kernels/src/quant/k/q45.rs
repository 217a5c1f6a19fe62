//! Q4_K and Q5_K: 4 or 5 bits; groups of 32 with a scale and a minimum of 6 bits each.
//!
//! The f16 of the scales and that of the minima, 12 bytes of both in 6 bits, in Q5_K 32 bytes of fifth bits, and 128
//! bytes of the other four.

use super::super::{bits, fit, half, put_half};
use super::{affine_values, set_affine, whole_scales};
use crate::vector::per_isa;

per_isa! { pub(in crate::quant) fn q4_values(blocks: &[u8], out: &mut [f32]) = plain q4_values_loop; }
per_isa! { pub(in crate::quant) fn q5_values(blocks: &[u8], out: &mut [f32]) = plain q5_values_loop; }
per_isa! { pub(in crate::quant) fn q4_blocks(values: &[f32], out: &mut [u8]) = plain q4_blocks_loop; }
per_isa! { pub(in crate::quant) fn q5_blocks(values: &[f32], out: &mut [u8]) = plain q5_blocks_loop; }

#[inline(always)]
fn q4_values_loop(blocks: &[u8], out: &mut [f32]) {
    for (block, out) in blocks.as_chunks::<144>().0.iter().zip(out.as_chunks_mut().0) {
        let mut codes = [0; 256];
        bits::nibbles::<32>(&mut codes, &block[16..]);
        let (scales, mins) = scales(block);
        affine_values::<32>(out, &codes, &scales, &mins);
    }
}

#[inline(always)]
fn q5_values_loop(blocks: &[u8], out: &mut [f32]) {
    for (block, out) in blocks.as_chunks::<176>().0.iter().zip(out.as_chunks_mut().0) {
        let mut codes = [0; 256];
        bits::nibbles::<32>(&mut codes, &block[48..]);
        bits::add_plane(&mut codes, &block[16..48], 4);
        let (scales, mins) = scales(block);
        affine_values::<32>(out, &codes, &scales, &mins);
    }
}

/// Scales and minima. The first four of each are the low 6 bits of bytes 0 to 3 and 4 to 7; the others have their low
/// 4 bits in the halves of bytes 8 to 11, and their high 2 above the first four.
#[inline(always)]
fn scales(block: &[u8]) -> ([f32; 8], [f32; 8]) {
    let (scale, min, packed) = (half(block, 0), half(block, 2), &block[4..16]);
    let mut out = ([0.0; 8], [0.0; 8]);
    for i in 0..4 {
        out.0[i] = scale * f32::from(packed[i] & 63);
        out.1[i] = min * f32::from(packed[4 + i] & 63);
        out.0[4 + i] = scale * f32::from(packed[8 + i] & 15 | packed[i] >> 6 << 4);
        out.1[4 + i] = min * f32::from(packed[8 + i] >> 4 | packed[4 + i] >> 6 << 4);
    }
    out
}

#[inline(always)]
fn q4_blocks_loop(values: &[f32], out: &mut [u8]) {
    const SEARCH: fit::Search = fit::Search { top: 15.0, first: -1.0, steps: 20, absolute: false };
    for (x, block) in values.as_chunks().0.iter().zip(out.as_chunks_mut::<144>().0) {
        let codes = set(block, x, SEARCH);
        bits::put_nibbles::<32>(&mut block[16..], &codes);
    }
}

#[inline(always)]
fn q5_blocks_loop(values: &[f32], out: &mut [u8]) {
    const SEARCH: fit::Search = fit::Search { top: 31.0, first: -0.5, steps: 15, absolute: false };
    for (x, block) in values.as_chunks().0.iter().zip(out.as_chunks_mut::<176>().0) {
        let codes = set(block, x, SEARCH);
        bits::put_plane(&mut block[16..48], &codes, 4);
        bits::put_nibbles::<32>(&mut block[48..], &codes);
    }
}

/// Writes scales and minima, and returns the codes.
#[inline(always)]
fn set(block: &mut [u8], x: &[f32; 256], search: fit::Search) -> [u8; 256] {
    let lanes = fit::lanes::<8, 32>(x);
    let fit = fit::affine(&lanes, &weights(&lanes), search);
    let (scale, unit) = whole_scales(&fit.scale, 63.0);
    let (min, unit_min) = whole_scales(&fit.min, 63.0);
    put_half(block, 0, unit);
    put_half(block, 2, unit_min);
    for i in 0..4 {
        block[4 + i] = scale[i] | scale[4 + i] >> 4 << 6;
        block[8 + i] = min[i] | min[4 + i] >> 4 << 6;
        block[12 + i] = scale[4 + i] & 15 | min[4 + i] << 4;
    }
    let mut codes = fit::codes(&fit.codes);
    let (scales, mins) = scales(block);
    set_affine::<32>(&mut codes, x, &scales, &mins, search.top);
    codes
}

/// Larger values weigh more, but none less than the root mean square of its group.
#[inline(always)]
fn weights(x: &[fit::Lanes<8>; 32]) -> [fit::Lanes<8>; 32] {
    let mut mean = [0f32; 8];
    for x in x {
        for l in 0..8 {
            mean[l] += x[l] * x[l];
        }
    }
    let mean = mean.map(|sum| (sum / 32.0).sqrt());
    let mut weights = *x;
    for w in &mut weights {
        for l in 0..8 {
            w[l] = mean[l] + w[l].abs();
        }
    }
    weights
}

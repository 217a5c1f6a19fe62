//! Q2_K: 2 bits; groups of 16 with a scale and a minimum of 4 bits each.
//!
//! 16 bytes of scales (low halves) and minima (high halves), 64 of codes, the f16 of the scales and that of the minima.

use super::super::{bits, fit, half, put_half};
use super::{affine_values, set_affine, whole_scales};
use crate::vector::per_isa;

per_isa! { pub(in crate::quant) fn values(blocks: &[u8], out: &mut [f32]) = plain values_loop; }
per_isa! { pub(in crate::quant) fn blocks(values: &[f32], out: &mut [u8]) = plain blocks_loop; }

#[inline(always)]
fn values_loop(blocks: &[u8], out: &mut [f32]) {
    for (block, out) in blocks.as_chunks::<84>().0.iter().zip(out.as_chunks_mut().0) {
        let mut codes = [0; 256];
        bits::add_pairs(&mut codes, &block[16..80], 0);
        let (scales, mins) = scales(block);
        affine_values::<16>(out, &codes, &scales, &mins);
    }
}

#[inline(always)]
fn scales(block: &[u8; 84]) -> ([f32; 16], [f32; 16]) {
    let (scale, min) = (half(block, 80), half(block, 82));
    let mut out = ([0.0; 16], [0.0; 16]);
    for (i, byte) in block[..16].iter().enumerate() {
        out.0[i] = scale * f32::from(byte & 15);
        out.1[i] = min * f32::from(byte >> 4);
    }
    out
}

#[inline(always)]
fn blocks_loop(values: &[f32], out: &mut [u8]) {
    const SEARCH: fit::Search = fit::Search { top: 3.0, first: -0.5, steps: 15, absolute: true };
    for (x, block) in values.as_chunks().0.iter().zip(out.as_chunks_mut::<84>().0) {
        let lanes = fit::lanes::<16, 16>(x);
        let fit = fit::affine(&lanes, &lanes.map(|x| x.map(f32::abs)), SEARCH);
        let (whole, scale) = whole_scales(&fit.scale, 15.0);
        let (whole_min, min) = whole_scales(&fit.min, 15.0);
        for (i, byte) in block[..16].iter_mut().enumerate() {
            *byte = whole[i] | whole_min[i] << 4;
        }
        put_half(block, 80, scale);
        put_half(block, 82, min);
        let mut codes = fit::codes(&fit.codes);
        let (scales, mins) = scales(block);
        set_affine::<16>(&mut codes, x, &scales, &mins, 3.0);
        bits::put_pairs(&mut block[16..80], &codes, 0);
    }
}

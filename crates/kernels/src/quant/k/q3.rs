//! Q3_K: 3 bits; groups of 16 with a signed scale of 6 bits.
//!
//! 32 bytes of third bits, 64 of the other two, 12 of scales, one f16.

use super::super::{bits, fit, half, put_half};
use super::{centred_values, extreme, set_centred};
use crate::vector::per_isa;

per_isa! { pub(in crate::quant) fn values(blocks: &[u8], out: &mut [f32]) = plain values_loop; }
per_isa! { pub(in crate::quant) fn blocks(values: &[f32], out: &mut [u8]) = plain blocks_loop; }

#[inline(always)]
fn values_loop(blocks: &[u8], out: &mut [f32]) {
    for (block, out) in blocks.as_chunks::<110>().0.iter().zip(out.as_chunks_mut().0) {
        let mut codes = [0; 256];
        bits::add_pairs(&mut codes, &block[32..96], 0);
        bits::add_plane(&mut codes, &block[..32], 2);
        centred_values(out, &codes, &scales(block), 4);
    }
}

/// The scales: their low 4 bits lie in 8 bytes as halves, their high 2 in 4 bytes as pairs.
#[inline(always)]
fn scales(block: &[u8; 110]) -> [f32; 16] {
    let (scale, packed) = (half(block, 108), &block[96..108]);
    let mut out = [0.0; 16];
    for (i, out) in out.iter_mut().enumerate() {
        let low = packed[i % 8] >> (4 * (i / 8)) & 15;
        let high = packed[8 + i % 4] >> (2 * (i / 4)) & 3;
        *out = scale * (i32::from(low | high << 4) - 32) as f32;
    }
    out
}

#[inline(always)]
fn blocks_loop(values: &[f32], out: &mut [u8]) {
    for (x, block) in values.as_chunks().0.iter().zip(out.as_chunks_mut::<110>().0) {
        let fit = fit::descent(&fit::lanes::<16, 16>(x), 4.0);
        let extreme = extreme(&fit.scale);
        block[96..108].fill(0);
        let mut scale = 0.0;
        if extreme != 0.0 {
            // The extreme scale takes the code that reaches furthest, -32.
            let inverse = -32.0 / extreme;
            scale = 1.0 / inverse;
            for (i, &scale) in fit.scale.iter().enumerate() {
                let code = (fit::nearest(inverse * scale, -32.0, 31.0) + 32.0) as u8;
                block[96 + i % 8] |= (code & 15) << (4 * (i / 8));
                block[104 + i % 4] |= (code >> 4) << (2 * (i / 4));
            }
        }
        put_half(block, 108, scale);
        let mut codes = fit::codes(&fit.codes);
        set_centred(&mut codes, x, &scales(block), 4.0);
        bits::put_pairs(&mut block[32..96], &codes, 0);
        bits::put_plane(&mut block[..32], &codes, 2);
    }
}

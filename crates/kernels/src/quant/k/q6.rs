//! Q6_K: 6 bits; groups of 16 with a signed scale of 8 bits.
//!
//! 128 bytes of the low 4 bits, 64 of the high 2, 16 scales, one f16.

use super::super::{bits, fit, half, put_half};
use super::{centred_values, extreme, set_centred};
use crate::vector::per_isa;

per_isa! { pub(in crate::quant) fn values(blocks: &[u8], out: &mut [f32]) = plain values_loop; }
per_isa! { pub(in crate::quant) fn blocks(values: &[f32], out: &mut [u8]) = plain blocks_loop; }

#[inline(always)]
fn values_loop(blocks: &[u8], out: &mut [f32]) {
    for (block, out) in blocks.as_chunks::<210>().0.iter().zip(out.as_chunks_mut().0) {
        let mut codes = [0; 256];
        bits::nibbles::<64>(&mut codes, &block[..128]);
        bits::add_pairs(&mut codes, &block[128..192], 4);
        centred_values(out, &codes, &scales(block), 32);
    }
}

#[inline(always)]
fn scales(block: &[u8; 210]) -> [f32; 16] {
    let scale = half(block, 208);
    let mut out = [0.0; 16];
    for (out, code) in out.iter_mut().zip(&block[192..208]) {
        *out = scale * f32::from(*code as i8);
    }
    out
}

#[inline(always)]
fn blocks_loop(values: &[f32], out: &mut [u8]) {
    for (x, block) in values.as_chunks().0.iter().zip(out.as_chunks_mut::<210>().0) {
        let fit = fit::symmetric(&fit::lanes::<16, 16>(x), 32.0);
        let extreme = extreme(&fit.scale);
        if extreme.abs() < fit::ZERO {
            block.fill(0);
            continue;
        }
        // The extreme scale takes the code that reaches furthest, -128.
        let inverse = -128.0 / extreme;
        for (code, scale) in block[192..208].iter_mut().zip(&fit.scale) {
            *code = fit::nearest(inverse * scale, -128.0, 127.0) as i8 as u8;
        }
        put_half(block, 208, 1.0 / inverse);
        let mut codes = fit::codes(&fit.codes);
        set_centred(&mut codes, x, &scales(block), 32.0);
        bits::put_nibbles::<64>(&mut block[..128], &codes);
        bits::put_pairs(&mut block[128..192], &codes, 4);
    }
}

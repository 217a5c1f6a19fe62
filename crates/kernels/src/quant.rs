//! Weights in blocks of few bits, as GGUF files hold them: which kinds there are, how large their blocks are, and the
//! way from blocks to f32 and back. `nf4` is another way, which is in no file.
//!
//! Blocks become f32 with the bits that llama.cpp's plain code gives. Values become blocks as its tool for quantising
//! makes them without an importance matrix, so a file written here holds the bytes that one written there would.

mod bits;
mod fit;
pub(crate) mod iq4;
mod k;
mod legacy;
pub(crate) mod nf4;
#[cfg(test)]
mod tests;

use half::f16;

use crate::threads;

pub use nf4::{NF4, Nf4, Nf4Ref, Nf4Writer};

/// A kind of blocks, by llama.cpp's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(non_camel_case_types, reason = "the field's own names")]
pub enum Quant {
    /// 4 bits and a scale.
    Q4_0,
    /// 4 bits, a scale and a minimum.
    Q4_1,
    /// 5 bits and a scale.
    Q5_0,
    /// 5 bits, a scale and a minimum.
    Q5_1,
    /// 8 bits and a scale.
    Q8_0,
    /// 2 bits; sixteen scales and minima of 4 bits in a block of 256.
    Q2_K,
    /// 3 bits; sixteen scales of 6 bits in a block of 256.
    Q3_K,
    /// 4 bits; eight scales and minima of 6 bits in a block of 256.
    Q4_K,
    /// 5 bits; eight scales and minima of 6 bits in a block of 256.
    Q5_K,
    /// 6 bits; sixteen scales of 8 bits in a block of 256.
    Q6_K,
    /// 4 bits that index a table of sixteen values, and a scale.
    IQ4_NL,
    /// The same table; eight scales of 6 bits in a block of 256.
    IQ4_XS,
}

impl Quant {
    /// All kinds.
    pub const ALL: [Quant; 12] = [
        Quant::Q4_0,
        Quant::Q4_1,
        Quant::Q5_0,
        Quant::Q5_1,
        Quant::Q8_0,
        Quant::Q2_K,
        Quant::Q3_K,
        Quant::Q4_K,
        Quant::Q5_K,
        Quant::Q6_K,
        Quant::IQ4_NL,
        Quant::IQ4_XS,
    ];

    /// The number of the type in a GGUF file.
    pub const fn id(self) -> u32 {
        match self {
            Quant::Q4_0 => 2,
            Quant::Q4_1 => 3,
            Quant::Q5_0 => 6,
            Quant::Q5_1 => 7,
            Quant::Q8_0 => 8,
            Quant::Q2_K => 10,
            Quant::Q3_K => 11,
            Quant::Q4_K => 12,
            Quant::Q5_K => 13,
            Quant::Q6_K => 14,
            Quant::IQ4_NL => 20,
            Quant::IQ4_XS => 23,
        }
    }

    /// The kind that [`Quant::id`] gives this number.
    pub fn from_id(id: u32) -> Option<Quant> {
        Quant::ALL.into_iter().find(|kind| kind.id() == id)
    }

    /// The name, in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Quant::Q4_0 => "q4_0",
            Quant::Q4_1 => "q4_1",
            Quant::Q5_0 => "q5_0",
            Quant::Q5_1 => "q5_1",
            Quant::Q8_0 => "q8_0",
            Quant::Q2_K => "q2_k",
            Quant::Q3_K => "q3_k",
            Quant::Q4_K => "q4_k",
            Quant::Q5_K => "q5_k",
            Quant::Q6_K => "q6_k",
            Quant::IQ4_NL => "iq4_nl",
            Quant::IQ4_XS => "iq4_xs",
        }
    }

    /// The kind of this name, in upper or lower case: tools write `Q4_K`, `q4_K` and `q4_k`.
    pub fn from_name(name: &str) -> Option<Quant> {
        Quant::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name))
    }

    /// Elements of a block.
    pub const fn block(self) -> usize {
        match self {
            Quant::Q4_0 | Quant::Q4_1 | Quant::Q5_0 | Quant::Q5_1 | Quant::Q8_0 | Quant::IQ4_NL => 32,
            _ => 256,
        }
    }

    /// Bytes of a block.
    pub const fn bytes(self) -> usize {
        match self {
            Quant::Q4_0 | Quant::IQ4_NL => 18,
            Quant::Q4_1 => 20,
            Quant::Q5_0 => 22,
            Quant::Q5_1 => 24,
            Quant::Q8_0 => 34,
            Quant::Q2_K => 84,
            Quant::Q3_K => 110,
            Quant::Q4_K => 144,
            Quant::Q5_K => 176,
            Quant::Q6_K => 210,
            Quant::IQ4_XS => 136,
        }
    }

    /// The values of any number of whole blocks, on the caller's thread.
    ///
    /// # Panics
    /// `blocks` is not whole blocks, or `out` has another length than their elements.
    pub fn dequantize(self, blocks: &[u8], out: &mut [f32]) {
        self.check("dequantize", out.len(), blocks.len());
        match self {
            Quant::Q4_0 => legacy::q4_0_values(blocks, out),
            Quant::Q4_1 => legacy::q4_1_values(blocks, out),
            Quant::Q5_0 => legacy::q5_0_values(blocks, out),
            Quant::Q5_1 => legacy::q5_1_values(blocks, out),
            Quant::Q8_0 => legacy::q8_0_values(blocks, out),
            Quant::Q2_K => k::q2::values(blocks, out),
            Quant::Q3_K => k::q3::values(blocks, out),
            Quant::Q4_K => k::q45::q4_values(blocks, out),
            Quant::Q5_K => k::q45::q5_values(blocks, out),
            Quant::Q6_K => k::q6::values(blocks, out),
            Quant::IQ4_NL => iq4::nl_values(blocks, out),
            Quant::IQ4_XS => iq4::xs_values(blocks, out),
        }
    }

    /// The blocks of any number of values, on the caller's thread.
    ///
    /// What comes back from the blocks is always finite: a NaN counts as 0, and values beyond what a block can hold as
    /// the largest that it can.
    ///
    /// # Panics
    /// `values` does not fill whole blocks, or `out` has another length than those.
    pub fn quantize(self, values: &[f32], out: &mut [u8]) {
        self.check("quantize", values.len(), out.len());
        let limit = self.limit();
        // A NaN fails the comparison too.
        if values.iter().all(|x| x.abs() <= limit) {
            self.quantize_tame(values, out);
        } else {
            let tame = |x: &f32| if x.is_nan() { 0.0 } else { x.clamp(-limit, limit) };
            self.quantize_tame(&values.iter().map(tame).collect::<Vec<_>>(), out);
        }
    }

    /// [`Quant::quantize`] for values no larger than [`Quant::limit`].
    fn quantize_tame(self, values: &[f32], out: &mut [u8]) {
        match self {
            Quant::Q4_0 => legacy::q4_0_blocks(values, out),
            Quant::Q4_1 => legacy::q4_1_blocks(values, out),
            Quant::Q5_0 => legacy::q5_0_blocks(values, out),
            Quant::Q5_1 => legacy::q5_1_blocks(values, out),
            Quant::Q8_0 => legacy::q8_0_blocks(values, out),
            Quant::Q2_K => k::q2::blocks(values, out),
            Quant::Q3_K => k::q3::blocks(values, out),
            Quant::Q4_K => k::q45::q4_blocks(values, out),
            Quant::Q5_K => k::q45::q5_blocks(values, out),
            Quant::Q6_K => k::q6::blocks(values, out),
            Quant::IQ4_NL => iq4::nl_blocks(values, out),
            Quant::IQ4_XS => iq4::xs_blocks(values, out),
        }
    }

    /// [`Quant::dequantize`] over all threads.
    ///
    /// # Panics
    /// As there.
    pub fn dequantize_rows(self, blocks: &[u8], out: &mut [f32]) {
        self.check("dequantize_rows", out.len(), blocks.len());
        let bytes = PIECE / self.block() * self.bytes();
        threads::for_each_chunk(out, PIECE, blocks.len() * 4, |piece, out| {
            let from = piece * bytes;
            self.dequantize(&blocks[from..blocks.len().min(from + bytes)], out);
        });
    }

    /// [`Quant::quantize`] over all threads, which change no bit of the result.
    ///
    /// # Panics
    /// As there.
    pub fn quantize_rows(self, values: &[f32], out: &mut [u8]) {
        self.check("quantize_rows", values.len(), out.len());
        let bytes = PIECE / self.block() * self.bytes();
        threads::for_each_chunk(out, bytes, values.len() * 32, |piece, out| {
            let from = piece * PIECE;
            self.quantize(&values[from..values.len().min(from + PIECE)], out);
        });
    }

    /// The largest magnitude that values of a block may have: what keeps its f16 scale finite.
    fn limit(self) -> f32 {
        let scales = match self {
            // The minimum stands in the block as it is.
            Quant::Q4_1 | Quant::Q5_1 => 1.0,
            Quant::Q4_0 => 8.0,
            Quant::Q5_0 => 16.0,
            Quant::Q8_0 => 127.0,
            // The minimum, in units of the block's.
            Quant::Q2_K => 15.0,
            Quant::Q4_K | Quant::Q5_K => 63.0,
            Quant::Q3_K => 4.0 * 32.0,
            Quant::Q6_K => 32.0 * 128.0,
            // The table ends at -127 and at 113.
            Quant::IQ4_NL => 113.0,
            Quant::IQ4_XS => 113.0 * 32.0,
        };
        scales * HALF_MAX
    }

    fn check(self, name: &str, values: usize, bytes: usize) {
        assert!(
            values.is_multiple_of(self.block()) && values / self.block() * self.bytes() == bytes,
            "{name}: {values} values and {bytes} bytes are not the same number of {} blocks ({} values, {} bytes)",
            self.name(),
            self.block(),
            self.bytes()
        );
    }
}

/// Values that a thread takes at a time: a multiple of every block.
const PIECE: usize = 1 << 13;

/// The largest finite f16.
const HALF_MAX: f32 = 65504.0;

/// The f16 at `block[at..]`.
#[inline(always)]
fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Writes `value` as f16 at `block[at..]`, never as an infinity, and returns what then stands there.
#[inline(always)]
fn put_half(block: &mut [u8], at: usize, value: f32) -> f32 {
    let value = f16::from_f32(value.clamp(-HALF_MAX, HALF_MAX));
    block[at..at + 2].copy_from_slice(&value.to_le_bytes());
    value.to_f32()
}

//! NF4 with doubly quantised scales (Dettmers et al. 2023, section 3): codes of 4 bits for sixteen values that a normal
//! distribution wants, and a scale for every 64 of them, which is kept in 8 bits itself. 4.127 bits for a number.
//!
//! A number is `TABLE[code] · scale`, and a scale `SCALES[byte] · span + mean`: 256 scales in a row share a span, all of a
//! matrix the mean. So blocks do not stand for themselves, as those of GGUF files do, and no such file can hold them. The
//! codes lie in bytes as those of Q4_0 do, 32 by 32.

use std::ops::Range;

use super::bits;
use crate::isa::{Isa, isa};
use crate::simd::{Kernel, Simd, dispatch};
use crate::threads::{self, Shared};

/// What the codes stand for.
pub(crate) const TABLE: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];
/// What numbers in NF4 with doubly quantised scales are called.
pub const NF4: &str = "nf4";

/// Numbers that share a scale.
pub(crate) const BLOCK: usize = 64;
/// Bytes of their codes.
pub(crate) const BYTES: usize = BLOCK / 2;
/// Scales that share a span.
const GROUP: usize = 256;
/// Blocks that a thread takes at a time.
const PIECE: usize = 256;
/// Below this a divisor counts as this: what is divided by it is nothing then.
const TINY: f32 = 1e-38;

/// The middles between neighbours of a table: what lies in the middle goes down.
const fn middles<const N: usize, const M: usize>(table: &[f32; N]) -> [f32; M] {
    let (mut middles, mut i) = ([0.0; M], 0);
    while i < M {
        middles[i] = (table[i] + table[i + 1]) / 2.0;
        i += 1;
    }
    middles
}

const TABLE_MIDDLES: [f32; 15] = middles(&TABLE);
const SCALES_MIDDLES: [f32; 255] = middles(&SCALES);

/// What the bytes of scales stand for, in parts of their span: the dynamic data type of 8 bits of Dettmers (2016), rising. Seven
/// powers of ten of either sign, the upper ones cut finer, then 0 and 1.
static SCALES: [f32; 256] = dynamic();

const fn dynamic() -> [f32; 256] {
    const TENS: [f32; 7] = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0];
    let mut table = [0.0; 256];
    let (mut power, mut at) = (0, 0);
    while power < 7 {
        let parts = 1usize << power;
        let mut part = 0;
        while part < parts {
            let value = TENS[power] * ((edge(part, parts) + edge(part + 1, parts)) / 2.0);
            // 127 of either sign about the 0 in the middle.
            table[128 + at] = value;
            table[126 - at] = -value;
            (part, at) = (part + 1, at + 1);
        }
        power += 1;
    }
    table[255] = 1.0;
    table
}

/// Border `i` of the range from 0.1 to 1 cut into `parts`, reckoned from the nearer end and rounded once.
const fn edge(i: usize, parts: usize) -> f32 {
    let step = ((1.0 - 0.1f32) / parts as f32) as f64;
    if i < parts.div_ceil(2) {
        (0.1f32 as f64 + step * i as f64) as f32
    } else {
        (1.0 - step * (parts - i) as f64) as f32
    }
}

/// Numbers in NF4.
pub struct Nf4 {
    codes: Vec<u8>,
    scales: Vec<u8>,
    spans: Vec<f32>,
    mean: f32,
}

impl Nf4 {
    /// Numbers of a block.
    pub const BLOCK: usize = BLOCK;

    /// Bytes that so many numbers take; `None` unless they are whole blocks.
    pub fn room(count: usize) -> Option<usize> {
        let blocks = count.is_multiple_of(BLOCK).then_some(count / BLOCK)?;
        Some(blocks * (BYTES + 1) + (blocks.div_ceil(GROUP) + 1) * size_of::<f32>())
    }

    /// The numbers as products take them.
    pub fn view(&self) -> Nf4Ref<'_> {
        Nf4Ref { codes: &self.codes, scales: &self.scales, first: 0, spans: &self.spans, mean: self.mean }
    }
}

impl std::fmt::Debug for Nf4 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} numbers in NF4", self.view().len())
    }
}

/// Makes [`Nf4`] of numbers that come piece by piece, so that they need not be in memory at once.
#[derive(Default)]
pub struct Nf4Writer {
    codes: Vec<u8>,
    /// The largest magnitudes of the blocks.
    scales: Vec<f32>,
}

impl Nf4Writer {
    /// With room for so many numbers; `None` where there is no memory for them.
    pub fn with_room(count: usize) -> Option<Self> {
        let mut writer = Self::default();
        writer.codes.try_reserve_exact(count / BLOCK * BYTES).ok()?;
        writer.scales.try_reserve_exact(count / BLOCK).ok()?;
        Some(writer)
    }

    /// Takes some whole blocks of finite numbers; threads change no bit of the result.
    ///
    /// # Panics
    /// If they are no whole blocks.
    pub fn push(&mut self, values: &[f32]) {
        assert!(values.len().is_multiple_of(BLOCK), "nf4: {} numbers are not whole blocks of {BLOCK}", values.len());
        let (before, blocks) = (self.scales.len(), values.len() / BLOCK);
        self.codes.resize((before + blocks) * BYTES, 0);
        self.scales.resize(before + blocks, 0.0);
        let (codes, scales) = (Shared(self.codes.as_mut_ptr()), Shared(self.scales.as_mut_ptr()));
        threads::for_each(blocks.div_ceil(PIECE), values.len() * 16, |piece| {
            let here = piece * PIECE..blocks.min((piece + 1) * PIECE);
            // SAFETY: each piece is one task's.
            let (codes, scales) = unsafe {
                (
                    codes.slice((before + here.start) * BYTES, here.len() * BYTES),
                    scales.slice(before + here.start, here.len()),
                )
            };
            let values = &values[here.start * BLOCK..here.end * BLOCK];
            dispatch(isa(), Encode { values, codes, scales });
        });
    }

    /// What has been taken, its scales in 8 bits.
    pub fn finish(self) -> Nf4 {
        let count = self.scales.len().max(1) as f64;
        let mean = (self.scales.iter().map(|&scale| f64::from(scale)).sum::<f64>() / count) as f32;
        let mut scales = vec![0; self.scales.len()];
        let spans = (self.scales.chunks(GROUP).zip(scales.chunks_mut(GROUP))).map(|(from, to)| {
            let span = from.iter().fold(0f32, |most, scale| most.max((scale - mean).abs()));
            let inverse = 1.0 / span.max(TINY);
            for (to, scale) in to.iter_mut().zip(from) {
                let part = ((scale - mean) * inverse).clamp(-1.0, 1.0);
                *to = SCALES_MIDDLES.partition_point(|middle| *middle < part) as u8;
            }
            span
        });
        Nf4 { spans: spans.collect(), codes: self.codes, scales, mean }
    }
}

struct Encode<'a> {
    values: &'a [f32],
    codes: &'a mut [u8],
    scales: &'a mut [f32],
}

impl Kernel for Encode<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let blocks = self.values.as_chunks::<BLOCK>().0.iter().zip(self.codes.as_chunks_mut::<BYTES>().0);
        for ((values, bytes), scale) in blocks.zip(self.scales) {
            *scale = values.iter().fold(0f32, |most, x| most.max(x.abs()));
            let inverse = 1.0 / scale.max(TINY);
            let mut codes = [0; BLOCK];
            for (code, x) in codes.iter_mut().zip(values) {
                let part = (x * inverse).clamp(-1.0, 1.0);
                // As many as there are middles below it, which asks no branches.
                *code = TABLE_MIDDLES.iter().map(|middle| u8::from(*middle < part)).sum();
            }
            bits::put_nibbles::<16>(bytes, &codes);
        }
    }
}

/// [`Nf4`], or some blocks of it.
#[derive(Clone, Copy, Debug)]
pub struct Nf4Ref<'a> {
    codes: &'a [u8],
    scales: &'a [u8],
    /// The place of the first block among those that share its span, which is the first of these.
    first: usize,
    spans: &'a [f32],
    mean: f32,
}

impl<'a> Nf4Ref<'a> {
    /// How many numbers.
    pub fn len(&self) -> usize {
        self.scales.len() * BLOCK
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.scales.is_empty()
    }

    /// Bytes of memory.
    pub fn room(&self) -> usize {
        self.codes.len() + self.scales.len() + size_of_val(self.spans) + size_of::<f32>()
    }

    /// The codes, two in a byte.
    pub(crate) fn codes(&self) -> &'a [u8] {
        self.codes
    }

    /// Blocks of a range.
    pub(crate) fn slice(&self, blocks: Range<usize>) -> Self {
        let first = self.first + blocks.start;
        Self {
            codes: &self.codes[blocks.start * BYTES..blocks.end * BYTES],
            scales: &self.scales[blocks],
            first: first % GROUP,
            spans: &self.spans[(first / GROUP).min(self.spans.len())..],
            mean: self.mean,
        }
    }

    /// The scale of a block.
    #[inline(always)]
    pub(crate) fn scale(&self, block: usize) -> f32 {
        SCALES[usize::from(self.scales[block])] * self.spans[(self.first + block) / GROUP] + self.mean
    }

    /// The numbers in f32, on the caller's thread.
    pub(crate) fn widen(&self, to: &mut [f32]) {
        self.widen_on(isa(), to);
    }

    fn widen_on(&self, isa: Isa, to: &mut [f32]) {
        assert!(to.len() == self.len(), "nf4: {} numbers go into {}", self.len(), to.len());
        dispatch(isa, Widen { from: *self, to });
    }

    /// The same over all threads.
    pub(crate) fn widen_rows(&self, to: &mut [f32]) {
        let blocks = self.scales.len();
        threads::for_each_chunk(to, PIECE * BLOCK, self.len() * 2, |piece, to| {
            self.slice(piece * PIECE..blocks.min((piece + 1) * PIECE)).widen(to);
        });
    }
}

struct Widen<'a> {
    from: Nf4Ref<'a>,
    to: &'a mut [f32],
}

impl Kernel for Widen<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { from, to } = self;
        for (block, (codes, to)) in
            from.codes.as_chunks::<BYTES>().0.iter().zip(to.as_chunks_mut::<BLOCK>().0).enumerate()
        {
            // SAFETY: `dispatch` found S; a block has 32 bytes for 64 numbers, and each 16 of them 32.
            unsafe {
                let table = S::table(&TABLE, from.scale(block));
                for half in 0..2 {
                    for at in (0..16).step_by(S::LANES) {
                        let [low, high] = S::look_up(table, codes.as_ptr().add(16 * half + at));
                        let to = to.as_mut_ptr().add(32 * half + at);
                        S::store(to, low);
                        S::store(to.add(16), high);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;

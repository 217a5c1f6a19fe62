//! A weight matrix as products read it: in floats or in blocks of few bits, perhaps borrowed from a memory map.

use std::ops::Range;

use half::{bf16, f16};

use super::Bytes;
use crate::quant::Quant;

/// A weight matrix `[n, k]` (outputs, inputs), row-major.
#[derive(Clone, Copy, Debug)]
pub enum MatRef<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// bfloat16.
    Bf16(&'a [bf16]),
    /// IEEE half precision.
    F16(&'a [f16]),
    /// Quantised; each row is a whole number of blocks.
    Blocks(Blocks<'a>),
    /// In bytes, with a scale for each row.
    Bytes(Bytes<'a>),
}

/// Numbers in blocks of few bits.
#[derive(Clone, Copy, Debug)]
pub struct Blocks<'a> {
    kind: Quant,
    bytes: &'a [u8],
}

impl<'a> Blocks<'a> {
    /// `None` unless the bytes are whole blocks.
    pub fn new(kind: Quant, bytes: &'a [u8]) -> Option<Self> {
        bytes.len().is_multiple_of(kind.bytes()).then_some(Self { kind, bytes })
    }

    /// How the blocks are made.
    pub fn kind(&self) -> Quant {
        self.kind
    }

    /// The blocks.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The blocks of a range of elements.
    ///
    /// # Panics
    /// If the range does not begin and end between two blocks.
    pub fn slice(&self, range: Range<usize>) -> Blocks<'a> {
        let (block, bytes) = (self.kind.block(), self.kind.bytes());
        assert!(
            range.start.is_multiple_of(block) && range.end.is_multiple_of(block),
            "elements {range:?} of {} are not whole blocks of {block}",
            self.kind.name()
        );
        Blocks { kind: self.kind, bytes: &self.bytes[range.start / block * bytes..range.end / block * bytes] }
    }

    /// Rows and columns of a matrix with `width` columns, by `widen(blocks, to)` for each row: whole blocks that cover the
    /// columns. The first of them then stands at the place that is returned, in rows of the length returned with it.
    pub(crate) fn window<T: Copy + Default>(
        &self,
        width: usize,
        rows: Range<usize>,
        columns: Range<usize>,
        to: &mut Vec<T>,
        widen: impl Fn(Blocks, &mut [T]),
    ) -> (usize, usize) {
        let block = self.kind.block();
        let (first, last) = (columns.start / block * block, columns.end.next_multiple_of(block).min(width));
        let len = last - first;
        to.resize(rows.len() * len, T::default());
        for (row, to) in rows.zip(to.chunks_exact_mut(len.max(1))) {
            widen(self.slice(row * width + first..row * width + last), to);
        }
        (columns.start - first, len)
    }

    /// The elements of a range as f32.
    pub(crate) fn widen(&self, range: Range<usize>, to: &mut [f32]) {
        self.kind.dequantize(self.slice(range).bytes, to);
    }
}

impl<'a> MatRef<'a> {
    /// How many elements.
    pub fn len(&self) -> usize {
        match self {
            MatRef::F32(w) => w.len(),
            MatRef::Bf16(w) => w.len(),
            MatRef::F16(w) => w.len(),
            MatRef::Blocks(w) => w.bytes.len() / w.kind.bytes() * w.kind.block(),
            MatRef::Bytes(w) => w.sizes().iter().product(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        match self {
            MatRef::F32(w) => size_of_val(*w),
            MatRef::Bf16(w) => size_of_val(*w),
            MatRef::F16(w) => size_of_val(*w),
            MatRef::Blocks(w) => w.bytes.len(),
            MatRef::Bytes(w) => w.bytes(),
        }
    }

    /// The elements of a range, of whole blocks where there are blocks, of whole tiles' rows in bytes.
    pub fn slice(&self, range: Range<usize>) -> MatRef<'a> {
        match self {
            MatRef::F32(w) => MatRef::F32(&w[range]),
            MatRef::Bf16(w) => MatRef::Bf16(&w[range]),
            MatRef::F16(w) => MatRef::F16(&w[range]),
            MatRef::Blocks(w) => MatRef::Blocks(w.slice(range)),
            MatRef::Bytes(w) => MatRef::Bytes(w.slice(range)),
        }
    }

    /// One element as f32.
    pub fn get(&self, i: usize) -> f32 {
        match self {
            MatRef::F32(w) => w[i],
            MatRef::Bf16(w) => w[i].to_f32(),
            MatRef::F16(w) => w[i].to_f32(),
            MatRef::Bytes(w) => w.get(i),
            MatRef::Blocks(w) => {
                let block = w.kind.block();
                let (first, mut values) = (i / block * block, [0f32; 256]);
                w.widen(first..first + block, &mut values[..block]);
                values[i - first]
            }
        }
    }
}

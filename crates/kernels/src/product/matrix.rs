//! A weight matrix as products read it: in floats or in blocks of few bits, perhaps borrowed from a memory map.

use std::ops::Range;

use half::{bf16, f16};

use super::Bytes;
use crate::quant::nf4::{self, NF4};
use crate::quant::{Nf4Ref, Quant};

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
pub enum Blocks<'a> {
    /// As GGUF files hold them: each stands for itself.
    Gguf(Gguf<'a>),
    /// In NF4.
    Nf4(Nf4Ref<'a>),
}

/// Numbers in blocks of one of GGUF's kinds.
#[derive(Clone, Copy, Debug)]
pub struct Gguf<'a> {
    kind: Quant,
    bytes: &'a [u8],
}

impl<'a> Gguf<'a> {
    /// How the blocks are made.
    pub fn kind(&self) -> Quant {
        self.kind
    }

    /// The blocks.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

impl<'a> Blocks<'a> {
    /// Blocks of one of GGUF's kinds; `None` unless the bytes are whole ones.
    pub fn new(kind: Quant, bytes: &'a [u8]) -> Option<Self> {
        bytes.len().is_multiple_of(kind.bytes()).then_some(Self::Gguf(Gguf { kind, bytes }))
    }

    /// The name of the kind.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Gguf(blocks) => blocks.kind.name(),
            Self::Nf4(_) => NF4,
        }
    }

    /// Elements of a block.
    pub fn block(&self) -> usize {
        match self {
            Self::Gguf(blocks) => blocks.kind.block(),
            Self::Nf4(_) => nf4::BLOCK,
        }
    }

    /// How many elements.
    pub fn len(&self) -> usize {
        match self {
            Self::Gguf(Gguf { kind, bytes }) => bytes.len() / kind.bytes() * kind.block(),
            Self::Nf4(blocks) => blocks.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What products read from one end to the other: the blocks, of NF4 their codes alone.
    pub fn bytes(&self) -> &'a [u8] {
        match self {
            Self::Gguf(blocks) => blocks.bytes,
            Self::Nf4(blocks) => blocks.codes(),
        }
    }

    /// How many of [`Blocks::bytes`] hold so many elements.
    pub(crate) fn bytes_of(&self, elements: usize) -> usize {
        match self {
            Self::Gguf(Gguf { kind, .. }) => elements * kind.bytes() / kind.block(),
            Self::Nf4(_) => elements * nf4::BYTES / nf4::BLOCK,
        }
    }

    /// Bytes of memory.
    pub fn room(&self) -> usize {
        match self {
            Self::Gguf(blocks) => blocks.bytes.len(),
            Self::Nf4(blocks) => blocks.room(),
        }
    }

    /// The blocks of a range of elements.
    ///
    /// # Panics
    /// If the range does not begin and end between two blocks.
    pub fn slice(&self, range: Range<usize>) -> Blocks<'a> {
        let block = self.block();
        assert!(
            range.start.is_multiple_of(block) && range.end.is_multiple_of(block),
            "elements {range:?} of {} are not whole blocks of {block}",
            self.name()
        );
        let range = range.start / block..range.end / block;
        match self {
            Self::Gguf(Gguf { kind, bytes }) => {
                let bytes = &bytes[range.start * kind.bytes()..range.end * kind.bytes()];
                Self::Gguf(Gguf { kind: *kind, bytes })
            }
            Self::Nf4(blocks) => Self::Nf4(blocks.slice(range)),
        }
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
        let block = self.block();
        let (first, last) = (columns.start / block * block, columns.end.next_multiple_of(block).min(width));
        let len = last - first;
        to.resize(rows.len() * len, T::default());
        for (row, to) in rows.zip(to.chunks_exact_mut(len.max(1))) {
            widen(self.slice(row * width + first..row * width + last), to);
        }
        (columns.start - first, len)
    }

    /// All elements as f32, on the caller's thread.
    pub(crate) fn widen(&self, to: &mut [f32]) {
        match self {
            Self::Gguf(blocks) => blocks.kind.dequantize(blocks.bytes, to),
            Self::Nf4(blocks) => blocks.widen(to),
        }
    }

    /// The same over all threads.
    pub(crate) fn widen_rows(&self, to: &mut [f32]) {
        match self {
            Self::Gguf(blocks) => blocks.kind.dequantize_rows(blocks.bytes, to),
            Self::Nf4(blocks) => blocks.widen_rows(to),
        }
    }
}

impl<'a> MatRef<'a> {
    /// How many elements.
    pub fn len(&self) -> usize {
        match self {
            MatRef::F32(w) => w.len(),
            MatRef::Bf16(w) => w.len(),
            MatRef::F16(w) => w.len(),
            MatRef::Blocks(w) => w.len(),
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
            MatRef::Blocks(w) => w.room(),
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
                let block = w.block();
                let (first, mut values) = (i / block * block, [0f32; 256]);
                w.slice(first..first + block).widen(&mut values[..block]);
                values[i - first]
            }
        }
    }
}

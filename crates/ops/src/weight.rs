//! Where the numbers of a weight live: in a tensor, in a file mapped into memory, or in blocks of few bits.

use std::sync::Arc;

use candle_core::{DType, Device, Result};
use half::{bf16, f16};
use phyla_kernels::map::{MappedFile, MappedSlice, bytes_of};
use phyla_kernels::product::{Blocks, ByteMatrix, MatRef};
use phyla_kernels::quant::{NF4, Nf4, Quant};

use crate::{Data, cpu};

/// Where a weight's numbers live.
#[derive(Clone)]
pub enum Weight {
    /// In a tensor of ours, on any device.
    Dense(Data),
    /// In a file mapped into memory, used in place: f32, bf16 or f16.
    Mapped(Arc<Mapped>),
    /// In blocks of few bits.
    Blocks(Arc<Quantised>),
    /// In bytes, with a scale for each row: for linear maps, and for inference alone.
    Bytes(Arc<ByteMatrix>),
}

/// Numbers in blocks of few bits.
pub struct Quantised {
    numbers: Numbers,
    shape: Vec<usize>,
}

enum Numbers {
    /// Blocks of a kind of GGUF's, in a mapped file.
    Mapped(MappedSlice, Quant),
    /// The same, of our own.
    Owned(Vec<u8>, Quant),
    /// In NF4.
    Nf4(Nf4),
}

impl Quantised {
    /// Blocks in a mapped file, used in place. `None` if they do not fit the shape, whose rows must be whole blocks.
    pub fn mapped(slice: MappedSlice, kind: Quant, shape: Vec<usize>) -> Option<Self> {
        Self { numbers: Numbers::Mapped(slice, kind), shape }.checked()
    }

    /// Blocks of our own, likewise.
    pub fn owned(bytes: Vec<u8>, kind: Quant, shape: Vec<usize>) -> Option<Self> {
        Self { numbers: Numbers::Owned(bytes, kind), shape }.checked()
    }

    /// Numbers in NF4, likewise.
    pub fn nf4(numbers: Nf4, shape: Vec<usize>) -> Option<Self> {
        Self { numbers: Numbers::Nf4(numbers), shape }.checked()
    }

    fn checked(self) -> Option<Self> {
        let (columns, blocks) = (*self.shape.last()?, self.blocks()?);
        let fits = columns.is_multiple_of(blocks.block()) && blocks.len() == self.shape.iter().product::<usize>();
        fits.then_some(self)
    }

    fn blocks(&self) -> Option<Blocks<'_>> {
        match &self.numbers {
            Numbers::Mapped(slice, kind) => Blocks::new(*kind, slice.bytes()),
            Numbers::Owned(bytes, kind) => Blocks::new(*kind, bytes),
            Numbers::Nf4(numbers) => Some(Blocks::Nf4(numbers.view())),
        }
    }

    /// Which of GGUF's kinds its blocks are; `None` in NF4, which is none of them.
    pub fn kind(&self) -> Option<Quant> {
        match &self.numbers {
            Numbers::Mapped(_, kind) | Numbers::Owned(_, kind) => Some(*kind),
            Numbers::Nf4(_) => None,
        }
    }

    /// The name of its kind.
    pub fn name(&self) -> &'static str {
        self.kind().map_or(NF4, Quant::name)
    }

    fn file(&self) -> Option<&Arc<MappedFile>> {
        match &self.numbers {
            Numbers::Mapped(slice, _) => Some(slice.file()),
            Numbers::Owned(..) | Numbers::Nf4(_) => None,
        }
    }
}

/// Numbers in a memory-mapped file.
pub struct Mapped {
    slice: MappedSlice,
    dtype: DType,
    shape: Vec<usize>,
}

impl Mapped {
    /// `None` if the bytes cannot be used in place: unaligned, of the wrong length or another type.
    pub fn new(slice: MappedSlice, dtype: DType, shape: Vec<usize>) -> Option<Self> {
        let mapped = Self { slice, dtype, shape };
        let count: usize = mapped.shape.iter().product();
        (mapped.mat()?.len() == count).then_some(mapped)
    }

    fn mat(&self) -> Option<MatRef<'_>> {
        match self.dtype {
            DType::F32 => self.slice.view().map(MatRef::F32),
            DType::BF16 => self.slice.view().map(MatRef::Bf16),
            DType::F16 => self.slice.view().map(MatRef::F16),
            _ => None,
        }
    }
}

/// What weights in bytes with a scale for each row are called.
pub const INT8: &str = "int8";

/// Bytes that a matrix of `rows` by `columns` takes in int8, scales and whole tiles included; `None` beyond all memory.
pub fn int8_room(rows: usize, columns: usize) -> Option<usize> {
    ByteMatrix::room(rows, columns)
}

impl Weight {
    /// These numbers in bytes, with a scale for each row, on the CPU.
    ///
    /// # Errors
    /// What is not a matrix, or one with rows too long for exact sums (133,144 numbers).
    pub fn to_int8(&self) -> Result<Weight> {
        let &[n, k] = self.dims() else {
            candle_core::bail!("{INT8} is for matrices, found a weight of shape {:?}", self.dims());
        };
        match self.with(|mat| Ok(ByteMatrix::quantize(mat, n, k)))? {
            Some(matrix) => Ok(Weight::Bytes(Arc::new(matrix))),
            None => candle_core::bail!("{INT8} cannot hold a weight of shape {:?}: its rows are too long", self.dims()),
        }
    }

    /// The type of the numbers; those in blocks are read as f32.
    pub fn dtype(&self) -> DType {
        match self {
            Weight::Dense(data) => data.dtype(),
            Weight::Mapped(mapped) => mapped.dtype,
            Weight::Blocks(_) | Weight::Bytes(_) => DType::F32,
        }
    }

    /// The name of the type in which they are stored.
    pub fn stored(&self) -> &'static str {
        match self {
            Weight::Blocks(blocks) => blocks.name(),
            Weight::Bytes(_) => INT8,
            other => other.dtype().as_str(),
        }
    }

    /// Bytes that they take.
    pub fn bytes(&self) -> usize {
        let count: usize = self.dims().iter().product();
        match self {
            Weight::Blocks(blocks) => blocks.blocks().map_or(0, |blocks| blocks.room()),
            Weight::Bytes(matrix) => matrix.view().bytes(),
            other => count * other.dtype().size_in_bytes(),
        }
    }

    /// The mapped file that they lie in, if they do.
    pub fn file(&self) -> Option<&Arc<MappedFile>> {
        match self {
            Weight::Mapped(mapped) => Some(mapped.slice.file()),
            Weight::Blocks(blocks) => blocks.file(),
            _ => None,
        }
    }

    /// Whether they are used where they lie in a mapped file.
    pub fn in_place(&self) -> bool {
        match self {
            Weight::Dense(_) | Weight::Bytes(_) => false,
            Weight::Mapped(_) => true,
            Weight::Blocks(blocks) => blocks.file().is_some(),
        }
    }

    /// Sizes of the dimensions.
    pub fn dims(&self) -> &[usize] {
        match self {
            Weight::Dense(data) => data.dims(),
            Weight::Mapped(mapped) => &mapped.shape,
            Weight::Blocks(blocks) => &blocks.shape,
            Weight::Bytes(matrix) => matrix.sizes(),
        }
    }

    /// Where the numbers are.
    pub fn device(&self) -> Device {
        match self {
            Weight::Dense(data) => data.device().clone(),
            Weight::Mapped(_) | Weight::Blocks(_) | Weight::Bytes(_) => Device::Cpu,
        }
    }

    /// Lends the numbers to a kernel.
    pub fn with<R>(&self, f: impl FnOnce(MatRef<'_>) -> Result<R>) -> Result<R> {
        match self {
            Weight::Mapped(mapped) => match mapped.mat() {
                Some(mat) => f(mat),
                None => candle_core::bail!("a mapped weight of type {:?} cannot be read in place", mapped.dtype),
            },
            Weight::Blocks(weight) => match weight.blocks() {
                Some(blocks) => f(MatRef::Blocks(blocks)),
                None => candle_core::bail!("a weight in {} is not whole blocks", weight.name()),
            },
            Weight::Bytes(matrix) => f(MatRef::Bytes(matrix.view())),
            Weight::Dense(data) => match data.dtype() {
                DType::F32 => f(MatRef::F32(&cpu::view::<f32>(data)?)),
                DType::BF16 => f(MatRef::Bf16(&cpu::view::<bf16>(data)?)),
                DType::F16 => f(MatRef::F16(&cpu::view::<f16>(data)?)),
                other => candle_core::bail!("weights are f32, bf16 or f16, found {other:?}"),
            },
        }
    }

    /// A few bytes of the numbers as they are stored, spread over them: what tells one weight from another without reading
    /// all of it: of NF4 the codes. None of those in int8, whose layout follows the machine.
    pub fn sample(&self, words: usize) -> Result<Vec<u8>> {
        self.with(|numbers| {
            let bytes = match numbers {
                MatRef::F32(numbers) => bytes_of(numbers),
                MatRef::Bf16(numbers) => bytes_of(numbers),
                MatRef::F16(numbers) => bytes_of(numbers),
                MatRef::Blocks(blocks) => blocks.bytes(),
                MatRef::Bytes(_) => &[],
            };
            let word = |i: usize| bytes[bytes.len() / words.max(1) * i..].iter().take(4).copied();
            Ok((0..words).flat_map(word).collect())
        })
    }

    /// The numbers as an f32 tensor: shared if they are one already, else a copy.
    pub fn to_f32(&self) -> Result<Data> {
        match self {
            Weight::Dense(data) => data.to_dtype(DType::F32),
            Weight::Mapped(_) | Weight::Blocks(_) | Weight::Bytes(_) => self.with(|mat| {
                let mut values = phyla_kernels::memory::alloc(mat.len());
                phyla_kernels::embed::widen(&mut values, mat);
                cpu::tensor(values, self.dims())
            }),
        }
    }
}

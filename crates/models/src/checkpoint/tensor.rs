//! One tensor of a checkpoint: a description and its bytes in the map, read in place or converted.

use std::ops::Range;

use half::{bf16, f16};
use phyla_kernels::map::MappedSlice;
use rayon::prelude::*;

use super::{CheckpointError, Dtype};

// The format is little-endian, and values are used in place.
const _: () = assert!(cfg!(target_endian = "little"));

/// Elements converted by one task: large enough that a task's start costs nothing beside it.
const CHUNK: usize = 1 << 18;

/// A tensor that still lies in its file: nothing is read before a method touches the bytes.
#[derive(Clone, Debug)]
pub struct TensorView {
    /// Its name in the checkpoint.
    pub name: String,
    /// Stored element type.
    pub dtype: Dtype,
    /// Lengths of the axes, row-major; empty for a scalar.
    pub shape: Vec<usize>,
    /// The bytes, little-endian, and the map that keeps them alive.
    pub slice: MappedSlice,
}

impl TensorView {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        // The header's check has shown that the product does not overflow.
        self.shape.iter().product()
    }

    /// The stored bytes, little-endian.
    pub fn bytes(&self) -> &[u8] {
        self.slice.bytes()
    }

    /// The elements `range` in rows of whole blocks, as a tensor of shape `shape`; `None` if they are not all there.
    pub fn part(&self, range: Range<usize>, shape: &[usize]) -> Option<TensorView> {
        let (block, bytes) = (self.dtype.block(), self.dtype.bytes());
        let whole = range.start.is_multiple_of(block) && range.end.is_multiple_of(block);
        let slice = self.slice.slice(range.start / block * bytes..range.end / block * bytes).filter(|_| whole)?;
        Some(TensorView { name: self.name.clone(), dtype: self.dtype, shape: shape.to_vec(), slice })
    }

    /// The values in place; `None` unless they are stored as f32 and aligned to 4 bytes.
    pub fn as_f32(&self) -> Option<&[f32]> {
        if self.dtype == Dtype::F32 { self.slice.view() } else { None }
    }

    /// The values in place; `None` unless they are stored as bf16 and aligned to 2 bytes.
    pub fn as_bf16(&self) -> Option<&[bf16]> {
        if self.dtype == Dtype::BF16 { self.slice.view() } else { None }
    }

    /// The values in place; `None` unless they are stored as f16 and aligned to 2 bytes.
    pub fn as_f16(&self) -> Option<&[f16]> {
        if self.dtype == Dtype::F16 { self.slice.view() } else { None }
    }

    /// A copy of the values as f32, converted on all threads. Integers and f64 round to the nearest f32.
    ///
    /// # Errors
    /// [`CheckpointError::Conversion`] for 8-bit floats, whose values mean nothing without the block
    /// scales stored beside them, and for complex numbers.
    pub fn to_f32(&self) -> Result<Vec<f32>, CheckpointError> {
        let bytes = self.bytes();
        Ok(match self.dtype {
            Dtype::F32 => convert(bytes, f32::from_le_bytes),
            // The upper half of an f32: a shift, which the compiler turns into vector code.
            Dtype::BF16 => convert(bytes, |raw| f32::from_bits(u32::from(u16::from_le_bytes(raw)) << 16)),
            Dtype::F16 => convert(bytes, |raw| f16::from_le_bytes(raw).to_f32()),
            Dtype::F64 => convert(bytes, |raw| f64::from_le_bytes(raw) as f32),
            Dtype::I64 => convert(bytes, |raw| i64::from_le_bytes(raw) as f32),
            Dtype::U64 => convert(bytes, |raw| u64::from_le_bytes(raw) as f32),
            Dtype::I32 => convert(bytes, |raw| i32::from_le_bytes(raw) as f32),
            Dtype::U32 => convert(bytes, |raw| u32::from_le_bytes(raw) as f32),
            Dtype::I16 => convert(bytes, |raw| f32::from(i16::from_le_bytes(raw))),
            Dtype::U16 => convert(bytes, |raw| f32::from(u16::from_le_bytes(raw))),
            Dtype::I8 => convert(bytes, |raw| f32::from(i8::from_le_bytes(raw))),
            Dtype::U8 => convert(bytes, |[raw]| f32::from(raw)),
            Dtype::Bool => convert(bytes, |[raw]| f32::from(u8::from(raw != 0))),
            Dtype::Quant(quant) => {
                let mut values = vec![0.; self.elements()];
                quant.dequantize_rows(bytes, &mut values);
                values
            }
            Dtype::F8E4M3 | Dtype::F8E5M2 | Dtype::F8E8M0 | Dtype::C64 => {
                return Err(self.cannot("f32"));
            }
        })
    }

    /// A copy of an integer tensor's values.
    ///
    /// # Errors
    /// [`CheckpointError::Conversion`] unless the tensor holds integers that all fit.
    pub fn to_i64(&self) -> Result<Vec<i64>, CheckpointError> {
        let bytes = self.bytes();
        Ok(match self.dtype {
            Dtype::I64 => convert(bytes, i64::from_le_bytes),
            Dtype::I32 => convert(bytes, |raw| i64::from(i32::from_le_bytes(raw))),
            Dtype::U32 => convert(bytes, |raw| i64::from(u32::from_le_bytes(raw))),
            Dtype::I16 => convert(bytes, |raw| i64::from(i16::from_le_bytes(raw))),
            Dtype::U16 => convert(bytes, |raw| i64::from(u16::from_le_bytes(raw))),
            Dtype::I8 => convert(bytes, |raw| i64::from(i8::from_le_bytes(raw))),
            Dtype::U8 => convert(bytes, |[raw]| i64::from(raw)),
            _ => return Err(self.cannot("i64")),
        })
    }

    fn cannot(&self, wanted: &'static str) -> CheckpointError {
        CheckpointError::Conversion { name: self.name.clone(), dtype: self.dtype, wanted }
    }
}

/// `bytes` cut into `N` at a time, each turned into one value; in parallel, as memory allows.
fn convert<const N: usize, T: Default + Clone + Send>(bytes: &[u8], value: impl Fn([u8; N]) -> T + Sync) -> Vec<T> {
    let (elements, _) = bytes.as_chunks::<N>();
    // Zero pages cost nothing until the threads below touch them.
    let mut values = vec![T::default(); elements.len()];
    values.par_chunks_mut(CHUNK).zip(elements.par_chunks(CHUNK)).for_each(|(to, from)| {
        for (to, from) in to.iter_mut().zip(from) {
            *to = value(*from);
        }
    });
    values
}

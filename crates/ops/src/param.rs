//! A parameter: its path, its numbers (owned or mapped from a file) and, in training, its gradient.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use candle_core::{DType, Device, Result};
use half::{bf16, f16};
use phyla_kernels::map::MappedSlice;
use phyla_kernels::product::{MatRef, Precision};
use phyla_kernels::threads;

use crate::{Data, cpu};

/// Where a weight's numbers live.
#[derive(Clone)]
pub enum Weight {
    /// In a tensor of ours, on any device.
    Dense(Data),
    /// In a file mapped into memory, used in place: f32, bf16 or f16.
    Mapped(Arc<Mapped>),
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

impl Weight {
    /// The type in which the numbers are stored.
    pub fn dtype(&self) -> DType {
        match self {
            Weight::Dense(data) => data.dtype(),
            Weight::Mapped(mapped) => mapped.dtype,
        }
    }

    /// Sizes of the dimensions.
    pub fn dims(&self) -> &[usize] {
        match self {
            Weight::Dense(data) => data.dims(),
            Weight::Mapped(mapped) => &mapped.shape,
        }
    }

    /// Where the numbers are.
    pub fn device(&self) -> Device {
        match self {
            Weight::Dense(data) => data.device().clone(),
            Weight::Mapped(_) => Device::Cpu,
        }
    }

    /// Lends the numbers to a kernel.
    pub fn with<R>(&self, f: impl FnOnce(MatRef<'_>) -> Result<R>) -> Result<R> {
        match self {
            Weight::Mapped(mapped) => match mapped.mat() {
                Some(mat) => f(mat),
                None => candle_core::bail!("a mapped weight of type {:?} cannot be read in place", mapped.dtype),
            },
            Weight::Dense(data) => match data.dtype() {
                DType::F32 => f(MatRef::F32(&cpu::view::<f32>(data)?)),
                DType::BF16 => f(MatRef::Bf16(&cpu::view::<bf16>(data)?)),
                DType::F16 => f(MatRef::F16(&cpu::view::<f16>(data)?)),
                other => candle_core::bail!("weights are f32, bf16 or f16, found {other:?}"),
            },
        }
    }

    /// The numbers as an f32 tensor: shared if they are one already, else a copy.
    pub fn to_f32(&self) -> Result<Data> {
        match self {
            Weight::Dense(data) => data.to_dtype(DType::F32),
            Weight::Mapped(_) => self.with(|mat| {
                let mut values = phyla_kernels::elementwise::alloc(mat.len());
                phyla_kernels::embed::widen(&mut values, mat);
                cpu::tensor(values, self.dims())
            }),
        }
    }
}

/// Elements that a thread clears at a time: 1 MiB.
const CLEAR_CHUNK: usize = 1 << 18;

struct Gradient {
    sum: Option<Data>,
    /// Whether anything was added since the last step.
    written: bool,
}

/// A named weight. Shared by `Arc` where two blocks use one (tied embeddings).
pub struct Param {
    path: String,
    shape: Vec<usize>,
    weight: RwLock<Weight>,
    /// The copy in the compute type, for mixed precision; the weight is then its f32 master.
    low: RwLock<Option<Data>>,
    trainable: AtomicBool,
    gradient: Mutex<Gradient>,
}

impl Param {
    /// A parameter that is not trained until [`Param::set_trainable`] says so.
    pub fn new(path: impl Into<String>, weight: Weight) -> Self {
        Self {
            path: path.into(),
            shape: weight.dims().to_vec(),
            weight: RwLock::new(weight),
            low: RwLock::new(None),
            trainable: AtomicBool::new(false),
            gradient: Mutex::new(Gradient { sum: None, written: false }),
        }
    }

    /// The path in the model, such as `decoder.layers.3.attn.q.weight`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Sizes of the dimensions; a linear weight is `[out, in]`.
    pub fn dims(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// The stored numbers: in training the f32 master.
    pub fn weight(&self) -> Weight {
        self.weight.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The numbers that products read: the low-precision copy if there is one.
    pub fn compute(&self) -> Weight {
        match &*self.low.read().unwrap_or_else(PoisonError::into_inner) {
            Some(low) => Weight::Dense(low.clone()),
            None => self.weight(),
        }
    }

    /// How exactly products of many rows take their factors: as exactly as the numbers that they read of the weight.
    pub fn precision(&self) -> Precision {
        match self.compute().dtype() {
            DType::BF16 => Precision::Bf16,
            _ => Precision::F32,
        }
    }

    /// Replaces the numbers; the shape must stay.
    pub fn set_weight(&self, weight: Weight) -> Result<()> {
        if weight.dims() != self.shape {
            candle_core::bail!("{}: expected shape {:?}, found {:?}", self.path, self.shape, weight.dims());
        }
        *self.weight.write().unwrap_or_else(PoisonError::into_inner) = weight;
        Ok(())
    }

    /// Keeps a copy in `dtype` for the products (`None`: products read the weight itself).
    pub fn set_compute_dtype(&self, dtype: Option<DType>) -> Result<()> {
        let low = match dtype {
            Some(dtype) if dtype != self.weight().dtype() => Some(self.weight().to_f32()?.to_dtype(dtype)?),
            _ => None,
        };
        *self.low.write().unwrap_or_else(PoisonError::into_inner) = low;
        Ok(())
    }

    /// The low-precision copy, which the optimiser refreshes.
    pub fn low(&self) -> Option<Data> {
        self.low.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the weight learns.
    pub fn trainable(&self) -> bool {
        self.trainable.load(Ordering::Relaxed)
    }

    /// Whether an operation on this parameter must be recorded now.
    pub fn wants_grad(&self) -> bool {
        self.trainable() && crate::recording()
    }

    /// Makes the weight learn (its numbers become an f32 tensor of our own) or freezes it.
    pub fn set_trainable(&self, on: bool) -> Result<()> {
        if on {
            let weight = self.weight();
            if !matches!(&weight, Weight::Dense(data) if data.dtype() == DType::F32) {
                self.set_weight(Weight::Dense(weight.to_f32()?))?;
            }
        }
        self.trainable.store(on, Ordering::Relaxed);
        Ok(())
    }

    fn with_gradient<R>(&self, f: impl FnOnce(&mut Gradient) -> Result<R>) -> Result<R> {
        f(&mut self.gradient.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets a kernel add to the gradient in place. The slice holds the sum so far.
    pub fn accumulate(&self, add: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<()> {
        self.accumulate_or_set(|sum, holds| {
            if !holds {
                // All of a model's gradients: as much memory as its weights.
                let len = sum.len();
                threads::for_each_chunk(sum, CLEAR_CHUNK, len, |_, piece| piece.fill(0.));
            }
            add(sum)
        })
    }

    /// The same for a kernel that can as well write every element: it is told whether the slice holds a sum already, and
    /// otherwise adds to nothing. That saves filling it with zeros and reading them back.
    pub fn accumulate_or_set(&self, add: impl FnOnce(&mut [f32], bool) -> Result<()>) -> Result<()> {
        self.with_gradient(|gradient| {
            if gradient.sum.is_none() {
                // Fresh pages come zeroed from the system.
                gradient.sum = Some(cpu::tensor(vec![0f32; self.count()], self.shape.clone())?);
            }
            let Some(sum) = &gradient.sum else { return Ok(()) };
            let holds = std::mem::replace(&mut gradient.written, true);
            cpu::mutate(sum, |sum: &mut [f32]| add(sum, holds))
        })
    }

    /// Adds a gradient of the weight's shape, on any device.
    pub fn accumulate_data(&self, grad: &Data) -> Result<()> {
        if grad.device().is_cpu() {
            let grad = grad.to_dtype(DType::F32)?.contiguous()?;
            let grad = cpu::view::<f32>(&grad)?;
            return self.accumulate(|sum| {
                phyla_kernels::elementwise::add_assign(sum, &grad);
                Ok(())
            });
        }
        self.with_gradient(|gradient| {
            gradient.sum = Some(match gradient.sum.take().filter(|_| gradient.written) {
                Some(sum) => (sum + grad.to_dtype(DType::F32)?)?,
                None => grad.to_dtype(DType::F32)?,
            });
            gradient.written = true;
            Ok(())
        })
    }

    /// The gradient since the last [`Param::zero_grad`]; `None` if nothing was added.
    pub fn grad(&self) -> Option<Data> {
        self.with_gradient(|g| Ok(g.sum.clone().filter(|_| g.written))).ok().flatten()
    }

    /// Forgets the gradient; its memory stays for the next step.
    pub fn zero_grad(&self) {
        let _ = self.with_gradient(|gradient| {
            gradient.written = false;
            Ok(())
        });
    }
}

impl std::fmt::Debug for Param {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {:?}", self.path, self.shape, self.weight().dtype())
    }
}

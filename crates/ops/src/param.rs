//! A parameter: its path, its weight and, in training, its gradient.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use candle_core::{DType, Device, Result};
use half::bf16;
use phyla_kernels::product::Precision;
use phyla_kernels::{elementwise, memory, threads};

use crate::{Data, Weight, cpu};

/// Elements that a thread clears at a time: 1 MiB.
const CLEAR_CHUNK: usize = 1 << 18;

struct Gradient {
    sum: Option<Data>,
    /// Whether anything was added since the last step.
    written: bool,
}

impl Gradient {
    /// Where the sum stands; until something is written it holds whatever.
    fn room(&mut self, of: &Param) -> Result<Data> {
        if let Some(sum) = &self.sum {
            return Ok(sum.clone());
        }
        let sum = cpu::tensor(memory::alloc::<f32>(of.count()), of.shape.clone())?;
        self.sum = Some(sum.clone());
        Ok(sum)
    }
}

/// A named weight. Shared by `Arc` where two blocks use one (tied embeddings).
pub struct Param {
    path: String,
    shape: Vec<usize>,
    weight: RwLock<Weight>,
    /// The copy in the compute type, for mixed precision; the weight is then its f32 master.
    low: RwLock<Option<Data>>,
    trainable: AtomicBool,
    /// How often the numbers have changed.
    version: AtomicU64,
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
            version: AtomicU64::new(0),
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
        match self.compute() {
            Weight::Blocks(_) => Precision::Bf16,
            Weight::Bytes(_) => Precision::Int8,
            weight if weight.dtype() == DType::BF16 => Precision::Bf16,
            _ => Precision::F32,
        }
    }

    /// Replaces the numbers; the shape must stay.
    pub fn set_weight(&self, weight: Weight) -> Result<()> {
        if weight.dims() != self.shape {
            candle_core::bail!("{}: expected shape {:?}, found {:?}", self.path, self.shape, weight.dims());
        }
        *self.weight.write().unwrap_or_else(PoisonError::into_inner) = weight;
        self.touch();
        Ok(())
    }

    /// The stored numbers as f32 on the CPU, whatever they are stored as: a copy.
    pub fn numbers(&self) -> Result<Vec<f32>> {
        self.weight().to_f32()?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()
    }

    /// A number that grows whenever the weight's numbers change: what follows from them may be kept until then.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// To be called by whoever changes the numbers in place.
    pub fn touch(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// Keeps a copy in `dtype` for the products (`None`: products read the weight itself).
    pub fn set_compute_dtype(&self, dtype: Option<DType>) -> Result<()> {
        let low = match dtype {
            Some(dtype) if dtype != self.weight().dtype() => Some(lowered(&self.weight().to_f32()?, dtype)?),
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
    ///
    /// # Errors
    /// A quantised weight, which would be another one from the first step on.
    pub fn set_trainable(&self, on: bool) -> Result<()> {
        if on {
            let weight = self.weight();
            if let Weight::Blocks(_) | Weight::Bytes(_) = weight {
                candle_core::bail!(
                    "{}: a quantised weight ({}) cannot be trained: load the model without quantisation, as f32",
                    self.path,
                    weight.stored()
                );
            }
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
            let sum = gradient.room(self)?;
            let holds = std::mem::replace(&mut gradient.written, true);
            cpu::mutate(&sum, |sum: &mut [f32]| add(sum, holds))
        })
    }

    /// Takes the memory of the gradient now, on the CPU: among what stays and not among a step's activations, whose place would
    /// then be too small for the next step's. It costs nothing until it is written.
    pub fn make_room(&self) -> Result<()> {
        if !self.weight().device().is_cpu() {
            return Ok(());
        }
        self.with_gradient(|gradient| gradient.room(self).map(drop))
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

/// A copy of f32 numbers in another type.
fn lowered(numbers: &Data, dtype: DType) -> Result<Data> {
    if dtype != DType::BF16 || !numbers.device().is_cpu() {
        return numbers.to_dtype(dtype);
    }
    let mut low = memory::alloc::<bf16>(numbers.elem_count());
    elementwise::f32_to_bf16(&mut low, &cpu::view::<f32>(&numbers.contiguous()?)?);
    cpu::tensor(low, numbers.dims())
}

impl std::fmt::Debug for Param {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {}", self.path, self.shape, self.weight().stored())
    }
}

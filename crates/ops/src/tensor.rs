//! The tape: a tensor that remembers how it was made, so that gradients can flow back to it.
//!
//! Differs from candle's own graph in three ways that cost candle a good part of a training step: a gradient
//! is moved, not added to a tensor of zeros; what an operation saved is freed as soon as its backward pass
//! has run; and parameters are no part of the graph, each operation adds to their gradients in place.

use std::cell::Cell;
use std::collections::{BinaryHeap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::LocalKey;

use candle_core::{DType, Device, Result};

use crate::{Data, cpu};

/// Numbers and, while recording, the operation that made them. Cheap to clone.
#[derive(Clone)]
pub struct Tensor {
    data: Data,
    node: Option<Arc<Node>>,
}

/// The gradients of an operation's inputs, in order; `None` for an input that needs none.
pub type InputGrads = Vec<Option<Data>>;
type Backward = Box<dyn FnOnce(Data) -> Result<InputGrads> + Send>;

/// One recorded operation, or a leaf.
struct Node {
    /// Grows with time, so that descending order is a reverse topological order.
    id: u64,
    inputs: Vec<Option<Arc<Node>>>,
    backward: Mutex<Option<Backward>>,
    /// Where a leaf collects its gradient.
    leaf: Option<Mutex<Option<Data>>>,
}

impl Drop for Node {
    /// Drops the history one node at a time: left to itself it would recurse, a stack frame for each node.
    fn drop(&mut self) {
        let mut rest = std::mem::take(&mut self.inputs);
        while let Some(input) = rest.pop() {
            if let Some(mut node) = input.and_then(Arc::into_inner) {
                rest.append(&mut node.inputs);
            }
        }
    }
}

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(true) };
    static ALIKE: Cell<bool> = const { Cell::new(false) };
}

/// Whether few rows of a product have the bits that each has alone: see [`in_any_company`].
pub(crate) fn alike() -> bool {
    ALIKE.get()
}

/// Runs `f` so that up to [`crate::invariant_rows`] rows of a product have the bits that each has alone, whatever the weight is
/// stored as. Without it that holds over weights that are not quantised; where machines multiply tiles, rows over quantised
/// ones are up to four times as fast then.
pub fn in_any_company<R>(f: impl FnOnce() -> R) -> R {
    with(&ALIKE, true, f)
}

/// Whether operations on this thread are recorded.
pub fn recording() -> bool {
    RECORDING.get()
}

/// Runs `f` without recording: nothing is kept for a backward pass.
pub fn no_grad<R>(f: impl FnOnce() -> R) -> R {
    with_recording(false, f)
}

pub(crate) fn with_recording<R>(on: bool, f: impl FnOnce() -> R) -> R {
    with(&RECORDING, on, f)
}

/// Runs `f` while `switch` is `on`, and puts it back, also after a panic.
fn with<R>(switch: &'static LocalKey<Cell<bool>>, on: bool, f: impl FnOnce() -> R) -> R {
    struct Restore(&'static LocalKey<Cell<bool>>, bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            self.0.set(self.1);
        }
    }
    let _restore = Restore(switch, switch.replace(on));
    f()
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl From<Data> for Tensor {
    fn from(data: Data) -> Self {
        Self { data, node: None }
    }
}

impl Tensor {
    /// A tensor whose gradient is wanted: see [`Tensor::grad`].
    pub fn leaf(data: Data) -> Self {
        let node = Node { id: next_id(), inputs: vec![], backward: Mutex::new(None), leaf: Some(Mutex::new(None)) };
        Self { data, node: Some(Arc::new(node)) }
    }

    /// The result of an operation on `inputs`, to be recorded if it matters.
    ///
    /// `uses_params` says that the operation itself adds to some parameter's gradient, so that its backward
    /// pass must run even when no input is tracked. `backward` takes the gradient of the result.
    pub fn record(
        data: Data,
        inputs: &[&Tensor],
        uses_params: bool,
        backward: impl FnOnce(Data) -> Result<InputGrads> + Send + 'static,
    ) -> Self {
        let tracked = recording() && (uses_params || inputs.iter().any(|x| x.tracked()));
        let node = tracked.then(|| {
            Arc::new(Node {
                id: next_id(),
                inputs: inputs.iter().map(|x| x.node.clone()).collect(),
                backward: Mutex::new(Some(Box::new(backward))),
                leaf: None,
            })
        });
        Self { data, node }
    }

    /// The numbers.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// The numbers alone, history dropped.
    pub fn into_data(self) -> Data {
        self.data
    }

    /// Whether a gradient would flow back through this tensor.
    pub fn tracked(&self) -> bool {
        self.node.is_some()
    }

    /// Sizes of the dimensions.
    pub fn dims(&self) -> &[usize] {
        self.data.dims()
    }

    /// Size of the last dimension.
    pub fn last_dim(&self) -> usize {
        self.dims().last().copied().unwrap_or(1)
    }

    /// Number of rows when all but the last dimension are taken together.
    pub fn rows(&self) -> usize {
        self.data.elem_count() / self.last_dim().max(1)
    }

    /// Where the numbers are.
    pub fn device(&self) -> &Device {
        self.data.device()
    }

    /// The gradient that a leaf has collected.
    pub fn grad(&self) -> Option<Data> {
        let slot = self.node.as_ref()?.leaf.as_ref()?;
        slot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same numbers in another shape.
    pub fn reshape(&self, shape: impl Into<candle_core::Shape>) -> Result<Tensor> {
        let data = self.data.reshape(shape.into())?;
        let from = self.data.shape().clone();
        Ok(Tensor::record(data, &[self], false, move |grad| Ok(vec![Some(grad.reshape(from)?)])))
    }

    /// Entries `start .. start + len` of dimension `dim`, copied.
    pub fn narrow(&self, dim: usize, start: usize, len: usize) -> Result<Tensor> {
        let data = self.data.narrow(dim, start, len)?.contiguous()?;
        let (from, size) = (self.data.shape().clone(), self.data.dim(dim)?);
        Ok(Tensor::record(data, &[self], false, move |grad| {
            debug_assert!(start + len <= size);
            let mut before = from.dims().to_vec();
            let mut after = before.clone();
            (before[dim], after[dim]) = (start, size - start - len);
            let zeros = |dims: Vec<usize>| Data::zeros(dims, grad.dtype(), grad.device());
            Ok(vec![Some(Data::cat(&[&zeros(before)?, &grad, &zeros(after)?], dim)?)])
        }))
    }

    /// Sends the gradient 1 back from a single number.
    pub fn backward(&self) -> Result<()> {
        if self.data.elem_count() != 1 {
            candle_core::bail!("backward starts from one number, found shape {:?}", self.dims());
        }
        self.backward_with(self.data.ones_like()?)
    }

    /// Sends `grad` (of this tensor's shape) back to every leaf and parameter.
    ///
    /// Each operation's memory is freed as its turn passes; a second backward pass over it is an error.
    pub fn backward_with(&self, grad: Data) -> Result<()> {
        let Some(root) = &self.node else {
            candle_core::bail!("backward on a tensor that no gradient can flow through: nothing was recorded");
        };
        let mut grads: HashMap<u64, Data> = HashMap::from([(root.id, grad)]);
        let mut queue = BinaryHeap::from([ById(root.clone())]);
        while let Some(ById(node)) = queue.pop() {
            let Some(grad) = grads.remove(&node.id) else { continue };
            if let Some(slot) = &node.leaf {
                let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
                *slot = Some(match slot.take() {
                    Some(sum) => add_into(sum, grad)?,
                    None => grad,
                });
                continue;
            }
            let backward = node.backward.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(backward) = backward else {
                candle_core::bail!(
                    "a second backward pass over the same operation: its memory is freed after the first"
                );
            };
            let input_grads = backward(grad)?;
            if input_grads.len() != node.inputs.len() {
                candle_core::bail!(
                    "an operation returned {} gradients for {} inputs",
                    input_grads.len(),
                    node.inputs.len()
                );
            }
            for (input, grad) in node.inputs.iter().zip(input_grads) {
                let (Some(input), Some(grad)) = (input, grad) else { continue };
                match grads.remove(&input.id) {
                    Some(sum) => {
                        grads.insert(input.id, add_into(sum, grad)?);
                    }
                    None => {
                        grads.insert(input.id, grad);
                        queue.push(ById(input.clone()));
                    }
                }
            }
        }
        Ok(())
    }
}

/// `sum + grad`. Gradients may share storage with one another (a residual hands its own to both branches),
/// so the sum is a new tensor.
fn add_into(sum: Data, grad: Data) -> Result<Data> {
    if !sum.device().is_cpu() || sum.dtype() != DType::F32 {
        return sum + grad;
    }
    let (a, b) = (sum.contiguous()?, grad.contiguous()?);
    let mut out = phyla_kernels::memory::alloc(a.elem_count());
    phyla_kernels::elementwise::add(&mut out, &cpu::view::<f32>(&a)?, &cpu::view::<f32>(&b)?);
    cpu::tensor(out, a.shape().clone())
}

struct ById(Arc<Node>);
impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}
impl Eq for ById {}
impl PartialOrd for ById {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for ById {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.id.cmp(&other.0.id)
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor({:?}{})", self.dims(), if self.tracked() { ", tracked" } else { "" })
    }
}

//! The tape of a dry run: what `phyla_ops::Tensor` does, with sizes in the place of numbers. Memory is held and freed here
//! when it is there, so that the peak of a step is known before anything is computed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// What numbers are, for the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What operations keep for the backward pass, or hold in passing.
    Activation,
    /// Rows over the vocabulary.
    Logits,
}

/// Bytes now and at the worst moment, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peak {
    /// Activations.
    pub activations: usize,
    /// Logits.
    pub logits: usize,
}

impl Peak {
    /// Both.
    pub fn total(self) -> usize {
        self.activations + self.logits
    }

    fn of(&mut self, kind: Kind) -> &mut usize {
        match kind {
            Kind::Activation => &mut self.activations,
            Kind::Logits => &mut self.logits,
        }
    }
}

/// Numbers that are in memory as long as anybody holds them.
pub struct Held {
    tape: Tape,
    kind: Kind,
    count: usize,
}

impl Held {
    /// How many, of four bytes each.
    pub fn count(&self) -> usize {
        self.count
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        *self.tape.0.now.borrow_mut().of(self.kind) -= 4 * self.count;
    }
}

/// Numbers without history.
pub type Data = Rc<Held>;
/// The gradients of an operation's inputs; `None` for an input that needs none.
pub type InputGrads = Vec<Option<Data>>;
type Backward = Box<dyn FnOnce(Data) -> InputGrads>;

/// Numbers and, while recording, the operation that made them.
#[derive(Clone)]
pub struct Tensor {
    data: Data,
    node: Option<Rc<Node>>,
}

struct Node {
    id: u64,
    inputs: Vec<Option<Rc<Node>>>,
    backward: RefCell<Option<Backward>>,
    leaf: Option<RefCell<Option<Data>>>,
}

impl Drop for Node {
    /// One at a time: left to itself it would recurse, a stack frame for each operation of the run.
    fn drop(&mut self) {
        let mut rest = std::mem::take(&mut self.inputs);
        while let Some(input) = rest.pop() {
            if let Some(mut node) = input.and_then(Rc::into_inner) {
                rest.append(&mut node.inputs);
            }
        }
    }
}

impl Tensor {
    /// Numbers from outside.
    pub fn new(data: Data) -> Self {
        Self { data, node: None }
    }

    /// The numbers.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.data.count
    }

    /// Whether a gradient would flow back through it.
    pub fn tracked(&self) -> bool {
        self.node.is_some()
    }
}

/// Counts the bytes of a run and numbers its operations. Cheap to clone.
#[derive(Clone, Default)]
pub struct Tape(Rc<Inner>);

#[derive(Default)]
struct Inner {
    now: RefCell<Peak>,
    peak: Cell<Peak>,
    next: Cell<u64>,
    silent: Cell<bool>,
    scratch: Cell<usize>,
}

impl Tape {
    /// Room for so many numbers of four bytes.
    pub fn hold(&self, count: usize) -> Data {
        self.hold_as(Kind::Activation, count)
    }

    /// The same, told apart.
    pub fn hold_as(&self, kind: Kind, count: usize) -> Data {
        let mut now = self.0.now.borrow_mut();
        *now.of(kind) += 4 * count;
        if now.total() > self.0.peak.get().total() {
            self.0.peak.set(*now);
        }
        Rc::new(Held { tape: self.clone(), kind, count })
    }

    /// Memory that kernels keep for themselves from call to call: as much as the hungriest call wants.
    pub fn scratch(&self, bytes: usize) {
        self.0.scratch.set(self.0.scratch.get().max(bytes));
    }

    /// The worst moment so far, and what kernels keep.
    pub fn peak(&self) -> (Peak, usize) {
        (self.0.peak.get(), self.0.scratch.get())
    }

    /// Whether operations are recorded.
    pub fn recording(&self) -> bool {
        !self.0.silent.get()
    }

    /// Runs `f` without recording.
    pub fn no_grad<R>(&self, f: impl FnOnce() -> R) -> R {
        self.with(true, f)
    }

    fn with<R>(&self, silent: bool, f: impl FnOnce() -> R) -> R {
        let before = self.0.silent.replace(silent);
        let result = f();
        self.0.silent.set(before);
        result
    }

    fn next(&self) -> u64 {
        let id = self.0.next.get();
        self.0.next.set(id + 1);
        id
    }

    /// The result of an operation; see `phyla_ops::Tensor::record`.
    pub fn record(
        &self,
        data: Data,
        inputs: &[&Tensor],
        uses_params: bool,
        backward: impl FnOnce(Data) -> InputGrads + 'static,
    ) -> Tensor {
        let tracked = self.recording() && (uses_params || inputs.iter().any(|x| x.tracked()));
        let node = tracked.then(|| {
            let inputs = inputs.iter().map(|x| x.node.clone()).collect();
            Rc::new(Node { id: self.next(), inputs, backward: RefCell::new(Some(Box::new(backward))), leaf: None })
        });
        Tensor { data, node }
    }

    fn leaf(&self, data: Data) -> Tensor {
        let (id, inputs, backward) = (self.next(), vec![], RefCell::default());
        Tensor { data, node: Some(Rc::new(Node { id, inputs, backward, leaf: Some(RefCell::default()) })) }
    }

    /// Sends a gradient back, in the order of the real tape.
    pub fn backward(&self, from: &Tensor, grad: Data) {
        let Some(root) = &from.node else { return };
        let mut queue: BTreeMap<u64, (Rc<Node>, Data)> = BTreeMap::from([(root.id, (root.clone(), grad))]);
        while let Some((_, (node, grad))) = queue.pop_last() {
            if let Some(slot) = &node.leaf {
                let sum = slot.take();
                slot.replace(Some(self.sum(sum, grad)));
                continue;
            }
            let Some(backward) = node.backward.take() else { continue };
            for (input, grad) in node.inputs.iter().zip(backward(grad)) {
                let (Some(input), Some(grad)) = (input, grad) else { continue };
                let known = queue.remove(&input.id).map(|(_, known)| known);
                queue.insert(input.id, (input.clone(), self.sum(known, grad)));
            }
        }
    }

    /// Gradients may share their memory, so that a sum is new.
    fn sum(&self, known: Option<Data>, grad: Data) -> Data {
        match known {
            Some(known) => self.hold(known.count()),
            None => grad,
        }
    }

    /// As `phyla_ops::checkpoint`.
    pub fn checkpoint(&self, inputs: &[&Tensor], f: impl Fn(&[Tensor]) -> Tensor + 'static) -> Tensor {
        let given: Vec<Tensor> = inputs.iter().map(|&x| x.clone()).collect();
        if !self.recording() {
            return f(&given);
        }
        let y = self.no_grad(|| f(&given));
        let kept: Vec<(bool, Data)> = given.into_iter().map(|x| (x.tracked(), x.data)).collect();
        let tape = self.clone();
        self.record(y.data, inputs, true, move |dy| {
            let again: Vec<Tensor> =
                kept.into_iter().map(|(tracked, x)| if tracked { tape.leaf(x) } else { Tensor::new(x) }).collect();
            let y = tape.with(false, || f(&again));
            if y.tracked() {
                tape.backward(&y, dy);
            }
            again.iter().map(|x| x.node.as_ref()?.leaf.as_ref()?.borrow().clone()).collect()
        })
    }
}

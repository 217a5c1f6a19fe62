//! What changes a linear map beside its weight: adapters. Each linear map has a slot for them, and nothing but the slot
//! knows that there are any.

mod bottleneck;
mod low_rank;
mod network;
mod probe;
mod rescale;
mod shared;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use candle_core::Result;
use phyla_kernels::rng::Rng;
use phyla_ops::{Data, Dropout, Param, Tensor};

pub use bottleneck::Bottleneck;
pub use low_rank::{LowRank, Magnitude};
pub use network::network;
pub use probe::Probe;
pub use rescale::Rescale;
pub use shared::Shared;

use crate::Linear;

/// One adapter's part at one linear map `y = x wᵀ + b`.
#[derive(Debug)]
pub enum Change {
    /// A product of two narrow matrices is added: LoRA, rsLoRA, LoRA-FA, DoRA, AdaLoRA.
    LowRank(LowRank),
    /// The same with matrices that all maps share and that do not learn: VeRA.
    Shared(Shared),
    /// Every number that goes in, or comes out, has a factor: IA3.
    Rescale(Rescale),
    /// A small block behind the map: Houlsby's and Pfeiffer's adapters.
    Bottleneck(Bottleneck),
    /// Nothing is changed: what goes into the map is heard.
    Probe(Probe),
}

/// What a change works on.
pub struct Site<'a> {
    /// What goes into the map, `[.., input]`.
    pub x: &'a Tensor,
    /// The map.
    pub linear: &'a Linear,
    /// Randomness of this map, in training.
    rng: Option<Rng>,
}

impl Site<'_> {
    /// The input with dropout, in training.
    fn dropped(&self, p: f32) -> Result<Tensor> {
        match &self.rng {
            Some(rng) if p > 0. => phyla_ops::dropout(self.x, &Dropout { p, rng: rng.clone(), offset: 0 }),
            _ => Ok(self.x.clone()),
        }
    }

    /// Whether an input with this dropout differs from the one without.
    fn drops(&self, p: f32) -> bool {
        p > 0. && self.rng.is_some()
    }
}

impl Change {
    /// The map's input as this change wants it.
    fn before(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Rescale(change) if change.input => change.apply(x),
            _ => Ok(x.clone()),
        }
    }

    /// The map's result `y` as this change wants it.
    fn after(&self, y: Tensor, site: &Site) -> Result<Tensor> {
        match self {
            Self::LowRank(change) => change.apply(y, site),
            Self::Shared(change) => change.apply(y, site),
            Self::Rescale(change) if change.input => Ok(y),
            Self::Rescale(change) => change.apply(&y),
            Self::Bottleneck(change) => change.apply(y),
            Self::Probe(probe) => probe.hear(y, site),
        }
    }

    /// Its parameters, those that do not learn included.
    pub fn params(&self) -> Vec<&Arc<Param>> {
        match self {
            Self::LowRank(change) => change.params(),
            Self::Shared(change) => change.params(),
            Self::Rescale(change) => vec![&change.factors],
            Self::Bottleneck(change) => change.params(),
            Self::Probe(_) => vec![],
        }
    }

    /// Writes the change into a weight `[output, input]` and a bias.
    ///
    /// # Errors
    /// A bottleneck, which is no linear map.
    pub fn merge(&self, weight: &mut [f32], bias: Option<&mut [f32]>) -> Result<()> {
        match self {
            Self::LowRank(change) => change.merge(weight),
            Self::Shared(change) => change.merge(weight),
            Self::Rescale(change) => change.merge(weight, bias),
            Self::Probe(_) => Ok(()),
            Self::Bottleneck(_) => candle_core::bail!(
                "a bottleneck adapter bends what it reads and cannot become part of a weight: load it beside the model"
            ),
        }
    }
}

/// Where the adapters of one linear map hang.
#[derive(Debug)]
pub struct Slot {
    path: String,
    /// `[output, input]`.
    sizes: [usize; 2],
    taken: AtomicBool,
    hung: RwLock<Hung>,
    rng: RwLock<Option<Rng>>,
}

/// What hangs in a slot.
#[derive(Clone, Debug)]
enum Hung {
    /// Changes of everything that passes.
    All(Vec<Arc<Change>>),
    /// Changes of so many rows, then of so many others, and so on.
    Rows(Vec<(usize, Vec<Arc<Change>>)>),
}

impl Default for Hung {
    fn default() -> Self {
        Self::All(vec![])
    }
}

impl Slot {
    /// An empty slot of the map at `path`, whose weight is `[output, input]`.
    pub fn new(path: impl Into<String>, sizes: [usize; 2]) -> Self {
        let (hung, rng) = (RwLock::default(), RwLock::default());
        Self { path: path.into(), sizes, taken: AtomicBool::new(false), hung, rng }
    }

    /// The path of the map, such as `decoder.layers.3.attn.q`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Output and input size.
    pub fn sizes(&self) -> [usize; 2] {
        self.sizes
    }

    /// The changes that apply, each once and in order.
    pub fn changes(&self) -> Vec<Arc<Change>> {
        match self.hung() {
            Hung::All(changes) => changes,
            Hung::Rows(groups) => {
                let mut known = std::collections::HashSet::new();
                let all = groups.into_iter().flat_map(|(_, changes)| changes);
                all.filter(|change| known.insert(Arc::as_ptr(change))).collect()
            }
        }
    }

    /// Replaces the changes that apply.
    pub fn set(&self, changes: Vec<Arc<Change>>) {
        let taken = !changes.is_empty();
        self.hang(Hung::All(changes), taken);
    }

    /// Replaces the changes that apply by those of so many rows of what passes, then those of so many others, and so on: all
    /// that passes from then on has just these rows, and nothing is learned.
    pub fn set_rows(&self, groups: Vec<(usize, Vec<Arc<Change>>)>) {
        let taken = groups.iter().any(|(_, changes)| !changes.is_empty());
        self.hang(Hung::Rows(groups), taken);
    }

    fn hang(&self, hung: Hung, taken: bool) {
        *self.hung.write().unwrap_or_else(PoisonError::into_inner) = hung;
        self.taken.store(taken, Ordering::Release);
    }

    fn hung(&self) -> Hung {
        match self.taken.load(Ordering::Acquire) {
            true => self.hung.read().unwrap_or_else(PoisonError::into_inner).clone(),
            false => Hung::default(),
        }
    }

    /// Randomness for dropout in training; none outside. The same one gives the same masks, also when a pass is computed
    /// again in the backward pass.
    pub fn set_rng(&self, rng: Option<&Rng>) {
        if !self.is_empty() {
            *self.rng.write().unwrap_or_else(PoisonError::into_inner) = rng.map(|rng| rng.split(self.path.as_str()));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.taken.load(Ordering::Acquire)
    }

    /// The map with its changes.
    pub(crate) fn forward(&self, x: &Tensor, linear: &Linear) -> Result<Tensor> {
        let rng = self.rng.read().unwrap_or_else(PoisonError::into_inner).clone();
        match self.hung() {
            Hung::All(changes) => {
                let x = before(&changes, x)?;
                after(&changes, linear.plain(&x)?, &Site { x: &x, linear, rng })
            }
            Hung::Rows(groups) => self.by_rows(x, linear, &groups),
        }
    }

    /// The map of all rows at once, since its weight is what takes time, and to each row its own changes.
    fn by_rows(&self, x: &Tensor, linear: &Linear, groups: &[(usize, Vec<Arc<Change>>)]) -> Result<Tensor> {
        let (rows, all) = (x.dims().first().copied().unwrap_or(0), groups.iter().map(|(rows, _)| rows).sum::<usize>());
        if rows != all {
            candle_core::bail!("{}: adapters for {all} rows, and {rows} pass", self.path);
        }
        let mut start = 0;
        let spans = groups.iter().map(|(rows, changes)| {
            start += rows;
            (start - rows, *rows, changes)
        });
        let spans: Vec<_> = spans.collect();
        let cut = |x: &Tensor, (start, rows, _): &(usize, usize, _)| x.narrow(0, *start, *rows);
        let inputs = spans.iter().map(|span| before(span.2, &cut(x, span)?)).collect::<Result<Vec<_>>>()?;
        let y = linear.plain(&joined(&inputs)?)?;
        let changed =
            spans.iter().zip(&inputs).map(|(span, x)| after(span.2, cut(&y, span)?, &Site { x, linear, rng: None }));
        joined(&changed.collect::<Result<Vec<_>>>()?)
    }

    /// Takes part in a pass with no rows; see [`Linear::rest`].
    pub(crate) fn rest(&self) -> Result<()> {
        for change in self.changes() {
            for param in change.params().into_iter().filter(|param| param.wants_grad()) {
                param.accumulate(|_| Ok(()))?;
            }
        }
        Ok(())
    }
}

fn before(changes: &[Arc<Change>], x: &Tensor) -> Result<Tensor> {
    changes.iter().try_fold(x.clone(), |x, change| change.before(&x))
}

fn after(changes: &[Arc<Change>], y: Tensor, site: &Site) -> Result<Tensor> {
    changes.iter().try_fold(y, |y, change| change.after(y, site))
}

/// Rows one after the other, outside training.
fn joined(parts: &[Tensor]) -> Result<Tensor> {
    match parts {
        [one] => Ok(one.clone()),
        parts => Ok(Data::cat(&parts.iter().map(Tensor::data).collect::<Vec<_>>(), 0)?.into()),
    }
}

/// `weight[output, input] += factor · b[output, rank] a[rank, input]`, in place.
///
/// # Errors
/// Numbers that are not as many as the sizes say.
pub fn add_product(
    weight: &mut [f32],
    b: &[f32],
    a: &[f32],
    factor: f32,
    [output, input, rank]: [usize; 3],
) -> Result<()> {
    if weight.len() != output * input || b.len() != output * rank || a.len() != rank * input {
        candle_core::bail!("a change of [{output}, {input}] by rank {rank} does not fit a weight of {}", weight.len());
    }
    for (row, b) in weight.chunks_exact_mut(input.max(1)).zip(b.chunks_exact(rank.max(1))) {
        for (b, a) in b.iter().zip(a.chunks_exact(input.max(1))) {
            row.iter_mut().zip(a).for_each(|(w, a)| *w += factor * b * a);
        }
    }
    Ok(())
}

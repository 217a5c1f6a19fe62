//! Where blocks get their parameters from.

use std::sync::Arc;

use candle_core::Result;
use phyla_ops::Param;

use crate::Sinusoids;
use crate::adapter::Slot;

/// How a fresh parameter is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All 0: biases.
    Zeros,
    /// All 1: norm weights.
    Ones,
    /// All 0, and never trained: a buffer.
    Fixed,
    /// Sines and cosines of the row's number, never trained: positions that stand in the checkpoint.
    Sinusoids(Sinusoids),
    /// Normal with mean 0.
    Normal {
        /// Standard deviation.
        std: f32,
        /// A row that starts at 0.
        zero_row: Option<u32>,
    },
    /// Uniform between `-bound` and `bound`.
    Uniform {
        /// The bound.
        bound: f32,
    },
}

/// How a model draws the weights of its linear maps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Draw {
    /// Normal, with the standard deviation that each map's specification states.
    #[default]
    Normal,
    /// Uniform within `sqrt(6 / (input + output))`, whatever the specification states: activations and gradients keep
    /// their variance through a map (Glorot and Bengio 2010, eq. 16).
    Xavier,
}

impl Init {
    /// Whether it stays as it is in training.
    pub fn is_fixed(self) -> bool {
        matches!(self, Self::Fixed | Self::Sinusoids(_))
    }

    /// Normal with mean 0 and this standard deviation.
    pub fn normal(std: f32) -> Self {
        Self::Normal { std, zero_row: None }
    }
}

/// Gives parameters by path: a checkpoint, or a random generator.
pub trait Source {
    /// The parameter at `path` with this shape. Asking twice for one path gives the same parameter.
    fn param(&mut self, path: &str, shape: &[usize], init: Init) -> Result<Arc<Param>>;

    /// Learns of a linear map's place for adapters.
    fn slot(&mut self, _slot: &Arc<Slot>) {}
}

/// A place in the tree of paths, such as `decoder.layers.3.attn`.
pub struct Scope<'a> {
    source: &'a mut dyn Source,
    path: String,
    draw: Draw,
}

impl<'a> Scope<'a> {
    /// The root.
    pub fn root(source: &'a mut dyn Source) -> Self {
        Self { source, path: String::new(), draw: Draw::Normal }
    }

    /// The same place, with another way to draw linear maps here and below.
    pub fn drawing(self, draw: Draw) -> Self {
        Self { draw, ..self }
    }

    /// A child.
    pub fn at(&mut self, name: impl std::fmt::Display) -> Scope<'_> {
        let path = self.join(name);
        Scope { source: self.source, path, draw: self.draw }
    }

    /// A parameter of this place.
    pub fn param(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Arc<Param>> {
        let path = self.join(name);
        self.source.param(&path, shape, init)
    }

    /// The weight of a linear map, `[output, input]`; `std` is for models that draw from a normal distribution.
    pub fn matrix(&mut self, name: &str, shape: [usize; 2], std: f32) -> Result<Arc<Param>> {
        let init = match self.draw {
            Draw::Normal => Init::normal(std),
            Draw::Xavier => Init::Uniform { bound: (6. / (shape[0] + shape[1]) as f32).sqrt() },
        };
        self.param(name, &shape, init)
    }

    /// The place for adapters of the linear map here, whose weight is `[output, input]`.
    pub fn slot(&mut self, sizes: [usize; 2]) -> Arc<Slot> {
        let slot = Arc::new(Slot::new(self.path.clone(), sizes));
        self.source.slot(&slot);
        slot
    }

    fn join(&self, name: impl std::fmt::Display) -> String {
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }
}

//! Where blocks get their parameters from.

use std::sync::Arc;

use candle_core::Result;
use phyla_ops::Param;

/// How a fresh parameter is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All 0: biases.
    Zeros,
    /// All 1: norm weights.
    Ones,
    /// All 0, and never trained: a buffer.
    Fixed,
    /// Normal with mean 0.
    Normal {
        /// Standard deviation.
        std: f32,
        /// A row that starts at 0.
        zero_row: Option<u32>,
    },
}

impl Init {
    /// Normal with mean 0 and this standard deviation.
    pub fn normal(std: f32) -> Self {
        Self::Normal { std, zero_row: None }
    }
}

/// Gives parameters by path: a checkpoint, or a random generator.
pub trait Source {
    /// The parameter at `path` with this shape. Asking twice for one path gives the same parameter.
    fn param(&mut self, path: &str, shape: &[usize], init: Init) -> Result<Arc<Param>>;
}

/// A place in the tree of paths, such as `decoder.layers.3.attn`.
pub struct Scope<'a> {
    source: &'a mut dyn Source,
    path: String,
}

impl<'a> Scope<'a> {
    /// The root.
    pub fn root(source: &'a mut dyn Source) -> Self {
        Self { source, path: String::new() }
    }

    /// A child.
    pub fn at(&mut self, name: impl std::fmt::Display) -> Scope<'_> {
        let path = self.join(name);
        Scope { source: self.source, path }
    }

    /// A parameter of this place.
    pub fn param(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Arc<Param>> {
        let path = self.join(name);
        self.source.param(&path, shape, init)
    }

    fn join(&self, name: impl std::fmt::Display) -> String {
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }
}

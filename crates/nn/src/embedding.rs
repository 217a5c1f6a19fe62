//! A table of vectors, one for each token or position.

use std::sync::Arc;

use candle_core::Result;
use phyla_ops::{Param, Tensor};

use crate::{Init, Scope};

/// Shape and initialisation of a table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EmbeddingSpec {
    /// Number of vectors.
    pub rows: usize,
    /// Size of a vector.
    pub dim: usize,
    /// Standard deviation of a fresh table.
    pub std: f32,
    /// A row that takes no gradient from look-ups and starts at 0 (`pad_token_id` of most families).
    pub padding: Option<u32>,
}

/// The table.
#[derive(Debug)]
pub struct Embedding {
    weight: Arc<Param>,
    padding: Option<u32>,
}

impl Embedding {
    /// Takes `weight` from the scope.
    pub fn new(spec: EmbeddingSpec, scope: &mut Scope) -> Result<Self> {
        Self::begun(spec, Init::Normal { std: spec.std, zero_row: spec.padding }, scope)
    }

    /// As [`Embedding::new`], beginning as `init` says.
    pub fn begun(spec: EmbeddingSpec, init: Init, scope: &mut Scope) -> Result<Self> {
        Ok(Self { weight: scope.param("weight", &[spec.rows, spec.dim], init)?, padding: spec.padding })
    }

    /// The table, `[rows, dim]`.
    pub fn weight(&self) -> &Arc<Param> {
        &self.weight
    }

    /// Looks up `ids` of shape `shape`; the result has one dimension more.
    pub fn forward(&self, ids: &[u32], shape: &[usize]) -> Result<Tensor> {
        phyla_ops::embedding(&self.weight, ids, shape, self.padding)
    }
}

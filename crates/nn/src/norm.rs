//! Normalisation over the last dimension.

use std::sync::Arc;

use candle_core::Result;
use phyla_ops::{Param, Tensor};

use crate::{Init, Scope};

/// Which norm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NormSpec {
    /// Root mean square, no mean taken off, no bias.
    Rms {
        /// Added to the mean square.
        eps: f64,
    },
    /// Mean and variance, with a weight and a bias.
    Layer {
        /// Added to the variance.
        eps: f64,
    },
}

/// A norm with its weights.
#[derive(Debug)]
pub struct Norm {
    spec: NormSpec,
    weight: Arc<Param>,
    bias: Option<Arc<Param>>,
}

impl Norm {
    /// A norm over `dim` elements.
    pub fn new(spec: NormSpec, dim: usize, scope: &mut Scope) -> Result<Self> {
        let weight = scope.param("weight", &[dim], Init::Ones)?;
        let bias = match spec {
            NormSpec::Rms { .. } => None,
            NormSpec::Layer { .. } => Some(scope.param("bias", &[dim], Init::Zeros)?),
        };
        Ok(Self { spec, weight, bias })
    }

    /// Normalises the last dimension of `x`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self.spec {
            NormSpec::Rms { eps } => phyla_ops::rms_norm(x, &self.weight, eps),
            NormSpec::Layer { eps } => phyla_ops::layer_norm(x, &self.weight, self.bias.as_ref(), eps),
        }
    }
}

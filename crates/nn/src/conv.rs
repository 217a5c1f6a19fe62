//! A convolution over what enters the first layer, added to what leaves it (DeBERTa-v2): neighbouring tokens see each
//! other before any attention.

use std::sync::Arc;

use candle_core::Result;
use phyla_ops::{Conv1d, Param, Tensor};

use crate::{Act, Init, Norm, NormSpec, Pass, Scope};

/// What shapes the convolution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConvSpec {
    /// Size of the residual stream.
    pub hidden: usize,
    /// Tokens that a result reads, an odd number.
    pub width: usize,
    /// Parts of the residual stream that do not see each other.
    pub groups: usize,
    /// The activation.
    pub act: Act,
    /// The norm over the sum.
    pub norm: NormSpec,
    /// Dropout before the activation.
    pub dropout: f32,
    /// Standard deviation of fresh weights.
    pub std: f32,
}

/// The block.
#[derive(Debug)]
pub struct Conv {
    spec: ConvSpec,
    /// `[hidden, hidden / groups, width]`.
    weight: Arc<Param>,
    bias: Arc<Param>,
    norm: Norm,
}

impl Conv {
    /// Takes `weight`, `bias` and `norm` from the scope.
    pub fn new(spec: &ConvSpec, scope: &mut Scope) -> Result<Self> {
        let shape = [spec.hidden, spec.hidden / spec.groups.max(1), spec.width];
        Ok(Self {
            spec: *spec,
            weight: scope.param("weight", &shape, Init::normal(spec.std))?,
            bias: scope.param("bias", &[spec.hidden], Init::Zeros)?,
            norm: Norm::new(spec.norm, spec.hidden, &mut scope.at("norm"))?,
        })
    }

    /// `norm(y + act(conv(x)))`, where `x` entered the first layer and `y` left it, both `[batch, time, hidden]`. Padding
    /// becomes 0.
    pub fn forward(&self, x: &Tensor, y: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let hide = |x: Tensor, pass: &Pass| pass.valid().map_or(Ok(x.clone()), |valid| phyla_ops::keep_rows(&x, valid));
        let x = hide(
            phyla_ops::conv1d(x, &self.weight, Some(&self.bias), Conv1d::same(self.spec.width, self.spec.groups))?,
            pass,
        )?;
        let x = phyla_ops::activate(&pass.drop(x, self.spec.dropout)?, self.spec.act)?;
        hide(self.norm.forward(&phyla_ops::add(y, &x)?)?, pass)
    }
}

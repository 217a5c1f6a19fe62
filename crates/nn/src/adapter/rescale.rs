//! IA3 (Liu et al. 2022, section 3.3): nothing is added, numbers are only made larger and smaller.

use std::sync::Arc;

use candle_core::Result;
use phyla_ops::{Param, Tensor};

/// `factors ∘ y`, or a map of `factors ∘ x`.
#[derive(Debug)]
pub struct Rescale {
    /// One for each number that goes in or comes out.
    pub factors: Arc<Param>,
    /// Whether they are of what goes in (of feed-forward blocks, where that is the activation).
    pub input: bool,
}

impl Rescale {
    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        phyla_ops::scale_columns(x, &self.factors, None)
    }

    pub(super) fn merge(&self, weight: &mut [f32], bias: Option<&mut [f32]>) -> Result<()> {
        let factors = self.factors.numbers()?;
        let columns = if self.input { factors.len() } else { weight.len() / factors.len().max(1) };
        for (at, row) in weight.chunks_exact_mut(columns.max(1)).enumerate() {
            match self.input {
                true => row.iter_mut().zip(&factors).for_each(|(x, factor)| *x *= factor),
                false => row.iter_mut().for_each(|x| *x *= factors[at]),
            }
        }
        if let Some(bias) = bias.filter(|_| !self.input) {
            bias.iter_mut().zip(&factors).for_each(|(x, factor)| *x *= factor);
        }
        Ok(())
    }
}

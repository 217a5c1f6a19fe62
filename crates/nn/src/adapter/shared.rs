//! VeRA (Kopiczko et al. 2024, eq. 2): random matrices that every map shares and that stay as they are, with two vectors
//! for each map that learn.

use std::sync::Arc;

use candle_core::Result;
use phyla_ops::{Param, Tensor};

use super::{Site, add_product};

/// `y + λ_b ∘ b (λ_d ∘ (a x))`.
#[derive(Debug)]
pub struct Shared {
    /// `[rank, input]`: the first columns of the matrix that all share.
    pub a: Arc<Param>,
    /// `[output, rank]`: its first rows.
    pub b: Arc<Param>,
    /// λ_d, `[rank]`.
    pub inner: Arc<Param>,
    /// λ_b, `[output]`.
    pub outer: Arc<Param>,
    /// Dropout of what `a` reads, in training.
    pub dropout: f32,
}

impl Shared {
    pub(super) fn params(&self) -> Vec<&Arc<Param>> {
        vec![&self.a, &self.b, &self.inner, &self.outer]
    }

    pub(super) fn apply(&self, y: Tensor, site: &Site) -> Result<Tensor> {
        let narrow = phyla_ops::linear(&site.dropped(self.dropout)?, &self.a, None)?; // [.., rank]
        let narrow = phyla_ops::scale_columns(&narrow, &self.inner, None)?;
        let added = phyla_ops::linear(&narrow, &self.b, None)?; // [.., output]
        phyla_ops::add(&y, &phyla_ops::scale_columns(&added, &self.outer, None)?)
    }

    pub(super) fn merge(&self, weight: &mut [f32]) -> Result<()> {
        let (rank, input, output) = (self.a.dims()[0], self.a.dims()[1], self.b.dims()[0]);
        let (mut a, mut b) = (self.a.numbers()?, self.b.numbers()?);
        for (row, factor) in a.chunks_exact_mut(input.max(1)).zip(self.inner.numbers()?) {
            row.iter_mut().for_each(|x| *x *= factor);
        }
        for (row, factor) in b.chunks_exact_mut(rank.max(1)).zip(self.outer.numbers()?) {
            row.iter_mut().for_each(|x| *x *= factor);
        }
        add_product(weight, &b, &a, 1., [output, input, rank])
    }
}

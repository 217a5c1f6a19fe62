//! Keys, values or latent vectors as attention reads them: fresh ones, or all that a cache keeps.

use candle_core::Result;
use phyla_ops::{AttentionArgs, Pages, Tensor, Visibility};

/// Keys or values, `[batch, keys, heads, dim]`.
#[derive(Clone, Debug)]
pub enum Keys {
    /// In one piece.
    Whole(Tensor),
    /// In the pages of a cache.
    Paged(Pages),
}

impl Keys {
    /// Sequences, and the most keys of one.
    pub fn sizes(&self) -> [usize; 2] {
        match self {
            Keys::Whole(tensor) => [tensor.dims()[0], tensor.dims()[1]],
            Keys::Paged(pages) => [pages.dims()[0], pages.dims()[1]],
        }
    }

    /// Of each head the first `dim` numbers, where they lie.
    pub fn narrowed(&self, dim: usize) -> Result<Keys> {
        Ok(match self {
            Keys::Whole(tensor) => Keys::Whole(Tensor::from(tensor.data().narrow(3, 0, dim)?)),
            Keys::Paged(pages) => Keys::Paged(pages.narrowed(dim)?),
        })
    }

    /// All of it in one piece.
    pub fn whole(&self) -> Result<Tensor> {
        match self {
            Keys::Whole(tensor) => Ok(tensor.clone()),
            Keys::Paged(pages) => Ok(pages.gather()?.into()),
        }
    }

    /// The weights with which queries see these keys, `[batch, heads, queries, keys]`: see [`phyla_ops::attention_weights`].
    pub fn weights(&self, q: &Tensor, visible: &Visibility, args: &AttentionArgs) -> Result<Tensor> {
        phyla_ops::attention_weights(q, &self.whole()?, visible, args)
    }

    /// What queries find among keys and these values: see [`phyla_ops::attention`].
    pub fn attend(&self, values: &Keys, q: &Tensor, visible: &Visibility, args: &AttentionArgs) -> Result<Tensor> {
        match (self, values) {
            (Keys::Whole(k), Keys::Whole(v)) => phyla_ops::attention(q, k, v, visible, args),
            (Keys::Paged(k), Keys::Paged(v)) => phyla_ops::attention_paged(q, k, v, visible, args),
            (k, v) => phyla_ops::attention(q, &k.whole()?, &v.whole()?, visible, args),
        }
    }
}

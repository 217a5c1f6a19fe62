//! What stands before the text of every row without being a part of it: vectors in the place of tokens (a prompt), or keys and
//! values in the place of a layer's own (a prefix). Layers are told of positions, and know no more of it.

use candle_core::Result;
use phyla_ops::{Tensor, prepend};

/// A lead of some positions.
#[derive(Clone, Debug)]
pub struct Lead {
    /// How many.
    pub count: usize,
    /// `[count, hidden]`: what is embedded there; zeros where keys and values say all.
    pub tokens: Tensor,
    /// For each layer keys and values, `[count, kv_heads, head_dim]` each; none where tokens make them.
    pub keys: Vec<[Tensor; 2]>,
}

impl Lead {
    /// Embedded tokens `[batch, time, hidden]` with the lead before them.
    pub(crate) fn before(&self, x: &Tensor) -> Result<Tensor> {
        prepend(&self.tokens, x)
    }

    /// A layer's keys and values, `[batch, count + time, kv_heads, head_dim]`, the first of them replaced.
    pub(crate) fn replace(&self, layer: usize, [k, v]: [Tensor; 2]) -> Result<[Tensor; 2]> {
        let Some([own_k, own_v]) = self.keys.get(layer) else { return Ok([k, v]) };
        let put = |own: &Tensor, x: Tensor| prepend(own, &x.narrow(1, self.count, x.dims()[1] - self.count)?);
        Ok([put(own_k, k)?, put(own_v, v)?])
    }
}

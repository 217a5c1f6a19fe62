//! Talking heads (Shazeer et al. 2020): scores and weights of attention, mixed across heads by two small matrices.
//!
//! Mixed scores are plain scores of wider heads: `Σ_h W[g, h] (q_h · k_h)` is the product of all heads' keys side by side
//! with the queries, head `h` of them times `W[g, h]`. So the attention itself need not know. It costs as many times more
//! as there are heads; no published model has them.

use std::sync::Arc;

use candle_core::Result;
use phyla_ops::{Param, Tensor};

use crate::{Init, Scope};

/// The two matrices.
#[derive(Debug)]
pub(crate) struct TalkingHeads {
    heads: usize,
    /// `[heads, heads]`: on the scores, from the heads before to those in the softmax.
    logits: Arc<Param>,
    /// `[heads, heads]`: on the weights, from the heads in the softmax to those after.
    weights: Arc<Param>,
}

impl TalkingHeads {
    /// Takes `logits_mix.weight` and `weights_mix.weight` from the scope.
    pub fn new(heads: usize, std: f32, scope: &mut Scope) -> Result<Self> {
        let mut take = |name: &str| scope.at(name).param("weight", &[heads, heads], Init::normal(std));
        Ok(Self { heads, logits: take("logits_mix")?, weights: take("weights_mix")? })
    }

    /// `x[batch, time, heads, dim]` to `[batch, time, heads, heads · dim]`: for each head all heads, weighed.
    pub fn spread(&self, x: &Tensor) -> Result<Tensor> {
        let (heads, [rows, dim]) = (self.heads as u32, sizes(x));
        let factors = (0..rows as u32).flat_map(|_| 0..heads * heads).collect::<Vec<_>>();
        let factors = self.entries(&self.logits, &factors)?;
        let all = phyla_ops::broadcast_heads(&self.side_by_side(x)?, self.heads)?;
        let shape = all.dims().to_vec();
        phyla_ops::scale_rows(&all.reshape((rows * self.heads * self.heads, dim))?, &factors)?.reshape(shape)
    }

    /// `x[batch, time, heads, dim]` to `[batch, time, 1, heads · dim]`.
    pub fn side_by_side(&self, x: &Tensor) -> Result<Tensor> {
        let [_, dim] = sizes(x);
        x.reshape((x.dims()[0], x.dims()[1], 1, self.heads * dim))
    }

    /// `table[rows, heads, dim]` to `[rows, heads, heads · dim]`: for each head all heads.
    pub fn repeat(&self, table: &Tensor) -> Result<Tensor> {
        let &[rows, heads, dim] = table.dims() else {
            candle_core::bail!("a table of positions is [rows, heads, dim], found {:?}", table.dims());
        };
        phyla_ops::broadcast_heads(&table.reshape((1, rows, 1, heads * dim))?, heads)?.reshape((
            rows,
            heads,
            heads * dim,
        ))
    }

    /// `y[batch, time, heads, heads · dim]`, what each head's weights make of all heads' values, to
    /// `[batch, time, heads · dim]`: for each head the mixture of weights over its own values.
    pub fn gather(&self, y: &Tensor) -> Result<Tensor> {
        let (heads, [rows, wide]) = (self.heads, sizes(y));
        // Row (h, g) of a token counts `W[g, h]`.
        let order = (0..rows).flat_map(|_| (0..heads).flat_map(|h| (0..heads).map(move |g| (g * heads + h) as u32)));
        let factors = self.entries(&self.weights, &order.collect::<Vec<_>>())?;
        let dim = wide / heads;
        let weighed = phyla_ops::scale_rows(&y.reshape((rows * heads * heads, dim))?, &factors)?;
        let pieces = phyla_ops::split_last(&weighed.reshape((rows, heads * wide))?, &vec![wide; heads])?;
        let mut pieces = pieces.into_iter();
        let Some(first) = pieces.next() else { candle_core::bail!("attention needs a head") };
        pieces.try_fold(first, |sum, piece| phyla_ops::add(&sum, &piece))
    }

    /// Entries of a matrix by their numbers, row after row.
    fn entries(&self, matrix: &Arc<Param>, numbers: &[u32]) -> Result<Tensor> {
        let rows: Vec<u32> = (0..self.heads as u32).collect();
        let all = phyla_ops::embedding(matrix, &rows, &[self.heads], None)?;
        phyla_ops::gather_rows(&all.reshape((self.heads * self.heads, 1))?, numbers)
    }
}

/// Tokens, and elements of a head, of `[batch, time, heads, dim]`.
fn sizes(x: &Tensor) -> [usize; 2] {
    match x.dims() {
        &[batch, time, _, dim] => [batch * time, dim],
        _ => [0, 0],
    }
}

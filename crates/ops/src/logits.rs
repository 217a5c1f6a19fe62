//! Logits `x wᵀ + b` that are never held but for a few rows at a time, and their gradient on its way back: what losses over a
//! vocabulary have in common.

use std::sync::Arc;

use candle_core::Result;
use phyla_kernels::memory::alloc;
use phyla_kernels::product;

use crate::linear::{check_bias, sizes};
use crate::{Data, Param, Tensor, cpu};

/// 128 MiB of logits at a time: for each such part the gradient of the weight is read and written once more.
const CHUNK_ELEMENTS: usize = 32 << 20;
const MIN_CHUNK_ROWS: usize = 128;

/// What logits are made of.
pub(crate) struct Logits {
    x: Data,
    w: Arc<Param>,
    bias: Option<Data>,
    rows: usize,
    /// Classes, and what a row of `x` holds.
    sizes: [usize; 2],
}

impl Logits {
    pub fn new(x: &Tensor, w: &Arc<Param>, b: Option<&Arc<Param>>) -> Result<Self> {
        let (vocab, k) = sizes(x, w)?;
        check_bias(vocab, b)?;
        let bias = b.map(|b| b.weight().to_f32()).transpose()?;
        Ok(Self { x: x.data().contiguous()?, w: w.clone(), bias, rows: x.rows(), sizes: [vocab, k] })
    }

    /// Room for the gradient of `x`.
    pub fn room(&self) -> Vec<f32> {
        alloc(self.rows * self.sizes[1])
    }

    /// The gradient of `x` as a tensor.
    pub fn shaped(&self, dx: Vec<f32>) -> Result<Data> {
        cpu::tensor(dx, self.x.shape().clone())
    }

    /// Hands the logits of a few rows at a time to `work`, with the number of the first.
    pub fn each(&self, mut work: impl FnMut(usize, &mut [f32]) -> Result<()>) -> Result<()> {
        let vocab = self.sizes[0];
        let chunk = chunk_rows(self.rows, vocab);
        let mut logits = alloc(chunk.min(self.rows) * vocab);
        for start in (0..self.rows).step_by(chunk) {
            let logits = &mut logits[..chunk.min(self.rows - start) * vocab];
            self.fill(start, logits)?;
            work(start, logits)?;
        }
        Ok(())
    }

    /// Logits of as many rows as there is room for, from row `start` on.
    pub fn fill(&self, start: usize, logits: &mut [f32]) -> Result<()> {
        let [vocab, k] = self.sizes;
        let m = logits.len() / vocab.max(1);
        let input = cpu::view::<f32>(&self.x)?;
        let bias = self.bias.as_ref().map(cpu::view::<f32>).transpose()?;
        let xs = &input[start * k..][..m * k];
        self.w.compute().with(|w| {
            product::linear(logits, xs, w, bias.as_deref(), [m, vocab, k], self.w.precision());
            Ok(())
        })
    }

    /// Takes the gradient of the logits of some rows, from row `start` on, back: into `dx`, and added to the weight's.
    pub fn back(&self, start: usize, gradient: &[f32], dx: &mut [f32]) -> Result<()> {
        let ([vocab, k], precision) = (self.sizes, self.w.precision());
        let m = gradient.len() / vocab.max(1);
        self.w.compute().with(|w| {
            product::linear_dx(&mut dx[start * k..][..m * k], gradient, w, [m, vocab, k], false, precision);
            Ok(())
        })?;
        if self.w.trainable() {
            let input = cpu::view::<f32>(&self.x)?;
            let xs = &input[start * k..][..m * k];
            self.w.accumulate_or_set(|dw, holds| {
                product::linear_dw(dw, gradient, xs, [m, vocab, k], holds, precision);
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// Few enough rows for the logits to need little memory, enough for the product to run at its peak; parts alike.
fn chunk_rows(rows: usize, vocab: usize) -> usize {
    let most = (CHUNK_ELEMENTS / vocab.max(1)).max(MIN_CHUNK_ROWS);
    rows.div_ceil(rows.div_ceil(most).max(1)).max(1)
}

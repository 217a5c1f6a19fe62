//! Log-probabilities of single classes from the product that makes the logits: one number a row, each with a gradient of
//! its own, where `loss` sums rows up to one.

use std::sync::Arc;

use candle_core::{D, Result};
use phyla_kernels::memory::alloc;
use phyla_kernels::{loss as kernels, product};

use crate::linear::{check_bias, check_gradient, sizes};
use crate::loss::{check, chunk_rows};
use crate::{Data, Param, Tensor, cpu, plain};

/// `log softmax(x wᵀ + b)[row, targets[row]]`, `[rows]`; 0 where the target is [`crate::loss::IGNORE`].
///
/// Logits are never held but for a few rows at a time: the backward pass makes them again, which costs one more product
/// and saves `rows · vocab` numbers.
pub fn linear_log_probs(x: &Tensor, w: &Arc<Param>, b: Option<&Arc<Param>>, targets: &[i32]) -> Result<Tensor> {
    let (vocab, k) = sizes(x, w)?;
    check_bias(vocab, b)?;
    let rows = x.rows();
    check(rows, vocab, targets)?;
    if !plain::fast(x) || b.is_some_and(|b| b.wants_grad()) {
        let targets = targets.to_vec();
        return plain::composed(&[&crate::linear(x, w, b)?], &[], move |logits| reference(&logits[0], &targets));
    }
    let tracked = crate::recording() && (x.tracked() || w.trainable());
    if tracked {
        check_gradient(x, w)?;
    }
    let product = Product {
        x: x.data().contiguous()?,
        w: w.clone(),
        bias: b.map(|b| b.weight().to_f32()).transpose()?,
        targets: targets.to_vec(),
        sizes: [vocab, k],
    };
    let mut losses = alloc(rows);
    product.each(|start, logits| {
        let rows = start..start + logits.len() / vocab;
        row_losses(logits, &product.targets[rows.clone()], None, &mut losses[rows])
    })?;
    losses.iter_mut().for_each(|loss| *loss = -*loss);
    let out = cpu::tensor(losses, rows)?;
    Ok(Tensor::record(out, &[x], w.wants_grad(), move |up| {
        let up = up.contiguous()?;
        Ok(vec![Some(product.backward(&cpu::view::<f32>(&up)?)?)])
    }))
}

/// What logits are made of, once in each direction.
struct Product {
    x: Data,
    w: Arc<Param>,
    bias: Option<Data>,
    targets: Vec<i32>,
    /// Classes, and what a row of `x` holds.
    sizes: [usize; 2],
}

impl Product {
    /// Hands the logits of a few rows at a time to `work`, with the number of the first.
    fn each(&self, mut work: impl FnMut(usize, &mut [f32]) -> Result<()>) -> Result<()> {
        let [vocab, k] = self.sizes;
        let input = cpu::view::<f32>(&self.x)?;
        let bias = self.bias.as_ref().map(cpu::view::<f32>).transpose()?;
        let rows = self.targets.len();
        let chunk = chunk_rows(rows, vocab);
        let mut logits = alloc(chunk.min(rows) * vocab);
        for start in (0..rows).step_by(chunk) {
            let m = chunk.min(rows - start);
            let (xs, logits) = (&input[start * k..][..m * k], &mut logits[..m * vocab]);
            self.w.compute().with(|w| {
                product::linear(logits, xs, w, bias.as_deref(), [m, vocab, k], self.w.precision());
                Ok(())
            })?;
            work(start, logits)?;
        }
        Ok(())
    }

    /// The gradient of `x`; that of the weight is added to it.
    fn backward(&self, up: &[f32]) -> Result<Data> {
        let [vocab, k] = self.sizes;
        let (w, precision) = (&self.w, self.w.precision());
        let input = cpu::view::<f32>(&self.x)?;
        let mut dx = alloc(self.targets.len() * k);
        self.each(|start, logits| {
            let m = logits.len() / vocab;
            row_losses(logits, &self.targets[start..][..m], Some(1.), &mut vec![0.; m])?;
            // Log-probabilities are losses turned round.
            for (row, up) in logits.chunks_exact_mut(vocab.max(1)).zip(&up[start..][..m]) {
                phyla_kernels::elementwise::scale(row, -up);
            }
            w.compute().with(|w| {
                product::linear_dx(&mut dx[start * k..][..m * k], logits, w, [m, vocab, k], false, precision);
                Ok(())
            })?;
            if w.trainable() {
                w.accumulate_or_set(|dw, holds| {
                    product::linear_dw(dw, logits, &input[start * k..][..m * k], [m, vocab, k], holds, precision);
                    Ok(())
                })?;
            }
            Ok(())
        })?;
        cpu::tensor(dx, self.x.shape().clone())
    }
}

fn row_losses(logits: &mut [f32], targets: &[i32], scale: Option<f32>, losses: &mut [f32]) -> Result<()> {
    kernels::cross_entropy_rows(logits, targets, 0., scale, losses).map_err(candle_core::Error::wrap)
}

fn reference(logits: &Data, targets: &[i32]) -> Result<Data> {
    let vocab = logits.dim(D::Minus1)?;
    let logits = logits.reshape(((), vocab))?.to_dtype(plain::wide(logits))?;
    let shifted = logits.broadcast_sub(&logits.max_keepdim(1)?.detach())?;
    let log_probs = shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(1)?.log()?)?;
    let ids: Vec<u32> = targets.iter().map(|&t| t.max(0) as u32).collect();
    let counts: Vec<f32> = targets.iter().map(|&t| f32::from(t >= 0)).collect();
    let ids = Data::from_vec(ids, (targets.len(), 1), logits.device())?;
    let counts = Data::from_vec(counts, (targets.len(), 1), logits.device())?.to_dtype(logits.dtype())?;
    (log_probs.gather(&ids, 1)? * counts)?.flatten_all()
}

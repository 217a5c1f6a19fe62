//! Log-probabilities of single classes from the product that makes the logits: one number a row, each with a gradient of
//! its own, where `loss` sums rows up to one.

use std::sync::Arc;

use candle_core::{D, Result};
use phyla_kernels::loss as kernels;
use phyla_kernels::memory::alloc;

use crate::linear::{check_bias, check_gradient, sizes};
use crate::logits::Logits;
use crate::loss::check;
use crate::{Data, Param, Tensor, cpu, plain};

/// `log softmax(logits)[row, targets[row]]`, `[rows]`, of `logits[.., vocab]`; 0 where the target is [`crate::loss::IGNORE`].
pub fn log_probs(logits: &Tensor, targets: &[i32]) -> Result<Tensor> {
    check(logits.rows(), logits.last_dim(), targets)?;
    let targets = targets.to_vec();
    plain::composed(&[logits], &[], move |logits| reference(&logits[0], &targets))
}

/// The same for `logits = x wᵀ + b`, which are never held but for a few rows at a time: the backward pass makes them again,
/// which costs one more product and saves `rows · vocab` numbers.
pub fn linear_log_probs(x: &Tensor, w: &Arc<Param>, b: Option<&Arc<Param>>, targets: &[i32]) -> Result<Tensor> {
    let (vocab, _) = sizes(x, w)?;
    check_bias(vocab, b)?;
    check(x.rows(), vocab, targets)?;
    if !plain::fast(x) || b.is_some_and(|b| b.wants_grad()) {
        return log_probs(&crate::linear(x, w, b)?, targets);
    }
    if crate::recording() && (x.tracked() || w.trainable()) {
        check_gradient(x, w)?;
    }
    let made = Logits::new(x, w, b)?;
    let targets = targets.to_vec();
    let mut losses = alloc(targets.len());
    made.each(|start, logits| {
        let rows = start..start + logits.len() / vocab;
        row_losses(logits, &targets[rows.clone()], None, &mut losses[rows])
    })?;
    losses.iter_mut().for_each(|loss| *loss = -*loss);
    let out = cpu::tensor(losses, targets.len())?;
    Ok(Tensor::record(out, &[x], w.wants_grad(), move |up| {
        let up = up.contiguous()?;
        let up = cpu::view::<f32>(&up)?;
        let mut dx = made.room();
        made.each(|start, logits| {
            let rows = start..start + logits.len() / vocab;
            row_losses(logits, &targets[rows.clone()], Some(1.), &mut vec![0.; rows.len()])?;
            // Log-probabilities are losses turned round.
            for (row, up) in logits.chunks_exact_mut(vocab.max(1)).zip(&up[rows]) {
                phyla_kernels::elementwise::scale(row, -up);
            }
            made.back(start, logits, &mut dx)
        })?;
        Ok(vec![Some(made.shaped(dx)?)])
    }))
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

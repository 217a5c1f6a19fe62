//! Cross-entropy with label smoothing, from logits or fused with the product that makes them.

use std::sync::Arc;

use candle_core::{D, Result};
use phyla_kernels::loss as kernels;
use phyla_kernels::memory::alloc;

use crate::linear::{check_bias, check_gradient, sizes};
use crate::logits::Logits;
use crate::{Data, Param, Tensor, cpu, plain};

/// How the losses of the rows become one number.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy {
    /// Share of the target spread evenly over the vocabulary (Szegedy et al. 2015).
    pub label_smoothing: f32,
    /// Factor on the sum over rows; `1 / tokens` gives the mean. With gradient accumulation: over all of the
    /// step's tokens, so that micro-batches of different length weigh as they should.
    pub scale: f32,
}

/// Targets with this value do not count.
pub const IGNORE: i32 = -100;

/// `scale · Σ cross-entropy(logits[row], targets[row])` as one number; `logits` is `[.., vocab]`.
pub fn cross_entropy(logits: &Tensor, targets: &[i32], args: CrossEntropy) -> Result<Tensor> {
    let (rows, vocab) = (logits.rows(), logits.last_dim());
    check(rows, vocab, targets)?;
    if !plain::fast(logits) {
        let targets = targets.to_vec();
        return plain::composed(&[logits], &[], move |x| reference(&x[0], &targets, args));
    }
    let tracked = logits.tracked() && crate::recording();
    let mut values = cpu::view::<f32>(&logits.data().contiguous()?)?.to_vec();
    let mut losses = alloc(rows);
    kernels::cross_entropy_rows(&mut values, targets, args.label_smoothing, tracked.then_some(args.scale), &mut losses)
        .map_err(candle_core::Error::wrap)?;
    let shape = logits.data().shape().clone();
    Ok(Tensor::record(total(&losses, args.scale)?, &[logits], false, move |up| {
        let up = up.to_scalar::<f32>()?;
        if up != 1. {
            phyla_kernels::elementwise::scale(&mut values, up);
        }
        Ok(vec![Some(cpu::tensor(values, shape)?)])
    }))
}

/// The same for `logits = x wᵀ + b`, without ever holding all logits: they are made, used and overwritten by
/// their gradient a few rows at a time, and the product's backward pass is done on the spot.
///
/// The gradient of `w` is therefore added in the forward pass, and the result must be where the backward pass
/// starts (gradient 1): anything else is an error.
pub fn linear_cross_entropy(
    x: &Tensor,
    w: &Arc<Param>,
    b: Option<&Arc<Param>>,
    targets: &[i32],
    args: CrossEntropy,
) -> Result<Tensor> {
    let (vocab, _) = sizes(x, w)?;
    check_bias(vocab, b)?;
    check(x.rows(), vocab, targets)?;
    if !plain::fast(x) || b.is_some_and(|b| b.wants_grad()) {
        return cross_entropy(&crate::linear(x, w, b)?, targets, args);
    }
    check_gradient(x, w)?;
    let tracked = crate::recording() && (x.tracked() || w.trainable());
    let made = Logits::new(x, w, b)?;
    let mut losses = alloc(x.rows());
    let mut dx = if tracked { made.room() } else { vec![] };
    made.each(|start, logits| {
        let rows = start..start + logits.len() / vocab;
        let scale = tracked.then_some(args.scale);
        kernels::cross_entropy_rows(logits, &targets[rows.clone()], args.label_smoothing, scale, &mut losses[rows])
            .map_err(candle_core::Error::wrap)?;
        if tracked { made.back(start, logits, &mut dx) } else { Ok(()) }
    })?;
    let dx = if tracked { Some(made.shaped(dx)?) } else { None };
    Ok(Tensor::record(total(&losses, args.scale)?, &[x], w.wants_grad(), move |up| {
        let up = up.to_scalar::<f32>()?;
        if up != 1. {
            candle_core::bail!(
                "the fused loss must be where the backward pass starts; found a gradient of {up} for it"
            );
        }
        Ok(vec![dx])
    }))
}

pub(crate) fn check(rows: usize, vocab: usize, targets: &[i32]) -> Result<()> {
    if targets.len() != rows {
        candle_core::bail!("cross-entropy: {rows} rows of logits, {} targets", targets.len());
    }
    if vocab == 0 && rows > 0 {
        candle_core::bail!("cross-entropy over an empty vocabulary");
    }
    if let Some(row) = targets.iter().position(|&t| t != IGNORE && !(0..vocab as i64).contains(&(t as i64))) {
        candle_core::bail!("cross-entropy: target {} of row {row} is outside the vocabulary of {vocab}", targets[row]);
    }
    Ok(())
}

fn total(losses: &[f32], scale: f32) -> Result<Data> {
    let sum: f64 = losses.iter().map(|&l| l as f64).sum();
    Data::new((sum * scale as f64) as f32, &candle_core::Device::Cpu)
}

pub(crate) fn reference(logits: &Data, targets: &[i32], args: CrossEntropy) -> Result<Data> {
    let vocab = logits.dim(D::Minus1)?;
    let logits = logits.reshape(((), vocab))?.to_dtype(plain::wide(logits))?;
    let shifted = logits.broadcast_sub(&logits.max_keepdim(1)?.detach())?;
    let log_probs = shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(1)?.log()?)?;
    let ids: Vec<u32> = targets.iter().map(|&t| t.max(0) as u32).collect();
    let counts: Vec<f32> = targets.iter().map(|&t| (t != IGNORE) as u8 as f32).collect();
    let ids = Data::from_vec(ids, (targets.len(), 1), logits.device())?;
    let counts = Data::from_vec(counts, (targets.len(), 1), logits.device())?.to_dtype(logits.dtype())?;
    let hit = log_probs.gather(&ids, 1)?.neg()?;
    let even = log_probs.mean_keepdim(1)?.neg()?;
    let smooth = args.label_smoothing as f64;
    let row = ((hit * (1. - smooth))? + (even * smooth)?)?;
    row.mul(&counts)?.sum_all()? * args.scale as f64
}

//! Log-probabilities of single classes and the entropies of their rows, from the product that makes the logits: numbers with
//! a gradient of their own for each row, where `loss` sums rows up to one.

use std::sync::Arc;

use candle_core::{D, Result};
use phyla_kernels::entropy::{Slopes, log_probs_and_entropies};

use crate::linear::{check_bias, check_gradient, sizes};
use crate::logits::Logits;
use crate::loss::check;
use crate::{Data, Param, Tensor, cpu, plain};

/// `[rows, 2]`: of `logits[.., vocab] / temperature` the log-probability of each row's target, and the row's entropy in
/// nats.
pub fn choices(logits: &Tensor, targets: &[u32], temperature: f32) -> Result<Tensor> {
    check(logits.rows(), logits.last_dim(), &signed(targets))?;
    let targets = targets.to_vec();
    plain::composed(&[logits], &[], move |logits| reference(&logits[0], &targets, temperature))
}

/// The same for `logits = x wᵀ + b`, which are never held but for a few rows at a time and made again in the backward pass.
pub fn linear_choices(
    x: &Tensor,
    w: &Arc<Param>,
    b: Option<&Arc<Param>>,
    targets: &[u32],
    temperature: f32,
) -> Result<Tensor> {
    let (vocab, _) = sizes(x, w)?;
    check_bias(vocab, b)?;
    check(x.rows(), vocab, &signed(targets))?;
    if !plain::fast(x) || b.is_some_and(|b| b.wants_grad()) {
        return choices(&crate::linear(x, w, b)?, targets, temperature);
    }
    if crate::recording() && (x.tracked() || w.trainable()) {
        check_gradient(x, w)?;
    }
    let made = Logits::new(x, w, b)?;
    let targets = targets.to_vec();
    let mut found = vec![[0f32; 2]; targets.len()];
    made.each(|start, logits| {
        let rows = start..start + logits.len() / vocab;
        rows_of(logits, &targets[rows.clone()], temperature, None, &mut found[rows])
    })?;
    let out = cpu::tensor(found.into_flattened(), (targets.len(), 2))?;
    Ok(Tensor::record(out, &[x], w.wants_grad(), move |up| {
        let up = up.contiguous()?;
        let up = cpu::view::<f32>(&up)?;
        let (slopes, _) = up.as_chunks::<2>();
        let mut dx = made.room();
        made.each(|start, logits| {
            let rows = start..start + logits.len() / vocab;
            let mut unused = vec![[0f32; 2]; rows.len()];
            rows_of(logits, &targets[rows.clone()], temperature, Some(&slopes[rows]), &mut unused)?;
            made.back(start, logits, &mut dx)
        })?;
        Ok(vec![Some(made.shaped(dx)?)])
    }))
}

fn signed(targets: &[u32]) -> Vec<i32> {
    targets.iter().map(|&target| i32::try_from(target).unwrap_or(i32::MAX)).collect()
}

fn rows_of(
    logits: &mut [f32],
    targets: &[u32],
    temperature: f32,
    slopes: Option<&[Slopes]>,
    found: &mut [[f32; 2]],
) -> Result<()> {
    log_probs_and_entropies(logits, targets, temperature, slopes, found).map_err(candle_core::Error::wrap)
}

fn reference(logits: &Data, targets: &[u32], temperature: f32) -> Result<Data> {
    let vocab = logits.dim(D::Minus1)?;
    let logits = (logits.reshape(((), vocab))?.to_dtype(plain::wide(logits))? / f64::from(temperature))?;
    let shifted = logits.broadcast_sub(&logits.max_keepdim(1)?.detach())?;
    let log_probs = shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(1)?.log()?)?;
    let ids = Data::from_vec(targets.to_vec(), (targets.len(), 1), logits.device())?;
    let entropies = (&log_probs * log_probs.exp()?)?.sum_keepdim(1)?.neg()?;
    Data::cat(&[log_probs.gather(&ids, 1)?, entropies], 1)
}

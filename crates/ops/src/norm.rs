//! Root-mean-square norm (Zhang and Sennrich 2019, eq. 4) and layer norm (Ba et al. 2016, eq. 4) over the
//! last dimension.

use std::sync::Arc;

use candle_core::{D, Result};
use phyla_kernels::memory::alloc;
use phyla_kernels::norm as kernels;

use crate::{Param, Tensor, cpu, plain};

/// `y = x / sqrt(mean(x²) + eps) · w`, rows along the last dimension, which is `w`'s size.
pub fn rms_norm(x: &Tensor, w: &Arc<Param>, eps: f64) -> Result<Tensor> {
    check(x, w)?;
    if !plain::fast(x) {
        return plain::composed(&[x], &[w], move |args| {
            let x = args[0].to_dtype(plain::wide(&args[0]))?;
            let inv = (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?.recip()?;
            x.broadcast_mul(&inv)?.broadcast_mul(&args[1].to_dtype(x.dtype())?)?.to_dtype(args[0].dtype())
        });
    }
    let (rows, dim) = (x.rows(), x.last_dim());
    let (input, weight) = (x.data().contiguous()?, w.weight().to_f32()?);
    let wants = w.wants_grad();
    let mut inv = (x.tracked() || wants).then(|| alloc(rows));
    let mut y = alloc(rows * dim);
    kernels::rms_norm(&mut y, &cpu::view(&input)?, &cpu::view(&weight)?, eps as f32, rows, dim, inv.as_deref_mut());
    let (w, shape) = (w.clone(), input.shape().clone());
    Ok(Tensor::record(cpu::tensor(y, shape.clone())?, &[x], wants, move |dy| {
        let dy = dy.contiguous()?;
        let inv = inv.unwrap_or_default();
        let mut dx = alloc(rows * dim);
        let mut run = |dw: Option<&mut [f32]>| -> Result<()> {
            kernels::rms_norm_backward(
                &mut dx,
                dw,
                &cpu::view(&dy)?,
                &cpu::view(&input)?,
                &cpu::view(&weight)?,
                &inv,
                rows,
                dim,
            );
            Ok(())
        };
        if w.trainable() {
            w.accumulate(|dw| run(Some(dw)))?
        } else {
            run(None)?
        }
        Ok(vec![Some(cpu::tensor(dx, shape)?)])
    }))
}

/// `y = (x - mean(x)) / sqrt(var(x) + eps) · w + b`, rows along the last dimension.
pub fn layer_norm(x: &Tensor, w: &Arc<Param>, b: Option<&Arc<Param>>, eps: f64) -> Result<Tensor> {
    check(x, w)?;
    if let Some(b) = b {
        check(x, b)?;
    }
    if !plain::fast(x) {
        let mut params = vec![w];
        params.extend(b);
        return plain::composed(&[x], &params, move |args| {
            let x = args[0].to_dtype(plain::wide(&args[0]))?;
            let x = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
            let inv = (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?.recip()?;
            let y = x.broadcast_mul(&inv)?.broadcast_mul(&args[1].to_dtype(x.dtype())?)?;
            let y = match args.get(2) {
                Some(b) => y.broadcast_add(&b.to_dtype(y.dtype())?)?,
                None => y,
            };
            y.to_dtype(args[0].dtype())
        });
    }
    let (rows, dim) = (x.rows(), x.last_dim());
    let (input, weight) = (x.data().contiguous()?, w.weight().to_f32()?);
    let bias = b.map(|b| b.weight().to_f32()).transpose()?;
    let wants = w.wants_grad() || b.is_some_and(|b| b.wants_grad());
    let mut kept = (x.tracked() || wants).then(|| (alloc(rows), alloc(rows)));
    let mut y = alloc(rows * dim);
    {
        let bias = bias.as_ref().map(cpu::view::<f32>).transpose()?;
        let kept = kept.as_mut().map(|(mean, inv)| (&mut mean[..], &mut inv[..]));
        kernels::layer_norm(
            &mut y,
            &cpu::view(&input)?,
            &cpu::view(&weight)?,
            bias.as_deref(),
            eps as f32,
            rows,
            dim,
            kept,
        );
    }
    let (w, b, shape) = (w.clone(), b.cloned(), input.shape().clone());
    Ok(Tensor::record(cpu::tensor(y, shape.clone())?, &[x], wants, move |dy| {
        let dy = dy.contiguous()?;
        let (mean, inv) = kept.unwrap_or_default();
        let mut dx = alloc(rows * dim);
        let mut run = |dw: Option<&mut [f32]>, db: Option<&mut [f32]>| -> Result<()> {
            kernels::layer_norm_backward(
                &mut dx,
                dw,
                db,
                &cpu::view(&dy)?,
                &cpu::view(&input)?,
                &cpu::view(&weight)?,
                (&mean, &inv),
                rows,
                dim,
            );
            Ok(())
        };
        match (w.trainable(), b.filter(|b| b.trainable())) {
            (true, Some(b)) => w.accumulate(|dw| b.accumulate(|db| run(Some(dw), Some(db))))?,
            (true, None) => w.accumulate(|dw| run(Some(dw), None))?,
            (false, Some(b)) => b.accumulate(|db| run(None, Some(db)))?,
            (false, None) => run(None, None)?,
        }
        Ok(vec![Some(cpu::tensor(dx, shape)?)])
    }))
}

fn check(x: &Tensor, w: &Param) -> Result<()> {
    if w.dims() != [x.last_dim()] {
        candle_core::bail!("{}: a norm over {} needs as many weights, found {:?}", w.path(), x.last_dim(), w.dims());
    }
    Ok(())
}

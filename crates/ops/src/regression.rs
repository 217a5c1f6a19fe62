//! Losses of numbers against numbers: scores, ratings, and yes or no. For classes that exclude each other see `loss`.

use candle_core::{Device, Result};
use phyla_kernels::memory::zeros;
use phyla_kernels::regression::{self as kernels, Regression};

use crate::{Data, Tensor, cpu, plain};

/// `scale · Σ (x - target)²` as one number, for as many targets as `x` has elements; `1 / elements` gives the mean.
pub fn mse(x: &Tensor, targets: &[f32], scale: f32) -> Result<Tensor> {
    loss(x, targets, scale, Regression::Square)
}

/// `scale · Σ` of the cross-entropy of logits `x` against targets from 0 (no) to 1 (yes), each element by itself, as
/// several labels at once need it.
pub fn bce_with_logits(x: &Tensor, targets: &[f32], scale: f32) -> Result<Tensor> {
    loss(x, targets, scale, Regression::Binary)
}

fn loss(x: &Tensor, targets: &[f32], scale: f32, kind: Regression) -> Result<Tensor> {
    let count = x.data().elem_count();
    if targets.len() != count {
        candle_core::bail!("{count} numbers in {:?} need as many targets, found {}", x.dims(), targets.len());
    }
    let targets = targets.to_vec();
    if !plain::fast(x) {
        return plain::composed(&[x], &[], move |args| reference(&args[0], &targets, scale, kind));
    }
    let input = x.data().contiguous()?;
    let sum = kernels::sum(&cpu::view::<f32>(&input)?, &targets, kind) * f64::from(scale);
    Ok(Tensor::record(Data::new(sum as f32, &Device::Cpu)?, &[x], false, move |up| {
        let up = up.to_scalar::<f32>()?;
        let mut dx = zeros(count);
        kernels::backward(&mut dx, &cpu::view::<f32>(&input)?, &targets, scale * up, kind);
        Ok(vec![Some(cpu::tensor(dx, input.shape().clone())?)])
    }))
}

fn reference(x: &Data, targets: &[f32], scale: f32, kind: Regression) -> Result<Data> {
    let x = x.to_dtype(plain::wide(x))?;
    let targets = Data::from_slice(targets, x.dims(), x.device())?.to_dtype(x.dtype())?;
    let losses = match kind {
        Regression::Square => (&x - &targets)?.sqr()?,
        Regression::Binary => {
            // -|x|, the two halves of it being far from each other's overflow.
            let tail = ((x.abs()?.neg()?.exp()? + 1.)?).log()?;
            ((x.relu()? - (&x * &targets)?)? + tail)?
        }
    };
    losses.sum_all()? * f64::from(scale)
}

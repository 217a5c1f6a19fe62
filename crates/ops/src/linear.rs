//! The product with a weight: `y = x wᵀ + b`.

use std::sync::Arc;

use candle_core::Result;
use phyla_kernels::activation::Act;
use phyla_kernels::memory::alloc;
use phyla_kernels::product::{self, Precision};

use crate::{Data, Param, Tensor, Weight, cpu, plain};

/// `y[.., out] = x[.., in] · w[out, in]ᵀ + b[out]`.
///
/// The weight may be stored in f32, bf16 or f16; sums are in f32. With a weight in bf16 the products of many rows take
/// `x` and the gradients in bf16, too ([`Param::precision`]); with one in int8 those of any number take `x` in bytes, a
/// scale for each row. The backward pass adds to the gradients of `w` and `b` in place and returns only that of `x`.
///
/// # Errors
/// Sizes that do not fit; a weight in int8 where a gradient of `x` is wanted.
pub fn linear(x: &Tensor, w: &Arc<Param>, b: Option<&Arc<Param>>) -> Result<Tensor> {
    let (n, k) = sizes(x, w)?;
    check_bias(n, b)?;
    if !plain::fast(x) {
        let mut params = vec![w];
        params.extend(b);
        return plain::composed(&[x], &params, reference);
    }
    let (m, precision) = (x.rows(), w.precision());
    check_gradient(x, w)?;
    let input = x.data().contiguous()?;
    let mut y = alloc(m * n);
    {
        let x = cpu::view::<f32>(&input)?;
        let bias = b.map(|b| b.weight().to_f32()).transpose()?;
        let bias = bias.as_ref().map(cpu::view::<f32>).transpose()?;
        w.compute().with(|w| {
            let linear = if crate::alike() { product::linear_alike } else { product::linear };
            linear(&mut y, &x, w, bias.as_deref(), [m, n, k], precision);
            Ok(())
        })?;
    }
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = n;
    }
    let wants = w.wants_grad() || b.is_some_and(|b| b.wants_grad());
    let (w, b, tracked, from) = (w.clone(), b.cloned(), x.tracked(), x.data().shape().clone());
    // A frozen weight needs no input kept for its gradient.
    let kept = w.trainable().then_some(input);
    Ok(Tensor::record(cpu::tensor(y, dims)?, &[x], wants, move |dy| {
        let dy = dy.contiguous()?;
        let dy = cpu::view::<f32>(&dy)?;
        if let Some(x) = &kept {
            let x = cpu::view::<f32>(x)?;
            w.accumulate_or_set(|dw, holds| {
                product::linear_dw(dw, &dy, &x, [m, n, k], holds, precision);
                Ok(())
            })?;
        }
        if let Some(b) = b.filter(|b| b.trainable()) {
            b.accumulate(|db| {
                product::sum_rows(db, &dy, m, n);
                Ok(())
            })?;
        }
        if !tracked {
            return Ok(vec![None]);
        }
        let mut dx = alloc(m * k);
        w.compute().with(|w| {
            product::linear_dx(&mut dx, &dy, w, [m, n, k], false, precision);
            Ok(())
        })?;
        Ok(vec![Some(cpu::tensor(dx, from)?)])
    }))
}

/// `act(x wᵀ + b)`: [`linear`], then [`crate::activate`]; in one pass over the result where the weight is in int8 and
/// nothing is recorded.
///
/// # Errors
/// As [`linear`].
pub fn linear_act(x: &Tensor, w: &Arc<Param>, b: Option<&Arc<Param>>, act: Act) -> Result<Tensor> {
    let kept = crate::recording() && (x.tracked() || b.is_some_and(|b| b.wants_grad()));
    let Weight::Bytes(matrix) = w.compute() else { return crate::activate(&linear(x, w, b)?, act) };
    if kept || !plain::fast(x) {
        return crate::activate(&linear(x, w, b)?, act);
    }
    let (n, _) = sizes(x, w)?;
    check_bias(n, b)?;
    let (m, input) = (x.rows(), x.data().contiguous()?);
    let mut y = alloc(m * n);
    let bias = b.map(|b| b.weight().to_f32()).transpose()?;
    let bias = bias.as_ref().map(cpu::view::<f32>).transpose()?;
    product::linear_act(&mut y, &cpu::view::<f32>(&input)?, matrix.view(), bias.as_deref(), m, act);
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = n;
    }
    Ok(cpu::tensor(y, dims)?.into())
}

/// Up to this many rows, [`linear`] gives each row the same bits as if it were alone in the call; over quantised weights only
/// inside [`crate::in_any_company`].
pub const fn invariant_rows(precision: Precision) -> usize {
    product::rows_invariant_limit(precision)
}

/// Rows and columns of the weight, checked against the input.
pub(crate) fn sizes(x: &Tensor, w: &Param) -> Result<(usize, usize)> {
    match w.dims() {
        &[n, k] if k == x.last_dim() => Ok((n, k)),
        dims => candle_core::bail!("{}: weight {dims:?} does not fit an input of {:?}", w.path(), x.dims()),
    }
}

/// There is no gradient through a weight in int8.
pub(crate) fn check_gradient(x: &Tensor, w: &Param) -> Result<()> {
    if w.precision() == Precision::Int8 && x.tracked() && crate::recording() {
        candle_core::bail!("{}: a weight in int8 is for inference; to train, load it in f32 or bf16", w.path());
    }
    Ok(())
}

pub(crate) fn check_bias(n: usize, b: Option<&Arc<Param>>) -> Result<()> {
    match b {
        Some(b) if b.dims() != [n] => {
            candle_core::bail!("{}: a bias of {:?} does not fit an output of {n}", b.path(), b.dims())
        }
        _ => Ok(()),
    }
}

fn reference(args: &[Data]) -> Result<Data> {
    let (x, w) = (&args[0], &args[1]);
    let (n, k) = w.dims2()?;
    let dims: Vec<usize> = x.dims().iter().copied().take(x.rank() - 1).chain([n]).collect();
    let y = x.reshape(((), k))?.matmul(&w.to_dtype(x.dtype())?.t()?)?;
    match args.get(2) {
        Some(b) => y.broadcast_add(&b.to_dtype(y.dtype())?)?,
        None => y,
    }
    .reshape(dims)
}

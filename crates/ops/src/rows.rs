//! Rows picked, cut, joined, repeated, weighed and masked: no arithmetic to speak of, and gradients that go back
//! where the numbers came from. Rows of a parameter are looked up by `embedding`.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{D, DType, Device, Result};
use phyla_kernels::memory::zeros;
use phyla_kernels::{embed, product::MatRef, rows as kernels};

use crate::{Data, InputGrads, Tensor, cpu, plain};

/// `y[i] = x[rows[i]]`, `[rows.len(), dim]`, where `x [.., dim]` is seen as rows along its last dimension. A row may be
/// picked often, or never.
pub fn gather_rows(x: &Tensor, rows: &[u32]) -> Result<Tensor> {
    let (count, dim) = (x.rows(), x.last_dim());
    if let Some(row) = rows.iter().find(|&&row| row as usize >= count) {
        candle_core::bail!("row {row} was asked for, but {:?} has {count} rows", x.dims());
    }
    let picked = rows.to_vec();
    if !plain::fast(x) {
        return plain::composed(&[x], &[], move |args| {
            let ids = Data::from_slice(&picked, picked.len(), args[0].device())?;
            args[0].reshape((count, dim))?.index_select(&ids, 0)
        });
    }
    let input = x.data().contiguous()?;
    let mut y = zeros(rows.len() * dim);
    // Of rows without elements there is nothing to copy.
    if dim > 0 {
        embed::gather(&mut y, MatRef::F32(&cpu::view(&input)?), rows, dim).map_err(candle_core::Error::wrap)?;
    }
    let shape = input.shape().clone();
    Ok(Tensor::record(cpu::tensor(y, (rows.len(), dim))?, &[x], false, move |dy| {
        let dy = dy.contiguous()?;
        let mut dx = zeros(count * dim);
        if dim > 0 {
            embed::scatter_add(&mut dx, &cpu::view::<f32>(&dy)?, &picked, dim).map_err(candle_core::Error::wrap)?;
        }
        Ok(vec![Some(cpu::tensor(dx, shape)?)])
    }))
}

/// Tensors side by side along their last dimension; the other dimensions are the same.
pub fn concat_last(parts: &[&Tensor]) -> Result<Tensor> {
    let Some(first) = parts.first() else { candle_core::bail!("nothing to join") };
    let leading = |x: &Tensor| x.dims()[..x.dims().len().saturating_sub(1)].to_vec();
    let mut dims = leading(first);
    if let Some(other) = parts.iter().find(|x| leading(x) != dims || x.dims().is_empty()) {
        candle_core::bail!(
            "{:?} and {:?} cannot stand side by side: they differ before the last dimension",
            first.dims(),
            other.dims()
        );
    }
    let sizes: Vec<usize> = parts.iter().map(|x| x.last_dim()).collect();
    let (rows, wide) = (dims.iter().product::<usize>(), sizes.iter().sum::<usize>());
    dims.push(wide);
    if !parts.iter().all(|x| plain::fast(x)) {
        return plain::composed(parts, &[], |args| Data::cat(args, D::Minus1)?.contiguous());
    }
    let mut y = zeros(rows * wide);
    for ((x, dim), at) in parts.iter().zip(&sizes).zip(starts(&sizes)) {
        let x = x.data().contiguous()?;
        kernels::put_columns(&mut y, &cpu::view::<f32>(&x)?, [rows, wide, at, *dim]);
    }
    let wanted: Vec<bool> = parts.iter().map(|x| x.tracked()).collect();
    Ok(Tensor::record(cpu::tensor(y, dims.clone())?, parts, false, move |dy| {
        let dy = dy.contiguous()?;
        let dy = cpu::view::<f32>(&dy)?;
        let cut = |((at, &dim), &wanted): ((usize, &usize), &bool)| -> Result<Option<Data>> {
            if !wanted {
                return Ok(None);
            }
            let mut dx = zeros(rows * dim);
            kernels::take_columns(&mut dx, &dy, [rows, wide, at, dim]);
            let mut dims = dims.clone();
            dims.pop();
            dims.push(dim);
            Ok(Some(cpu::tensor(dx, dims)?))
        };
        starts(&sizes).zip(&sizes).zip(&wanted).map(cut).collect()
    }))
}

/// The last dimension cut into pieces of these sizes, which add up to it.
///
/// The pieces' gradients are written side by side into one, which goes back to `x` whole; a piece that nothing is
/// done with leaves zeros there.
pub fn split_last(x: &Tensor, sizes: &[usize]) -> Result<Vec<Tensor>> {
    let (rows, wide) = (x.rows(), x.last_dim());
    if sizes.iter().sum::<usize>() != wide || x.dims().is_empty() {
        candle_core::bail!("pieces of {sizes:?} do not make up the last dimension of {:?}", x.dims());
    }
    if !plain::fast(x) {
        let piece = |(at, &dim): (usize, &usize)| {
            plain::composed(&[x], &[], move |args| args[0].narrow(D::Minus1, at, dim)?.contiguous())
        };
        return starts(sizes).zip(sizes).map(piece).collect();
    }
    let input = x.data().contiguous()?;
    let (whole, sum) = collector(x);
    let input = cpu::view::<f32>(&input)?;
    let piece = |(at, &dim): (usize, &usize)| {
        let mut y = zeros(rows * dim);
        kernels::take_columns(&mut y, &input, [rows, wide, at, dim]);
        let mut dims = x.dims().to_vec();
        dims.pop();
        dims.push(dim);
        let sum = sum.clone();
        Ok(Tensor::record(cpu::tensor(y, dims)?, &[&whole], false, move |dy| {
            let dy = dy.contiguous()?;
            let dy = cpu::view::<f32>(&dy)?;
            collect(&sum, rows * wide, |sum| kernels::put_columns(sum, &dy, [rows, wide, at, dim]))
        }))
    };
    starts(sizes).zip(sizes).map(piece).collect()
}

/// The first dimension cut into pieces of these sizes, which add up to it. Nothing is copied on the way forward; the
/// pieces' gradients are collected as those of [`split_last`].
pub fn split_rows(x: &Tensor, sizes: &[usize]) -> Result<Vec<Tensor>> {
    let Some((&first, rest)) = x.dims().split_first().filter(|(first, _)| **first == sizes.iter().sum::<usize>())
    else {
        candle_core::bail!("pieces of {sizes:?} do not make up the first dimension of {:?}", x.dims());
    };
    if !plain::fast(x) {
        let piece = |(at, &rows): (usize, &usize)| {
            plain::composed(&[x], &[], move |args| args[0].narrow(0, at, rows)?.contiguous())
        };
        return starts(sizes).zip(sizes).map(piece).collect();
    }
    let dim: usize = rest.iter().product();
    let input = x.data().contiguous()?;
    let (whole, sum) = collector(x);
    let piece = |(at, &rows): (usize, &usize)| {
        let sum = sum.clone();
        Ok(Tensor::record(input.narrow(0, at, rows)?, &[&whole], false, move |dy| {
            let dy = dy.contiguous()?;
            let dy = cpu::view::<f32>(&dy)?;
            collect(&sum, first * dim, |sum| sum[at * dim..][..rows * dim].copy_from_slice(&dy))
        }))
    };
    starts(sizes).zip(sizes).map(piece).collect()
}

/// Where the pieces of a tensor write their gradients, each at its place.
type Collected = Arc<Mutex<Vec<f32>>>;

/// A node between the pieces of `x` and `x`. The tape reaches it after every piece, with a gradient that says
/// nothing: what counts is what the pieces have written.
fn collector(x: &Tensor) -> (Tensor, Collected) {
    let sum = Collected::default();
    let (written, shape) = (sum.clone(), x.data().shape().clone());
    let node = Tensor::record(x.data().clone(), &[x], false, move |_| {
        let dx = std::mem::take(&mut *written.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(vec![Some(cpu::tensor(dx, shape)?)])
    });
    (node, sum)
}

/// Lets a piece write into `len` numbers, zeros at first, and answers the tape.
fn collect(sum: &Collected, len: usize, write: impl FnOnce(&mut [f32])) -> Result<InputGrads> {
    let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
    if sum.is_empty() {
        *sum = zeros(len);
    }
    write(&mut sum);
    Ok(vec![Some(Data::zeros(0, DType::F32, &Device::Cpu)?)])
}

/// Where each piece starts.
fn starts(sizes: &[usize]) -> impl Iterator<Item = usize> {
    sizes.iter().scan(0, |at, size| {
        *at += size;
        Some(*at - size)
    })
}

/// `[batch, time, 1, dim] -> [batch, time, heads, dim]`: one head for all, as keys that all heads share need it.
pub fn broadcast_heads(x: &Tensor, heads: usize) -> Result<Tensor> {
    let &[batch, time, 1, dim] = x.dims() else {
        candle_core::bail!("one head to repeat is [batch, time, 1, dim], found {:?}", x.dims());
    };
    let dims = [batch, time, heads, dim];
    if !plain::fast(x) {
        return plain::composed(&[x], &[], move |args| args[0].broadcast_as(&dims)?.contiguous());
    }
    let input = x.data().contiguous()?;
    let mut y = zeros(batch * time * heads * dim);
    kernels::repeat(&mut y, &cpu::view::<f32>(&input)?, heads, dim);
    Ok(Tensor::record(cpu::tensor(y, &dims)?, &[x], false, move |dy| {
        let dy = dy.contiguous()?;
        let mut dx = zeros(batch * time * dim);
        kernels::sum_repeats(&mut dx, &cpu::view::<f32>(&dy)?, heads, dim);
        Ok(vec![Some(cpu::tensor(dx, (batch, time, 1, dim))?)])
    }))
}

/// `x[row] · w[row]`: a factor, such as the value of a sigmoid gate, for each row of `x [.., dim]`; `w` holds one
/// number a row in any shape.
pub fn scale_rows(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    let (rows, dim) = (x.rows(), x.last_dim());
    if w.data().elem_count() != rows {
        candle_core::bail!("{rows} rows of {:?} need as many factors, found {:?}", x.dims(), w.dims());
    }
    if !plain::fast(x) || !plain::fast(w) {
        return plain::composed(&[x, w], &[], move |args| {
            let y =
                args[0].reshape((rows, dim))?.broadcast_mul(&args[1].reshape((rows, 1))?.to_dtype(args[0].dtype())?)?;
            y.reshape(args[0].dims())
        });
    }
    let (input, factors) = (x.data().contiguous()?, w.data().contiguous()?);
    let mut y = zeros(rows * dim);
    kernels::scale(&mut y, &cpu::view::<f32>(&input)?, &cpu::view::<f32>(&factors)?, dim);
    let wanted = [x.tracked(), w.tracked()];
    Ok(Tensor::record(cpu::tensor(y, x.dims())?, &[x, w], false, move |dy| {
        let dy = dy.contiguous()?;
        let dy = cpu::view::<f32>(&dy)?;
        let dx = wanted[0].then(|| {
            let mut dx = zeros(rows * dim);
            kernels::scale(&mut dx, &dy, &cpu::view::<f32>(&factors)?, dim);
            cpu::tensor(dx, input.shape().clone())
        });
        let dw = wanted[1].then(|| {
            let mut dw = zeros(rows);
            kernels::scale_factors_backward(&mut dw, &dy, &cpu::view::<f32>(&input)?, dim);
            cpu::tensor(dw, factors.shape().clone())
        });
        Ok(vec![dx.transpose()?, dw.transpose()?])
    }))
}

/// The rows of `x [.., dim]` whose `keep` is not 0; the others become zeros, whatever they held.
pub fn keep_rows(x: &Tensor, keep: &[u8]) -> Result<Tensor> {
    let (rows, dim) = (x.rows(), x.last_dim());
    if keep.len() != rows {
        candle_core::bail!("{rows} rows of {:?} need a mask of as many, found {}", x.dims(), keep.len());
    }
    let keep = keep.to_vec();
    if !plain::fast(x) {
        return plain::composed(&[x], &[], move |args| {
            let x = args[0].reshape((rows, dim))?;
            let mask = Data::from_slice(&keep, (rows, 1), x.device())?.broadcast_as((rows, dim))?;
            mask.where_cond(&x, &x.zeros_like()?)?.reshape(args[0].dims())
        });
    }
    let run = move |x: &Data| -> Result<Data> {
        let x = x.contiguous()?;
        let mut y = zeros(rows * dim);
        kernels::keep(&mut y, &cpu::view::<f32>(&x)?, &keep, dim);
        cpu::tensor(y, x.shape().clone())
    };
    let y = run(x.data())?;
    Ok(Tensor::record(y, &[x], false, move |dy| Ok(vec![Some(run(&dy)?)])))
}

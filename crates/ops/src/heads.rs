//! Products of heads with their own rows of one weight, for projections absorbed into attention (DeepSeek-V2, section
//! 2.1.2): keys and values are never made, since queries go to the latents instead. The weight is that of a `linear`,
//! `[heads · stride, rank]`, of which each head uses the same stretch of its `stride` rows.

use std::sync::Arc;

use candle_core::Result;
use phyla_kernels::heads::{self as kernels, HeadRows};
use phyla_kernels::memory::alloc;
use phyla_kernels::product::Precision;

use crate::{Data, Param, Tensor, cpu, plain};

/// `[.., heads, size] -> [.., heads, rank]`: `y_h = x_h · W_h`, `W_h` being rows `offset .. offset + size` of each head.
///
/// With the part of `kv_b` that makes keys, this turns queries into what they are compared with in the latents.
pub fn per_head_up(x: &Tensor, w: &Arc<Param>, offset: usize) -> Result<Tensor> {
    let rows = sizes(x, w, offset, Some(x.last_dim()))?;
    product(x, w, rows, true)
}

/// `[.., heads, rank] -> [.., heads, size]`: `y_h = x_h · W_hᵀ`, `W_h` being rows `offset .. offset + size` of each head.
///
/// With the part of `kv_b` that makes values, this turns a weighted sum of latents into that of the values.
pub fn per_head_down(x: &Tensor, w: &Arc<Param>, offset: usize, size: usize) -> Result<Tensor> {
    let rows = HeadRows { size, ..sizes(x, w, offset, None)? };
    if offset + size > rows.stride {
        candle_core::bail!("{}: rows {offset}..{} of a head that has {}", w.path(), offset + size, rows.stride);
    }
    product(x, w, rows, false)
}

fn sizes(x: &Tensor, w: &Param, offset: usize, size: Option<usize>) -> Result<HeadRows> {
    let &[.., heads, last] = x.dims() else {
        candle_core::bail!("{}: heads are [.., heads, dim], found {:?}", w.path(), x.dims());
    };
    let &[all, rank] = w.dims() else {
        candle_core::bail!("{}: a weight is [out, in], found {:?}", w.path(), w.dims());
    };
    if w.precision() == Precision::Int8 {
        candle_core::bail!("{}: a weight in int8 cannot be folded into attention; load it in f32 or bf16", w.path());
    }
    let stride = all / heads.max(1);
    let fits = size.map_or(last == rank, |size| offset + size <= stride);
    if heads == 0 || !all.is_multiple_of(heads) || !fits {
        candle_core::bail!(
            "{}: a weight of {:?}, read from row {offset} of each head, does not fit heads of {:?}",
            w.path(),
            w.dims(),
            x.dims()
        );
    }
    Ok(HeadRows { heads, stride, offset, size: size.unwrap_or(0), rank })
}

fn product(x: &Tensor, w: &Arc<Param>, rows: HeadRows, up: bool) -> Result<Tensor> {
    let to = if up { rows.rank } else { rows.size };
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = to;
    }
    let n: usize = dims[..dims.len() - 2].iter().product();
    if !plain::fast(x) {
        return plain::composed(&[x], &[w], move |args| reference(&args[0], &args[1], rows, up)?.reshape(&dims[..]));
    }
    let input = x.data().contiguous()?;
    let run = move |x: &Data, w: &Param, up: bool| -> Result<Vec<f32>> {
        let mut y = alloc(n * rows.heads * if up { rows.rank } else { rows.size });
        let x = cpu::view::<f32>(x)?;
        w.compute().with(|w| {
            if up {
                kernels::up(&mut y, &x, w, n, &rows)
            } else {
                kernels::down(&mut y, &x, w, n, &rows)
            }
            Ok(())
        })?;
        Ok(y)
    };
    let y = cpu::tensor(run(&input, w, up)?, dims)?;
    let (w, tracked, shape) = (w.clone(), x.tracked(), input.shape().clone());
    let wants = w.wants_grad();
    // A frozen weight needs no input kept for its gradient.
    let kept = w.trainable().then_some(input);
    Ok(Tensor::record(y, &[x], wants, move |dy| {
        let dy = dy.contiguous()?;
        if let Some(x) = &kept {
            let (small, wide) = if up { (x, &dy) } else { (&dy, x) };
            let (small, wide) = (cpu::view::<f32>(small)?, cpu::view::<f32>(wide)?);
            w.accumulate(|dw| {
                kernels::weight_backward(dw, &small, &wide, n, &rows);
                Ok(())
            })?;
        }
        // Each product is the other's gradient.
        Ok(vec![if tracked { Some(cpu::tensor(run(&dy, &w, !up)?, shape)?) } else { None }])
    }))
}

fn reference(x: &Data, w: &Data, rows: HeadRows, up: bool) -> Result<Data> {
    let HeadRows { heads, stride, offset, size, rank } = rows;
    let w = w.to_dtype(x.dtype())?.reshape((heads, stride, rank))?.narrow(1, offset, size)?;
    let w = if up { w.contiguous()? } else { w.t()?.contiguous()? };
    let x = x.reshape(((), heads, if up { size } else { rank }))?.transpose(0, 1)?.contiguous()?;
    x.matmul(&w)?.transpose(0, 1)?.contiguous()
}

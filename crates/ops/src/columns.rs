//! A factor for each column, which learns: where [`crate::scale_rows`] has a tensor's number for each row, this has a
//! parameter's for each place in a row.

use std::sync::Arc;

use candle_core::Result;
use phyla_kernels::memory::alloc;
use phyla_kernels::threads;

use crate::{Param, Tensor, cpu, plain};

/// Elements that a thread takes at a time.
const CHUNK: usize = 1 << 14;

/// `y[.., i] = x[.., i] · w[i] · by[i]`, where `w` is a parameter with as many elements as `x` has columns and `by` holds
/// numbers that do not learn (all 1 without it).
///
/// # Errors
/// Numbers of columns that differ.
pub fn scale_columns(x: &Tensor, w: &Arc<Param>, by: Option<Arc<[f32]>>) -> Result<Tensor> {
    let columns = x.last_dim();
    if w.count() != columns || by.as_ref().is_some_and(|by| by.len() != columns) {
        candle_core::bail!("{}: {:?} does not fit {columns} columns", w.path(), w.dims());
    }
    if !plain::fast(x) {
        return plain::composed(&[x], &[w], move |args| {
            let w = args[1].flatten_all()?.to_dtype(args[0].dtype())?;
            let w = match &by {
                Some(by) => (w * crate::Data::new(&by[..], args[0].device())?.to_dtype(args[0].dtype())?)?,
                None => w,
            };
            args[0].broadcast_mul(&w)
        });
    }
    let input = x.data().contiguous()?;
    let factors = factors(w, by.as_deref())?;
    let mut y = alloc(input.elem_count());
    multiply(&mut y, &cpu::view::<f32>(&input)?, &factors);
    let (wants, tracked) = (w.wants_grad(), x.tracked());
    let (w, shape) = (w.clone(), input.shape().clone());
    let kept = wants.then_some(input);
    Ok(Tensor::record(cpu::tensor(y, shape.clone())?, &[x], wants, move |dy| {
        let dy = dy.contiguous()?;
        let dy = cpu::view::<f32>(&dy)?;
        if let Some(x) = &kept {
            let x = cpu::view::<f32>(x)?;
            w.accumulate(|dw| {
                let mut sums = vec![0f32; columns];
                for (x, dy) in x.chunks_exact(columns).zip(dy.chunks_exact(columns)) {
                    sums.iter_mut().zip(x.iter().zip(dy)).for_each(|(sum, (x, dy))| *sum += x * dy);
                }
                for (at, (dw, sum)) in dw.iter_mut().zip(sums).enumerate() {
                    *dw += sum * by.as_ref().map_or(1., |by| by[at]);
                }
                Ok(())
            })?;
        }
        if !tracked {
            return Ok(vec![None]);
        }
        let mut dx = alloc(dy.len());
        multiply(&mut dx, &dy, &factors);
        Ok(vec![Some(cpu::tensor(dx, shape)?)])
    }))
}

/// `w · by`.
fn factors(w: &Param, by: Option<&[f32]>) -> Result<Vec<f32>> {
    let mut factors = w.numbers()?;
    for (factor, by) in factors.iter_mut().zip(by.unwrap_or_default()) {
        *factor *= by;
    }
    Ok(factors)
}

fn multiply(y: &mut [f32], x: &[f32], factors: &[f32]) {
    let columns = factors.len().max(1);
    let chunk = (CHUNK / columns).max(1) * columns;
    let len = y.len();
    threads::for_each_chunk(y, chunk, len, |at, y| {
        let x = &x[at * chunk..][..y.len()];
        for (y, x) in y.chunks_exact_mut(columns).zip(x.chunks_exact(columns)) {
            y.iter_mut().zip(x.iter().zip(factors)).for_each(|(y, (x, factor))| *y = x * factor);
        }
    });
}

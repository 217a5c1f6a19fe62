//! How far directions are from being orthonormal, as a part of a loss: what AdaLoRA adds to it (Zhang et al. 2023, eq. 4).

use std::sync::Arc;

use candle_core::{DType, Device, Result};
use phyla_kernels::product::{self, MatRef, Precision};

use crate::{Data, Param, Tensor, plain};

/// Where the directions stand.
#[derive(Clone, Copy, Debug)]
pub enum Directions<'a> {
    /// The rows of a matrix.
    Rows(&'a Arc<Param>),
    /// The columns of matrices that stand one above the other.
    Columns(&'a [Arc<Param>]),
}

/// `scale · ‖G - I‖` (Frobenius), where `G` holds the products of all directions with each other. Its slope where `G` is `I`
/// counts as 0.
///
/// # Errors
/// Parameters that are no matrices, or that have other numbers of directions.
pub fn orthogonality(directions: Directions, scale: f32) -> Result<Tensor> {
    let (parts, rows) = match directions {
        Directions::Rows(matrix) => (std::slice::from_ref(matrix), true),
        Directions::Columns(parts) => (parts, false),
    };
    let count = parts.first().and_then(|first| first.dims().get(usize::from(!rows))).copied().unwrap_or(0);
    for part in parts {
        if part.dims().len() != 2 || part.dims()[usize::from(!rows)] != count {
            candle_core::bail!("{}: expected a matrix of {count} directions, found {:?}", part.path(), part.dims());
        }
    }
    let all: Vec<&Arc<Param>> = parts.iter().collect();
    if !parts.first().is_none_or(|first| plain::fast_on(&first.weight().device())) {
        return plain::composed(&[], &all, move |args| reference(args, rows, scale));
    }
    let numbers = parts.iter().map(|part| part.numbers()).collect::<Result<Vec<_>>>()?;
    let mut apart = vec![0f32; count * count];
    for numbers in &numbers {
        let len = numbers.len() / count.max(1);
        if rows {
            product::linear(&mut apart, numbers, MatRef::F32(numbers), None, [count, count, len], Precision::F32);
        } else {
            product::linear_dw(&mut apart, numbers, numbers, [len, count, count], true, Precision::F32);
        }
    }
    apart.iter_mut().step_by(count + 1).for_each(|x| *x -= 1.);
    let norm = apart.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt() as f32;
    let wants = parts.iter().any(|part| part.wants_grad());
    let parts = parts.to_vec();
    Ok(Tensor::record(Data::new(scale * norm, &Device::Cpu)?, &[], wants, move |up| {
        if norm == 0. {
            return Ok(vec![]);
        }
        let by = 2. * scale * up.to_scalar::<f32>()? / norm;
        let slope: Vec<f32> = apart.iter().map(|x| x * by).collect();
        for (part, numbers) in parts.iter().zip(&numbers).filter(|(part, _)| part.trainable()) {
            let len = numbers.len() / count.max(1);
            part.accumulate(|sum| {
                if rows {
                    product::linear_dx(sum, &slope, MatRef::F32(numbers), [count, count, len], true, Precision::F32);
                } else {
                    product::linear_dx(sum, numbers, MatRef::F32(&slope), [len, count, count], true, Precision::F32);
                }
                Ok(())
            })?;
        }
        Ok(vec![])
    }))
}

fn reference(parts: &[Data], rows: bool, scale: f32) -> Result<Data> {
    let dtype = plain::wide(&parts[0]);
    let all = Data::cat(parts, 0)?.to_dtype(dtype)?;
    let products = if rows { all.matmul(&all.t()?)? } else { all.t()?.matmul(&all)? };
    let one = Data::eye(products.dims()[0], DType::F32, products.device())?.to_dtype(dtype)?;
    (products - one)?.sqr()?.sum_all()?.sqrt()? * f64::from(scale)
}

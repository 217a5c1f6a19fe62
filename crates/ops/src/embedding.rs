//! Rows of a table, looked up by token id.

use std::sync::Arc;

use candle_core::Result;
use phyla_kernels::embed;
use phyla_kernels::memory::alloc;

use crate::{Data, Param, Tensor, cpu};

/// `y[i] = table[ids[i]]`, of shape `[ids.., dim]` where `ids_shape` is the shape of `ids`.
///
/// The row `padding` gets no gradient from here.
pub fn embedding(table: &Arc<Param>, ids: &[u32], ids_shape: &[usize], padding: Option<u32>) -> Result<Tensor> {
    let &[rows, dim] = table.dims() else {
        candle_core::bail!("{}: an embedding table is [rows, dim], found {:?}", table.path(), table.dims());
    };
    let shape: Vec<usize> = ids_shape.iter().copied().chain([dim]).collect();
    if let Some(id) = ids.iter().find(|&&id| id as usize >= rows) {
        candle_core::bail!("{}: id {id} is outside the table of {rows} rows", table.path());
    }
    let weight = table.weight();
    let device = weight.device();
    let data = if device.is_cpu() {
        let mut y = alloc(ids.len() * dim);
        weight.with(|table| embed::gather(&mut y, table, ids, dim).map_err(candle_core::Error::wrap))?;
        cpu::tensor(y, shape)?
    } else {
        let ids = Data::from_slice(ids, ids.len(), &device)?;
        weight.to_f32()?.index_select(&ids, 0)?.reshape(shape)?
    };
    let (table, ids) = (table.clone(), ids.to_vec());
    let wants = table.wants_grad();
    Ok(Tensor::record(data, &[], wants, move |dy| {
        let dy = match padding.filter(|padding| ids.contains(padding)) {
            Some(padding) => {
                let keep = ids.iter().map(|&id| (id != padding) as u8 as f32).collect::<Vec<_>>();
                dy.reshape((ids.len(), dim))?.broadcast_mul(&Data::from_vec(keep, (ids.len(), 1), dy.device())?)?
            }
            None => dy,
        };
        if device.is_cpu() {
            let dy = dy.contiguous()?;
            let dy = cpu::view::<f32>(&dy)?;
            table.accumulate(|dtable| embed::scatter_add(dtable, &dy, &ids, dim).map_err(candle_core::Error::wrap))?;
        } else {
            let ids = Data::from_slice(&ids, ids.len(), &device)?;
            let zeros = Data::zeros((rows, dim), dy.dtype(), &device)?;
            table.accumulate_data(&zeros.index_add(&ids, &dy.reshape(((), dim))?, 0)?)?;
        }
        Ok(vec![])
    }))
}

//! Rotary position embedding (Su et al. 2021, eq. 34): pairs of a head's elements turned by an angle that
//! grows with the position.

use std::sync::Arc;

use candle_core::Result;
use phyla_kernels::memory::alloc;
use phyla_kernels::rope as kernels;
pub use phyla_kernels::rope::Style;

use crate::{Data, Tensor, cpu, plain};

/// The rotations of one pass: cosine and sine of each row's angles, any attention factor multiplied in.
///
/// Both tables are `[positions, rotary_dim / 2]`.
#[derive(Clone, Debug)]
pub struct RopeRows {
    /// Cosines.
    pub cos: Arc<Vec<f32>>,
    /// Sines.
    pub sin: Arc<Vec<f32>>,
    /// `[batch · time]`: which row of the tables each token takes.
    pub rows: Arc<Vec<u32>>,
    /// How many elements of each head turn; the rest pass through.
    pub rotary_dim: usize,
    /// Which elements form a pair.
    pub style: Style,
}

/// Turns `x[batch, time, heads, dim]`.
pub fn rope(x: &Tensor, table: &RopeRows) -> Result<Tensor> {
    let &[batch, time, heads, dim] = x.dims() else {
        candle_core::bail!("rope expects [batch, time, heads, dim], found {:?}", x.dims());
    };
    let (rows, half) = (batch * time, table.rotary_dim / 2);
    let known = table.cos.len() / half.max(1);
    let fits = half > 0
        && table.rotary_dim == 2 * half
        && table.rotary_dim <= dim
        && table.cos.len() == known * half
        && table.sin.len() == table.cos.len()
        && table.rows.len() == rows
        && table.rows.iter().all(|&row| (row as usize) < known);
    if !fits {
        candle_core::bail!(
            "rope: {} rows of a table of {known} x {half} angles, turning {} elements, do not fit {:?}",
            table.rows.len(),
            table.rotary_dim,
            x.dims()
        );
    }
    if !plain::fast(x) {
        let table = table.clone();
        return plain::composed(&[x], &[], move |args| reference(&args[0], &table));
    }
    let turn = move |data: &Data, table: &RopeRows, inverse: bool| -> Result<Data> {
        let data = data.contiguous()?;
        let mut y = alloc(rows * heads * dim);
        let angles = kernels::Table { cos: &table.cos, sin: &table.sin };
        let rope = kernels::Rope { heads, dim, rotary_dim: table.rotary_dim, style: table.style, inverse };
        kernels::rope_into(&mut y, &cpu::view::<f32>(&data)?, angles, &table.rows, &rope);
        cpu::tensor(y, data.shape().clone())
    };
    let y = turn(x.data(), table, false)?;
    let table = table.clone();
    // The inverse of a rotation is its transpose; an attention factor scales both alike.
    Ok(Tensor::record(y, &[x], false, move |dy| Ok(vec![Some(turn(&dy, &table, true)?)])))
}

fn reference(x: &Data, table: &RopeRows) -> Result<Data> {
    let (batch, time, heads, dim) = x.dims4()?;
    let (rotary, half) = (table.rotary_dim, table.rotary_dim / 2);
    let angles = |values: &[f32]| {
        let values: Vec<f32> =
            table.rows.iter().flat_map(|&row| &values[row as usize * half..][..half]).copied().collect();
        Data::from_vec(values, (batch, time, 1, half), x.device())?.to_dtype(x.dtype())
    };
    let (cos, sin) = (angles(&table.cos)?, angles(&table.sin)?);
    let pairs = match table.style {
        Style::Half => x.narrow(3, 0, rotary)?.reshape((batch, time, heads, 2, half))?,
        Style::Interleaved => x.narrow(3, 0, rotary)?.reshape((batch, time, heads, half, 2))?.transpose(3, 4)?,
    };
    let (a, b) = (pairs.narrow(3, 0, 1)?.squeeze(3)?, pairs.narrow(3, 1, 1)?.squeeze(3)?);
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    let axis = if matches!(table.style, Style::Half) { 3 } else { 4 };
    let turned = Data::stack(&[first, second], axis)?.reshape((batch, time, heads, rotary))?;
    Data::cat(&[turned, x.narrow(3, rotary, dim - rotary)?], 3)
}

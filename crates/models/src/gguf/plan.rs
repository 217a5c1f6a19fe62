//! Which tensors a GGUF file of a model has: the family's table of names read backwards, with the rows of each in the
//! order of the file.

use std::ops::Range;
use std::sync::Arc;

use phyla_ops::{MatRef, Param, Weight};

use super::Table;
use crate::LoadError;
use crate::arch::HeadsApart;
use crate::checkpoint::{CheckpointError, Dtype, TensorView};
use crate::cut::{Cut, Rows};
use crate::names::{Place, place};

/// Where the numbers of a parameter come from.
pub(super) enum Origin {
    /// A tensor of a checkpoint, and which part of it.
    Stored(TensorView, Place),
    /// A model in memory.
    Held(Arc<Param>),
}

/// A parameter that is to be written.
pub(super) struct Part {
    pub path: String,
    pub shape: Vec<usize>,
    pub origin: Origin,
    /// Its rows go in pairs of those that turn together.
    paired: bool,
}

/// A tensor of the file.
pub(super) struct Planned {
    pub name: String,
    pub shape: Vec<usize>,
    /// One after another along the rows.
    pub parts: Vec<Part>,
}

/// The tensors of a model of these parameters, in their order.
///
/// # Errors
/// A parameter that files of the family do not have; a tensor of which parts are missing.
pub(super) fn tensors(
    table: &Table,
    family: &str,
    params: Vec<(String, Vec<usize>, Origin)>,
) -> Result<Vec<Planned>, LoadError> {
    let mut planned: Vec<Planned> = vec![];
    let mut counts = vec![];
    let paths: std::collections::HashSet<String> = params.iter().map(|(path, ..)| path.clone()).collect();
    let mut places = std::collections::HashMap::new();
    for (path, shape, origin) in params {
        let Some(place) = place(table.names, &path, |other| paths.contains(other)) else {
            return Err(LoadError::Weights(format!(
                "{path}: GGUF files of {family} have no tensor for it: save the model as safetensors, or without this part"
            )));
        };
        let part = Part { path, shape: shape.clone(), origin, paired: place.paired };
        match places.get(&place.tensor).copied() {
            None => {
                places.insert(place.tensor.clone(), planned.len());
                counts.push(if place.slice.is_some() { None } else { Some(place.part.1) });
                planned.push(Planned { name: place.tensor.clone(), shape, parts: vec![part] });
            }
            Some(index) => planned[index].parts.push(part),
        }
    }
    for (tensor, count) in planned.iter_mut().zip(counts) {
        let parts = tensor.parts.len();
        if tensor.parts.iter().any(|part| part.shape != tensor.shape) || count.is_some_and(|count| count != parts) {
            return Err(LoadError::Weights(format!(
                "{}: it is made of {} equal parts, and there are {parts}",
                tensor.name,
                count.unwrap_or(parts)
            )));
        }
        match count {
            None => tensor.shape.insert(0, parts),
            Some(count) => tensor.shape[0] *= count,
        }
    }
    Ok(planned)
}

impl Part {
    /// Whether its numbers have lost what blocks lose.
    pub fn was_quantised(&self) -> bool {
        match &self.origin {
            Origin::Stored(view, _) => matches!(view.dtype, Dtype::Quant(_)),
            Origin::Held(param) => matches!(param.weight(), Weight::Blocks(_)),
        }
    }

    /// Numbers of a row.
    pub fn columns(&self) -> usize {
        self.shape.iter().skip(1).product()
    }

    /// Lends the rows in the order of the file to `take`, about `piece` numbers at a time.
    ///
    /// # Errors
    /// Those of reading and of `take`, which is told the number of the first row.
    pub fn rows(
        &self,
        heads: HeadsApart,
        piece: usize,
        mut take: impl FnMut(usize, &[f32]) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        let (count, columns) = (self.shape.first().copied().unwrap_or(1), self.columns().max(1));
        let mut step = (piece / columns).max(1);
        if self.paired {
            // Whole heads: rows change places within one.
            step = (step / heads.dim.max(1)).max(1) * heads.dim.max(1);
        }
        let mut pass = |read: &mut dyn FnMut(Range<usize>) -> Result<Vec<f32>, LoadError>| {
            for first in (0..count).step_by(step) {
                let values = read(first..count.min(first + step))?;
                match self.paired {
                    true => take(first, &in_pairs(&values, columns, heads.dim))?,
                    false => take(first, &values)?,
                }
            }
            Ok(())
        };
        match &self.origin {
            Origin::Stored(view, place) => {
                let cut = Cut::new(&self.shape, place, heads);
                let rows = Rows::new(view, &cut, &self.shape)?;
                pass(&mut |range| Ok(rows.read(range)?))
            }
            Origin::Held(param) => {
                let weight = param.weight();
                if let Weight::Bytes(_) = weight {
                    return Err(LoadError::Weights(format!(
                        "{}: weights in {} are rounded when a model is loaded: write the file from the stored ones",
                        self.path,
                        weight.stored()
                    )));
                }
                pass(&mut |range| Ok(weight.with(|mat| held(mat, range, columns))?))
            }
        }
    }
}

/// Rows of a weight in memory.
fn held(mat: MatRef<'_>, range: Range<usize>, columns: usize) -> candle_core::Result<Vec<f32>> {
    let range = range.start * columns..range.end * columns;
    Ok(match mat {
        MatRef::F32(values) => values[range].to_vec(),
        MatRef::Bf16(values) => values[range].iter().map(|x| x.to_f32()).collect(),
        MatRef::F16(values) => values[range].iter().map(|x| x.to_f32()).collect(),
        MatRef::Bytes(_) => candle_core::bail!("weights in bytes are not written"),
        MatRef::Blocks(blocks) => {
            let mut values = vec![0f32; range.len()];
            phyla_kernels::embed::widen(&mut values, MatRef::Blocks(blocks.slice(range)));
            values
        }
    })
}

/// Rows of whole heads, the first half of each head's between the second: the way back from
/// [`crate::names::paired`].
fn in_pairs(values: &[f32], columns: usize, dim: usize) -> Vec<f32> {
    let mut paired = Vec::with_capacity(values.len());
    for head in values.chunks(dim.max(1) * columns) {
        let half = head.len() / columns / 2;
        for row in 0..2 * half {
            let from = (row % 2) * half + row / 2;
            paired.extend_from_slice(&head[from * columns..][..columns]);
        }
        paired.extend_from_slice(&head[2 * half * columns..]);
    }
    paired
}

/// A tensor whose numbers are not as `dtype` can hold them.
pub(super) fn check(name: &str, values: &[f32], first: usize, columns: usize, half: bool) -> Result<(), LoadError> {
    crate::quantize::finite(name, values, first, columns)?;
    // What rounds to the largest f16 is smaller than this.
    match values.iter().position(|x| half && x.abs() >= 65520.) {
        None => Ok(()),
        Some(at) => Err(CheckpointError::InvalidTensor {
            name: name.into(),
            reason: format!(
                "row {}, column {} is {}, beyond what f16 holds (65504): take bf16 or f32",
                first + at / columns.max(1),
                at % columns.max(1),
                values[at]
            ),
        }
        .into()),
    }
}

//! Which elements of a stored tensor are a parameter's, and those of some of its rows as f32: how a matrix is read a piece
//! at a time, whatever order the file has it in.

use std::borrow::Cow;
use std::ops::Range;

use half::{bf16, f16};
use rayon::prelude::*;

use crate::arch::HeadsApart;
use crate::checkpoint::{CheckpointError, TensorView};
use crate::names::Place;

/// Which elements of a stored tensor are ours.
pub(crate) struct Cut {
    rows: usize,
    pub columns: usize,
    /// Rows of ours that lie together in the stored tensor, followed by those of the other parts.
    together: usize,
    part: (usize, usize),
    transposed: bool,
    /// The size of a head whose rows are stored in pairs that turn together.
    paired: Option<usize>,
    /// Elements of the stored tensor before those that are cut.
    before: usize,
}

impl Cut {
    /// `shape` is of our part, as we hold it; `heads` are those of the model's attention.
    pub fn new(shape: &[usize], place: &Place, heads: HeadsApart) -> Self {
        let rows = shape.first().copied().unwrap_or(1);
        let columns = shape.iter().skip(1).product();
        let together = if place.by_head { rows / heads.count.max(1) } else { rows };
        let transposed = place.transposed && shape.len() == 2;
        let paired = place.paired.then_some(heads.dim);
        let before = place.slice.unwrap_or(0) * rows * place.part.1 * columns;
        Self { rows, columns, together, part: place.part, transposed, paired, before }
    }

    /// The elements of the stored tensor that are ours, if they lie there as we hold them.
    pub fn run(&self) -> Option<Range<usize>> {
        let ours = self.rows * self.columns;
        let begin = self.before + self.part.0 * ours;
        let together = self.part.1 == 1 || self.together == self.rows;
        (together && !self.transposed && self.paired.is_none()).then_some(begin..begin + ours)
    }

    /// Where element `(row, column)` of ours stands in the stored tensor.
    pub fn index(&self, row: usize, column: usize) -> usize {
        let (block, within) = (row / self.together.max(1), row % self.together.max(1));
        let row = (block * self.part.1 + self.part.0) * self.together + within;
        let row = self.paired.map_or(row, |dim| in_pairs(row, dim));
        self.before + if self.transposed { column * self.rows * self.part.1 + row } else { row * self.columns + column }
    }

    /// Our rows of a stored tensor that is not transposed, each of so many bytes.
    pub fn rows(&self, stored: &[u8], bytes: usize) -> Vec<u8> {
        let rows = (0..self.rows).map(|row| self.index(row, 0) / self.columns.max(1) * bytes);
        rows.flat_map(|at| &stored[at..at + bytes]).copied().collect()
    }

    pub fn take<T: Copy>(&self, stored: &[T], zero: T) -> Vec<T> {
        let mut ours = vec![zero; self.rows * self.columns];
        // Square blocks: a transposition that runs along one side alone misses the cache on the other.
        const BLOCK: usize = 32;
        for r0 in (0..self.rows).step_by(BLOCK) {
            for c0 in (0..self.columns).step_by(BLOCK) {
                for row in r0..(r0 + BLOCK).min(self.rows) {
                    for column in c0..(c0 + BLOCK).min(self.columns) {
                        ours[row * self.columns + column] = stored[self.index(row, column)];
                    }
                }
            }
        }
        ours
    }

    /// Our rows `rows` of a stored tensor.
    fn gather<T: Copy + Sync>(&self, stored: &[T], rows: Range<usize>, to: impl Fn(T) -> f32 + Sync) -> Vec<f32> {
        let (columns, first) = (self.columns.max(1), rows.start);
        let mut ours = vec![0f32; rows.len() * self.columns];
        if self.transposed {
            // Along the stored rows: neighbours there are neighbours of ours in a column.
            for column in 0..self.columns {
                for (at, row) in rows.clone().enumerate() {
                    ours[at * columns + column] = to(stored[self.index(row, column)]);
                }
            }
            return ours;
        }
        ours.par_chunks_mut(columns).enumerate().for_each(|(at, row)| {
            let begin = self.index(first + at, 0);
            row.iter_mut().zip(&stored[begin..]).for_each(|(ours, &stored)| *ours = to(stored));
        });
        ours
    }
}

/// Where row `row` of heads of `dim` rows stands when those that turn together, half a head apart, are neighbours.
fn in_pairs(row: usize, dim: usize) -> usize {
    let (head, within, half) = (row / dim.max(1), row % dim.max(1), dim / 2);
    if half == 0 || within >= 2 * half { row } else { head * dim + within % half * 2 + within / half }
}

/// The rows of a parameter, as f32, from where they lie.
pub(crate) struct Rows<'a> {
    numbers: Numbers<'a>,
    cut: &'a Cut,
}

enum Numbers<'a> {
    /// Ours lie together, as we hold them.
    Run(TensorView),
    F32(Cow<'a, [f32]>),
    Bf16(&'a [bf16]),
    F16(&'a [f16]),
}

impl<'a> Rows<'a> {
    /// Of a parameter of shape `shape` in `view`. Where its rows lie in another order than ours and are neither f32, bf16
    /// nor f16, all of `view` is converted first.
    ///
    /// # Errors
    /// Types that are no numbers.
    pub fn new(view: &'a TensorView, cut: &'a Cut, shape: &[usize]) -> Result<Self, CheckpointError> {
        let numbers = match cut.run().and_then(|run| view.part(run, shape)) {
            Some(run) => Numbers::Run(run),
            None => match (view.as_f32(), view.as_bf16(), view.as_f16()) {
                (Some(values), ..) => Numbers::F32(Cow::Borrowed(values)),
                (_, Some(values), _) => Numbers::Bf16(values),
                (.., Some(values)) => Numbers::F16(values),
                _ => Numbers::F32(Cow::Owned(view.to_f32()?)),
            },
        };
        Ok(Self { numbers, cut })
    }

    /// The numbers of rows `rows`.
    ///
    /// # Errors
    /// Types that are no numbers.
    pub fn read(&self, rows: Range<usize>) -> Result<Vec<f32>, CheckpointError> {
        let columns = self.cut.columns;
        match &self.numbers {
            Numbers::Run(view) => {
                let part = view.part(rows.start * columns..rows.end * columns, &[rows.len(), columns]);
                part.map_or_else(
                    || Ok(view.to_f32()?[rows.start * columns..rows.end * columns].to_vec()),
                    |p| p.to_f32(),
                )
            }
            Numbers::F32(values) => Ok(self.cut.gather(values, rows, |x| x)),
            Numbers::Bf16(values) => Ok(self.cut.gather(values, rows, bf16::to_f32)),
            Numbers::F16(values) => Ok(self.cut.gather(values, rows, f16::to_f32)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::checkpoint::{Checkpoint, Dtype, SafetensorsWriter, TensorSpec, Values};
    use crate::names::{by_head, paired, part, part_t, place, whole, whole_t};

    /// Whatever the order, pieces are the whole that [`Cut::take`] gives.
    #[test]
    fn pieces_of_rows_are_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (rows, columns) = (12usize, 5usize);
        let rules = [
            whole("a", "whole"),
            whole_t("b", "turned"),
            part("c", "parts", 1, 3),
            part_t("d", "turned_parts", 2, 3),
            paired("e", "pairs"),
            by_head("f", "by_head", 1, 3),
        ];
        let heads = HeadsApart { count: 3, dim: 4 };
        let places: Vec<Place> =
            rules.iter().map(|rule| place(&rules, &format!("{}.weight", rule.ours), |_| false).unwrap()).collect();
        for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16, Dtype::F64] {
            let specs: Vec<TensorSpec> = (places.iter())
                .map(|p| TensorSpec { name: p.tensor.clone(), dtype, shape: p.stored_shape(&[rows, columns]) })
                .collect();
            let path = folder.path().join(dtype.as_str());
            std::fs::create_dir(&path).unwrap();
            let mut writer = SafetensorsWriter::create(&path, &specs, u64::MAX).unwrap();
            for (number, spec) in specs.iter().enumerate() {
                let count: usize = spec.shape.iter().product();
                // Exact in every type.
                let values: Vec<f32> = (0..count).map(|i| ((i * 7 + number) % 251) as f32).collect();
                match dtype {
                    Dtype::F64 => {
                        let bytes: Vec<u8> = values.iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect();
                        writer.write(&spec.name, Values::Bytes(&bytes)).unwrap();
                    }
                    _ => writer.write(&spec.name, Values::F32(&values)).unwrap(),
                }
            }
            writer.finish().unwrap();
            let checkpoint = Checkpoint::open(&path).unwrap();
            for place in &places {
                let view = checkpoint.get(&place.tensor).unwrap();
                let cut = Cut::new(&[rows, columns], place, heads);
                let expected = cut.take(&view.to_f32().unwrap(), 0.);
                let reader = Rows::new(&view, &cut, &[rows, columns]).unwrap();
                for step in [1, 5, 12] {
                    let pieces = (0..rows).step_by(step).map(|r| reader.read(r..rows.min(r + step)).unwrap());
                    assert_eq!(pieces.flatten().collect::<Vec<_>>(), expected, "{} {dtype} by {step}", place.tensor);
                }
            }
        }
    }
}

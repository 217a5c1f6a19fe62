//! What a layer keeps in one piece, for devices other than the CPU and types other than f32: buffers that are doubled when
//! full.

use std::ops::Range;

use candle_core::Result;
use phyla_ops::{Data, Tensor};

use super::Takeover;

/// First capacity, in tokens.
const FIRST: usize = 64;

/// `[rows, capacity, heads, dim]`.
#[derive(Debug)]
pub(super) struct Whole(pub Data);

impl Whole {
    /// Room for `tokens` of each of so many rows, of what `like` is made of.
    pub fn new(rows: usize, like: &Data, tokens: usize) -> Result<Self> {
        let (_, _, heads, dim) = like.dims4()?;
        Ok(Self(Data::zeros((rows, tokens.max(FIRST), heads, dim), like.dtype(), like.device())?))
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        self.0.elem_count() * self.0.dtype().size_in_bytes()
    }

    /// Writes `new[i]` into row `rows.start + i`, behind its first `lengths[i]` tokens.
    pub fn append(&mut self, new: &Data, rows: Range<usize>, lengths: &[usize]) -> Result<()> {
        let (all, capacity, _, _) = self.0.dims4()?;
        let tokens = lengths.iter().max().copied().unwrap_or(0) + new.dim(1)?;
        if tokens > capacity {
            let grown = Self::new(all, new, tokens.max(2 * capacity))?;
            grown.0.slice_set(&self.0.contiguous()?, 1, 0)?;
            *self = grown;
        }
        for (i, (row, &length)) in rows.zip(lengths).enumerate() {
            self.0.narrow(0, row, 1)?.slice_set(&new.narrow(0, i, 1)?.contiguous()?, 1, length)?;
        }
        Ok(())
    }

    /// The first `longest` positions of these rows.
    pub fn view(&self, rows: Range<usize>, longest: usize) -> Result<Tensor> {
        Ok(self.0.narrow(0, rows.start, rows.len())?.narrow(1, 0, longest)?.into())
    }

    /// Lets the rows be copies of these.
    pub fn select(&mut self, rows: &[usize]) -> Result<()> {
        self.0 = index(&self.0, rows)?;
        Ok(())
    }

    /// Copies the tokens in which rows may differ; returns how many bytes that are.
    pub fn take_over(&mut self, moves: &[Takeover], lengths: &[usize]) -> Result<usize> {
        let mut copied = 0;
        for m in moves {
            let (start, count) = (m.shared.min(lengths[m.from]), lengths[m.from].saturating_sub(m.shared));
            if count > 0 {
                // A copy of its own: source and destination may not share their storage.
                let held = self.0.narrow(0, m.from, 1)?.narrow(1, start, count)?.force_contiguous()?;
                self.0.narrow(0, m.to, 1)?.slice_set(&held, 1, start)?;
                copied += held.elem_count() * held.dtype().size_in_bytes();
            }
        }
        Ok(copied)
    }
}

pub(super) fn index(data: &Data, rows: &[usize]) -> Result<Data> {
    let ids: Vec<u32> = rows.iter().map(|&r| r as u32).collect();
    data.index_select(&Data::from_slice(&ids, ids.len(), data.device())?, 0)
}

//! Rows of a cache repeated, removed, and taken over from one another, copying no more than they hold.

use std::sync::Arc;

use candle_core::{DType, Result};
use phyla_ops::{Data, Tensor, cpu};

use super::{Cache, CachedMemory};
use crate::Memory;

/// A row that goes on where another stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Takeover {
    /// The row that is copied.
    pub from: usize,
    /// The row that is overwritten.
    pub to: usize,
    /// So many tokens at the beginning are the same in both, and stay where they are.
    pub shared: usize,
}

impl Cache {
    /// A cache whose rows are copies of the given rows of this one: repetition, removal and reordering.
    pub fn select(&self, rows: &[usize]) -> Result<Cache> {
        let layers = (self.layers.iter())
            .map(|layer| layer.iter().map(|data| self.pick(data, rows)).collect::<Result<_>>())
            .collect::<Result<_>>()?;
        let lengths = rows.iter().map(|&r| self.lengths[r]).collect();
        let memory = self.memory.as_ref().map(|memory| memory.select(rows)).transpose()?;
        Ok(Cache { layers, lengths, memory })
    }

    /// Lets rows take over what others of the same encoder's row hold, in place. No row may be both copied and
    /// overwritten.
    ///
    /// # Errors
    /// When one is.
    pub fn take_over(&mut self, moves: &[Takeover]) -> Result<()> {
        let mut overwritten = vec![false; self.lengths.len()];
        moves.iter().for_each(|m| overwritten[m.to] = true);
        if let Some(m) = moves.iter().find(|m| overwritten[m.from]) {
            candle_core::bail!("row {} of a cache is to be copied and overwritten at once", m.from);
        }
        for data in self.layers.iter().flatten() {
            copy_tails(data, moves, &self.lengths)?;
        }
        for m in moves {
            self.lengths[m.to] = self.lengths[m.from];
            if let Some(memory) = &mut self.memory {
                memory.rows[m.to] = memory.rows[m.from];
            }
        }
        Ok(())
    }

    /// `[rows, capacity, heads, dim]`: what the rows hold of `data`; the room behind it is left as it comes.
    fn pick(&self, data: &Data, rows: &[usize]) -> Result<Data> {
        if !data.device().is_cpu() || data.dtype() != DType::F32 {
            return index(data, rows);
        }
        let (_, capacity, heads, dim) = data.dims4()?;
        // Zeros straight from the system cost nothing until they are touched.
        let new = Data::zeros((rows.len(), capacity, heads, dim), data.dtype(), data.device())?;
        let (row, token) = (capacity * heads * dim, heads * dim);
        let old = cpu::view::<f32>(data)?;
        cpu::mutate(&new, |new: &mut [f32]| {
            for (new, &from) in new.chunks_exact_mut(row.max(1)).zip(rows) {
                let held = self.lengths[from] * token;
                new[..held].copy_from_slice(&old[from * row..][..held]);
            }
            Ok(())
        })?;
        Ok(new)
    }
}

impl CachedMemory {
    /// The memory of some rows. What the encoder said is not copied, rows only remember which of it is theirs; unless
    /// there are parts of it that none of them needs.
    fn select(&self, rows: &[usize]) -> Result<Self> {
        let rows: Vec<usize> = rows.iter().map(|&r| self.rows[r]).collect();
        let mut used = rows.clone();
        used.sort_unstable();
        used.dedup();
        if used.len() == self.memory.rows() {
            return Ok(Self { memory: self.memory.clone(), layers: self.layers.clone(), rows });
        }
        let time = self.memory.time();
        let valid = self
            .memory
            .valid
            .as_ref()
            .map(|valid| used.iter().flat_map(|&row| &valid[row * time..][..time]).copied().collect::<Vec<u8>>());
        let memory = Arc::new(Memory::new(Tensor::from(index(self.memory.states.data(), &used)?), valid));
        let layers = (self.layers.iter())
            .map(|kv| kv.as_ref().map(|(k, v)| Ok((index(k, &used)?, index(v, &used)?))).transpose())
            .collect::<Result<_>>()?;
        let rows = rows.iter().map(|row| used.partition_point(|u| u < row)).collect();
        Ok(Self { memory, layers, rows })
    }
}

fn index(data: &Data, rows: &[usize]) -> Result<Data> {
    let ids: Vec<u32> = rows.iter().map(|&r| r as u32).collect();
    data.index_select(&Data::from_slice(&ids, ids.len(), data.device())?, 0)
}

/// Copies the tokens of `data[rows, capacity, heads, dim]` in which rows may differ.
fn copy_tails(data: &Data, moves: &[Takeover], lengths: &[usize]) -> Result<()> {
    let (_, capacity, heads, dim) = data.dims4()?;
    let tail = |m: &Takeover| (m.shared.min(lengths[m.from]), lengths[m.from].saturating_sub(m.shared));
    if !data.device().is_cpu() || data.dtype() != DType::F32 {
        for m in moves {
            let (start, count) = tail(m);
            if count > 0 {
                // A copy of its own: source and destination may not share their storage.
                let held = data.narrow(0, m.from, 1)?.narrow(1, start, count)?.force_contiguous()?;
                data.narrow(0, m.to, 1)?.slice_set(&held, 1, start)?;
            }
        }
        return Ok(());
    }
    let token = heads * dim;
    cpu::mutate(data, |data: &mut [f32]| {
        for m in moves {
            let (start, count) = tail(m);
            let from = (m.from * capacity + start) * token;
            data.copy_within(from..from + count * token, (m.to * capacity + start) * token);
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests;

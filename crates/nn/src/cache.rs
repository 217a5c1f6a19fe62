//! Keys and values of earlier tokens, one growing buffer a layer, each row with a length of its own: rows of
//! different length stand side by side without padding.

use std::ops::Range;

use candle_core::{DType, Result};
use phyla_ops::{Data, cpu};

/// The cache of a batch.
#[derive(Debug, Default)]
pub struct Cache {
    /// By layer: keys and values, `[rows, capacity, kv_heads, dim]`; empty until the layer first runs.
    layers: Vec<Option<(Data, Data)>>,
    /// Tokens held by each row.
    lengths: Vec<usize>,
}

/// Some rows of a cache, for a pass over just those.
pub struct CacheRows<'a> {
    /// The whole cache.
    pub cache: &'a mut Cache,
    /// The rows that the pass extends.
    pub rows: Range<usize>,
}

/// First capacity, in tokens; doubled when full.
const FIRST: usize = 64;

impl Cache {
    /// An empty cache of `rows` sequences.
    pub fn new(rows: usize) -> Self {
        Self { layers: vec![], lengths: vec![0; rows] }
    }

    /// Tokens held by each row.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// All rows.
    pub fn all(&mut self) -> CacheRows<'_> {
        let rows = 0..self.lengths.len();
        CacheRows { cache: self, rows }
    }

    /// Bytes allocated.
    pub fn bytes(&self) -> usize {
        let bytes = |data: &Data| data.elem_count() * data.dtype().size_in_bytes();
        self.layers.iter().flatten().map(|(k, v)| bytes(k) + bytes(v)).sum()
    }

    /// Shortens a row to `length` tokens.
    pub fn truncate(&mut self, row: usize, length: usize) {
        self.lengths[row] = self.lengths[row].min(length);
    }

    /// A cache whose rows are copies of the given rows of this one: repetition, removal and reordering.
    pub fn select(&self, rows: &[usize]) -> Result<Cache> {
        let ids: Vec<u32> = rows.iter().map(|&r| r as u32).collect();
        let pick = |data: &Data| data.index_select(&Data::from_slice(&ids, ids.len(), data.device())?, 0);
        let layers = self
            .layers
            .iter()
            .map(|layer| layer.as_ref().map(|(k, v)| Ok((pick(k)?, pick(v)?))).transpose())
            .collect::<Result<_>>()?;
        Ok(Cache { layers, lengths: rows.iter().map(|&r| self.lengths[r]).collect() })
    }

    fn reserve(&mut self, layer: usize, k: &Data, v: &Data, tokens: usize) -> Result<()> {
        if self.layers.len() <= layer {
            self.layers.resize_with(layer + 1, || None);
        }
        let rows = self.lengths.len();
        let old = self.layers[layer].take();
        let capacity = old.as_ref().map_or(Ok(0), |(k, _)| k.dim(1))?;
        if capacity >= tokens {
            self.layers[layer] = old;
            return Ok(());
        }
        let capacity = tokens.max(2 * capacity).max(FIRST);
        let grown = |like: &Data, old: Option<&Data>| -> Result<Data> {
            let (_, _, heads, dim) = like.dims4()?;
            let new = Data::zeros((rows, capacity, heads, dim), like.dtype(), like.device())?;
            if let Some(old) = old {
                new.slice_set(&old.contiguous()?, 1, 0)?;
            }
            Ok(new)
        };
        self.layers[layer] = Some((grown(k, old.as_ref().map(|o| &o.0))?, grown(v, old.as_ref().map(|o| &o.1))?));
        Ok(())
    }
}

impl CacheRows<'_> {
    /// Tokens held by each of these rows.
    pub fn lengths(&self) -> &[usize] {
        &self.cache.lengths[self.rows.clone()]
    }

    /// Puts the keys and values of new tokens, `[rows, time, kv_heads, dim]`, behind those of `layer` and
    /// returns all of them, `[rows, longest, kv_heads, dim]`, as views.
    pub fn append(&mut self, layer: usize, k: &Data, v: &Data) -> Result<(Data, Data)> {
        let (rows, time, ..) = k.dims4()?;
        if rows != self.rows.len() {
            candle_core::bail!("a cache of {} rows was given keys of {rows}", self.rows.len());
        }
        let longest = self.lengths().iter().max().copied().unwrap_or(0) + time;
        self.cache.reserve(layer, k, v, longest)?;
        let Some((keys, values)) = &self.cache.layers[layer] else {
            candle_core::bail!("cache layer {layer} is empty");
        };
        for (all, new) in [(keys, k), (values, v)] {
            write(all, &new.contiguous()?, self.rows.clone(), self.lengths())?;
        }
        let view = |all: &Data| all.narrow(0, self.rows.start, rows)?.narrow(1, 0, longest);
        Ok((view(keys)?, view(values)?))
    }

    /// Counts `time` tokens more in each row, once all layers have appended theirs.
    pub fn advance(&mut self, time: usize) {
        for length in &mut self.cache.lengths[self.rows.clone()] {
            *length += time;
        }
    }
}

/// Copies `new[i]` into row `rows.start + i` of `all`, behind its first `lengths[i]` tokens.
fn write(all: &Data, new: &Data, rows: Range<usize>, lengths: &[usize]) -> Result<()> {
    if !all.device().is_cpu() || all.dtype() != DType::F32 {
        for (i, (row, &length)) in rows.zip(lengths).enumerate() {
            all.narrow(0, row, 1)?.slice_set(&new.narrow(0, i, 1)?.contiguous()?, 1, length)?;
        }
        return Ok(());
    }
    let (_, capacity, heads, dim) = all.dims4()?;
    let (token, count) = (heads * dim, new.dim(1)? * heads * dim);
    let new = cpu::view::<f32>(new)?;
    cpu::mutate(all, |all: &mut [f32]| {
        for (i, (row, &length)) in rows.zip(lengths).enumerate() {
            let start = (row * capacity + length) * token;
            all[start..start + count].copy_from_slice(&new[i * count..][..count]);
        }
        Ok(())
    })
}

//! Keys and values (or latent vectors) of earlier tokens, growing buffers for each layer, each row with a length of its own: rows of
//! different length stand side by side without padding.

mod rows;

pub use rows::Takeover;

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Result};
use phyla_ops::{Data, Tensor, Visibility, cpu};

use crate::Memory;

/// The cache of a batch.
#[derive(Debug, Default)]
pub struct Cache {
    /// By layer: keys and values, or latent vectors, each `[rows, capacity, kv_heads, dim]`; empty until the layer first
    /// runs.
    layers: Vec<Vec<Data>>,
    /// Tokens held by each row.
    lengths: Vec<usize>,
    /// What a decoder attends to besides itself.
    memory: Option<CachedMemory>,
}

/// An encoder's states, and what each layer has made of them.
#[derive(Debug)]
struct CachedMemory {
    memory: Arc<Memory>,
    /// By layer: keys and values of all the memory's rows; empty until the layer first runs.
    layers: Vec<Option<(Data, Data)>>,
    /// The memory's row for each row of the cache.
    rows: Vec<usize>,
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
        Self { layers: vec![], lengths: vec![0; rows], memory: None }
    }

    /// An empty cache of a decoder: a sequence for each row of the encoder's states.
    pub fn attending(memory: Memory) -> Self {
        let rows = memory.rows();
        let memory = CachedMemory { memory: Arc::new(memory), layers: vec![], rows: (0..rows).collect() };
        Self { memory: Some(memory), ..Self::new(rows) }
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
        let memory = self.memory.iter().flat_map(|memory| memory.layers.iter().flatten()).flat_map(|(k, v)| [k, v]);
        self.layers.iter().flatten().chain(memory).map(bytes).sum()
    }

    /// Shortens a row to `length` tokens.
    pub fn truncate(&mut self, row: usize, length: usize) {
        self.lengths[row] = self.lengths[row].min(length);
    }

    fn reserve(&mut self, layer: usize, new: &[&Data], tokens: usize) -> Result<()> {
        if self.layers.len() <= layer {
            self.layers.resize_with(layer + 1, Vec::new);
        }
        let (rows, old) = (self.lengths.len(), std::mem::take(&mut self.layers[layer]));
        let capacity = old.first().map_or(Ok(0), |data| data.dim(1))?;
        if capacity >= tokens {
            self.layers[layer] = old;
            return Ok(());
        }
        let capacity = tokens.max(2 * capacity).max(FIRST);
        for (i, like) in new.iter().enumerate() {
            let (_, _, heads, dim) = like.dims4()?;
            let grown = Data::zeros((rows, capacity, heads, dim), like.dtype(), like.device())?;
            if let Some(old) = old.get(i) {
                grown.slice_set(&old.contiguous()?, 1, 0)?;
            }
            self.layers[layer].push(grown);
        }
        Ok(())
    }
}

impl CacheRows<'_> {
    /// Tokens held by each of these rows.
    pub fn lengths(&self) -> &[usize] {
        &self.cache.lengths[self.rows.clone()]
    }

    /// Puts what a layer keeps of new tokens (keys and values, or latent vectors), each `[rows, time, kv_heads, dim]`,
    /// behind what `layer` holds and returns all of it, `[rows, longest, kv_heads, dim]`, as views.
    pub fn append(&mut self, layer: usize, new: &[&Data]) -> Result<Vec<Data>> {
        let (rows, time) = (self.rows.len(), new.first().map_or(Ok(0), |data| data.dim(1))?);
        if let Some(wrong) = new.iter().find(|data| data.dims()[..2] != [rows, time]) {
            candle_core::bail!("a cache of {rows} rows was given {time} tokens of shape {:?}", wrong.dims());
        }
        let longest = self.lengths().iter().max().copied().unwrap_or(0) + time;
        self.cache.reserve(layer, new, longest)?;
        let all = &self.cache.layers[layer];
        for (all, new) in all.iter().zip(new) {
            write(all, &new.contiguous()?, self.rows.clone(), self.lengths())?;
        }
        all.iter().map(|all| all.narrow(0, self.rows.start, rows)?.narrow(1, 0, longest)).collect()
    }

    /// Keys and values of the encoder's states for these rows, `[memory rows, source, heads, dim]`; a memory row may
    /// stand for several neighbouring rows of the cache, all memory rows for equally many.
    pub fn memory_keys(
        &mut self,
        layer: usize,
        project: &dyn Fn(&Tensor) -> Result<[Tensor; 2]>,
    ) -> Result<[Tensor; 2]> {
        let Some(memory) = &mut self.cache.memory else {
            candle_core::bail!("a decoder that attends to an encoder was given a cache without its states");
        };
        if memory.layers.len() <= layer {
            memory.layers.resize_with(layer + 1, || None);
        }
        let (k, v) = match &memory.layers[layer] {
            Some((k, v)) => (k.clone(), v.clone()),
            None => {
                let [k, v] = project(&memory.memory.states)?;
                let made = (k.into_data().contiguous()?, v.into_data().contiguous()?);
                memory.layers[layer] = Some(made.clone());
                made
            }
        };
        let rows = memory_rows(&memory.rows[self.rows.clone()]);
        let pick = |data: Data| -> Result<Tensor> {
            let consecutive = rows.windows(2).all(|pair| pair[1] == pair[0] + 1);
            Ok(Tensor::from(match rows.first() {
                Some(&first) if consecutive => data.narrow(0, first, rows.len())?,
                _ => {
                    let ids: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
                    data.index_select(&Data::from_slice(&ids, ids.len(), data.device())?, 0)?
                }
            }))
        };
        Ok([pick(k)?, pick(v)?])
    }

    /// Which of the encoder's states the queries of these rows see, `time` of each.
    pub fn memory_visibility(&self, time: usize) -> Result<Visibility> {
        let Some(memory) = &self.cache.memory else {
            candle_core::bail!("a decoder that attends to an encoder was given a cache without its states");
        };
        let (all, rows) = (&memory.rows[self.rows.clone()], memory_rows(&memory.rows[self.rows.clone()]));
        let queries = time * all.len() / rows.len().max(1);
        let (mut ranges, mut valid) = (vec![], vec![]);
        for row in rows {
            let visible = memory.memory.visibility(row..row + 1, queries);
            ranges.extend_from_slice(&visible.ranges);
            match visible.key_valid {
                Some(row) => valid.extend_from_slice(&row),
                None => valid.resize(valid.len() + memory.memory.time(), 1),
            }
        }
        let key_valid = valid.contains(&0).then(|| Arc::new(valid));
        Ok(Visibility { ranges: Arc::new(ranges), key_valid })
    }

    /// Counts `time` tokens more in each row, once all layers have appended theirs.
    pub fn advance(&mut self, time: usize) {
        for length in &mut self.cache.lengths[self.rows.clone()] {
            *length += time;
        }
    }
}

/// The memory rows to read for these rows of a cache: each once if neighbours share one and all are shared alike.
fn memory_rows(rows: &[usize]) -> Vec<usize> {
    let mut once: Vec<usize> = rows.to_vec();
    once.dedup();
    let group = rows.len() / once.len().max(1);
    let even =
        rows.len() == group * once.len() && rows.chunks(group.max(1)).all(|same| same.iter().all(|r| r == &same[0]));
    if even { once } else { rows.to_vec() }
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

//! What a decoder with a cache attends to besides itself: an encoder's states, and the keys and values that each layer has
//! made of them, once.

use std::sync::Arc;

use candle_core::Result;
use phyla_ops::{Data, Tensor, Visibility};

use super::CacheRows;
use super::whole::index;
use crate::Memory;

/// An encoder's states, and what each layer has made of them.
#[derive(Debug)]
pub(super) struct CachedMemory {
    pub memory: Arc<Memory>,
    /// By layer: keys and values of all the memory's rows; empty until the layer first runs.
    pub layers: Vec<Option<(Data, Data)>>,
    /// The memory's row for each row of the cache.
    pub rows: Vec<usize>,
}

impl CachedMemory {
    /// Bytes of what the layers have made.
    pub fn bytes(&self) -> usize {
        let made = self.layers.iter().flatten().flat_map(|(k, v)| [k, v]);
        made.map(|data| data.elem_count() * data.dtype().size_in_bytes()).sum()
    }

    /// The memory of some rows. What the encoder said is not copied, rows only remember which of it is theirs; unless
    /// there are parts of it that none of them needs.
    pub fn select(&self, rows: &[usize]) -> Result<Self> {
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

impl CacheRows<'_> {
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

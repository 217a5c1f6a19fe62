//! Keys and values (or latent vectors) of earlier tokens, for each layer, each row with a length of its own: rows of
//! different length stand side by side without padding. On the CPU they lie in pages, which rows may share.

mod encoder;
mod keys;
mod paged;
mod rows;
mod whole;

pub use keys::Keys;
pub use rows::Takeover;

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Result};
pub use phyla_kernels::page::Kept;
use phyla_ops::{Data, Precision};

use crate::Memory;
use encoder::CachedMemory;
use paged::Paged;
use whole::Whole;

/// How a cache keeps what it is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheSpec {
    /// As what; without it as exactly as the layer's attention multiplies: in bf16 where its factors are rounded to that,
    /// else in f32.
    pub kept: Option<Kept>,
    /// The positions of a row, where they are fixed: their memory is taken at once, and the cache never grows.
    pub positions: Option<usize>,
}

impl CacheSpec {
    /// What keeps all that attention of this precision multiplies, and no more.
    pub fn exactly(precision: Precision) -> Kept {
        match precision {
            Precision::F32 => Kept::F32,
            Precision::Bf16 | Precision::Int8 => Kept::Bf16,
        }
    }
}

/// The cache of a batch.
#[derive(Debug, Default)]
pub struct Cache {
    spec: CacheSpec,
    /// What each layer keeps: keys and values, or latent vectors; nothing until it first runs.
    layers: Vec<Option<Layer>>,
    /// Tokens held by each row.
    lengths: Vec<usize>,
    /// What a decoder attends to besides itself.
    memory: Option<CachedMemory>,
}

/// What a layer keeps.
#[derive(Debug)]
enum Layer {
    Paged(Vec<Paged>),
    Whole(Vec<Whole>),
}

/// Some rows of a cache, for a pass over just those.
pub struct CacheRows<'a> {
    /// The whole cache.
    pub cache: &'a mut Cache,
    /// The rows that the pass extends.
    pub rows: Range<usize>,
}

impl Cache {
    /// An empty cache of `rows` sequences, which grows as they do.
    pub fn new(rows: usize) -> Self {
        Self::with(rows, CacheSpec::default())
    }

    /// An empty cache of `rows` sequences.
    pub fn with(rows: usize, spec: CacheSpec) -> Self {
        Self { spec, layers: vec![], lengths: vec![0; rows], memory: None }
    }

    /// Lets its rows attend to an encoder's states: a row of them for each of its own.
    pub fn attending(self, memory: Memory) -> Self {
        let rows = (0..memory.rows()).collect();
        Self { memory: Some(CachedMemory { memory: Arc::new(memory), layers: vec![], rows }), ..self }
    }

    /// How it keeps what it is given.
    pub fn spec(&self) -> CacheSpec {
        self.spec
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

    /// Bytes allocated; pages that rows share count once.
    pub fn bytes(&self) -> usize {
        let layers = self.layers.iter().flatten().map(|layer| match layer {
            Layer::Paged(parts) => parts.iter().map(Paged::bytes).sum::<usize>(),
            Layer::Whole(parts) => parts.iter().map(Whole::bytes).sum(),
        });
        layers.sum::<usize>() + self.memory.as_ref().map_or(0, CachedMemory::bytes)
    }

    /// Shortens a row to `length` tokens.
    pub fn truncate(&mut self, row: usize, length: usize) {
        self.lengths[row] = self.lengths[row].min(length);
        for layer in self.layers.iter_mut().flatten() {
            if let Layer::Paged(parts) = layer {
                parts.iter_mut().for_each(|part| part.truncate(row, length));
            }
        }
    }

    /// What a layer keeps, ready for `new`: keys and values, say, which attention multiplies as `exactly`.
    fn layer(&mut self, layer: usize, new: &[&Data], exactly: Kept) -> Result<&mut Layer> {
        let (spec, rows) = (self.spec, self.lengths.len());
        if self.layers.len() <= layer {
            self.layers.resize_with(layer + 1, || None);
        }
        let plain = new.iter().all(|new| new.device().is_cpu() && new.dtype() == DType::F32);
        let make = || match (plain, spec.kept) {
            (true, kept) => {
                let part = |new: &&Data| {
                    let (_, _, heads, dim) = new.dims4()?;
                    Paged::new(rows, [heads, dim], kept.unwrap_or(exactly), spec.positions)
                };
                Ok(Layer::Paged(new.iter().map(part).collect::<Result<_>>()?))
            }
            (false, None) => {
                let part = |new: &&Data| Whole::new(rows, new, spec.positions.unwrap_or(0));
                Ok(Layer::Whole(new.iter().map(part).collect::<Result<_>>()?))
            }
            (false, Some(kept)) => {
                candle_core::bail!("only the CPU keeps a cache in {}, from activations in f32", kept.name())
            }
        };
        Ok(match &mut self.layers[layer] {
            Some(layer) => layer,
            place => place.insert(make()?),
        })
    }
}

impl CacheRows<'_> {
    /// Tokens held by each of these rows.
    pub fn lengths(&self) -> &[usize] {
        &self.cache.lengths[self.rows.clone()]
    }

    /// Puts what a layer keeps of new tokens (keys and values, or latent vectors), each `[rows, time, kv_heads, dim]`,
    /// behind what `layer` holds, as `exactly` as attention multiplies it unless the cache says otherwise; returns all of
    /// it, `[rows, longest, kv_heads, dim]`.
    ///
    /// # Errors
    /// If sizes do not fit, or the positions of the cache are fixed and there are too few.
    pub fn append(&mut self, layer: usize, new: &[&Data], exactly: Kept) -> Result<Vec<Keys>> {
        let (rows, time) = (self.rows.len(), new.first().map_or(Ok(0), |data| data.dim(1))?);
        if let Some(wrong) = new.iter().find(|data| data.dims()[..2] != [rows, time]) {
            candle_core::bail!("a cache of {rows} rows was given {time} tokens of shape {:?}", wrong.dims());
        }
        let lengths = self.lengths().to_vec();
        let longest = lengths.iter().max().copied().unwrap_or(0) + time;
        if let Some(positions) = self.cache.spec.positions.filter(|&positions| positions < longest) {
            candle_core::bail!("the cache has room for {positions} positions, and a row comes to {longest}");
        }
        let (rows, new_data) = (self.rows.clone(), new.iter().map(|new| new.contiguous()));
        match self.cache.layer(layer, new, exactly)? {
            Layer::Paged(parts) if parts.len() == new.len() => {
                for (part, new) in parts.iter_mut().zip(new_data) {
                    part.append(&new?, rows.clone(), &lengths)?;
                }
                parts.iter().map(|part| Ok(Keys::Paged(part.view(rows.clone(), longest)?))).collect()
            }
            Layer::Whole(parts) if parts.len() == new.len() => {
                for (part, new) in parts.iter_mut().zip(new_data) {
                    part.append(&new?, rows.clone(), &lengths)?;
                }
                parts.iter().map(|part| Ok(Keys::Whole(part.view(rows.clone(), longest)?))).collect()
            }
            _ => candle_core::bail!("layer {layer} of a cache was given {} tensors, and other ones before", new.len()),
        }
    }

    /// Counts `time` tokens more in each row, once all layers have appended theirs.
    pub fn advance(&mut self, time: usize) {
        for length in &mut self.cache.lengths[self.rows.clone()] {
            *length += time;
        }
    }
}

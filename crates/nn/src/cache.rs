//! Keys and values (or latent vectors) of earlier tokens, for each layer, each row with a length of its own: rows of
//! different length stand side by side without padding. On the CPU they lie in pages, which rows may share.

mod block;
mod encoder;
mod form;
mod keys;
mod layout;
mod paged;
mod prefix;
mod rows;
mod sink;
mod whole;

pub use block::Block;
pub use keys::Keys;
pub use layout::PrefixLayout;
pub use prefix::Prefix;
pub use rows::Takeover;
pub use sink::SinkSpec;

use std::ops::Range;
use std::sync::{Arc, Mutex};

use candle_core::{DType, Result};
pub use phyla_kernels::page::Kept;
use phyla_kernels::spool::Spool;
use phyla_ops::{Data, Precision, RopeRows};

use crate::{Memory, RopeSpec};
use encoder::CachedMemory;
use form::Form;
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
    /// So many of a row's newest positions, at least, are kept as exactly as attention multiplies, whatever `kept` says: they
    /// are rounded a page at a time, when a pass finds them among the older ones.
    pub residual: usize,
    /// Whether layers that look back over a window keep what lies before it, too. Else it is dropped a page at a time, and a
    /// row cannot go back to where it would be seen again.
    pub whole: bool,
    /// Keep only the first tokens and the last ones.
    pub sink: Option<SinkSpec>,
    /// Keep pages in a temporary file, so that the system may write them out when memory is short.
    pub offloaded: bool,
}

/// How a layer's attention looks at what is kept of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What keeps all that it multiplies.
    pub exactly: Kept,
    /// How many tokens a query looks back over, itself counted.
    pub window: Option<usize>,
}

impl CacheSpec {
    /// What keeps all that attention of this precision multiplies, and no more.
    pub fn exactly(precision: Precision) -> Kept {
        match precision {
            Precision::F32 => Kept::F32,
            Precision::Bf16 | Precision::Int8 => Kept::Bf16,
        }
    }

    /// What numbers depend on: not where they are kept, nor in how much memory.
    fn everywhere(self) -> Self {
        Self { positions: None, offloaded: false, ..self }
    }

    /// Whether only the CPU can keep a cache so.
    fn needs_pages(&self) -> bool {
        self.kept.is_some() || self.sink.is_some() || self.offloaded
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
    /// Where pages lie that are not in memory.
    spool: Option<Arc<Spool>>,
    /// Rotations of positions inside the cache, where keys are turned when they are read.
    turns: Mutex<Vec<(Arc<RopeSpec>, RopeRows)>>,
    /// Bytes copied of what is kept in one piece.
    copied: usize,
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
        Self { spec, lengths: vec![0; rows], ..Self::default() }
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

    /// Bytes that were copied, ever since, because rows were repeated, removed or taken over from one another: of pages those
    /// that a row had to have for itself when it wrote into what it shared.
    pub fn copied(&self) -> usize {
        let pages = self.layers.iter().flatten().map(|layer| match layer {
            Layer::Paged(parts) => parts.iter().map(|part| part.copied).sum(),
            Layer::Whole(_) => 0,
        });
        self.copied + pages.sum::<usize>()
    }

    /// Shortens a row to `length` tokens, or to none if a layer has dropped what the next token would see there; returns how
    /// many it then holds. Some 64 tokens can always be taken back.
    pub fn truncate(&mut self, row: usize, length: usize) -> usize {
        let length = self.lengths[row].min(length);
        let reaches = |layer: &Layer| match layer {
            Layer::Paged(parts) => parts.iter().all(|part| part.reaches(row, length)),
            Layer::Whole(_) => true,
        };
        let length = if self.layers.iter().flatten().all(reaches) { length } else { 0 };
        self.lengths[row] = length;
        for layer in self.layers.iter_mut().flatten() {
            if let Layer::Paged(parts) = layer {
                parts.iter_mut().for_each(|part| part.truncate(row, length));
            }
        }
        length
    }

    /// What a layer keeps, ready for `new`: keys and values, say.
    fn layer(&mut self, layer: usize, new: &[&Data], seen: Seen) -> Result<&mut Layer> {
        if self.layers.len() <= layer {
            self.layers.resize_with(layer + 1, || None);
        }
        if self.layers[layer].is_none() {
            self.layers[layer] = Some(self.fresh(new, seen)?);
        }
        match &mut self.layers[layer] {
            Some(layer) => Ok(layer),
            None => candle_core::bail!("layer {layer} of a cache is missing"),
        }
    }

    fn fresh(&mut self, new: &[&Data], seen: Seen) -> Result<Layer> {
        let (spec, rows) = (self.spec, self.lengths.len());
        let plain = new.iter().all(|new| new.device().is_cpu() && new.dtype() == DType::F32);
        if plain {
            let spool = self.spool()?;
            let part = |new: &&Data| {
                let (_, _, heads, dim) = new.dims4()?;
                Paged::new(rows, Form::new([heads, dim], &spec, seen), spec.positions, spool.clone())
            };
            return Ok(Layer::Paged(new.iter().map(part).collect::<Result<_>>()?));
        }
        if spec.needs_pages() {
            let kept = spec.kept.map_or("pages", Kept::name);
            candle_core::bail!("only the CPU keeps a cache in {kept}, from activations in f32")
        }
        let part = |new: &&Data| Whole::new(rows, new, spec.positions.unwrap_or(0));
        Ok(Layer::Whole(new.iter().map(part).collect::<Result<_>>()?))
    }

    /// The file for what is not kept in memory, if any.
    fn spool(&mut self) -> Result<Option<Arc<Spool>>> {
        if self.spec.offloaded && self.spool.is_none() {
            self.spool = Some(Spool::new()?);
        }
        Ok(self.spool.clone())
    }
}

impl CacheRows<'_> {
    /// Tokens held by each of these rows.
    pub fn lengths(&self) -> &[usize] {
        &self.cache.lengths[self.rows.clone()]
    }

    /// Puts what a layer keeps of new tokens (keys and values, or latent vectors), each `[rows, time, kv_heads, dim]`,
    /// behind what `layer` holds, as exactly as attention multiplies it unless the cache says otherwise; returns all of
    /// it, `[rows, longest, kv_heads, dim]`, or, of a cache that keeps the first tokens and the last, those.
    ///
    /// # Errors
    /// If sizes do not fit, or the positions of the cache are fixed and there are too few.
    pub fn append(&mut self, layer: usize, new: &[&Data], seen: Seen) -> Result<Vec<Keys>> {
        let (rows, time) = (self.rows.len(), new.first().map_or(Ok(0), |data| data.dim(1))?);
        if let Some(wrong) = new.iter().find(|data| data.dims()[..2] != [rows, time]) {
            candle_core::bail!("a cache of {rows} rows was given {time} tokens of shape {:?}", wrong.dims());
        }
        let lengths = self.lengths().to_vec();
        let longest = lengths.iter().max().copied().unwrap_or(0) + time;
        if let Some(positions) = self.cache.spec.positions.filter(|&positions| positions < longest) {
            candle_core::bail!("the cache has room for {positions} positions, and a row comes to {longest}");
        }
        let sink = self.cache.spec.sink;
        if let Some(sink) = sink.filter(|sink| time > sink.window - sink.first) {
            candle_core::bail!(
                "{time} tokens are read together, and behind the first {} a cache of {} keeps {}",
                sink.first,
                sink.window,
                sink.window - sink.first
            );
        }
        let (rows, new_data) = (self.rows.clone(), new.iter().map(|new| new.contiguous()));
        match self.cache.layer(layer, new, seen)? {
            Layer::Paged(parts) if parts.len() == new.len() => {
                for (part, new) in parts.iter_mut().zip(new_data) {
                    part.append(&new?, rows.clone(), &lengths)?;
                }
                let view = |part: &Paged| match sink {
                    Some(sink) => Ok(Keys::Whole(part.gather(rows.clone(), &lengths, time, sink)?.into())),
                    None => Ok(Keys::Paged(part.view(rows.clone(), longest)?)),
                };
                parts.iter().map(view).collect()
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

    /// Counts `time` tokens more in each row, once all layers have appended theirs, and drops what later ones do not see.
    pub fn advance(&mut self, time: usize) {
        for row in self.rows.clone() {
            self.cache.lengths[row] += time;
            let length = self.cache.lengths[row];
            for layer in self.cache.layers.iter_mut().flatten() {
                if let Layer::Paged(parts) = layer {
                    parts.iter_mut().for_each(|part| part.let_go(row, length));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;

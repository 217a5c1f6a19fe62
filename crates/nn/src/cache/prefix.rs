//! The beginning of a text as a cache keeps it, apart from any cache: rows of other caches begin with it without its being
//! read, or copied, again.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::Result;
use phyla_kernels::page::{POSITIONS, Page};

use super::form::Form;
use super::paged::{Paged, Row};
use super::{Cache, CacheSpec, Layer};

/// What layers keep of some tokens. A clone shares its pages.
#[derive(Clone, Debug)]
pub struct Prefix {
    pub(super) spec: CacheSpec,
    pub(super) length: usize,
    /// Of each layer that keeps something its parts: keys and values, say.
    pub(super) layers: Vec<Vec<Part>>,
}

/// Keys, values or latent vectors of a layer.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub form: Form,
    pub row: Row,
}

impl Prefix {
    /// Tokens.
    pub fn length(&self) -> usize {
        self.length
    }

    /// How the cache that it comes from keeps what it is given.
    pub fn spec(&self) -> CacheSpec {
        self.spec
    }

    /// Whether a text that goes on behind the first `length` tokens finds all that it sees.
    pub fn reaches(&self, length: usize) -> bool {
        length <= self.length && self.layers.iter().flatten().all(|part| part.row.reaches(&part.form, length))
    }

    /// Its pages as they lie in memory: layer by layer, part by part, one after the other.
    pub fn raw(&self) -> impl Iterator<Item = &[u8]> {
        self.layers.iter().flatten().flat_map(|part| part.row.pages.iter().flatten()).map(|page| page.raw())
    }

    /// Its pages and their bytes: by address, so that those which several have in common can be counted once.
    pub fn pages(&self) -> HashMap<*const Page, usize> {
        let parts = self.layers.iter().flatten();
        parts.flat_map(|part| part.row.pages.iter().flatten()).map(|page| (Arc::as_ptr(page), page.bytes())).collect()
    }
}

impl Cache {
    /// What a row holds; nothing of a decoder that attends to an encoder, nor on devices other than the CPU.
    pub fn prefix(&self, row: usize) -> Option<Prefix> {
        let part = |part: &Paged| Part { form: part.form, row: part.row(row).clone() };
        let layer = |layer: &Option<Layer>| match layer {
            Some(Layer::Paged(parts)) => Some(parts.iter().map(part).collect()),
            Some(Layer::Whole(_)) => None,
            None => Some(vec![]),
        };
        let layers = self.layers.iter().map(layer).collect::<Option<Vec<Vec<Part>>>>()?;
        self.memory.is_none().then(|| Prefix { spec: self.spec.everywhere(), length: self.lengths[row], layers })
    }

    /// Lets an empty row begin with the first `length` tokens of a prefix, as far as they are there: returns how many it then
    /// holds, which is none if the prefix was kept otherwise than this cache keeps, or has dropped what the next token sees.
    ///
    /// # Errors
    /// If the row is not empty; a layer of another shape: a prefix of another model.
    pub fn begin_with(&mut self, row: usize, prefix: &Prefix, length: usize) -> Result<usize> {
        if self.lengths[row] > 0 {
            candle_core::bail!("row {row} of a cache holds {} tokens, and cannot begin anew", self.lengths[row]);
        }
        let length = length.min(prefix.length);
        let fits = self.spec.everywhere() == prefix.spec && self.spec.positions.is_none_or(|room| length <= room);
        if !prefix.reaches(length) || !fits || self.memory.is_some() {
            return Ok(0);
        }
        let (rows, positions) = (self.lengths.len(), self.spec.positions);
        for (number, parts) in prefix.layers.iter().enumerate().filter(|(_, parts)| !parts.is_empty()) {
            let spool = self.spool()?;
            if self.layers.len() <= number {
                self.layers.resize_with(number + 1, || None);
            }
            let make = |part: &Part| Paged::new(rows, part.form, positions, spool.clone());
            let layer = match &mut self.layers[number] {
                Some(layer) => layer,
                place => place.insert(Layer::Paged(parts.iter().map(make).collect::<Result<_>>()?)),
            };
            match layer {
                Layer::Paged(held)
                    if held.len() == parts.len()
                        && held.iter().zip(parts).all(|(held, part)| held.form == part.form) =>
                {
                    for (held, part) in held.iter_mut().zip(parts) {
                        let mut begun = part.row.clone();
                        begun.truncate(length).for_each(drop);
                        held.begin(row, begun, length / POSITIONS);
                    }
                }
                _ => candle_core::bail!("layer {number} of a prefix has another shape than the cache's"),
            }
        }
        self.lengths[row] = length;
        Ok(length)
    }
}

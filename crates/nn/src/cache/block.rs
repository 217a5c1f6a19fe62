//! Blocks: what all layers keep of some neighbouring positions, apart from any row, so that rows to come can begin with them.

use std::sync::Arc;

use candle_core::Result;
use phyla_kernels::page::{POSITIONS, Page};

use super::paged::Paged;
use super::{Cache, Layer};

/// Positions `index · 64 .. (index + 1) · 64` of a text, in every layer: a page each of keys and of values, say. A clone copies
/// no numbers, and neither does a row that begins with it.
#[derive(Clone, Debug)]
pub struct Block {
    /// Of each layer that keeps something, one part after the other.
    pages: Vec<Arc<Page>>,
}

impl Block {
    /// Positions of a block.
    pub const POSITIONS: usize = POSITIONS;
}

impl Cache {
    /// A full block of a row; `None` where the row does not hold all of it, on devices other than the CPU, and beside an
    /// encoder.
    pub fn block(&self, row: usize, index: usize) -> Option<Block> {
        if self.memory.is_some() || self.lengths[row] < (index + 1) * POSITIONS {
            return None;
        }
        let mut pages = vec![];
        for layer in self.layers.iter().flatten() {
            let Layer::Paged(parts) = layer else { return None };
            for part in parts {
                pages.push(part.shared(row, index)?);
            }
        }
        Some(Block { pages })
    }

    /// Adds a row, the last, that begins with these blocks of another row of this cache, or of one that has gone.
    ///
    /// # Errors
    /// Blocks of other layers than this cache has; rows that attend to an encoder, or lie in one piece.
    pub fn add_row(&mut self, blocks: &[Block]) -> Result<()> {
        if self.memory.is_some() {
            candle_core::bail!("a row cannot be added to a cache whose rows attend to an encoder");
        }
        let parts = |layer: &Layer| match layer {
            Layer::Paged(parts) => parts.len(),
            Layer::Whole(_) => 0,
        };
        let (all, whole) = (self.layers.iter().flatten(), |layer: &Layer| matches!(layer, Layer::Whole(_)));
        let (count, whole) = (all.clone().map(parts).sum::<usize>(), all.clone().any(whole));
        if whole || blocks.iter().any(|block| block.pages.len() != count) {
            candle_core::bail!("a cache of {count} pages a block cannot begin a row with blocks of another");
        }
        let paged = self.layers.iter_mut().flatten().flat_map(|layer| match layer {
            Layer::Paged(parts) => parts.iter_mut(),
            Layer::Whole(_) => [].iter_mut(),
        });
        let add =
            |(at, part): (usize, &mut Paged)| part.add(blocks.iter().map(|block| block.pages[at].clone()).collect());
        paged.enumerate().for_each(add);
        self.lengths.push(blocks.len() * POSITIONS);
        Ok(())
    }
}

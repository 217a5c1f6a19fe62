//! Rows that come and go by themselves, and read by pieces, where those of a call begin and are read together.

use phyla_nn::{Block, SublayerSpec};
use phyla_ops::Data;

use super::{Batch, CHUNK};
use crate::Result;

/// Up to so many ids in a pass have other bits than more of them have: see [`Batch::piece`].
pub(crate) const FEW: usize = 32;

impl Batch<'_> {
    /// One row more, the last, that begins with blocks which another has read.
    pub fn add(&mut self, blocks: &[Block]) -> Result<()> {
        self.cache.add_row(blocks)?;
        self.ended.push(false);
        self.sequences.push(self.sequences.len());
        Ok(())
    }

    /// Lets the rows be these: repeated, or removed.
    pub fn arrange(&mut self, rows: &[usize]) -> Result<()> {
        self.cache.select(rows)?;
        self.sequences = (0..rows.len()).collect();
        self.ended = vec![false; rows.len()];
        Ok(())
    }

    /// A full block of a row.
    pub fn held(&self, row: usize, index: usize) -> Option<Block> {
        self.cache.block(row, index)
    }

    /// Reads a piece of what a row is to hold; the logits behind it where they are wanted, `[vocab]`.
    pub fn read_piece(&mut self, row: usize, ids: &[u32], wanted: bool) -> Result<Option<Data>> {
        let passed = self.forward(row..row + 1, ids)?; // [1, ids, hidden]
        if !wanted {
            return Ok(None);
        }
        self.logits(&passed.last()?).map(Some)
    }

    /// Where a prompt may be cut without a bit of it changing: at multiples of so many tokens, as long as no piece has
    /// [`FEW`] or fewer that would have stood among more. `None` if nowhere, since the rotation depends on the length.
    ///
    /// Products of more rows than [`FEW`] sum in the same order however many these are, and so does attention. But how many
    /// tokens an expert gets, and whether latent vectors are expanded, depends on the whole pass: such models are cut as
    /// [`Batch::prefill`] does it.
    pub fn piece(&self) -> Option<usize> {
        let whole = |sublayer: &SublayerSpec| matches!(sublayer, SublayerSpec::Mla(_) | SublayerSpec::Moe(_));
        let mut sublayers = self.model.arch.main().layers.iter().flat_map(|layer| &layer.sublayers);
        let piece = if sublayers.any(whole) { CHUNK } else { Block::POSITIONS };
        (!self.length_dependent).then_some(piece)
    }

    /// Bytes of what all rows hold.
    pub fn bytes(&self) -> usize {
        self.cache.bytes()
    }
}

//! What a user gives a model: ids, masks and positions of a batch, checked, and the pass they make.

use candle_core::Result;
use phyla_nn::{Mask, Pass};

use crate::Arch;

/// A batch of token ids, rows of equal length.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// `[batch, time]`.
    pub ids: Vec<u32>,
    /// Rows.
    pub batch: usize,
    /// Tokens of a row.
    pub time: usize,
    /// `[batch, time]`: 0 is padding.
    pub attention_mask: Option<Vec<u8>>,
    /// `[batch, time]`; 0, 1, 2, … in each row if absent.
    pub positions: Option<Vec<u32>>,
    /// `[batch, time]`: the documents of packed rows.
    pub segments: Option<Vec<u32>>,
    /// `[batch, time]`.
    pub token_types: Option<Vec<u32>>,
}

impl Input {
    /// One row without padding.
    pub fn row(ids: &[u32]) -> Self {
        Self { ids: ids.to_vec(), batch: 1, time: ids.len(), ..Self::default() }
    }

    /// The pass over this batch, without a cache.
    pub fn pass(&self, arch: &Arch) -> Result<Pass<'static>> {
        let (batch, time) = (self.batch, self.time);
        let check = |name: &str, len: Option<usize>| match len {
            Some(len) if len != batch * time => {
                candle_core::bail!("{name}: expected {batch} x {time} values, found {len}")
            }
            _ => Ok(()),
        };
        check("input_ids", Some(self.ids.len()))?;
        check("attention_mask", self.attention_mask.as_ref().map(Vec::len))?;
        check("position_ids", self.positions.as_ref().map(Vec::len))?;
        check("segments", self.segments.as_ref().map(Vec::len))?;
        check("token_type_ids", self.token_types.as_ref().map(Vec::len))?;
        let positions = match &self.positions {
            Some(positions) => positions.clone(),
            None => (0..batch).flat_map(|_| 0..time as u32).collect(),
        };
        let mask = Mask::new(batch, time, arch.causal, self.attention_mask.as_deref(), self.segments.as_deref());
        Ok(Pass::new(batch, time, positions, mask))
    }
}

//! What a decoder attends to besides itself: the encoder's states.

use std::sync::Arc;

use phyla_ops::{Tensor, Visibility};

/// The encoder's states and which of them are not padding.
#[derive(Clone, Debug)]
pub struct Memory {
    /// `[batch, source, hidden]`.
    pub states: Tensor,
    /// `[batch, source]`: 0 is padding.
    pub valid: Option<Arc<Vec<u8>>>,
}

impl Memory {
    /// The states of `batch` rows; every query of a row sees all of them but padding.
    pub fn new(states: Tensor, valid: Option<Vec<u8>>) -> Self {
        Self { states, valid: valid.map(Arc::new) }
    }

    /// Tokens of a row.
    pub fn time(&self) -> usize {
        self.states.dims().get(1).copied().unwrap_or(0)
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.states.dims().first().copied().unwrap_or(0)
    }

    /// The mask of `queries` queries a row of the memory's `rows`.
    pub fn visibility(&self, rows: std::ops::Range<usize>, queries: usize) -> Visibility {
        let time = self.time();
        let (mut ranges, mut holes) = (Vec::with_capacity(rows.len() * queries), false);
        for row in rows.clone() {
            let (mut start, mut end) = (0, time);
            if let Some(valid) = &self.valid {
                let valid = &valid[row * time..][..time];
                start = valid.iter().position(|&v| v != 0).unwrap_or(time);
                end = valid.iter().rposition(|&v| v != 0).map_or(start, |last| last + 1);
                holes |= valid[start..end].contains(&0);
            }
            ranges.extend(std::iter::repeat_n((start as u32, end as u32), queries));
        }
        let key_valid = self.valid.as_ref().filter(|_| holes);
        let key_valid = key_valid.map(|valid| Arc::new(valid[rows.start * time..rows.end * time].to_vec()));
        Visibility { ranges: Arc::new(ranges), key_valid }
    }
}

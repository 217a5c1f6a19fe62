//! Caches that keep the first few tokens of a text and its last ones, so that it may grow without end (Xiao et al. 2023,
//! "Efficient Streaming Language Models with Attention Sinks").
//!
//! Positions are those inside the cache (section 3.2): the tokens that a query sees stand at 0, 1, 2, …, however much has been
//! dropped between the first and the last of them. Keys are therefore kept as they are before their rotation, and turned each
//! time they are read, as in the paper. Turning rotated keys further instead, as transformers' `SinkCache` did, comes to the
//! same numbers but for rounding, which adds up there with every token.

use std::sync::{Arc, PoisonError};

use phyla_ops::RopeRows;

use super::CacheRows;
use crate::RopeSpec;

/// Which tokens are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SinkSpec {
    /// All that a query sees, itself and the first ones included.
    pub window: usize,
    /// The first ones: the sinks of attention. Fewer than `window`.
    pub first: usize,
}

impl SinkSpec {
    /// Of `past` tokens, how many `time` new ones see. Those that are to go, go before the new ones come.
    pub fn seen(&self, past: usize, time: usize) -> usize {
        past.min(self.window.saturating_sub(time))
    }

    /// New tokens that are read together: so few that the first of them still see half of the window.
    pub fn together(&self) -> usize {
        ((self.window - self.first) / 2).max(1)
    }
}

impl CacheRows<'_> {
    /// Tokens that `time` new ones find before them, in each row: their own positions begin there.
    pub fn seen(&self, time: usize) -> Vec<usize> {
        let lengths = self.lengths().iter();
        match self.cache.spec.sink {
            Some(sink) => lengths.map(|&past| sink.seen(past, time)).collect(),
            None => lengths.copied().collect(),
        }
    }

    /// The rotations of positions inside the cache, if it keeps keys as they are before theirs.
    pub fn late_rope(&self, spec: &Arc<RopeSpec>, positions: Vec<u32>) -> Option<RopeRows> {
        let sink = self.cache.spec.sink?;
        let mut known = self.cache.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let table = match known.iter().find(|(of, _)| Arc::ptr_eq(of, spec)) {
            Some((_, table)) => table.clone(),
            None => {
                let table = spec.rows(&(0..sink.window as u32).collect::<Vec<_>>());
                known.push((spec.clone(), table.clone()));
                table
            }
        };
        Some(RopeRows { rows: Arc::new(positions), ..table })
    }
}

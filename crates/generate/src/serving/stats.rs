//! What an engine is doing, and what it has done.

use std::time::Duration;

/// Counts since the engine began, and where it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Sequences that have no blocks: new requests, and what was preempted.
    pub waiting: usize,
    /// Sequences that have.
    pub running: usize,
    /// Requests that were taken.
    pub submitted: usize,
    /// Those that were answered to the end.
    pub finished: usize,
    /// Those that nobody wanted any more.
    pub cancelled: usize,
    /// Those that ended with an error.
    pub failed: usize,
    /// How often a sequence had to give its blocks back.
    pub preemptions: usize,
    /// The memory.
    pub blocks: BlockStats,
    /// Ids that were read before something was written behind them.
    pub prompt_tokens: usize,
    /// Ids that were not, since they had been read for another request.
    pub shared_tokens: usize,
    /// Ids that were written.
    pub new_tokens: usize,
    /// Steps that did something.
    pub steps: usize,
    /// Time in them.
    pub busy: Duration,
}

/// Blocks of an engine's cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockStats {
    /// All.
    pub total: usize,
    /// Those that sequences have.
    pub used: usize,
    /// Those of them that several have.
    pub shared: usize,
    /// Those that are only kept for requests which begin alike.
    pub kept: usize,
    /// All others.
    pub free: usize,
}

impl Stats {
    /// Ids written in a second of work.
    pub fn tokens_per_second(&self) -> f64 {
        match self.busy.as_secs_f64() {
            0. => 0.,
            seconds => self.new_tokens as f64 / seconds,
        }
    }
}

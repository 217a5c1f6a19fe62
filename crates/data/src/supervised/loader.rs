//! Batches of examples in an order that the seed and the epoch decide: fixed rows or a budget of tokens, like lengths
//! together if wanted.

use std::ops::Range;
use std::sync::Arc;

use phyla_kernels::rng::Rng;
use serde::{Deserialize, Serialize};

use crate::batch::{Batch, BatchState, Batches};
use crate::error::{Error, Result};

/// Tokens in a batch at most: no machine trains on more at once.
const LARGEST: usize = 1 << 28;

/// Batches whose examples are sorted by length together: enough to save filling, few enough to keep the order random.
const POOL: usize = 50;

/// Examples in token ids, which can be put together to batches.
pub trait Examples: Send + Sync + std::fmt::Debug {
    /// Examples.
    fn count(&self) -> usize;
    /// Tokens of the longest row of one example.
    fn length(&self, index: usize) -> usize;
    /// Rows that each example has in a batch.
    fn rows(&self) -> usize {
        1
    }
    /// The batch of these examples, in this order.
    fn collate(&self, indices: &[u32]) -> Batch;
    /// A number that differs when the examples differ.
    fn digest(&self) -> u64;
    /// What a user should know: how much was cut off, what was left out, how labels are distributed.
    fn notes(&self) -> Vec<String>;
}

/// How many examples make a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Size {
    /// So many.
    Examples(usize),
    /// As many as fit into so many tokens, filling included; one that does not fit alone is a batch of its own.
    Tokens(usize),
}

/// What a [`Loader`] is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoaderSettings {
    /// How many examples make a batch, on each process.
    pub size: Size,
    /// Decides the order.
    pub seed: u64,
    /// A new random order in every epoch; else the order of the data (or of lengths, if grouped).
    pub shuffle: bool,
    /// Examples of like length together, which saves filling.
    pub group_by_length: bool,
    /// Which share of the batches is meant: this process of so many.
    pub rank: usize,
    /// How many processes.
    pub world: usize,
}

impl LoaderSettings {
    /// Shuffled under seed 0, lengths as they come, for one process.
    pub fn new(size: Size) -> Self {
        Self { size, seed: 0, shuffle: true, group_by_length: false, rank: 0, world: 1 }
    }

    /// In the order of the data, once through, as for evaluation.
    pub fn in_order(size: Size) -> Self {
        Self { shuffle: false, ..Self::new(size) }
    }
}

/// Gives out batches of examples without end, epoch after epoch.
#[derive(Debug)]
pub struct Loader<E> {
    examples: Arc<E>,
    settings: LoaderSettings,
    plan: Plan,
    state: BatchState,
}

/// The batches of one epoch, as ranges of an order.
#[derive(Debug, PartialEq)]
struct Plan {
    order: Vec<u32>,
    batches: Vec<Range<u32>>,
}

impl Plan {
    fn new(examples: &impl Examples, settings: &LoaderSettings, epoch: u64) -> Self {
        let rng = Rng::new(settings.seed).split("examples");
        let count = examples.count();
        let mut order: Vec<u32> = (0..count as u32).collect();
        let length = |index: &u32| examples.length(*index as usize);
        // Under a budget the number of batches depends on which examples come together; it stays the same from epoch
        // to epoch, as schedules and checkpoints need, by shuffling whole batches, as fairseq does.
        let inner = if matches!(settings.size, Size::Tokens(_)) { 0 } else { epoch };
        if settings.shuffle {
            rng.split("order").split(inner).shuffle(&mut order);
        }
        if settings.group_by_length {
            let pool = match settings.size {
                Size::Examples(batch) if settings.shuffle => batch.saturating_mul(settings.world).saturating_mul(POOL),
                _ => count.max(1),
            };
            for pool in order.chunks_mut(pool) {
                // The longest first: what does not fit into memory shows at once where nothing is shuffled.
                pool.sort_by_key(|index| std::cmp::Reverse(length(index)));
            }
        }
        let mut batches = Vec::new();
        match settings.size {
            Size::Examples(batch) => {
                let starts = (0..count).step_by(batch);
                batches.extend(starts.map(|start| start as u32..count.min(start + batch) as u32));
            }
            Size::Tokens(budget) => {
                let (mut start, mut longest) = (0, 0);
                for (end, index) in order.iter().enumerate() {
                    let wider = longest.max(length(index));
                    if end > start && wider * examples.rows() * (end + 1 - start) > budget {
                        batches.push(start as u32..end as u32);
                        (start, longest) = (end, length(index));
                    } else {
                        longest = wider;
                    }
                }
                batches.push(start as u32..count as u32);
            }
        }
        let together = settings.group_by_length || matches!(settings.size, Size::Tokens(_));
        if settings.shuffle && together {
            rng.split("batches").split(epoch).shuffle(&mut batches);
        }
        Self { order, batches }
    }
}

impl<E: Examples> Loader<E> {
    /// A loader at the beginning of epoch 0.
    ///
    /// # Errors
    /// Settings of zero, a batch that no memory holds, and data without examples.
    pub fn new(examples: Arc<E>, settings: LoaderSettings) -> Result<Self> {
        let wrong = |message: String| Err(Error::Settings(message));
        let count = examples.count();
        if count == 0 {
            return wrong("no examples: the data is empty, or every row was left out".to_owned());
        }
        if count >= u32::MAX as usize {
            return wrong(format!("{count} examples, where 4,294,967,294 are the most"));
        }
        if settings.rank >= settings.world {
            return wrong(format!("rank {} of {} processes does not exist", settings.rank, settings.world));
        }
        let (Size::Examples(size) | Size::Tokens(size)) = settings.size;
        if size == 0 {
            return wrong("a batch should have at least one example, found 0".to_owned());
        }
        let longest = (0..count).map(|index| examples.length(index)).max().unwrap_or(1).max(1);
        let tokens = match settings.size {
            Size::Examples(batch) => longest.saturating_mul(batch.min(count)).saturating_mul(examples.rows()),
            Size::Tokens(tokens) => tokens.min(LARGEST + 1),
        };
        if tokens > LARGEST {
            return wrong(format!(
                "a batch of {tokens} tokens, where {LARGEST} are the most: set the batch size lower"
            ));
        }
        let plan = Plan::new(&*examples, &settings, 0);
        Ok(Self { examples, settings, plan, state: BatchState::default() })
    }

    /// What the batches are made of.
    pub fn examples(&self) -> &Arc<E> {
        &self.examples
    }

    /// The examples that the next batch will hold, in its order: in evaluation, which answers are whose.
    pub fn upcoming(&self) -> &[u32] {
        let batches = &self.plan.batches;
        let index = self.state.index * self.settings.world as u64 + self.settings.rank as u64;
        // Ranks for which none is left begin again at the epoch's first, so that all take the same number of steps.
        let range = &batches[(index % batches.len() as u64) as usize];
        &self.plan.order[range.start as usize..range.end as usize]
    }
}

impl<E: Examples> Batches for Loader<E> {
    fn next_batch(&mut self) -> Result<Batch> {
        let batch = self.examples.collate(self.upcoming());
        self.state.index += 1;
        if self.state.index >= self.batches_per_epoch() {
            self.state = BatchState { epoch: self.state.epoch + 1, index: 0 };
            if self.settings.shuffle {
                self.plan = Plan::new(&*self.examples, &self.settings, self.state.epoch);
            }
        }
        Ok(batch)
    }

    fn batches_per_epoch(&self) -> u64 {
        (self.plan.batches.len() as u64).div_ceil(self.settings.world as u64)
    }

    fn state(&self) -> BatchState {
        self.state
    }

    fn restore(&mut self, state: BatchState) -> Result<()> {
        if state.index >= self.batches_per_epoch() {
            return Err(Error::Settings(format!(
                "the checkpoint stands at batch {} of an epoch, which here has {}: the data, the batch size or the \
                 number of processes has changed",
                state.index,
                self.batches_per_epoch()
            )));
        }
        self.plan = Plan::new(&*self.examples, &self.settings, state.epoch);
        self.state = state;
        Ok(())
    }

    fn digest(&self) -> u64 {
        self.examples.digest()
    }
}

#[cfg(test)]
mod tests;

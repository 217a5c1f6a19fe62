//! Rows of token ids for language modelling, in an order that depends on the seed alone and can be resumed.

mod order;
mod padded;
mod preference;
mod rollout;
mod rows;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::tokens::TokenFile;
use order::Order;
pub use preference::{Judged, Pairs};
pub use rollout::Played;

/// The target of positions that do not count.
pub const IGNORE: i32 = -100;

/// Tokens in a batch at most: no machine trains on more at once, and a model's own context may be a lie.
const LARGEST: usize = 1 << 28;

/// How documents become rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Packing {
    /// Documents one after the other, cut into rows of exactly `time`; attention stays inside a document
    /// (block-diagonal) and positions begin anew with each. Nothing is lost and nothing is padded but the last row.
    #[default]
    Packed,
    /// Windows of `time` tokens anywhere in the whole run of tokens, across documents, as in nanoGPT.
    Stream,
    /// One document a row, cut at `time`, filled up on the right to the longest of the batch.
    Padded,
}

/// What a [`Batcher`] is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchSettings {
    /// How documents become rows.
    pub packing: Packing,
    /// Rows in a batch.
    pub batch: usize,
    /// Longest row, in tokens.
    pub time: usize,
    /// Decides the order.
    pub seed: u64,
    /// A new random order in every epoch; else the order of the file, for evaluation.
    pub shuffle: bool,
    /// The id that fills up rows.
    pub pad: u32,
    /// Which share of each batch is meant: this process of so many, each with `batch` rows.
    pub rank: usize,
    /// How many processes.
    pub world: usize,
}

impl BatchSettings {
    /// Settings for one process, shuffled under seed 0, filled up with id 0.
    pub fn new(packing: Packing, batch: usize, time: usize) -> Self {
        Self { packing, batch, time, seed: 0, shuffle: true, pad: 0, rank: 0, world: 1 }
    }
}

/// One batch, every vector `[batch, time]` row-major unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// Inputs; of an encoder-decoder, the decoder's.
    pub ids: Vec<u32>,
    /// What each position is to predict (the next id, the id under a mask, a tag), or [`IGNORE`] where nothing is;
    /// empty if only whole rows have labels.
    pub targets: Vec<i32>,
    /// Which of two texts each token belongs to.
    pub token_types: Option<Vec<u32>>,
    /// What each row as a whole is to predict.
    pub labels: Labels,
    /// What the encoder of an encoder-decoder reads, row by row.
    pub source: Option<Source>,
    /// So many neighbouring rows are the choices of one question; 0 and 1 mean that rows stand alone.
    pub choices: usize,
    /// Place of each token in its document (or, in stream packing, in its window).
    pub positions: Vec<u32>,
    /// Which document of its row each token belongs to; filling is a document of its own. Only when packed.
    pub segments: Option<Vec<u32>>,
    /// Tokens of each row that are not filling.
    pub lengths: Vec<usize>,
    /// Rows.
    pub batch: usize,
    /// Columns.
    pub time: usize,
    /// Targets that count; of batches without targets, labels.
    pub tokens: usize,
}

/// Labels of whole rows.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Labels {
    /// Rows have none.
    #[default]
    None,
    /// `[batch]` (of multiple choice: one for each question): the class, or [`IGNORE`].
    Class(Vec<i32>),
    /// `[batch, classes]`, each 0 or 1: any number of classes at once.
    Many(Vec<f32>),
    /// `[batch, values]`: numbers to come near to.
    Value(Vec<f32>),
    /// `[batch]` each: first and last token of the answer; both 0, the classifying token, where there is none.
    Span {
        /// First token.
        start: Vec<i32>,
        /// Last token.
        end: Vec<i32>,
    },
    /// Rows are completions that were compared.
    Pairs(Pairs),
    /// Rows are completions that were judged.
    Judged(Judged),
    /// Rows are prompts to be answered: their numbers among all.
    Prompts(Vec<u32>),
    /// Rows are completions that the model wrote.
    Played(Played),
}

/// The encoder's rows of a batch of pairs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    /// `[batch, time]`, filled up on the right.
    pub ids: Vec<u32>,
    /// Tokens of each row that are not filling.
    pub lengths: Vec<usize>,
    /// Columns.
    pub time: usize,
}

/// Batches without end, epoch after epoch, in an order that the seed decides and that can be resumed.
pub trait Batches: Send + std::fmt::Debug {
    /// The next batch.
    ///
    /// # Errors
    /// What the data or the tokenizer says; generated and tokenised data never fail.
    fn next_batch(&mut self) -> Result<Batch>;
    /// Batches in one epoch.
    fn batches_per_epoch(&self) -> u64;
    /// Where it stands.
    fn state(&self) -> BatchState;
    /// Continues from a recorded state.
    ///
    /// # Errors
    /// When the state lies beyond the end of an epoch.
    fn restore(&mut self, state: BatchState) -> Result<()>;
    /// A number that differs when the data or its settings differ: a resumed run must find the same.
    fn digest(&self) -> u64;
}

impl Batches for Batcher {
    fn next_batch(&mut self) -> Result<Batch> {
        Ok(Batcher::next_batch(self))
    }

    fn batches_per_epoch(&self) -> u64 {
        Batcher::batches_per_epoch(self)
    }

    fn state(&self) -> BatchState {
        Batcher::state(self)
    }

    fn restore(&mut self, state: BatchState) -> Result<()> {
        Batcher::restore(self, state)
    }

    fn digest(&self) -> u64 {
        self.data.digest()
    }
}

/// Where a [`Batcher`] stands, for a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BatchState {
    /// Epochs finished.
    pub epoch: u64,
    /// Batches of this epoch given out.
    pub index: u64,
}

/// Gives out batches without end, epoch after epoch.
#[derive(Debug)]
pub struct Batcher {
    data: Arc<TokenFile>,
    settings: BatchSettings,
    order: Order,
    state: BatchState,
}

impl Batcher {
    /// A batcher at the beginning of epoch 0.
    ///
    /// # Errors
    /// Settings of zero, and data too small to fill a single row's worth of targets.
    pub fn new(data: Arc<TokenFile>, settings: BatchSettings) -> Result<Self> {
        let wrong = |message: String| Err(Error::Settings(message));
        if settings.batch == 0 || settings.time == 0 {
            return wrong(format!(
                "batch and time should be at least 1, found {} and {}",
                settings.batch, settings.time
            ));
        }
        if settings.batch.checked_mul(settings.time).is_none_or(|tokens| tokens > LARGEST) {
            return wrong(format!(
                "a batch of {} rows of {} tokens is more than {LARGEST} tokens: set `data.max_len` or the batch size lower",
                settings.batch, settings.time
            ));
        }
        if settings.rank >= settings.world {
            return wrong(format!("rank {} of {} processes does not exist", settings.rank, settings.world));
        }
        if data.documents() >= u32::MAX as usize {
            return wrong(format!("{} documents, where 4,294,967,294 are the most", data.documents()));
        }
        if settings.packing == Packing::Stream && data.tokens() <= settings.time {
            return wrong(format!(
                "the data has {} tokens, fewer than one window of {} and its last target need",
                data.tokens(),
                settings.time
            ));
        }
        if !(0..data.documents()).any(|index| data.range(index).len() > 1) {
            return wrong("the data has no document of two tokens or more, so there is nothing to predict".to_owned());
        }
        let order = Order::new(&data, &settings, 0);
        Ok(Self { data, settings, order, state: BatchState::default() })
    }

    /// What the batches are cut from.
    pub fn data(&self) -> &TokenFile {
        &self.data
    }

    /// Batches in one epoch, the same for every rank.
    pub fn batches_per_epoch(&self) -> u64 {
        let share = (self.settings.batch * self.settings.world) as u64;
        self.order.rows().div_ceil(share)
    }

    /// Documents cut off at `time` in one epoch (padded rows only; the other packings cut nothing off).
    pub fn truncated(&self) -> u64 {
        if self.settings.packing != Packing::Padded {
            return 0;
        }
        let long = |index: &usize| self.data.range(*index).len() > self.settings.time;
        (0..self.data.documents()).filter(long).count() as u64
    }

    /// Where the batcher stands: what [`Batcher::restore`] needs to go on with the next batch.
    pub fn state(&self) -> BatchState {
        self.state
    }

    /// Continues from a recorded state, at once, whatever the epoch.
    ///
    /// # Errors
    /// When the state lies beyond the end of an epoch: it was recorded with other data or settings.
    pub fn restore(&mut self, state: BatchState) -> Result<()> {
        if state.index >= self.batches_per_epoch() {
            return Err(Error::Settings(format!(
                "the checkpoint stands at batch {} of an epoch, which here has {}: the data, the batch size or the \
                 number of processes has changed",
                state.index,
                self.batches_per_epoch()
            )));
        }
        self.order = Order::new(&self.data, &self.settings, state.epoch);
        self.state = state;
        Ok(())
    }

    /// The next batch.
    ///
    /// The last batch of an epoch holds the rows that are left; a rank for which none is left gets one row of
    /// filling, so that all ranks take the same number of steps.
    pub fn next_batch(&mut self) -> Batch {
        let share = self.settings.batch as u64;
        let world = self.settings.world as u64;
        let first = (self.state.index * world + self.settings.rank as u64) * share;
        let rows = first..(first + share).min(self.order.rows()).max(first);
        let batch = match self.settings.packing {
            Packing::Packed => rows::packed(&self.data, &self.order, &self.settings, rows),
            Packing::Stream => rows::stream(&self.data, &self.order, &self.settings, rows),
            Packing::Padded => padded::padded(&self.data, &self.order, &self.settings, rows),
        };
        self.state.index += 1;
        if self.state.index >= self.batches_per_epoch() {
            self.state = BatchState { epoch: self.state.epoch + 1, index: 0 };
            self.order = Order::new(&self.data, &self.settings, self.state.epoch);
        }
        batch
    }
}

impl Batch {
    /// An empty batch with room for `rows` rows of `time`.
    pub(crate) fn with_room(rows: usize, time: usize, segments: bool) -> Self {
        let room = rows * time;
        Self {
            ids: Vec::with_capacity(room),
            targets: Vec::with_capacity(room),
            positions: Vec::with_capacity(room),
            segments: segments.then(|| Vec::with_capacity(room)),
            lengths: Vec::with_capacity(rows),
            time,
            ..Self::default()
        }
    }

    /// Rows that nothing is to be predicted of yet, filled up on the right with `pad` to the longest of them.
    pub fn of_rows<'r>(rows: impl Iterator<Item = &'r [u32]> + Clone, pad: u32) -> Self {
        let time = rows.clone().map(<[u32]>::len).max().unwrap_or(0).max(1);
        let mut batch = Self::with_room(rows.clone().count(), time, false);
        for row in rows {
            batch.push(row, std::iter::empty(), 0);
            batch.end_row(row.len(), pad, 0);
        }
        batch.targets.clear();
        batch
    }

    /// Adds consecutive tokens of one document and what each is to predict.
    pub(crate) fn push(&mut self, ids: &[u32], targets: impl Iterator<Item = i32>, segment: u32) {
        self.ids.extend_from_slice(ids);
        self.targets.extend(targets);
        self.positions.extend(0..ids.len() as u32);
        if let Some(segments) = &mut self.segments {
            segments.resize(self.ids.len(), segment);
        }
    }

    /// Ends a row of `length` tokens: fills it up to `time`.
    pub(crate) fn end_row(&mut self, length: usize, pad: u32, segment: u32) {
        let filling = self.time - length;
        self.ids.resize(self.ids.len() + filling, pad);
        self.targets.resize(self.targets.len() + filling, IGNORE);
        self.positions.extend(0..filling as u32);
        if let Some(segments) = &mut self.segments {
            segments.resize(self.ids.len(), segment);
        }
        self.lengths.push(length);
        self.batch += 1;
    }

    /// Counts the targets, after the last row.
    pub(crate) fn finish(mut self) -> Self {
        self.tokens = self.targets.iter().filter(|&&target| target != IGNORE).count();
        self
    }
}

#[cfg(test)]
mod tests;

//! The loop that all kinds of pre-training rows share: epochs, order, shares of processes, filling, resuming.

use phyla_kernels::rng::Rng;
use sha2::{Digest, Sha256};

use crate::batch::{Batch, BatchState, Batches, IGNORE, Labels};
use crate::error::{Error, Result};

/// Tokens in a batch at most, as for language modelling.
const LARGEST: usize = 1 << 28;

/// Who takes how many rows, and in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Rows in a batch.
    pub batch: usize,
    /// Decides the order and every draw.
    pub seed: u64,
    /// A new random order in every epoch; else the order of the file. What is hidden is drawn anew either way.
    pub shuffle: bool,
    /// Which share of each batch is meant: this process of so many, each with `batch` rows.
    pub rank: usize,
    /// How many processes.
    pub world: usize,
}

impl Share {
    /// One process, shuffled under seed 0.
    pub fn new(batch: usize) -> Self {
        Self { batch, seed: 0, shuffle: true, rank: 0, world: 1 }
    }

    /// Refuses what no machine can hold, before anything of that size is made.
    fn check(self, time: usize) -> Result<()> {
        if self.batch == 0 {
            return Err(Error::Settings("`batch` should be at least 1, found 0".to_owned()));
        }
        let tokens = self.batch.checked_mul(time).filter(|tokens| *tokens <= LARGEST);
        if tokens.and_then(|tokens| tokens.checked_mul(self.world)).is_none() {
            return Err(Error::Settings(format!(
                "a batch of {} rows of {time} tokens for {} processes is too large; {LARGEST} tokens a process are the \
                 most",
                self.batch, self.world
            )));
        }
        if self.rank >= self.world {
            return Err(Error::Settings(format!("rank {} of {} processes does not exist", self.rank, self.world)));
        }
        Ok(())
    }
}

/// One row before it is filled up.
#[derive(Debug, Default)]
pub struct Row {
    pub(super) ids: Vec<u32>,
    /// As long as `ids`.
    pub(super) targets: Vec<i32>,
    pub(super) types: Option<Vec<u32>>,
    pub(super) label: Option<i32>,
    pub(super) source: Option<Vec<u32>>,
}

/// What differs between kinds of rows. Every method is a pure function, so that resuming needs no history.
pub trait Rows: Send + std::fmt::Debug {
    /// What is drawn once for an epoch.
    type Plan: Send + std::fmt::Debug;
    /// Draws it.
    fn plan(&self, epoch: u64) -> Self::Plan;
    /// Rows of the epoch.
    fn count(&self, plan: &Self::Plan) -> u64;
    /// Makes one row; `rng` is its own.
    fn row(&self, plan: &Self::Plan, row: u64, rng: Rng) -> Row;
    /// A row of nothing, with all the parts the others have.
    fn empty(&self) -> Row;
    /// Tokens of the longest row there may be.
    fn time(&self) -> usize;
    /// The id that fills up rows.
    fn pad(&self) -> u32;
    /// Everything that decides the rows but the order.
    fn describe(&self, hash: &mut Sha256);
    /// What was cut, left out, or is unlike what was asked for, in this epoch.
    fn notes(&self, plan: &Self::Plan) -> Vec<String>;
}

/// Batches of rows without end; see the aliases for the kinds there are.
#[derive(Debug)]
pub struct Epochs<R: Rows> {
    pub(super) rows: R,
    share: Share,
    plan: R::Plan,
    /// Which row is taken when; empty when in order.
    taken: Vec<u32>,
    state: BatchState,
    /// Rows given out so far that had nothing to predict.
    idle: u64,
}

impl<R: Rows> Epochs<R> {
    pub(super) fn begin(rows: R, share: Share) -> Result<Self> {
        share.check(rows.time())?;
        let plan = rows.plan(0);
        let mut epochs = Self { rows, share, plan, taken: Vec::new(), state: BatchState::default(), idle: 0 };
        if epochs.rows.count(&epochs.plan) == 0 {
            return Err(Error::Settings("the data is too small for a single row".to_owned()));
        }
        epochs.order();
        Ok(epochs)
    }

    /// What a user should know about these batches: what was cut, left out, or has nothing to predict.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.rows.notes(&self.plan);
        if self.idle > 0 {
            notes.push(format!("{} rows so far had no token that may be hidden, so nothing to predict", self.idle));
        }
        notes
    }

    /// Rows in this epoch.
    pub fn rows_per_epoch(&self) -> u64 {
        self.rows.count(&self.plan)
    }

    fn rng(&self, what: &str) -> Rng {
        Rng::new(self.share.seed).split(what).split(self.state.epoch)
    }

    fn order(&mut self) {
        let rows = self.rows.count(&self.plan);
        self.taken.clear();
        // Beyond four thousand million rows the order no longer matters.
        if self.share.shuffle && rows <= u64::from(u32::MAX) {
            self.taken.extend(0..rows as u32);
            self.rng("order of rows").shuffle(&mut self.taken);
        }
    }

    fn start(&mut self, state: BatchState) {
        let another = state.epoch != self.state.epoch;
        self.state = state;
        if another {
            self.plan = self.rows.plan(state.epoch);
            self.order();
        }
    }
}

impl<R: Rows> Batches for Epochs<R> {
    fn next_batch(&mut self) -> Result<Batch> {
        let (share, world) = (self.share.batch as u64, self.share.world as u64);
        let first = (self.state.index * world + self.share.rank as u64) * share;
        let last = (first + share).min(self.rows.count(&self.plan)).max(first);
        let draws = self.rng("rows");
        let make = |index: u64| {
            let row = self.taken.get(index as usize).map_or(index, |&row| u64::from(row));
            self.rows.row(&self.plan, row, draws.split(row))
        };
        let mut rows: Vec<Row> = (first..last).map(make).collect();
        self.idle += rows.iter().filter(|row| row.targets.iter().all(|&target| target == IGNORE)).count() as u64;
        if rows.is_empty() {
            // All processes take the same number of steps.
            rows.push(self.rows.empty());
        }
        let batch = fill(rows, self.rows.pad());
        let (epoch, index) = (self.state.epoch, self.state.index + 1);
        if index < self.batches_per_epoch() {
            self.start(BatchState { epoch, index });
        } else {
            self.start(BatchState { epoch: epoch + 1, index: 0 });
        }
        Ok(batch)
    }

    /// Batches in this epoch: where rows are put together anew in each, the number may differ a little.
    fn batches_per_epoch(&self) -> u64 {
        self.rows.count(&self.plan).div_ceil((self.share.batch * self.share.world) as u64)
    }

    fn state(&self) -> BatchState {
        self.state
    }

    fn restore(&mut self, state: BatchState) -> Result<()> {
        let before = self.state;
        self.start(state);
        let batches = self.batches_per_epoch();
        if state.index >= batches {
            self.start(before);
            return Err(Error::Settings(format!(
                "the checkpoint stands at batch {} of an epoch, which here has {batches}: the data, the batch size or \
                 the number of processes has changed",
                state.index
            )));
        }
        Ok(())
    }

    fn digest(&self) -> u64 {
        let mut hash = Sha256::new();
        hash.update(self.share.seed.to_le_bytes());
        hash.update([u8::from(self.share.shuffle)]);
        self.rows.describe(&mut hash);
        let digest: [u8; 32] = hash.finalize().into();
        u64::from_le_bytes(std::array::from_fn(|at| digest[at]))
    }
}

/// Rows side by side, filled up on the right to the longest.
fn fill(rows: Vec<Row>, pad: u32) -> Batch {
    let widest = |length: fn(&Row) -> usize| rows.iter().map(length).max().unwrap_or(0).max(1);
    let time = widest(|row| row.ids.len());
    let width = widest(|row| row.source.as_ref().map_or(0, Vec::len));
    let mut batch = Batch { batch: rows.len(), time, ..Batch::default() };
    let mut classes = Vec::new();
    for row in rows {
        batch.lengths.push(row.ids.len());
        let end = batch.lengths.len() * time;
        batch.ids.extend(row.ids);
        batch.ids.resize(end, pad);
        batch.targets.extend(row.targets);
        batch.targets.resize(end, IGNORE);
        batch.positions.extend(0..time as u32);
        if let Some(types) = row.types {
            let all = batch.token_types.get_or_insert_default();
            all.extend(types);
            all.resize(end, 0);
        }
        classes.extend(row.label);
        if let Some(ids) = row.source {
            let source = batch.source.get_or_insert_default();
            source.time = width;
            source.lengths.push(ids.len());
            let end = source.lengths.len() * width;
            source.ids.extend(ids);
            source.ids.resize(end, pad);
        }
    }
    if !classes.is_empty() {
        batch.labels = Labels::Class(classes);
    }
    batch.tokens = batch.targets.iter().filter(|&&target| target != IGNORE).count();
    batch
}

/// Refuses more documents than can be numbered.
pub(super) fn countable(documents: usize) -> Result<()> {
    if documents < u32::MAX as usize {
        return Ok(());
    }
    Err(Error::Settings(format!("{documents} documents or sentences, where 4,294,967,294 are the most")))
}

/// The id in a role, or what to do about its absence.
pub(super) fn role(id: Option<u32>, role: &str, what: &str) -> Result<u32> {
    id.ok_or_else(|| {
        Error::Settings(format!(
            "{what} needs a token in the role `{role}`, and the tokenizer names none: set it in tokenizer_config.json"
        ))
    })
}

/// Settings as bytes for a digest.
pub(super) fn settings_bytes(settings: &impl serde::Serialize) -> Vec<u8> {
    // Plain structs of numbers always serialise; were one not to, an empty text is a digest like any other.
    serde_json::to_vec(settings).unwrap_or_default()
}

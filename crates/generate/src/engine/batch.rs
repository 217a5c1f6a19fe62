//! The rows of a running batch: the cache, which sequence each of its rows belongs to, and the passes over them.

use std::ops::Range;

use candle_core::{DType, Device};
use phyla_models::Model;
use phyla_nn::{Cache, CacheRows, CacheSpec, Memory, Pass, RopeScaling, SublayerSpec, Takeover};
use phyla_ops::{Data, Tensor, cpu};

use super::mix::{Beside, Mix, Passed, with_layers};
use crate::outputs::Seen;
use crate::watch::{At, Moment, Watcher};
use crate::{Error, PrefixCache, Result, Session, Wanted};

/// Tokens of a prompt that are read in one pass: enough to be bound by arithmetic, few enough to bound the memory of
/// the activations.
pub(crate) const CHUNK: usize = 512;

/// After so many passes the weights are moved to where they are read faster: that takes as long as it saves in 16 more.
const LONG_ENOUGH: usize = 16;

/// Up to so many rows that attend to the same states of an encoder have the same bits as one that does.
const SHARED: usize = 8;

/// A batch.
pub(crate) struct Batch<'a> {
    model: &'a Model,
    /// Positions of each row that stand before its text.
    lead: usize,
    cache: Cache,
    /// The sequence of each row.
    sequences: Vec<usize>,
    /// Rows whose sequence has ended.
    ended: Vec<bool>,
    /// Neighbouring rows that began as one: what an encoder said is read once for them if they pass together.
    block: usize,
    /// Whether the rows of a block end together.
    lasting: bool,
    /// Whether the rotation of a token depends on how long the input is.
    length_dependent: bool,
    /// Up to so many rows have the same bits as each alone; asked of the model's weights once.
    invariant: usize,
    /// Passes behind the prompts.
    passes: usize,
    /// Is told of every pass.
    pub watch: Watcher<'a>,
    /// What of the layers is to be told, too, and what it was in the last pass.
    pub wanted: Wanted,
    seen: Option<Seen>,
    /// Beginnings of texts that have been read before.
    pub prefixes: Option<&'a PrefixCache>,
    /// Ids of prompts that have been read.
    pub read: usize,
    /// What its logits are mixed with.
    mix: Option<Mix<'a>>,
}

impl<'a> Batch<'a> {
    /// Empty rows, one for each prompt.
    pub fn new(model: &'a Model, rows: usize, cache: CacheSpec) -> Self {
        let positions = cache.positions.map(|positions| positions + model.lead());
        Self::over(model, Cache::with(rows, CacheSpec { positions, ..cache }))
    }

    /// Empty rows of a decoder, one for each text that its encoder has read.
    pub fn attending(model: &'a Model, memory: Memory, cache: CacheSpec) -> Self {
        Self::over(model, Cache::with(memory.rows(), cache).attending(memory))
    }

    /// One row that holds what `session` has read of `prompt`, and how many ids that is.
    pub fn resume(model: &'a Model, session: Session, prompt: &[u32], cache: CacheSpec) -> (Self, usize) {
        let (known, spec) = (session.shared(prompt), session.cache.spec());
        let mut batch = Self::over(model, session.cache);
        let roomy = spec.positions.is_some() == cache.positions.is_some()
            && spec.positions >= cache.positions.map(|positions| positions + model.lead());
        let same = CacheSpec { positions: None, ..spec } == CacheSpec { positions: None, ..cache };
        if known == 0 || batch.length_dependent || batch.rows() != 1 || !same || !roomy {
            return (Self::new(model, 1, cache), 0);
        }
        // Nothing, if what the next id sees has been dropped.
        let known = batch.cache.truncate(0, batch.lead + known).saturating_sub(batch.lead);
        (batch, known)
    }

    fn over(model: &'a Model, cache: Cache) -> Self {
        let rows = cache.lengths().len();
        let length_dependent = model.arch.main().layers.iter().flat_map(|layer| &layer.sublayers).any(|sublayer| {
            matches!(sublayer, SublayerSpec::Attention(attention) if attention.rope.as_ref().is_some_and(|rope| {
                matches!(rope.scaling, RopeScaling::Dynamic { .. } | RopeScaling::LongRope { .. })
            }))
        });
        // Positions inside the cache do not grow with the text.
        let length_dependent = length_dependent && cache.spec().sink.is_none();
        Self {
            model,
            lead: model.lead(),
            cache,
            sequences: (0..rows).collect(),
            ended: vec![false; rows],
            block: 1,
            lasting: false,
            length_dependent,
            invariant: model.invariant_rows(),
            passes: 0,
            watch: Watcher::default(),
            wanted: Wanted::default(),
            seen: None,
            prefixes: None,
            read: 0,
            mix: None,
        }
    }

    /// Mixes its logits.
    pub(in crate::engine) fn mixed(mut self, mix: Option<Mix<'a>>) -> Self {
        self.mix = mix;
        if let Some(beside) = self.beside() {
            // What passes together here does there, too.
            let (invariant, length_dependent) = beside.limits();
            self.invariant = self.invariant.min(invariant);
            self.length_dependent |= length_dependent;
        }
        self
    }

    /// The rows beside, if there are any.
    fn beside(&mut self) -> Option<&mut Beside<'a>> {
        match &mut self.mix {
            Some(Mix::Beside(beside)) => Some(beside),
            _ => None,
        }
    }

    /// Up to so many rows have the same bits as each alone, and whether a token's rotation depends on the length.
    pub fn limits(&self) -> (usize, bool) {
        (self.invariant, self.length_dependent)
    }

    /// Ids that each row holds.
    pub fn lengths(&self) -> Vec<usize> {
        self.cache.lengths().iter().map(|held| held.saturating_sub(self.lead)).collect()
    }

    /// What has been read.
    pub fn into_cache(self) -> Cache {
        self.cache
    }

    /// Texts that were read before; what stands before a text is not among what they remember.
    fn known_texts(&self) -> Option<&'a PrefixCache> {
        self.prefixes.filter(|_| self.lead == 0 && !self.length_dependent)
    }

    /// Bytes of the cache that were copied since rows took over from one another.
    pub fn copied(&self) -> usize {
        self.cache.copied()
    }

    /// Rows in the cache.
    pub fn rows(&self) -> usize {
        self.sequences.len()
    }

    /// Logits of a row.
    pub fn vocab(&self) -> usize {
        self.model.arch.vocab()
    }

    /// Reads a prompt into its row; returns the logits behind its last token, `None` if `cancelled`.
    ///
    /// Row by row: a prompt's numbers then depend on nothing but itself.
    pub fn prefill(&mut self, row: usize, ids: &[u32], cancelled: impl Fn() -> bool) -> Result<Option<Data>> {
        let empty = self.cache.lengths()[row] == 0;
        // Where layers are looked at, all ids are.
        let prefixes = self.known_texts().filter(|_| empty && !self.wanted.layers());
        let known = prefixes.map_or(Ok(0), |prefixes| prefixes.begin(ids, &mut self.cache, row))?;
        let logits = self.read(row, &ids[known..], &cancelled, |_| Ok(()))?;
        if let (Some(prefixes), Some(_)) = (prefixes, &logits) {
            prefixes.remember(ids, &self.cache, row);
        }
        self.mixed_prefill(row, ids, logits, cancelled)
    }

    /// Lets the rows beside read the prompt, too, whose own logits are `own`.
    fn mixed_prefill(
        &mut self,
        row: usize,
        ids: &[u32],
        own: Option<Data>,
        cancelled: impl Fn() -> bool,
    ) -> Result<Option<Data>> {
        match (own, self.beside()) {
            (Some(own), Some(beside)) => Ok(beside.prefill(row, ids, &own, cancelled)?.map(|()| own)),
            (own, _) => Ok(own),
        }
    }

    /// Remembers what a row holds, which is the beginning of these ids.
    pub fn remember(&self, row: usize, ids: &[u32]) {
        let held = self.cache.lengths()[row];
        if let (Some(prefixes), Some(ids)) = (self.known_texts(), ids.get(..held)) {
            prefixes.remember(ids, &self.cache, row);
        }
    }

    /// The same, with a look at the states of each chunk of it, `[1, tokens, hidden]`.
    fn read(
        &mut self,
        row: usize,
        ids: &[u32],
        cancelled: impl Fn() -> bool,
        mut each: impl FnMut(&Tensor) -> Result<()>,
    ) -> Result<Option<Data>> {
        // Where the rotation depends on the length, the whole prompt has to turn by its own.
        let whole = self.length_dependent || self.wanted.layers();
        let chunk = match self.cache.spec().sink {
            Some(sink) => CHUNK.min(sink.together()),
            None if whole => ids.len().max(1),
            None => CHUNK,
        };
        let mut last = None;
        for ids in ids.chunks(chunk) {
            if cancelled() {
                return Ok(None);
            }
            let passed = self.forward(row..row + 1, ids)?;
            self.read += ids.len();
            each(&passed.hidden)?;
            last = Some(passed.last()?); // [1, 1, hidden]
        }
        last.map(|last| self.logits(&last)).transpose()
    }

    /// The states of new ids, equally many for each of these rows, `[rows, ids, hidden]`.
    fn forward(&mut self, rows: Range<usize>, ids: &[u32]) -> Result<Passed> {
        let time = ids.len() / rows.len().max(1);
        let mut pass = Pass::cached(CacheRows { cache: &mut self.cache, rows: rows.clone() }, time);
        Seen::ask(&mut pass, self.wanted);
        let layers: &[usize] = match &self.mix {
            Some(Mix::Layers(layers)) => layers,
            _ => &[],
        };
        if !layers.is_empty() {
            pass.hidden_states.get_or_insert_default();
        }
        let hidden = self.model.forward(ids, None, &mut pass)?;
        let states = pass.hidden_states.as_deref().unwrap_or_default();
        let early = layers.iter().filter_map(|&layer| states.get(layer).cloned()).collect();
        pass.hidden_states = pass.hidden_states.filter(|_| self.wanted.hidden_states);
        let kept = Seen::take(&mut pass);
        self.seen = kept.map(|seen| seen.holding(&self.cache.lengths()[rows]));
        if self.watch.is_there() {
            let positions = self.cache.lengths().iter().sum();
            self.watch.tell(Moment::Read { ids: ids.len(), positions, bytes: self.cache.bytes() });
        }
        Ok(Passed { hidden, early })
    }

    /// Tells what the layers held in the last pass, where that is asked for: of number `row` of its rows, and of one token if
    /// there were several that ids are picked behind.
    pub fn tell_layers(&self, at: At, row: usize, token: Option<usize>) {
        if let Some(seen) = &self.seen {
            self.watch.tell(Moment::Layers { at, layers: seen.of(row, token) });
        }
    }

    /// [`Batch::forward`] behind the prompts.
    fn go_on(&mut self, rows: Range<usize>, ids: &[u32]) -> Result<Passed> {
        self.passes += 1;
        if self.passes == LONG_ENOUGH {
            // Weights that cannot be moved are read where they are.
            self.model.settle().ok();
        }
        self.forward(rows, ids)
    }

    /// Equally many ids more in each of these rows: the states, and the logits `[rows, ids, vocab]`.
    fn answers(&mut self, rows: Range<usize>, ids: &[u32]) -> Result<(Tensor, Data)> {
        let passed = self.go_on(rows.clone(), ids)?;
        let logits = self.logits(&passed)?;
        if let Some(beside) = self.beside() {
            beside.go_on(rows, ids, &logits)?;
        }
        Ok((passed.hidden, logits))
    }

    /// The logits of the same, for rows beside others.
    pub fn ahead(&mut self, rows: Range<usize>, ids: &[u32]) -> Result<Data> {
        Ok(self.answers(rows, ids)?.1)
    }

    /// Turns every row into a block of `n` equal ones, side by side; `lasting` if the rows of a block end together.
    pub fn repeat(&mut self, n: usize, lasting: bool) -> Result<()> {
        if n > 1 {
            let rows: Vec<usize> = (0..self.rows()).flat_map(|row| std::iter::repeat_n(row, n)).collect();
            self.cache.select(&rows)?;
            self.sequences = (0..rows.len()).collect();
            self.ended = vec![false; rows.len()];
            (self.block, self.lasting) = (n, lasting);
        }
        self.beside().map_or(Ok(()), |beside| beside.batch().repeat(n, lasting))
    }

    /// The sequence of each row.
    pub fn sequences(&self) -> &[usize] {
        &self.sequences
    }

    /// Lets rows take over what others hold.
    pub fn take_over(&mut self, moves: &[Takeover]) -> Result<()> {
        let held = self.lengths();
        if let Some(beside) = self.beside() {
            beside.take_over(moves, &held)?;
        }
        Ok(self.cache.take_over(moves)?)
    }

    /// Drops rows whose sequence has ended, once they are a quarter of all: dropping copies the cache, and a row that
    /// only waits costs a row's share of arithmetic.
    pub fn retain(&mut self, runs: impl Fn(usize) -> bool) -> Result<()> {
        self.retain_those(&runs)
    }

    fn retain_those(&mut self, runs: &dyn Fn(usize) -> bool) -> Result<()> {
        if let Some(beside) = self.beside() {
            beside.batch().retain_those(runs)?;
        }
        for (ended, &sequence) in self.ended.iter_mut().zip(&self.sequences) {
            *ended = !runs(sequence);
        }
        let ended = self.ended.iter().filter(|&&ended| ended).count();
        if 4 * ended >= self.rows().max(1) {
            let rows: Vec<usize> = (0..self.rows()).filter(|&row| !self.ended[row]).collect();
            self.cache.select(&rows)?;
            self.sequences = rows.iter().map(|&row| self.sequences[row]).collect();
            self.ended = vec![false; rows.len()];
        }
        // A waiting row starts anew each time: its cache must not grow, nor reach the limit of positions.
        for (row, _) in self.ended.iter().enumerate().filter(|(_, ended)| **ended) {
            self.cache.truncate(row, 0);
        }
        Ok(())
    }

    /// Rows that may pass together: as many as the products give the same bits as one alone, in equal parts of whole
    /// blocks or, where a block is too large, parts of one.
    pub fn groups(&self) -> Vec<Range<usize>> {
        self.groups_of(self.rows())
    }

    /// The same of the first rows alone.
    pub fn groups_of(&self, rows: usize) -> Vec<Range<usize>> {
        let mut limit = if self.length_dependent { 1 } else { self.invariant };
        if self.block > SHARED && !self.lasting {
            // How many rows of a block are left depends on when others end: too few to be told from a single one.
            limit = limit.min(SHARED);
        }
        let whole = if self.lasting && self.block > limit { self.block } else { rows };
        let unit = if self.block > limit { 1 } else { self.block };
        let (units, limit) = (whole.div_ceil(unit), limit / unit);
        let size = unit * units.div_ceil(units.div_ceil(limit).max(1)).max(1);
        let cut = |from: usize, to: usize| (from..to).step_by(size).map(move |at| at..to.min(at + size));
        (0..rows).step_by(whole.max(1)).flat_map(|from| cut(from, from + whole)).collect()
    }

    /// One token more for each row of a group: their sequences, and the logits `[rows, vocab]`.
    pub fn step(&mut self, rows: Range<usize>, last: impl Fn(usize) -> u32) -> Result<(Vec<usize>, Data)> {
        let sequences = self.sequences[rows.clone()].to_vec();
        let ids: Vec<u32> = sequences.iter().map(|&sequence| last(sequence)).collect();
        Ok((sequences, self.ahead(rows, &ids)?))
    }

    /// [`Batch::prefill`] of the only row, with the states of all ids, one after the other.
    pub fn states(&mut self, ids: &[u32], cancelled: impl Fn() -> bool) -> Result<Option<(Vec<f32>, Data)>> {
        let mut states = vec![];
        let logits = self.read(0, ids, &cancelled, |hidden| {
            states.extend_from_slice(&cpu::view::<f32>(&host(hidden)?)?);
            Ok(())
        })?;
        let logits = self.mixed_prefill(0, ids, logits, cancelled)?;
        Ok(logits.map(|logits| (states, logits)))
    }

    /// Turns the only row into one for each of these ids, which it goes on with: the states of these, and the logits behind
    /// them, `[ids, vocab]`.
    pub fn branch(&mut self, ids: &[u32]) -> Result<(Data, Data)> {
        self.select(&vec![0; ids.len()])?;
        let (hidden, logits) = self.answers(0..ids.len(), ids)?; // [ids, 1, hidden]
        Ok((host(&hidden)?, logits))
    }

    /// Goes on with one row alone.
    pub fn keep(&mut self, row: usize) -> Result<()> {
        self.select(&[row])
    }

    fn select(&mut self, rows: &[usize]) -> Result<()> {
        self.cache.select(rows)?;
        self.beside().map_or(Ok(()), |beside| beside.batch().select(rows))
    }

    /// Some ids more in the only row: the logits behind each of them, `[ids, vocab]`.
    pub fn several(&mut self, ids: &[u32]) -> Result<Data> {
        self.ahead(0..1, ids)
    }

    /// Forgets what the only row has behind its first `length` ids.
    ///
    /// # Errors
    /// If the cache has dropped what the next id would see: more is taken back than a few ids.
    pub fn forget(&mut self, length: usize) -> Result<()> {
        let more = self.length().saturating_sub(length);
        if let Some(beside) = self.beside() {
            beside.forget(more)?;
        }
        let held = self.length();
        let left = self.cache.truncate(0, self.lead + length).saturating_sub(self.lead);
        if left < length.min(held) {
            return Err(Error::Tensor(candle_core::Error::msg(format!(
                "a cache of {held} tokens cannot go back to {length}: what lies before its windows has been dropped"
            ))));
        }
        Ok(())
    }

    /// Ids that the only row holds.
    pub fn length(&self) -> usize {
        self.cache.lengths().first().map_or(0, |held| held.saturating_sub(self.lead))
    }

    /// `[rows · vocab]`, contiguous f32 in host memory; no copy on the CPU. Mixed with what the same pass says elsewhere.
    fn logits(&self, passed: &Passed) -> Result<Data> {
        let logits = host(&self.model.logits(&passed.hidden)?)?;
        if !passed.early.is_empty() {
            let early = passed.early.iter().map(|states| host(&self.model.logits(states)?));
            with_layers(&logits, &early.collect::<Result<Vec<_>>>()?, self.vocab())?;
        }
        Ok(logits)
    }
}

/// All numbers, contiguous f32 in host memory; no copy on the CPU.
fn host(tensor: &Tensor) -> Result<Data> {
    Ok(tensor.data().to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?)
}

mod joined;

pub(crate) use joined::FEW;

#[cfg(test)]
mod tests;

//! Many requests at once: they come and go at any time, share the passes of the model and the memory of its cache, and each is
//! answered as if it were alone. A [`Generator`] answers one call, whose prompts are all there when it begins.
//!
//! The memory is blocks of 64 positions (pages of every layer; Kwon et al. 2023, "Efficient Memory Management for Large Language
//! Model Serving with PagedAttention"). A step ([`Engine::step`]) takes in what waits, as far as there are blocks, first come,
//! first served; goes on with every sequence that writes, in one pass (Yu et al. 2022, "Orca", iteration-level scheduling); and
//! reads a piece of a prompt, so that a long one does not keep the others waiting. Prompts that begin like another share its
//! blocks. Where blocks run out the youngest sequence gives its own back, and is read again later.
//!
//! None of that changes an answer: whatever is read in other pieces, again, or not at all has the bits that it would have had
//! alone (see [`pieces`]).

mod adapters;
mod blocks;
mod call;
mod handle;
mod line;
mod memory;
mod passes;
mod pieces;
mod prefixes;
mod request;
mod stats;

pub use adapters::NamedAdapter;
pub use handle::{Handle, Served};
pub use request::{Answer, Request, RequestId, RequestTimings, Update};
pub use stats::{BlockStats, Stats};

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Instant;

use phyla_models::Model;
use phyla_nn::{Block, CacheSpec, Kept};

use crate::engine::batch::Batch;
use crate::{CacheDtype, Error, FinishReason, Generator, Result, Settings};
use adapters::{Adapters, worn};
use blocks::Blocks;
use call::Call;
use line::Line;
use prefixes::Prefixes;
use request::{Job, Sink};

/// How much an engine does at once, and the memory that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Most sequences that run at a time. Default: 32, which take about twice as long as one.
    pub max_num_seqs: usize,
    /// Most ids that a step reads and writes; a step reads at least 64 of a prompt that waits. Default: 512.
    pub max_num_batched_tokens: usize,
    /// The memory for keys and values. Default: 1 GiB.
    pub memory: Memory,
    /// What keys and values are kept as. Default: as exactly as attention multiplies them.
    pub cache_dtype: Option<CacheDtype>,
    /// Whether blocks lie in a temporary file, which the system may write out when memory is short. Default: false.
    pub offloaded: bool,
    /// Whether what has been read is kept, as long as there is room, for requests that begin alike. Default: true.
    pub share_prefixes: bool,
}

/// How much memory there is for keys and values. It is taken when it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// So many blocks of 64 positions.
    Blocks(usize),
    /// As many blocks as these bytes hold.
    Bytes(usize),
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            max_num_seqs: 32,
            max_num_batched_tokens: 512,
            memory: Memory::Bytes(1 << 30),
            cache_dtype: None,
            offloaded: false,
            share_prefixes: true,
        }
    }
}

impl EngineConfig {
    fn kept(&self) -> Option<Kept> {
        self.cache_dtype.map(|CacheDtype(kept)| kept)
    }

    /// The cache that all requests share. What lies before windows is kept, since others may begin there.
    fn cache(&self) -> CacheSpec {
        CacheSpec { kept: self.kept(), whole: true, offloaded: self.offloaded, ..CacheSpec::default() }
    }

    /// Whether a request's numbers are those that such a cache gives; where its pages lie does not matter.
    fn keeps(&self, settings: &Settings) -> bool {
        let (ours, theirs) = (self.cache(), settings.cache.spec(0));
        (ours.kept, ours.residual, ours.sink) == (theirs.kept.or(ours.kept), theirs.residual, theirs.sink)
    }

    /// Bytes of a block of a model's cache.
    pub fn block_bytes(&self, model: &Model) -> usize {
        let output = model.params().iter().find(|param| param.path().ends_with(".attn.o.weight"));
        let kept = (self.kept()).unwrap_or(CacheSpec::exactly(output.map(|o| o.precision()).unwrap_or_default()));
        let sublayers = model.arch.main().layers.iter().flat_map(|layer| &layer.sublayers);
        kept.bytes(Block::POSITIONS * sublayers.map(|sublayer| sublayer.cache_numbers()).sum::<usize>())
    }

    /// Blocks that there are.
    fn blocks(&self, model: &Model) -> Result<usize> {
        let blocks = match self.memory {
            Memory::Blocks(blocks) => blocks,
            Memory::Bytes(bytes) => bytes / self.block_bytes(model).max(1),
        };
        for (name, count) in [
            ("max_num_seqs", self.max_num_seqs),
            ("max_num_batched_tokens", self.max_num_batched_tokens),
            ("the engine's blocks", blocks),
        ] {
            if count == 0 {
                return Err(Error::Settings(format!("{name}: there must be at least 1, found 0")));
            }
        }
        Ok(blocks)
    }
}

/// Answers many requests, which come and go at any time; on the CPU.
///
/// Each [`Engine::step`] lets in what waits, as far as there is memory, first come, first served; goes on with every sequence by
/// one id, in one pass; and reads a piece of a prompt. Whatever comes, goes, is shared or read again, an answer is the one of
/// [`Generator::generate`] with that prompt alone, to the bit; over quantised weights where
/// [`deterministic`](crate::GenerationConfig::deterministic) is set. [`Engine::start`] runs all that on a thread of its own.
///
/// ```
/// use phyla_generate::{Engine, EngineConfig, Event, GenerationConfig, Generator, Request, Update};
///
/// # let config = serde_json::json!({
/// #     "model_type": "llama", "vocab_size": 100, "hidden_size": 16, "intermediate_size": 32,
/// #     "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64
/// # });
/// # let model = phyla_models::fresh(config.as_object().ok_or("not an object")?, 1, &candle_core::Device::Cpu)?;
/// let mut engine = Engine::new(Generator::new(&model, None), EngineConfig::default())?;
/// for seed in 0..3 {
///     let config = GenerationConfig { max_new_tokens: Some(8), do_sample: Some(true), ..Default::default() };
///     engine.submit(Request { prompt: vec![3, 14, 15], config, seed, ..Default::default() }, move |update| match update {
///         Update::Event(Event::Token { id, .. }) => println!("{seed}: {id}"),
///         Update::Event(Event::Finished { reason, .. }) => println!("{seed}: {reason}"),
///         Update::Done(answer) => assert_eq!(answer.unwrap().sequences[0].ids.len(), 8),
///     })?;
/// }
/// while engine.step()? {
///     println!("{} run", engine.stats().running);
/// }
/// assert_eq!(engine.blocks_in_use(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Searches, speculation, recorded states and attention, caches of another kind and encoder-decoders are answered, too, each such
/// request by itself: it waits until nothing else runs, and nothing else runs beside it.
pub struct Engine<'a> {
    generator: Generator<'a>,
    config: EngineConfig,
    /// See [`Batch::piece`].
    piece: Option<usize>,
    batch: Batch<'a>,
    adapters: Adapters<'a>,
    /// In the order of the batch's rows: first those that write, then those that read, of which the first goes on.
    lines: Vec<Line<'a>>,
    writing: usize,
    /// By rank.
    waiting: VecDeque<Line<'a>>,
    calls: BTreeMap<RequestId, Call<'a>>,
    blocks: Blocks,
    prefixes: Prefixes,
    next: RequestId,
    totals: Stats,
    /// Logits that processors change.
    row: Vec<f32>,
}

impl<'a> Engine<'a> {
    /// Answers as `generator` would: with its model, its tokenizer and its assistant.
    ///
    /// # Errors
    /// A limit of 0, memory for less than a block, or a model on another device than the CPU.
    pub fn new(generator: Generator<'a>, config: EngineConfig) -> Result<Self> {
        let model = generator.model();
        if let Some(param) = model.params().iter().find(|param| !param.weight().device().is_cpu()) {
            return Err(Error::Settings(format!(
                "an engine keeps its cache in pages, which only the CPU has, and `{}` lies elsewhere; load the model on the \
                 CPU, or answer its prompts with one call",
                param.path()
            )));
        }
        if model.lead() > 0 || generator.adapters().iter().any(|named| named.adapter.is_prompt()) {
            return Err(Error::Settings(
                "an engine counts the blocks of its texts, and a prompt or prefix stands before them: answer with calls of one \
                 batch each, or take another kind of adapter"
                    .into(),
            ));
        }
        let mut adapters = Adapters::new(model, generator.adapters());
        adapters.hang(vec![(1, worn(generator.adapters(), None)?)]);
        let batch = Batch::new(model, 0, config.cache());
        Ok(Self {
            generator,
            config,
            piece: batch.piece(),
            batch,
            adapters,
            lines: vec![],
            writing: 0,
            waiting: VecDeque::new(),
            calls: BTreeMap::new(),
            blocks: Blocks::new(config.blocks(model)?),
            prefixes: Prefixes::default(),
            next: 0,
            totals: Stats::default(),
            row: vec![],
        })
    }

    /// How much it does at once.
    pub fn config(&self) -> EngineConfig {
        self.config
    }

    /// Takes a request, whose `sink` is told what becomes of it, by the steps that follow.
    ///
    /// # Errors
    /// A request that could not be answered: see [`Generator::generate`]; one that needs more blocks than there are, or more
    /// sequences at a time.
    pub fn submit(&mut self, request: Request, sink: impl FnMut(Update) + 'a) -> Result<RequestId> {
        let job = Job::new(&self.generator, &self.config, self.blocks.total(), request)?;
        let id = self.next;
        self.enter(id, job, Box::new(sink));
        Ok(id)
    }

    /// Puts a checked request behind the others.
    fn enter(&mut self, id: RequestId, job: Job, sink: Sink<'a>) {
        self.next = id + 1;
        self.totals.submitted += 1;
        let first = self.generator.sequence(&job.prompt, 0, &job.settings, &job.stops);
        let (forks, call) = (job.settings.returns - 1, Call::new(job, sink, self.generator.watcher()));
        match first {
            Ok(active) => {
                self.waiting.push_back(Line::new(id, 0, active, forks));
                self.calls.insert(id, call);
            }
            Err(error) => {
                self.totals.failed += 1;
                call.finish(Err(error));
            }
        }
    }

    /// Ends a request, which is told what has come of it, and frees its blocks. Returns whether there was one: it may have
    /// ended already.
    ///
    /// # Errors
    /// A failure of the cache.
    pub fn cancel(&mut self, id: RequestId) -> Result<bool> {
        let Some(call) = self.calls.get(&id) else { return Ok(false) };
        call.job.cancel.store(true, Ordering::Relaxed);
        self.end(id, FinishReason::Cancelled)?;
        Ok(true)
    }

    /// Goes on with everything a little. Returns whether anything is left to do.
    ///
    /// A request that fails (logits that no choice can be made from, say) is told so, and the others go on.
    ///
    /// # Errors
    /// A failure of the cache, after which nothing should be asked of the engine any more.
    pub fn step(&mut self) -> Result<bool> {
        if self.calls.is_empty() {
            return Ok(false);
        }
        let start = Instant::now();
        self.sweep()?;
        self.admit()?;
        let written = self.write()?;
        self.read(self.config.max_num_batched_tokens.saturating_sub(written))?;
        self.totals.steps += 1;
        self.totals.busy += start.elapsed();
        Ok(!self.calls.is_empty())
    }

    /// Steps until everything is answered.
    ///
    /// # Errors
    /// As [`Engine::step`].
    pub fn run(&mut self) -> Result<()> {
        while self.step()? {}
        Ok(())
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.calls.is_empty()
    }

    /// Blocks that requests have; those that are only kept for others to begin with are not among them.
    pub fn blocks_in_use(&self) -> usize {
        self.stats().blocks.used
    }

    /// Bytes of keys and values that sequences hold; what several share counts once.
    pub fn cache_bytes(&self) -> usize {
        self.batch.bytes()
    }

    /// Forgets what is kept for requests that begin alike.
    pub fn clear_prefixes(&mut self) {
        self.prefixes.clear(&mut self.blocks);
    }

    /// What it is doing and has done.
    pub fn stats(&self) -> Stats {
        let mut ids: Vec<_> = self.lines.iter().flat_map(|line| &line.blocks).copied().collect();
        ids.sort_unstable();
        let (mut used, mut shared) = (0, 0);
        for same in ids.chunk_by(|a, b| a == b) {
            used += 1;
            shared += usize::from(same.len() > 1);
        }
        let (total, free) = (self.blocks.total(), self.blocks.free());
        Stats {
            waiting: self.waiting.iter().map(|line| 1 + line.forks).sum(),
            running: self.lines.iter().map(|line| 1 + line.forks).sum(),
            blocks: BlockStats { total, used, shared, free, kept: total - free - used },
            ..self.totals
        }
    }

    /// Ends what was cancelled, or has no time left.
    fn sweep(&mut self) -> Result<()> {
        let cancelled = |(id, call): (&RequestId, &Call)| call.is_cancelled().then_some(*id);
        for id in self.calls.iter().filter_map(cancelled).collect::<Vec<_>>() {
            self.end(id, FinishReason::Cancelled)?;
        }
        // Of a prompt that is being read at least the first id comes, however long that takes.
        let late: Vec<RequestId> = self.calls.iter().filter(|(_, call)| call.is_late()).map(|(id, _)| *id).collect();
        for id in late {
            let lines = self.take(|line| line.request == id && !line.is_fresh())?;
            self.close_all(lines, Some(FinishReason::Time))?;
        }
        Ok(())
    }

    /// Ends a request.
    fn end(&mut self, id: RequestId, reason: FinishReason) -> Result<()> {
        let lines = self.take(|line| line.request == id)?;
        self.close_all(lines, Some(reason))
    }

    /// Takes lines out of the rows and the queue.
    fn take(&mut self, gone: impl Fn(&Line) -> bool) -> Result<Vec<Line<'a>>> {
        let mut taken: Vec<Line> = vec![];
        let waiting = std::mem::take(&mut self.waiting);
        for line in waiting {
            if gone(&line) { taken.push(line) } else { self.waiting.push_back(line) }
        }
        let gone: Vec<bool> = self.lines.iter().map(gone).collect();
        taken.extend(self.leave(&gone)?);
        taken.sort_by_key(Line::rank);
        Ok(taken)
    }

    /// Takes lines out of the rows.
    fn leave(&mut self, gone: &[bool]) -> Result<Vec<Line<'a>>> {
        if !gone.contains(&true) {
            return Ok(vec![]);
        }
        let stay: Vec<usize> = (0..gone.len()).filter(|&row| !gone[row]).collect();
        self.batch.arrange(&stay)?;
        self.writing = stay.iter().filter(|&&row| row < self.writing).count();
        let (mut left, lines) = (vec![], std::mem::take(&mut self.lines));
        for (line, &gone) in lines.into_iter().zip(gone) {
            if gone { left.push(line) } else { self.lines.push(line) }
        }
        Ok(left)
    }

    /// Closes lines, those that have not ended with this reason, and those that would have begun with them.
    fn close_all(&mut self, lines: Vec<Line<'a>>, reason: Option<FinishReason>) -> Result<()> {
        for mut line in lines {
            line.release(&mut self.blocks);
            let (request, forks) = (line.request, std::mem::take(&mut line.forks));
            self.close(line, reason)?;
            for number in 1..=forks {
                let Some(call) = self.calls.get(&request) else { break };
                match self.generator.sequence(&call.job.prompt, number, &call.job.settings, &call.job.stops) {
                    Ok(active) => self.close(Line::new(request, number, active, 0), reason)?,
                    Err(error) => self.fail(request, error)?,
                }
            }
        }
        Ok(())
    }

    /// Takes the result of a line whose blocks are free, and tells its request's if it was the last.
    fn close(&mut self, mut line: Line<'a>, reason: Option<FinishReason>) -> Result<()> {
        let id = line.request;
        let Some(call) = self.calls.get_mut(&id) else { return Ok(()) };
        if let (None, Some(reason)) = (line.active.finish, reason)
            && let Err(error) = call.end(&mut line.active, reason)
        {
            return self.fail(id, error);
        }
        if call.take(line.number, line.active)
            && let Some(call) = self.calls.remove(&id)
        {
            let counted = if call.is_cancelled() { &mut self.totals.cancelled } else { &mut self.totals.finished };
            *counted += 1;
            call.finish(Ok(()));
        }
        Ok(())
    }

    /// Ends all requests with an error, after which nothing is held.
    fn abandon(&mut self, error: &Error) {
        self.lines.drain(..).chain(self.waiting.drain(..)).for_each(|mut line| line.release(&mut self.blocks));
        self.clear_prefixes();
        self.writing = 0;
        self.batch = Batch::new(self.generator.model(), 0, self.config.cache());
        for call in std::mem::take(&mut self.calls).into_values() {
            self.totals.failed += 1;
            call.finish(Err(Error::Engine(error.to_string())));
        }
    }

    /// Ends a request with an error.
    fn fail(&mut self, id: RequestId, error: Error) -> Result<()> {
        for mut line in self.take(|line| line.request == id)? {
            line.release(&mut self.blocks);
        }
        if let Some(call) = self.calls.remove(&id) {
            self.totals.failed += 1;
            call.finish(Err(error));
        }
        Ok(())
    }
}

impl std::fmt::Debug for Engine<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("config", &self.config).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

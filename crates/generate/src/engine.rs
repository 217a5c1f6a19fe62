//! The engine: prompts are read row by row, then all sequences grow together, a token each at a time.

mod batch;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use phyla_data::tokenizer::Tokenizer;
use phyla_kernels::rng::Rng;
use phyla_models::Model;
use phyla_nn::Cache;
use phyla_ops::cpu;

use crate::processor::{History, Processor, chain};
use crate::sequence::Active;
use crate::{Error, Event, FinishReason, GenerationConfig, Result, Sequence, Session, Settings, StopStrings, sampler};
use batch::Batch;

/// Generates with a model; cheap to make.
#[derive(Clone, Copy, Debug)]
pub struct Generator<'a> {
    model: &'a Model,
    tokenizer: Option<&'a Tokenizer>,
    cancel: Option<&'a AtomicBool>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Generation {
    /// `num_return_sequences` for each prompt, in order.
    pub sequences: Vec<Sequence>,
    /// How long it took.
    pub timings: Timings,
}

/// How long it took. Loading the model is not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From the call to the first id.
    pub first_token: Duration,
    /// Reading all prompts, and their first ids.
    pub prefill: Duration,
    /// Everything after that.
    pub decode: Duration,
    /// Prompt ids that were read; a [`Session`] spares those it knows.
    pub read: usize,
    /// Passes after the prompts: ids of the longest sequence, less its first.
    pub steps: usize,
    /// Ids that came of these passes, over all sequences.
    pub tokens: usize,
}

impl Timings {
    /// Time between two ids of a sequence: zero if none had two.
    pub fn per_token(&self) -> Duration {
        self.decode.checked_div(self.steps.try_into().unwrap_or(u32::MAX)).unwrap_or_default()
    }
}

impl<'a> Generator<'a> {
    /// Without a tokenizer there are ids but no text, and no stop strings.
    pub fn new(model: &'a Model, tokenizer: Option<&'a Tokenizer>) -> Self {
        Self { model, tokenizer, cancel: None }
    }

    /// Ends every sequence once `cancel` is true, which is looked at before each token.
    pub fn cancelled_by(self, cancel: &'a AtomicBool) -> Self {
        Self { cancel: Some(cancel), ..self }
    }

    /// Continues each of `prompts`, calling `on_event` for every token.
    ///
    /// Draws depend on the seed, the prompt's ids, the number among its `num_return_sequences`, and the step: a prompt
    /// gets the same answers alone and in any company, so equal prompts in one call get equal answers.
    ///
    /// # Errors
    /// A setting out of range; a prompt that is empty (without a beginning-of-sequence id), too long, or with ids
    /// outside the vocabulary; a failure of the model or the tokenizer. All prompts are checked before anything runs.
    pub fn generate(
        &self,
        prompts: &[Vec<u32>],
        config: &GenerationConfig,
        seed: u64,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Generation> {
        let mut settings = Settings::try_from(config)?;
        let stops = self.stop_strings(&mut settings)?;
        let sequences = self.sequences(prompts, &settings, &stops, seed)?;
        let batch = Batch::new(self.model, prompts.len());
        let run = self.start(&settings, sequences, batch, on_event);
        phyla_ops::no_grad(|| run.finish(0)).map(|(generation, _)| generation)
    }

    /// Continues one prompt that begins, perhaps, as the session's last one and its answer did: only what differs is
    /// read. For chat.
    ///
    /// The logits equal those of [`Generator::generate`] but for rounding, since the prompt is read in other pieces.
    /// After an error the session is empty; after cancelling it holds what was read.
    ///
    /// # Errors
    /// As [`Generator::generate`]; and if more than one sequence is asked for.
    pub fn generate_in(
        &self,
        session: &mut Session,
        prompt: &[u32],
        config: &GenerationConfig,
        seed: u64,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Generation> {
        let mut settings = Settings::try_from(config)?;
        if settings.returns != 1 {
            return Err(Error::Settings(format!(
                "num_return_sequences: a session continues with 1 sequence, found {}",
                settings.returns
            )));
        }
        let stops = self.stop_strings(&mut settings)?;
        let sequences = self.sequences(&[prompt.to_vec()], &settings, &stops, seed)?;
        let ids = sequences[0].history.prompt();
        let (batch, known) = Batch::resume(self.model, std::mem::take(session), ids);
        let run = self.start(&settings, sequences, batch, on_event);
        let (generation, cache) = phyla_ops::no_grad(|| run.finish(known))?;
        // The sequence's ids as far as the cache goes: its last is not read, and reading may have been cancelled.
        let read = cache.lengths().first().copied().unwrap_or(0);
        let prompt = if prompt.is_empty() { settings.bos.as_slice() } else { prompt };
        session.ids = prompt.iter().chain(&generation.sequences[0].ids).copied().take(read).collect();
        session.cache = cache;
        Ok(generation)
    }

    fn start<'r, 'e>(
        &'r self,
        settings: &'r Settings,
        sequences: Vec<Active<'r>>,
        batch: Batch<'r>,
        on_event: &'e mut dyn FnMut(Event),
    ) -> Run<'r, 'e> {
        let timings = Timings::default();
        Run { generator: self, settings, chain: chain(settings), sequences, batch, timings, row: vec![], on_event }
    }

    /// Stop strings; those that are one special token of the vocabulary become ids, since special tokens have no text.
    fn stop_strings(&self, settings: &mut Settings) -> Result<StopStrings> {
        let stops = std::mem::take(&mut settings.stop_strings);
        let Some(tokenizer) = self.tokenizer else {
            return match stops.first() {
                Some(stop) => {
                    Err(Error::Settings(format!("the stop string {stop:?} needs a tokenizer, and there is none")))
                }
                None => Ok(StopStrings::default()),
            };
        };
        let special = |stop: &String| tokenizer.token_to_id(stop).filter(|&id| tokenizer.is_special(id));
        settings.eos.extend(stops.iter().filter_map(special));
        Ok(StopStrings::new(stops))
    }

    fn sequences<'s>(
        &'s self,
        prompts: &[Vec<u32>],
        settings: &Settings,
        stops: &'s StopStrings,
        seed: u64,
    ) -> Result<Vec<Active<'s>>> {
        let seed = Rng::new(seed).split("generate");
        let mut sequences = Vec::with_capacity(prompts.len() * settings.returns);
        for (prompt, ids) in prompts.iter().enumerate() {
            let ids = self.prompt(prompt, ids, settings)?;
            let limit = settings.limit(ids.len(), &self.model.arch)?;
            let stream = seed.split(fingerprint(&ids));
            for number in 0..settings.returns {
                let (index, rng) = (sequences.len(), stream.split(number as u64));
                let text = self.tokenizer.map(|tokenizer| (tokenizer, stops));
                sequences.push(Active::new((index, prompt), History::new(&ids), rng, limit, text)?);
            }
        }
        Ok(sequences)
    }

    fn prompt(&self, number: usize, ids: &[u32], settings: &Settings) -> Result<Vec<u32>> {
        let vocab = self.model.arch.vocab();
        let ids = match (ids, settings.bos) {
            ([], Some(bos)) => vec![bos],
            ([], None) => {
                return Err(Error::Prompt(format!(
                    "prompt {number} is empty, and the model names no bos_token_id to start from"
                )));
            }
            (ids, _) => ids.to_vec(),
        };
        match ids.iter().find(|&&id| id as usize >= vocab) {
            Some(id) => Err(Error::Prompt(format!(
                "prompt {number}: token id {id} is outside the vocabulary of {vocab}; is this the model's tokenizer?"
            ))),
            None => Ok(ids),
        }
    }
}

impl Generator<'_> {
    fn cancelled(&self) -> bool {
        self.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed))
    }
}

/// A number for a prompt's content (FNV-1a), which names its stream of draws.
fn fingerprint(ids: &[u32]) -> u64 {
    ids.iter().fold(0xCBF2_9CE4_8422_2325, |hash, &id| (hash ^ u64::from(id)).wrapping_mul(0x0100_0000_01B3))
}

/// One call.
struct Run<'a, 'e> {
    generator: &'a Generator<'a>,
    settings: &'a Settings,
    chain: Vec<Box<dyn Processor>>,
    sequences: Vec<Active<'a>>,
    batch: Batch<'a>,
    timings: Timings,
    /// Logits that the processors change.
    row: Vec<f32>,
    on_event: &'e mut dyn FnMut(Event),
}

impl Run<'_, '_> {
    /// Runs to the end; the first `known` ids of the prompt are in the cache already.
    fn finish(mut self, known: usize) -> Result<(Generation, Cache)> {
        let start = Instant::now();
        self.read_prompts(start, known)?;
        self.batch.repeat(self.settings.returns)?;
        self.timings.prefill = start.elapsed();
        while self.sequences.iter().any(|s| s.finish.is_none()) {
            if self.cancelled() {
                self.cancel()?;
                break;
            }
            self.step()?;
        }
        self.timings.decode = start.elapsed() - self.timings.prefill;
        let sequences = self.sequences.into_iter().map(Active::into_sequence).collect();
        Ok((Generation { sequences, timings: self.timings }, self.batch.into_cache()))
    }

    /// Reads each prompt and picks the first ids of its sequences.
    fn read_prompts(&mut self, start: Instant, known: usize) -> Result<()> {
        let returns = self.settings.returns;
        for prompt in 0..self.batch.rows() {
            let first = prompt * returns;
            let ids = self.sequences[first].history.prompt()[known..].to_vec();
            let generator = self.generator;
            let Some(logits) = self.batch.prefill(prompt, &ids, || generator.cancelled())? else { break };
            self.timings.read += ids.len();
            for sequence in first..first + returns {
                self.extend(sequence, &cpu::view(&logits)?)?;
                if sequence == 0 {
                    self.timings.first_token = start.elapsed();
                }
            }
        }
        Ok(())
    }

    /// One token more for every sequence that has not ended.
    fn step(&mut self) -> Result<()> {
        let vocab = self.batch.vocab();
        self.batch.retain(|sequence| self.sequences[sequence].finish.is_none())?;
        for group in self.batch.groups() {
            let last = |sequence: usize| self.sequences[sequence].history.last().unwrap_or(0);
            let (sequences, logits) = self.batch.step(group, last)?;
            let logits = cpu::view::<f32>(&logits)?;
            for (sequence, logits) in sequences.into_iter().zip(logits.chunks_exact(vocab)) {
                if self.sequences[sequence].finish.is_none() {
                    self.extend(sequence, logits)?;
                    self.timings.tokens += 1;
                }
            }
        }
        self.timings.steps += 1;
        Ok(())
    }

    /// Picks the next id of a sequence from its logits.
    fn extend(&mut self, sequence: usize, logits: &[f32]) -> Result<()> {
        let active = &mut self.sequences[sequence];
        let row = if self.chain.is_empty() {
            logits
        } else {
            self.row.clear();
            self.row.extend_from_slice(logits);
            for processor in &self.chain {
                processor.apply(&mut self.row, &active.history);
            }
            &self.row
        };
        let id = match self.settings.sampling {
            None => sampler::greedy(row)?,
            Some(_) => sampler::draw(row, &active.rng, active.history.new_ids().len() as u64)?,
        };
        active.accept(id, self.settings, self.on_event)
    }

    fn cancelled(&self) -> bool {
        self.generator.cancelled()
    }

    fn cancel(&mut self) -> Result<()> {
        for active in self.sequences.iter_mut().filter(|s| s.finish.is_none()) {
            active.end(FinishReason::Cancelled, self.on_event)?;
        }
        Ok(())
    }
}

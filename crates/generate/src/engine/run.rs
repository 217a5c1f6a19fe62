//! Sequences that grow side by side, a token each at a time: prompts are read row by row, then all go on together.

use std::time::Instant;

use phyla_kernels::rng::Rng;
use phyla_nn::Cache;
use phyla_ops::cpu;

use super::batch::Batch;
use super::draft::Speculation;
use super::{Generator, Part, Timings};
use crate::processor::{History, Processor, chain};
use crate::sequence::Active;
use crate::watch::{Moment, Stage, Watcher, Why};
use crate::{Event, FinishReason, Result, Settings, sampler};

/// Some prompts of a call.
pub(super) struct Run<'a, 'e> {
    generator: &'a Generator<'a>,
    settings: &'a Settings,
    chain: Vec<Box<dyn Processor>>,
    sequences: Vec<Active<'a>>,
    batch: Batch<'a>,
    timings: Timings,
    /// Guesses at what follows, where one sequence runs alone.
    speculation: Option<Speculation<'a>>,
    /// Logits that the processors change.
    row: Vec<f32>,
    on_event: &'e mut dyn FnMut(Event),
}

impl<'a, 'e> Run<'a, 'e> {
    /// One row of `batch` is each prompt's, with `settings.returns` of the sequences.
    pub fn new(
        generator: &'a Generator<'a>,
        settings: &'a Settings,
        sequences: Vec<Active<'a>>,
        batch: Batch<'a>,
        on_event: &'e mut dyn FnMut(Event),
    ) -> Self {
        let (chain, timings) = (chain(settings), Timings::default());
        let speculation = Speculation::new(settings, generator).filter(|_| sequences.len() == 1);
        Self { generator, settings, chain, sequences, batch, timings, speculation, row: vec![], on_event }
    }

    /// Runs to the end; the first `known` ids of the prompt are in the cache already.
    pub fn finish(mut self, start: Instant, known: usize) -> Result<(Part, Cache)> {
        match self.generator.model.arch.source() {
            Some(_) if self.sequences.iter().all(|s| s.history.prompt().len() == 1) => self.begin_decoders(start)?,
            _ => self.read_prompts(start, known)?,
        }
        self.batch.repeat(self.settings.returns, false)?;
        self.timings.prefill = start.elapsed();
        while self.sequences.iter().any(|s| s.finish.is_none()) {
            if self.cancelled() {
                self.end(FinishReason::Cancelled)?;
                break;
            }
            if self.settings.max_time.is_some_and(|time| start.elapsed() >= time) {
                self.end(FinishReason::Time)?;
                break;
            }
            self.step()?;
        }
        self.timings.decode = start.elapsed() - self.timings.prefill;
        if self.generator.prefixes.is_some_and(|prefixes| prefixes.answers()) {
            for (row, &sequence) in self.batch.sequences().iter().enumerate() {
                self.batch.remember(row, self.sequences[sequence].history.ids());
            }
        }
        if let Some(speculation) = &self.speculation {
            (self.timings.drafted, self.timings.accepted) = (speculation.drafted, speculation.accepted);
            self.sequences.iter().for_each(|active| speculation.remember(&active.history));
        }
        let sequences = self.sequences.into_iter().map(|active| (active.index, active.into_sequence())).collect();
        Ok((Part { sequences, timings: self.timings }, self.batch.into_cache()))
    }

    /// The first ids behind an encoder: of one start they can all be asked for together.
    fn begin_decoders(&mut self, start: Instant) -> Result<()> {
        if self.cancelled() {
            return Ok(());
        }
        let (vocab, returns) = (self.batch.vocab(), self.settings.returns);
        for group in self.batch.groups() {
            let first = |prompt: usize| self.sequences[prompt * returns].history.last().unwrap_or(0);
            let (prompts, logits) = self.batch.step(group, first)?;
            let logits = cpu::view::<f32>(&logits)?;
            for (row, (prompt, logits)) in prompts.into_iter().zip(logits.chunks_exact(vocab)).enumerate() {
                for sequence in prompt * returns..(prompt + 1) * returns {
                    self.batch.tell_layers(self.sequences[sequence].at(), row, None);
                    self.extend(sequence, logits)?;
                }
                if prompt == 0 {
                    self.timings.first_token = start.elapsed();
                }
            }
        }
        Ok(())
    }

    /// Reads each prompt and picks the first ids of its sequences.
    fn read_prompts(&mut self, start: Instant, known: usize) -> Result<()> {
        let returns = self.settings.returns;
        for prompt in 0..self.batch.rows() {
            let first = prompt * returns;
            let ids = self.sequences[first].history.prompt()[known..].to_vec();
            let generator = self.generator;
            let Some(logits) = self.batch.prefill(prompt, &ids, || generator.cancelled())? else { break };
            self.timings.read = self.batch.read;
            for sequence in first..first + returns {
                self.batch.tell_layers(self.sequences[sequence].at(), 0, None);
                self.extend(sequence, &cpu::view(&logits)?)?;
                if sequence == 0 {
                    self.timings.first_token = start.elapsed();
                }
            }
        }
        Ok(())
    }

    /// One token more for every sequence that has not ended; of one that runs alone perhaps several.
    fn step(&mut self) -> Result<()> {
        if let Some(speculation) = self.speculation.take() {
            return self.leap(speculation);
        }
        let vocab = self.batch.vocab();
        self.batch.retain(|sequence| self.sequences[sequence].finish.is_none())?;
        for group in self.batch.groups() {
            let last = |sequence: usize| self.sequences[sequence].history.last().unwrap_or(0);
            let (sequences, logits) = self.batch.step(group, last)?;
            let logits = cpu::view::<f32>(&logits)?;
            for (row, (sequence, logits)) in sequences.into_iter().zip(logits.chunks_exact(vocab)).enumerate() {
                if self.sequences[sequence].finish.is_none() {
                    self.batch.tell_layers(self.sequences[sequence].at(), row, None);
                    self.extend(sequence, logits)?;
                    self.timings.tokens += 1;
                }
            }
        }
        self.timings.steps += 1;
        Ok(())
    }

    /// The next token of the only sequence, and those behind it that were guessed right.
    fn leap(&mut self, mut speculation: Speculation<'a>) -> Result<()> {
        let (vocab, active) = (self.batch.vocab(), &self.sequences[0]);
        let room = active.limit.saturating_sub(active.history.new_ids().len() + 1);
        let guessed = speculation.guess(active, self.settings, &self.chain, room)?;
        let (last, held) = (active.history.last().unwrap_or(0), self.batch.length());
        let ids: Vec<u32> = std::iter::once(last).chain(guessed.iter().copied()).collect();
        // Each with the bits that it would have had alone.
        let logits = phyla_ops::in_any_company(|| self.batch.several(&ids))?;
        let logits = cpu::view::<f32>(&logits)?;
        let (at, mut right) = (self.sequences[0].at(), 0);
        for (i, logits) in logits.chunks_exact(vocab).enumerate() {
            self.batch.tell_layers(self.sequences[0].at(), 0, Some(i));
            self.extend(0, logits)?;
            self.timings.tokens += 1;
            let active = &self.sequences[0];
            if active.finish.is_some() || guessed.get(i) != active.history.last().as_ref() {
                break;
            }
            right += 1;
        }
        // What was read and did not come is forgotten.
        self.batch.forget(held + 1 + right)?;
        self.generator.watch.tell(Moment::Guessed { at, ids: &guessed, right });
        speculation.learn(guessed.len(), right);
        self.speculation = Some(speculation);
        self.timings.steps += 1;
        Ok(())
    }

    /// Picks the next id of a sequence from its logits.
    fn extend(&mut self, sequence: usize, logits: &[f32]) -> Result<()> {
        let active = &mut self.sequences[sequence];
        let picker = Picker { settings: self.settings, chain: &self.chain, watch: self.generator.watch };
        picker.extend(active, logits, &mut self.row, self.on_event)
    }

    fn cancelled(&self) -> bool {
        self.generator.cancelled()
    }

    /// Ends what has not ended.
    fn end(&mut self, reason: FinishReason) -> Result<()> {
        for active in self.sequences.iter_mut().filter(|s| s.finish.is_none()) {
            active.end(reason, self.on_event)?;
        }
        Ok(())
    }
}

/// The next id of a sequence, from what the processors have left of its logits.
pub(super) fn pick(row: &[f32], settings: &Settings, rng: &Rng, history: &mut History) -> Result<(u32, Why<'static>)> {
    let Some(sampling) = &settings.sampling else { return Ok((sampler::greedy(row)?, Why::Likeliest)) };
    let step = history.new_ids().len() as u64;
    let id = sampler::draw(row, rng, step)?;
    if let Some(mirostat) = &sampling.mirostat {
        mirostat.learn(row, id, history);
    }
    Ok((id, Why::Drawn { uniform: sampler::uniform(rng, step) }))
}

/// How ids are picked.
pub(crate) struct Picker<'p> {
    pub settings: &'p Settings,
    pub chain: &'p [Box<dyn Processor>],
    pub watch: Watcher<'p>,
}

impl Picker<'_> {
    /// Picks the next id of a sequence from its logits; `row` is memory for what the processors make of them.
    pub fn extend(
        &self,
        active: &mut Active,
        logits: &[f32],
        row: &mut Vec<f32>,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<()> {
        let (at, watch) = (active.at(), self.watch);
        watch.scores(at, Stage::Logits, logits);
        let row = if self.chain.is_empty() {
            watch.scores(at, Stage::Choice, logits);
            logits
        } else {
            row.clear();
            row.extend_from_slice(logits);
            watch.process(at, self.chain, row, &active.history);
            row
        };
        let (id, why) = pick(row, self.settings, &active.rng, &mut active.history)?;
        watch.tell(Moment::Picked { at, id, why });
        active.accept(id, self.settings, on_event)
    }
}

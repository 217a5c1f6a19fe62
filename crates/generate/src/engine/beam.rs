//! Beam search: each prompt's likeliest continuations grow side by side, where `run` follows each sequence for itself.
//!
//! A prompt's beams have a block of neighbouring rows to themselves. A beam stays in its row as long as it has one
//! continuation; a row that is given up takes over from another's only the tokens in which the two differ, which are the
//! last few, since beams of a prompt soon have all but these in common.

mod beams;
mod best;
mod finished;
mod words;

use std::time::Instant;

use phyla_kernels::loss::log_softmax_rows;
use phyla_nn::Takeover;
use phyla_ops::{Data, cpu};

use super::batch::Batch;
use super::{Generator, Part, Prompt, Timings};
use crate::processor::{Processor, chain};
use crate::sequence::Active;
use crate::stop::Text;
use crate::watch::Stage;
use crate::{Error, Event, FinishReason, Result, Sequence, Settings, StopStrings, sampler};
use beams::Beams;
use words::Progress;

/// The search for some prompts.
pub(super) struct Search<'a, 'e> {
    generator: &'a Generator<'a>,
    settings: &'a Settings,
    stops: &'a StopStrings,
    chain: Vec<Box<dyn Processor>>,
    beams: Vec<Beams<'a>>,
    batch: Batch<'a>,
    moves: Vec<Takeover>,
    sequences: Vec<(usize, Sequence)>,
    timings: Timings,
    on_event: &'e mut dyn FnMut(Event),
}

impl<'a, 'e> Search<'a, 'e> {
    /// One row of `batch` is each prompt's.
    pub fn new(
        generator: &'a Generator<'a>,
        settings: &'a Settings,
        stops: &'a StopStrings,
        prompts: &[&'a Prompt],
        batch: Batch<'a>,
        on_event: &'e mut dyn FnMut(Event),
    ) -> Self {
        let beams = prompts.iter().map(|prompt| Beams::new(prompt, settings, generator.watch)).collect();
        let (chain, timings) = (chain(settings), Timings::default());
        let (moves, sequences) = (vec![], vec![]);
        Self { generator, settings, stops, chain, beams, batch, moves, sequences, timings, on_event }
    }

    /// Searches to the end.
    pub fn finish(mut self, start: Instant) -> Result<Part> {
        let whole = self.begin()?;
        self.timings.first_token = start.elapsed();
        if whole {
            // Every row holds the prompt then, whichever beam is to go on in it.
            self.batch.repeat(self.settings.beams, true)?;
            self.choose(false)?;
        }
        self.timings.prefill = start.elapsed();
        while self.beams.iter().any(|beams| !beams.done) {
            if !whole || self.generator.cancelled() {
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
        self.timings.copied = self.batch.copied();
        Ok(Part { sequences: self.sequences, timings: self.timings })
    }

    /// What may follow each prompt; false if cancelled on the way.
    fn begin(&mut self) -> Result<bool> {
        let generator = self.generator;
        let starts = self.beams.iter().all(|beams| beams.prompt.ids.len() == 1);
        if generator.model.arch.source().is_some() && starts {
            if generator.cancelled() {
                return Ok(false);
            }
            self.pass(1)?;
            return Ok(true);
        }
        for prompt in 0..self.beams.len() {
            let ids = &self.beams[prompt].prompt.ids;
            let Some(logits) = self.batch.prefill(prompt, ids, || generator.cancelled())? else { return Ok(false) };
            self.timings.read = self.batch.read;
            self.score(&[prompt], &logits, 1)?;
        }
        Ok(true)
    }

    /// One token more for every beam.
    fn step(&mut self) -> Result<()> {
        let beams = self.settings.beams;
        self.batch.retain(|row| !self.beams[row / beams].done)?;
        self.pass(beams)?;
        self.choose(true)?;
        self.timings.steps += 1;
        Ok(())
    }

    /// Asks the model what may follow in each row; a prompt has `each` of them.
    fn pass(&mut self, each: usize) -> Result<()> {
        for group in self.batch.groups() {
            let last = |row: usize| self.beams[row / each].last(row % each);
            let (rows, logits) = self.batch.step(group, last)?;
            self.score(&rows, &logits, each)?;
        }
        Ok(())
    }

    /// Adds what may follow in `rows` to the choice that their prompts have.
    fn score(&mut self, rows: &[usize], logits: &Data, each: usize) -> Result<()> {
        let vocab = self.batch.vocab();
        for (number, (logits, row)) in cpu::view::<f32>(logits)?.chunks_exact(vocab).zip(rows).enumerate() {
            let Some(at) = self.beams[row / each].at(row % each) else { continue };
            self.batch.tell_layers(at, number, None);
            self.generator.watch.scores(at, Stage::Logits, logits);
            if !self.settings.remove_invalid {
                sampler::checked_largest(logits)?;
            }
        }
        let (beams, chain) = (&mut self.beams, &self.chain);
        cpu::mutate(logits, |logits: &mut [f32]| {
            log_softmax_rows(logits, vocab);
            for (scores, row) in logits.chunks_exact_mut(vocab).zip(rows) {
                beams[row / each].offer(row % each, scores, chain);
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Goes on with the best of what may follow; rows take over what they go on from unless all hold the same.
    fn choose(&mut self, moving: bool) -> Result<()> {
        let each = self.settings.beams;
        let blocks: Vec<usize> = self.batch.sequences().iter().step_by(each).map(|row| row / each).collect();
        self.moves.clear();
        for (block, prompt) in blocks.into_iter().enumerate() {
            if self.beams[prompt].done {
                continue;
            }
            let stopped = Stopped { search: self.generator, stops: self.stops };
            self.beams[prompt].choose(block * each, &self.chain, &stopped, &mut self.moves)?;
            if self.beams[prompt].done {
                self.give(prompt)?;
            }
        }
        if moving {
            self.batch.take_over(&self.moves)?;
        }
        Ok(())
    }

    /// A prompt's best sequences, as events and for the result.
    fn give(&mut self, prompt: usize) -> Result<()> {
        let (returns, beams) = (self.settings.returns, &self.beams[prompt]);
        let found = beams.finished.best.len();
        if found < returns {
            return Err(Error::Settings(format!(
                "num_return_sequences: the settings leave prompt {} only {found} sequences, and {returns} are asked for",
                beams.prompt.index
            )));
        }
        for number in 0..returns {
            self.give_one(prompt, number, FinishReason::Cancelled)?;
        }
        Ok(())
    }

    /// One of them; one that has no end of its own ends for `reason`.
    fn give_one(&mut self, prompt: usize, number: usize, reason: FinishReason) -> Result<()> {
        let beams = &self.beams[prompt];
        let mut active = self.generator.sequence(beams.prompt, number, self.settings, self.stops)?;
        let found = beams.finished.best.get(number);
        for &id in found.map_or(&[][..], |found| &found.ids) {
            active.accept(id, self.settings, self.on_event)?;
            self.timings.tokens += usize::from(active.history.new_ids().len() > 1);
        }
        if active.finish.is_none() {
            active.end(reason, self.on_event)?;
        }
        let (index, score) = (active.index, found.map(|found| found.score as f32));
        let beam_indices = Some(found.map_or(vec![], |found| found.origins.clone()));
        let forces = !self.settings.forced_words.is_empty();
        let forced_words_met = forces.then(|| found.is_some_and(|found| found.met));
        self.sequences
            .push((index, Sequence { score, beam_indices, forced_words_met, ..Active::into_sequence(active) }));
        Ok(())
    }

    /// Ends with what there is: finished sequences, then running ones.
    fn end(&mut self, reason: FinishReason) -> Result<()> {
        for prompt in 0..self.beams.len() {
            if !self.beams[prompt].done {
                self.beams[prompt].stop();
                for number in 0..self.settings.returns {
                    self.give_one(prompt, number, reason)?;
                }
            }
        }
        Ok(())
    }
}

/// Finds stop strings.
struct Stopped<'a> {
    search: &'a Generator<'a>,
    stops: &'a StopStrings,
}

impl Stopped<'_> {
    /// Whether the text of `ids`, and then `id`, behind `prompt` has come to a stop string.
    fn by(&self, prompt: &[u32], ids: &[u32], id: u32) -> Result<bool> {
        let Some(tokenizer) = self.search.tokenizer.filter(|_| !self.stops.is_empty()) else { return Ok(false) };
        // From its beginning each time: a beam changes hands too often for its text to be kept beside it.
        let mut text = Text::after(prompt, tokenizer, self.stops)?;
        for &id in ids.iter().chain([&id]) {
            text.push(id)?;
        }
        Ok(text.stopped())
    }
}

/// Whether a model can write the words that are forced, behind each of these prompts.
///
/// # Errors
/// When they have ids that it does not know, or more than may be written.
pub(super) fn check(settings: &Settings, prompts: &[Prompt], vocab: usize) -> Result<()> {
    let words = &settings.forced_words;
    if let Some(id) = words.iter().flat_map(|words| words.0.iter().flatten()).find(|id| **id as usize >= vocab) {
        return Err(Error::Settings(format!("force_words_ids: expected ids of the vocabulary of {vocab}, found {id}")));
    }
    for prompt in prompts {
        let missing = Progress::after(&prompt.ids, words).missing(words);
        if missing > prompt.limit {
            return Err(Error::Settings(format!(
                "force_words_ids: expected at most the {} ids that may follow prompt {}, found {missing}; raise \
                 max_new_tokens or force fewer",
                prompt.limit, prompt.index
            )));
        }
    }
    Ok(())
}

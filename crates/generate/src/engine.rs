//! The engine: checks a call, cuts it into parts that run together, and puts what comes of them in order.

pub(crate) mod batch;
mod beam;
mod contrast;
pub(crate) mod draft;
mod heal;
mod mix;
pub(crate) mod prompt;
pub(crate) mod run;
mod source;

pub(crate) use draft::MOST as MOST_GUESSES;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use phyla_data::tokenizer::Tokenizer;
use phyla_models::Model;

use crate::constraint::Guide;
use crate::outputs::Recorder;
use crate::sequence::Active;
use crate::watch::{Moment, Watch, Watcher};
use crate::{
    Error, Event, GenerationConfig, NamedAdapter, PrefixCache, Result, Sequence, Session, Settings, StopStrings,
};
pub use draft::Assistant;

use batch::Batch;
use beam::Search;
use prompt::Prompt;
use run::Run;

/// Generates with a model; cheap to make.
#[derive(Clone, Copy, Debug)]
pub struct Generator<'a> {
    model: &'a Model,
    tokenizer: Option<&'a Tokenizer>,
    cancel: Option<&'a AtomicBool>,
    assistant: Option<Assistant<'a>>,
    prefixes: Option<&'a PrefixCache>,
    amateur: Option<&'a Model>,
    negative: &'a [Vec<u32>],
    decoder: &'a [u32],
    adapters: &'a [NamedAdapter],
    watch: Watcher<'a>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Generation {
    /// `num_return_sequences` for each prompt, in order.
    pub sequences: Vec<Sequence>,
    /// The prompts as they were read: a beginning of sequence in place of nothing, healed ends.
    pub prompts: Vec<Vec<u32>>,
    /// How long it took.
    pub timings: Timings,
}

/// What came of some prompts: sequences with their numbers, in any order.
struct Part {
    sequences: Vec<(usize, Sequence)>,
    timings: Timings,
}

/// How long it took. Loading the model is not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From the call to the first id.
    pub first_token: Duration,
    /// Reading all prompts, and their first ids; with an encoder what it reads, too.
    pub prefill: Duration,
    /// Everything after that.
    pub decode: Duration,
    /// Prompt ids that were read; a [`Session`] spares those it knows.
    pub read: usize,
    /// Passes after the prompts: ids of the longest sequence, less its first. Where a call is cut into parts that run one
    /// after the other, the sum over them.
    pub steps: usize,
    /// Ids that came of these passes, over all sequences; of a search, over those that are returned.
    pub tokens: usize,
    /// Ids that were guessed, and those of them that were right, where there was speculation.
    pub drafted: usize,
    /// See `drafted`.
    pub accepted: usize,
    /// Bytes of the cache that a beam search copied because beams took over from one another; see [`phyla_nn::Cache::copied`].
    pub copied: usize,
    /// How often a constraint was asked which ids may follow, and how long that took in all: a part of the other times.
    pub masks: usize,
    /// See `masks`.
    pub masking: Duration,
}

impl Timings {
    /// Time between two ids of a sequence: zero if none had two.
    pub fn per_token(&self) -> Duration {
        self.decode.checked_div(self.steps.try_into().unwrap_or(u32::MAX)).unwrap_or_default()
    }

    /// Time in which a constraint says once which ids may follow: zero if none did.
    pub fn per_mask(&self) -> Duration {
        self.masking.checked_div(self.masks.try_into().unwrap_or(u32::MAX)).unwrap_or_default()
    }

    fn add(&mut self, part: Self) {
        // The first part begins first.
        if self.prefill.is_zero() {
            self.first_token = part.first_token;
        }
        self.prefill += part.prefill;
        self.decode += part.decode;
        self.read += part.read;
        self.steps += part.steps;
        self.tokens += part.tokens;
        self.drafted += part.drafted;
        self.accepted += part.accepted;
        self.copied += part.copied;
    }
}

impl<'a> Generator<'a> {
    /// Without a tokenizer there are ids but no text, and no stop strings.
    pub fn new(model: &'a Model, tokenizer: Option<&'a Tokenizer>) -> Self {
        Self {
            model,
            tokenizer,
            cancel: None,
            assistant: None,
            prefixes: None,
            amateur: None,
            negative: &[],
            decoder: &[],
            adapters: &[],
            watch: Watcher::default(),
        }
    }

    /// Ends every sequence once `cancel` is true, which is looked at before each token.
    pub fn cancelled_by(self, cancel: &'a AtomicBool) -> Self {
        Self { cancel: Some(cancel), ..self }
    }

    /// Lets another guess what follows, so that several ids are had in one pass of the model. What is generated stays the
    /// same; prompts are answered one after the other.
    pub fn assisted_by(self, assistant: impl Into<Assistant<'a>>) -> Self {
        Self { assistant: Some(assistant.into()), ..self }
    }

    /// Names adapters that hang in the model, all of them until then, for an [`Engine`](crate::Engine), whose requests may name
    /// their own.
    pub fn with_adapters(self, adapters: &'a [NamedAdapter]) -> Self {
        Self { adapters, ..self }
    }

    pub(crate) fn adapters(&self) -> &'a [NamedAdapter] {
        self.adapters
    }

    /// Without what it remembers, which is of the model under other adapters.
    pub(crate) fn forgetful(self) -> Self {
        Self { prefixes: None, ..self }
    }

    /// Reads of prompts only what `prefixes` does not know, and adds what it has read: for calls whose prompts begin alike. It
    /// is for one model, of decoders on the CPU, and of no use to contrastive search nor to models whose rotations depend on
    /// the length of the text.
    pub fn remembering(self, prefixes: &'a PrefixCache) -> Self {
        Self { prefixes: Some(prefixes), ..self }
    }

    /// Contrastive decoding: an id counts for as much as the model finds it likelier than this smaller model of the same tokenizer
    /// does (Li et al. 2023); the settings `contrastive_alpha`, `contrastive_beta` and `amateur_temperature` say how.
    pub fn against(self, amateur: &'a Model) -> Self {
        Self { amateur: Some(amateur), ..self }
    }

    /// What `guidance_scale` guides away from: a prompt in place of each of the call's, or one for all. Without one it is the last id
    /// of the prompt.
    pub fn guided_from(self, negative: &'a [Vec<u32>]) -> Self {
        Self { negative, ..self }
    }

    /// Ids that the decoder of an encoder-decoder reads before it writes, behind its start.
    pub fn decoding_from(self, ids: &'a [u32]) -> Self {
        Self { decoder: ids, ..self }
    }

    /// Tells `watch` what every step weighs, picks and keeps. What is generated stays the same.
    pub fn watched_by(self, watch: &'a Watch<'a>) -> Self {
        Self { watch: Watcher(Some(watch)), ..self }
    }

    /// Continues each of `prompts` or, with a model that has an encoder, answers them, calling `on_event` for every
    /// token.
    ///
    /// Draws depend on the seed, the prompt's ids, the number among its `num_return_sequences`, and the step: a prompt
    /// gets the same answers alone and in any company (over quantised weights where `deterministic` is set). Where
    /// `num_beams` is above 1 the likeliest sequences are searched for, and come with their scores, best first.
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
        let mut settings = self.settings(config)?;
        let stops = self.resolve(&mut settings)?;
        self.constrain(config, &mut settings)?;
        let prompts = self.prompts(prompts, &settings, seed)?;
        beam::check(&settings, &prompts, self.model.arch.vocab())?;
        let (mut sequences, mut timings) = (vec![], Timings::default());
        let done = self.recording(&settings, &prompts, |generator| {
            for part in generator.parts(&prompts, &settings) {
                let part = generator.part(&part, &settings, &stops, on_event)?;
                sequences.extend(part.sequences);
                timings.add(part.timings);
            }
            Ok(())
        });
        let ((), outputs) = done.map_err(|error| settings.explain(error))?;
        sequences.sort_unstable_by_key(|(index, _)| *index);
        let mut sequences: Vec<Sequence> = sequences.into_iter().map(|(_, sequence)| sequence).collect();
        outputs.give(&mut sequences)?;
        let prompts = prompts.into_iter().map(Prompt::into_read).collect();
        settings.guided(Ok(Generation { sequences, prompts, timings }))
    }

    /// Runs the model as the settings say, and records the outputs that they ask for.
    fn recording<R>(
        &self,
        settings: &Settings,
        prompts: &[Prompt],
        run: impl FnOnce(&Generator) -> Result<R>,
    ) -> Result<(R, Recorder)> {
        let read = |prompt: &Prompt| prompt.source.as_ref().map_or(0, |source| source.len());
        let recorder = Recorder::new(settings.outputs, prompts.iter().map(read).collect());
        let both = |moment: &Moment| {
            recorder.hear(moment);
            self.watch.tell(*moment);
        };
        let watch: &Watch = &both;
        let watch = if settings.outputs.any() { Watcher(Some(watch)) } else { self.watch };
        let result = settings.running(|| run(&Generator { watch, ..*self }))?;
        Ok((result, recorder))
    }

    fn part(
        &self,
        prompts: &[&Prompt],
        settings: &Settings,
        stops: &StopStrings,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Part> {
        let (start, mut read) = (Instant::now(), 0);
        let sources: Vec<&[u32]> = prompts.iter().filter_map(|prompt| prompt.source.as_deref()).collect();
        let positions = prompts.iter().map(|prompt| prompt.positions()).max().unwrap_or(0);
        let cache = settings.cache.spec(positions);
        let mut batch = if sources.is_empty() || self.cancelled() {
            Batch::new(self.model, prompts.len(), cache)
        } else {
            read = sources.iter().map(|source| source.len()).sum();
            let (memory, seen) = source::encode(self.model, &sources, settings.outputs)?;
            for (row, prompt) in prompts.iter().enumerate().filter(|_| seen.is_some()) {
                let layers = seen.as_ref().map(|seen| seen.of(row, None));
                layers.iter().for_each(|&layers| self.watch.tell(Moment::Encoded { prompt: prompt.index, layers }));
            }
            Batch::attending(self.model, memory, cache)
        };
        (batch.watch, batch.wanted, batch.prefixes) = (self.watch, settings.outputs, self.prefixes);
        let batch = batch.mixed(self.mix(prompts, settings));
        let mut part = if let (Some(contrast), [prompt]) = (settings.contrast, prompts) {
            let active = self.sequence(prompt, 0, settings, stops)?;
            contrast::search(self, settings, contrast, active, batch, on_event)?
        } else if settings.beams > 1 {
            Search::new(self, settings, stops, prompts, batch, on_event).finish(start)?
        } else {
            let sequences = self.sequences(prompts, settings, stops)?;
            Run::new(self, settings, sequences, batch, on_event).finish(start, 0)?.0
        };
        part.timings.read += read;
        Ok(part)
    }

    /// Continues one prompt that begins, perhaps, as the session's last one and its answer did: only what differs is
    /// read. For chat.
    ///
    /// The logits equal those of [`Generator::generate`] but for rounding, since the prompt is read in other pieces.
    /// After an error the session is empty; after cancelling it holds what was read.
    ///
    /// # Errors
    /// As [`Generator::generate`]; if more than one sequence or beam is asked for; and if the model has an encoder.
    pub fn generate_in(
        &self,
        session: &mut Session,
        prompt: &[u32],
        config: &GenerationConfig,
        seed: u64,
        on_event: &mut dyn FnMut(Event),
    ) -> Result<Generation> {
        let mut settings = self.settings(config)?;
        for (name, what, found) in
            [("num_return_sequences", "sequence", settings.returns), ("num_beams", "beam", settings.beams)]
        {
            if found != 1 {
                return Err(Error::Settings(format!("{name}: a session continues with 1 {what}, found {found}")));
            }
        }
        if self.model.arch.source().is_some() {
            return Err(Error::Settings(format!(
                "a session continues a text, and {} answers one anew each time: its encoder reads all of it",
                self.model.family.model_type
            )));
        }
        let stops = self.resolve(&mut settings)?;
        self.constrain(config, &mut settings)?;
        let prompts = self.prompts(&[prompt.to_vec()], &settings, seed)?;
        let cache = settings.cache.spec(prompts[0].positions());
        let done = self.recording(&settings, &prompts, |generator| {
            let sequences = generator.sequences(&prompts.iter().collect::<Vec<_>>(), &settings, &stops)?;
            let before = std::mem::take(session);
            let (batch, known) = match generator.amateur {
                // It remembers nothing, so both read all.
                Some(_) => (Batch::new(generator.model, 1, cache), 0),
                None => Batch::resume(generator.model, before, &prompts[0].ids, cache),
            };
            let mut batch = batch.mixed(generator.mix(&[&prompts[0]], &settings));
            (batch.watch, batch.wanted, batch.prefixes) = (generator.watch, settings.outputs, generator.prefixes);
            let run = Run::new(generator, &settings, sequences, batch, on_event);
            run.finish(Instant::now(), known)
        });
        let ((part, cache), outputs) = done.map_err(|error| settings.explain(error))?;
        let mut sequences: Vec<Sequence> = part.sequences.into_iter().map(|(_, sequence)| sequence).collect();
        outputs.give(&mut sequences)?;
        // The sequence's ids as far as the cache goes: its last is not read, and reading may have been cancelled.
        let read = cache.lengths().first().map_or(0, |held| held.saturating_sub(self.model.lead()));
        session.ids = prompts[0].ids.iter().chain(&sequences[0].ids).copied().take(read).collect();
        session.cache = cache;
        let prompts = prompts.into_iter().map(Prompt::into_read).collect();
        settings.guided(Ok(Generation { sequences, prompts, timings: part.timings }))
    }

    /// The settings of a call, with the assistant's in mind.
    pub(crate) fn settings(&self, config: &GenerationConfig) -> Result<Settings> {
        let mut settings = Settings::try_from(config)?;
        settings.speculates |= self.assistant.is_some();
        contrast::check(&settings)?;
        draft::check(self, &settings)?;
        settings.cache.settle(&self.model.arch, settings.speculates)?;
        if settings.cache.sink.is_some() && settings.outputs.layers() {
            return Err(Error::Settings(
                "output_hidden_states and output_attentions: a sink cache reads prompts in pieces, which have no such outputs of \
                 their own; use another"
                    .into(),
            ));
        }
        self.check_mix(&settings)?;
        Ok(settings)
    }

    /// Makes ids of the texts among the settings, as far as they can be; stop strings are left.
    pub(crate) fn resolve(&self, settings: &mut Settings) -> Result<StopStrings> {
        settings.dry = match (settings.dry.take(), self.tokenizer) {
            (Some(dry), Some(tokenizer)) => Some(dry.resolved(tokenizer)?),
            (Some(dry), None) => match dry.texts.iter().flatten().next() {
                Some(text) => {
                    return Err(Error::Settings(format!(
                        "dry_sequence_breakers: {text:?} needs a tokenizer, and there is none"
                    )));
                }
                None => Some(dry),
            },
            (None, _) => None,
        };
        self.stop_strings(settings)
    }

    /// What answers have to be, in terms of the tokenizer's tokens.
    fn constrain(&self, config: &GenerationConfig, settings: &mut Settings) -> Result<()> {
        let Some(constraint) = &config.constraint else { return Ok(()) };
        let Some(tokenizer) = self.tokenizer else {
            return Err(Error::Settings(format!("{} needs a tokenizer, and there is none", constraint.name())));
        };
        let compiled = constraint.compile(tokenizer, self.model.arch.vocab(), &settings.eos)?;
        settings.guide = Some(Guide::new(constraint.name(), compiled));
        Ok(())
    }

    /// Stop strings; those that are one special token of the vocabulary become ids, since special tokens have no text.
    pub(crate) fn stop_strings(&self, settings: &mut Settings) -> Result<StopStrings> {
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

    fn sequences(&self, prompts: &[&Prompt], settings: &Settings, stops: &StopStrings) -> Result<Vec<Active<'a>>> {
        let mut sequences = Vec::with_capacity(prompts.len() * settings.returns);
        for prompt in prompts {
            sequences.extend((0..settings.returns).map(|number| self.sequence(prompt, number, settings, stops)));
        }
        sequences.into_iter().collect()
    }

    /// Number `number` of a prompt's sequences.
    pub(crate) fn sequence(
        &self,
        prompt: &Prompt,
        number: usize,
        settings: &Settings,
        stops: &StopStrings,
    ) -> Result<Active<'a>> {
        let (index, rng) = (prompt.index * settings.returns + number, prompt.stream.split(number as u64));
        let text = self.tokenizer.map(|tokenizer| (tokenizer, stops));
        let history = prompt.history();
        let active = Active::new([index, prompt.index, number], history, rng, prompt.limit, text)?;
        Ok(active.gaining(&prompt.more))
    }

    /// The model that it runs.
    pub(crate) fn model(&self) -> &'a Model {
        self.model
    }

    /// Whom to tell of every step.
    pub(crate) fn watcher(&self) -> Watcher<'a> {
        self.watch
    }

    /// Whether answers come a token at a time, each from a pass over what has been written: without a search, guesses, an
    /// encoder or a look at layers.
    pub(crate) fn is_stepwise(&self, settings: &Settings) -> bool {
        let searches = settings.beams > 1 || settings.contrast.is_some();
        let mixes = settings.guidance.is_some() || settings.dola.is_some() || self.amateur.is_some();
        !searches
            && !mixes
            && !settings.heal
            && !settings.speculates
            && !settings.outputs.layers()
            && self.model.arch.source().is_none()
    }

    fn cancelled(&self) -> bool {
        self.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed))
    }
}

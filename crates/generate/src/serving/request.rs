//! What is asked of an engine, checked before it is taken, and what is told about it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use phyla_nn::Block;

use super::EngineConfig;
use super::adapters::{Worn, worn};
use crate::engine::prompt::Prompt;
use crate::{Error, Event, GenerationConfig, Generator, Result, Sequence, Settings, StopStrings};

/// A request's number. Earlier requests have lower ones.
pub type RequestId = u64;

/// What is asked: as a call of [`Generator::generate`] with one prompt.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The prompt's ids.
    pub prompt: Vec<u32>,
    /// How to answer.
    pub config: GenerationConfig,
    /// Of every draw.
    pub seed: u64,
    /// The adapters to answer with, by name; all that the engine has unless given, none if empty.
    pub adapters: Option<Vec<String>>,
}

/// What whoever made a request is told.
#[derive(Debug)]
pub enum Update<'e> {
    /// Something happened to one of its sequences, which count from 0 to `num_return_sequences`.
    Event(Event<'e>),
    /// It has ended; nothing is told afterwards.
    Done(Result<Answer>),
}

/// Is told what becomes of a request.
pub(super) type Sink<'a> = Box<dyn FnMut(Update) + 'a>;

/// What came of a request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// `num_return_sequences`, in order. Those of a cancelled request are as far as they came.
    pub sequences: Vec<Sequence>,
    /// How long it took.
    pub timings: RequestTimings,
}

/// How long a request took, and what it cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestTimings {
    /// From submission until it was first given blocks.
    pub queued: Duration,
    /// From submission until the first id.
    pub first_token: Duration,
    /// From submission to the end.
    pub total: Duration,
    /// Ids that were read: the prompt's, but for those that were `shared`; and after preemption all once more.
    pub read: usize,
    /// Ids that did not have to be read, since another request had read them.
    pub shared: usize,
    /// How often one of its sequences had to give its blocks back.
    pub preemptions: usize,
}

/// A request that can be answered.
pub(super) struct Job {
    pub adapters: Worn,
    pub settings: Settings,
    pub stops: StopStrings,
    pub prompt: Prompt,
    /// Most blocks that it has at once, if it is the only one.
    pub blocks: usize,
    /// The request, if a search or whatever else runs all by itself is to answer it.
    pub alone: Option<Request>,
    /// Set when nobody wants the answer any more.
    pub cancel: Arc<AtomicBool>,
    pub submitted: Instant,
}

impl Job {
    /// Checks a request.
    ///
    /// # Errors
    /// As [`Generator::generate`]; a request that the engine has too little room for.
    pub fn new(generator: &Generator, engine: &EngineConfig, total: usize, request: Request) -> Result<Self> {
        let submitted = Instant::now();
        let adapters = worn(generator.adapters(), request.adapters.as_deref())?;
        let mut settings = generator.settings(&request.config)?;
        let stops = generator.resolve(&mut settings)?;
        let prompts = generator.prompts(std::slice::from_ref(&request.prompt), &settings, request.seed)?;
        let Some(prompt) = prompts.into_iter().next() else { return Err(Error::Prompt("there is no prompt".into())) };
        // What a constraint says of an answer is said by the call that knows it whole.
        let free = request.config.constraint.is_none();
        let stepwise = free && generator.is_stepwise(&settings) && engine.keeps(&settings);
        if stepwise && settings.returns > engine.max_num_seqs {
            return Err(Error::Settings(format!(
                "num_return_sequences: {} sequences begin together, and the engine runs {} at a time (max_num_seqs)",
                settings.returns, engine.max_num_seqs
            )));
        }
        // The last token is never read.
        let positions = prompt.positions() - 1;
        let others = if stepwise { 0 } else { settings.beams.max(settings.returns) - 1 };
        let blocks = count(positions) + others * (count(prompt.limit) + 1);
        if blocks > total {
            return Err(Error::Prompt(format!(
                "{} tokens and {} new ones need {blocks} blocks of {} positions, and the engine has {total}; shorten the \
                 prompt, lower max_new_tokens, or give the engine more",
                prompt.ids.len(),
                prompt.limit,
                Block::POSITIONS
            )));
        }
        let alone = (!stepwise).then_some(request);
        Ok(Self { adapters, settings, stops, prompt, blocks, alone, cancel: Arc::default(), submitted })
    }
}

/// Blocks of so many positions.
pub(super) fn count(positions: usize) -> usize {
    positions.div_ceil(Block::POSITIONS)
}

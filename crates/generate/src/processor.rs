//! What happens to the logits of a step before an id is picked, in the order of transformers.

mod allowed;
mod at_least;
mod bad_words;
mod bias;
mod cutoff;
mod decay;
mod dry;
mod dynatemp;
mod forced;
mod invalid;
mod min_p;
mod mirostat;
mod ngram;
mod occurrence;
mod renormalize;
mod repetition;
mod source;
mod suppress;
mod temperature;
mod top_h;
mod top_k;
mod top_p;
mod typical;
mod watermark;
mod xtc;

pub use allowed::PrefixAllowed;
pub use at_least::AtLeast;
pub use bad_words::BadWords;
pub use bias::SequenceBias;
pub use cutoff::{Epsilon, Eta};
pub use decay::LengthDecay;
pub use dry::Dry;
pub use dynatemp::DynamicTemperature;
pub use forced::{ForcedBos, ForcedEos, ForcedIds};
pub use invalid::RemoveInvalid;
pub use min_p::MinP;
pub use mirostat::Mirostat;
pub use ngram::NoRepeatNgram;
pub use occurrence::OccurrencePenalty;
pub use renormalize::Renormalize;
pub use repetition::RepetitionPenalty;
pub use source::{NoSourceNgram, SourcePenalty};
pub(crate) use suppress::rule_out;
pub use suppress::{BeginSuppress, MinLength, Suppress};
pub use temperature::Temperature;
pub use top_h::TopH;
pub use top_k::TopK;
pub use top_p::TopP;
pub use typical::Typical;
pub use watermark::Watermark;
pub use xtc::Xtc;

use std::sync::Arc;

use phyla_kernels::rng::Rng;

use crate::{Settings, sampler};

/// Changes the logits of one sequence in place; minus infinity rules an id out.
pub trait Processor {
    /// The setting that asks for it, by its name in `generation_config.json`.
    fn name(&self) -> &'static str;

    /// `row` holds one logit for each id of the vocabulary.
    fn apply(&self, row: &mut [f32], history: &History);
}

/// The ids of a sequence so far.
#[derive(Clone, Debug)]
pub struct History {
    ids: Vec<u32>,
    prompt: usize,
    /// The prompt's number in its call.
    number: usize,
    limit: usize,
    /// What the encoder has read, if there is one.
    source: Option<Arc<[u32]>>,
    distinct: Vec<u32>,
    /// One bit for each id of the vocabulary.
    seen: Vec<u64>,
    /// What processors draw from; each splits off a stream of its own.
    rng: Rng,
    /// Bits that the next id may surprise by, of mirostat; none before the first.
    surprise: Option<f32>,
}

impl History {
    /// A sequence that begins with `prompt`.
    pub fn new(prompt: &[u32]) -> Self {
        let mut history = Self {
            ids: vec![],
            prompt: prompt.len(),
            number: 0,
            limit: usize::MAX,
            source: None,
            distinct: vec![],
            seen: vec![],
            rng: Rng::new(0),
            surprise: None,
        };
        for &id in prompt {
            history.push(id);
        }
        history
    }

    /// Says how many new ids there will be at most.
    pub fn limited(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// Says which prompt of its call it continues.
    pub fn numbered(self, number: usize) -> Self {
        Self { number, ..self }
    }

    /// Says what the encoder has read.
    pub fn answering(self, source: Option<Arc<[u32]>>) -> Self {
        Self { source, ..self }
    }

    /// Says what its processors draw from.
    pub fn drawing(self, rng: &Rng) -> Self {
        Self { rng: rng.clone(), ..self }
    }

    /// Becomes a copy of `other`, in the memory that it has.
    pub fn copy_from(&mut self, other: &Self) {
        let Self { ids, prompt, number, limit, source, distinct, seen, rng, surprise } = self;
        source.clone_from(&other.source);
        ids.clone_from(&other.ids);
        distinct.clone_from(&other.distinct);
        seen.clone_from(&other.seen);
        rng.clone_from(&other.rng);
        (*prompt, *number, *limit, *surprise) = (other.prompt, other.number, other.limit, other.surprise);
    }

    /// Adds a new id.
    pub fn push(&mut self, id: u32) {
        self.ids.push(id);
        let (word, bit) = (id as usize / 64, 1 << (id % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit == 0 {
            self.seen[word] |= bit;
            self.distinct.push(id);
        }
    }

    /// Prompt and answer.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The number of its prompt in the call.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Most new ids.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The prompt; of an encoder-decoder what its decoder starts from.
    pub fn prompt(&self) -> &[u32] {
        &self.ids[..self.prompt]
    }

    /// What the encoder has read or, without one, the prompt.
    pub fn source(&self) -> &[u32] {
        self.source.as_deref().unwrap_or(self.prompt())
    }

    /// What came after the prompt.
    pub fn new_ids(&self) -> &[u32] {
        &self.ids[self.prompt..]
    }

    /// Every id of prompt and answer, once, in order of appearance.
    pub fn distinct(&self) -> &[u32] {
        &self.distinct
    }

    /// A number from 0 to 1 for this step, drawn from the stream of this name: the same whenever it is asked for.
    pub(crate) fn chance(&self, stream: &str) -> f64 {
        sampler::uniform(&self.rng.split(stream), self.new_ids().len() as u64)
    }

    /// The newest id.
    pub fn last(&self) -> Option<u32> {
        self.ids.last().copied()
    }
}

/// The processors that `settings` ask for, in the order in which they run.
pub fn chain(settings: &Settings) -> Vec<Box<dyn Processor>> {
    let mut chain = Chain(vec![]);
    let s = settings;
    chain.push(!s.sequence_bias.is_empty(), || SequenceBias(s.sequence_bias.clone()));
    chain.push(s.encoder_repetition_penalty != 1., || SourcePenalty(s.encoder_repetition_penalty));
    chain.push(s.repetition_penalty != 1., || RepetitionPenalty(s.repetition_penalty));
    let (frequency, presence) = (s.frequency_penalty, s.presence_penalty);
    chain.push(frequency != 0. || presence != 0., || OccurrencePenalty { frequency, presence });
    if let Some(dry) = &s.dry {
        chain.push(true, || dry.clone());
    }
    chain.push(s.no_repeat_ngram > 0, || NoRepeatNgram(s.no_repeat_ngram));
    chain.push(s.encoder_no_repeat_ngram > 0, || NoSourceNgram(s.encoder_no_repeat_ngram));
    let ends = |run: &&Vec<u32>| matches!(run[..], [id] if s.eos.contains(&id));
    let bad_words: Vec<Vec<u32>> = s.bad_words.iter().filter(|run| !ends(run)).cloned().collect();
    chain.push(!bad_words.is_empty(), || BadWords(bad_words));
    let (all, new) = (s.min_length, s.min_new_tokens);
    chain.push(new > 0 || all > 0, || MinLength { all, new, eos: s.eos.clone() });
    if let Some(allowed) = &s.prefix_allowed {
        chain.push(true, || allowed.clone());
    }
    if let Some(id) = s.forced_bos {
        chain.push(true, || ForcedBos(id));
    }
    // A constraint says where a document may end, and sees to this itself.
    chain.push(!s.forced_eos.is_empty() && s.guide.is_none(), || ForcedEos(s.forced_eos.clone()));
    chain.push(s.remove_invalid, || RemoveInvalid);
    if let Some((start, factor)) = s.length_decay {
        chain.push(true, || LengthDecay { start, factor, eos: s.eos.clone() });
    }
    chain.push(!s.suppress.is_empty(), || Suppress(s.suppress.clone()));
    let (ids, forced) = (&s.begin_suppress, s.forced_bos.is_some());
    let later = s.forced_ids.last().map_or(0, |(position, _)| *position);
    chain.push(!ids.is_empty(), || BeginSuppress { ids: ids.clone(), forced, later });
    chain.push(!s.forced_ids.is_empty(), || ForcedIds(s.forced_ids.clone()));
    if let Some(guide) = &s.guide {
        chain.push(true, || guide.processor(s));
    }
    sampling(s, &mut chain);
    if let Some(watermark) = &s.watermark {
        chain.push(true, || Watermark::new(watermark.clone()));
    }
    // Without beams nothing depends on it: neither the likeliest id nor a draw.
    chain.push(s.renormalize && s.beams > 1, || Renormalize);
    chain.0
}

/// A chain in the making.
struct Chain(Vec<Box<dyn Processor>>);

impl Chain {
    /// Adds a processor if it is asked for.
    fn push<P: Processor + 'static>(&mut self, asked: bool, processor: impl FnOnce() -> P) {
        if asked {
            self.0.push(Box::new(processor()));
        }
    }

    /// The same for one that keeps the likeliest id anyway: here so many.
    fn keep<P: Processor + 'static>(&mut self, asked: bool, ids: usize, processor: impl FnOnce() -> P) {
        if ids > 1 {
            self.push(asked, || AtLeast { ids, inner: processor() });
        } else {
            self.push(asked, processor);
        }
    }
}

/// What shapes the distribution that is drawn from.
fn sampling(settings: &Settings, chain: &mut Chain) {
    let Some(s) = settings.sampling else { return };
    // A beam needs an id to go on with besides those that end it.
    let ids = if settings.beams > 1 { settings.eos.len().max(1) + 1 } else { 1 };
    match s.dynamic {
        Some((range, exponent)) => {
            chain.push(true, || DynamicTemperature { temperature: s.temperature, range, exponent });
        }
        None => chain.push(s.temperature != 1., || Temperature(s.temperature)),
    }
    if let Some(h) = s.top_h {
        chain.push(true, || TopH(h));
    }
    chain.push(s.top_k > 0, || TopK(s.top_k.max(ids)));
    chain.keep(s.top_p < 1., ids, || TopP(s.top_p));
    chain.keep(s.min_p > 0., ids, || MinP(s.min_p));
    chain.push(s.typical_p < 1., || Typical { mass: s.typical_p, ids });
    chain.keep(s.epsilon > 0., ids, || Epsilon(s.epsilon));
    chain.keep(s.eta > 0., ids, || Eta(s.eta));
    if let Some((probability, threshold)) = s.xtc {
        chain.keep(true, ids, || Xtc { probability, threshold });
    }
    if let Some(mirostat) = s.mirostat {
        chain.push(true, || mirostat);
    }
}

#[cfg(test)]
mod tests;

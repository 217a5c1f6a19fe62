//! Prompts as they are given: checked, with what decoders start from, their limits and streams of draws, and cut into
//! parts that run together.

use std::sync::Arc;

use phyla_kernels::rng::Rng;
use serde_json::Value;

use super::Generator;
use super::heal::Healed;
use crate::processor::History;
use crate::{Error, Result, Settings};

/// Rows that run together: where more would only wait for one another, since a pass takes a few at a time anyway.
const ROWS: usize = 256;

/// Tokens that an encoder reads at once, padding counted: enough to be bound by arithmetic, few enough to bound the
/// memory of the activations.
const TOKENS: usize = 8192;

/// A prompt that can be taken.
pub(crate) struct Prompt {
    /// Its number among those of the call.
    pub index: usize,
    /// What the encoder reads, if the model has one.
    pub source: Option<Arc<[u32]>>,
    /// What the decoder reads first: the prompt or, behind an encoder, its start.
    pub ids: Vec<u32>,
    /// What guidance goes away from, where there is guidance.
    pub negative: Vec<u32>,
    /// What its text has gained by healing.
    pub more: String,
    /// Most new tokens.
    pub limit: usize,
    /// The draws of all its sequences.
    pub stream: Rng,
}

impl Prompt {
    /// What a sequence of it begins with.
    pub fn history(&self) -> History {
        History::new(&self.ids).limited(self.limit).answering(self.source.clone()).numbered(self.index)
    }

    /// What the model has read as the prompt.
    pub fn into_read(self) -> Vec<u32> {
        self.source.map_or(self.ids, |source| source.to_vec())
    }

    /// Tokens that a sequence of it comes to.
    pub fn positions(&self) -> usize {
        self.ids.len() + self.limit
    }
}

impl Generator<'_> {
    /// Checks all prompts.
    pub(crate) fn prompts(&self, prompts: &[Vec<u32>], settings: &Settings, seed: u64) -> Result<Vec<Prompt>> {
        let (seed, arch) = (Rng::new(seed).split("generate"), &self.model.arch);
        let whole = |ids: &Vec<u32>| Healed { ids: ids.clone(), more: String::new() };
        let prompts = match settings.heal {
            true => settings.running(|| self.healed(prompts, settings))?,
            false => prompts.iter().map(whole).collect(),
        };
        let all = prompts.len();
        let take = |(index, Healed { ids, more }): (usize, Healed)| {
            let ids = self.checked(index, &ids, settings)?;
            let stream = seed.split(fingerprint(&ids));
            let (source, ids) = match arch.source() {
                Some(_) => {
                    Settings::fits(ids.len(), arch)?;
                    (Some(ids.into()), self.decoder_ids(settings)?)
                }
                None => (None, ids),
            };
            let negative = self.negative(index, all, &ids, settings)?;
            // A prompt of an adapter takes positions, too.
            let led = Settings::room(ids.len() + self.model.lead(), arch)?;
            let mut limit = settings.limit(ids.len(), arch)?.min(led);
            // What reads beside the model may come to its last position sooner.
            if !negative.is_empty() {
                limit = limit.min(Settings::room(negative.len(), arch)?);
            }
            if let Some(amateur) = self.amateur {
                limit = limit.min(Settings::room(ids.len(), &amateur.arch)?);
            }
            Ok(Prompt { index, source, ids, negative, more, limit, stream })
        };
        prompts.into_iter().enumerate().map(take).collect()
    }

    fn checked(&self, number: usize, ids: &[u32], settings: &Settings) -> Result<Vec<u32>> {
        let arch = &self.model.arch;
        let vocab = if arch.source().is_some() { arch.tokens.rows } else { arch.vocab() };
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

    /// What guidance goes away from for prompt `number` of `all`; nothing without guidance.
    fn negative(&self, number: usize, all: usize, ids: &[u32], settings: &Settings) -> Result<Vec<u32>> {
        let negative = match self.negative {
            _ if settings.guidance.is_none() => return Ok(vec![]),
            // As transformers.
            [] => return Ok(ids.last().map(|&last| vec![last]).unwrap_or_default()),
            [one] => one,
            several if several.len() == all => &several[number],
            several => {
                return Err(Error::Prompt(format!(
                    "negative prompts: expected one, or one for each of {all} prompts, found {}",
                    several.len()
                )));
            }
        };
        self.checked(number, negative, settings)
    }

    /// What a decoder behind an encoder reads first: its start and, unless they begin with it, what else it is given.
    fn decoder_ids(&self, settings: &Settings) -> Result<Vec<u32>> {
        let (start, vocab) = (self.decoder_start(settings)?, self.model.arch.vocab());
        if let Some(id) = self.decoder.iter().find(|&&id| id as usize >= vocab) {
            return Err(Error::Prompt(format!(
                "decoder ids: token id {id} is outside the vocabulary of {vocab}; is this the model's tokenizer?"
            )));
        }
        let given = self.decoder.strip_prefix(&[start]).unwrap_or(self.decoder);
        Ok(std::iter::once(start).chain(given.iter().copied()).collect())
    }

    /// What a decoder behind an encoder starts from: as the settings or `config.json` say.
    fn decoder_start(&self, settings: &Settings) -> Result<u32> {
        let named = |key: &str| self.model.config.get(key).and_then(Value::as_u64).and_then(|id| id.try_into().ok());
        let start = (settings.decoder_start.or_else(|| named("decoder_start_token_id")))
            .or_else(|| settings.bos.or_else(|| named("bos_token_id")));
        let vocab = self.model.arch.vocab();
        match start {
            Some(id) if (id as usize) < vocab => Ok(id),
            Some(id) => Err(Error::Settings(format!(
                "decoder_start_token_id: expected an id of the vocabulary of {vocab}, found {id}"
            ))),
            None => Err(Error::Settings(
                "decoder_start_token_id: neither the settings nor config.json say what the decoder starts from, and \
                 there is no bos_token_id to stand in"
                    .into(),
            )),
        }
    }

    /// The prompts that run together. Those of like length do, which leaves little padding, and the longest run first:
    /// what fails for want of memory fails at once.
    pub(super) fn parts<'p>(&self, prompts: &'p [Prompt], settings: &Settings) -> Vec<Vec<&'p Prompt>> {
        let mut order: Vec<&Prompt> = prompts.iter().collect();
        if settings.speculates || settings.contrast.is_some() {
            return order.into_iter().map(|prompt| vec![prompt]).collect();
        }
        if self.model.arch.source().is_none() && settings.beams == 1 {
            return if order.is_empty() { vec![] } else { vec![order] };
        }
        let read = |prompt: &Prompt| prompt.source.as_ref().map_or(0, |source| source.len());
        order.sort_by_key(|prompt| std::cmp::Reverse((read(prompt), prompt.ids.len())));
        let (each, mut parts) = (settings.beams.max(settings.returns), Vec::<Vec<&Prompt>>::new());
        for prompt in order {
            let fits = |part: &&mut Vec<&Prompt>| {
                let (more, longest) = (part.len() + 1, part.first().map_or(0, |first| read(first)));
                more * each <= ROWS && more * longest <= TOKENS
            };
            match parts.last_mut().filter(fits) {
                Some(part) => part.push(prompt),
                None => parts.push(vec![prompt]),
            }
        }
        parts
    }
}

/// A number for a prompt's content (FNV-1a), which names its stream of draws.
fn fingerprint(ids: &[u32]) -> u64 {
    ids.iter().fold(0xCBF2_9CE4_8422_2325, |hash, &id| (hash ^ u64::from(id)).wrapping_mul(0x0100_0000_01B3))
}

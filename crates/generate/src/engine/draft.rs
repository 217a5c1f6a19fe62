//! Speculation: ids are guessed, and the model checks all of them in one pass, which costs little more than one id of its own.
//! Each id is picked from the model's own logits, with the draw that its step would have had: what comes out is what would
//! have come out without, id for id (Leviathan et al. 2023 show it for distributions). Each way to guess is a file in the
//! folder of this name.

mod counted;
mod lookup;
mod retold;
mod small;

use super::Generator;
use super::run::pick;
use crate::processor::{History, Processor};
use crate::sequence::Active;
use crate::{Error, Ngrams, Result, Settings};
use counted::Counted;
use phyla_data::tokenizer::Tokenizer;
use phyla_models::Model;
use retold::Retold;
use small::Small;

/// Ids that are checked together, at most: so many queries have the same bits together as alone.
pub(crate) const MOST: usize = 8;

/// Who guesses what follows, so that several ids are had in one pass of the model.
#[derive(Clone, Copy, Debug)]
pub enum Assistant<'a> {
    /// A smaller model of the same tokens.
    Model(&'a Model),
    /// A smaller model of other tokens: what it reads and writes is told again in those.
    Translated(&'a Model, &'a Tokenizer),
    /// Counts of what has followed what.
    Ngrams(&'a Ngrams),
}

impl<'a> From<&'a Model> for Assistant<'a> {
    fn from(model: &'a Model) -> Self {
        Self::Model(model)
    }
}

impl<'a> From<&'a Ngrams> for Assistant<'a> {
    fn from(ngrams: &'a Ngrams) -> Self {
        Self::Ngrams(ngrams)
    }
}

/// Where guesses come from.
enum Draft<'a> {
    /// What followed when the last ids, at most so many, stood there before.
    Lookup(usize),
    Counted(Counted<'a>),
    Small(Small<'a>),
    Retold(Retold<'a>),
}

/// Guesses, and how many of them it pays to make.
pub(super) struct Speculation<'a> {
    draft: Draft<'a>,
    /// Guesses in a pass, at most, and whether that follows from how many were right.
    length: usize,
    adaptive: bool,
    most: usize,
    /// Guesses so far, and right ones.
    pub drafted: usize,
    pub accepted: usize,
}

impl<'a> Speculation<'a> {
    /// As the settings say; `None` without a word of it.
    pub fn new(settings: &Settings, generator: &Generator<'a>) -> Option<Self> {
        let sure = settings.assistant_confidence;
        let draft = match (generator.assistant, settings.early_exit) {
            (Some(Assistant::Model(model)), _) => Draft::Small(Small::new(model, None, sure)),
            (Some(Assistant::Translated(model, theirs)), _) => {
                Draft::Retold(Retold::new(Small::new(model, None, sure), generator.tokenizer?, theirs))
            }
            (Some(Assistant::Ngrams(ngrams)), _) => Draft::Counted(Counted::new(ngrams)),
            (None, Some(layers)) => Draft::Small(Small::new(generator.model, Some(layers), sure)),
            (None, None) => Draft::Lookup(settings.lookup.map(|_| settings.lookup_ngram)?),
        };
        let (most, adaptive) = match &draft {
            Draft::Small(_) | Draft::Retold(_) => (settings.assistant_tokens, settings.assistant_adapts),
            // A text that does not repeat itself should cost little.
            Draft::Lookup(_) | Draft::Counted(_) => (settings.lookup.unwrap_or(MOST), true),
        };
        let most = most.clamp(1, MOST - 1);
        Some(Self { draft, length: most, adaptive, most, drafted: 0, accepted: 0 })
    }

    /// What may follow: at most `room` ids.
    pub fn guess(
        &mut self,
        active: &Active,
        settings: &Settings,
        chain: &[Box<dyn Processor>],
        room: usize,
    ) -> Result<Vec<u32>> {
        let (most, history) = (self.length.min(room), &active.history);
        let ids = match &mut self.draft {
            Draft::Lookup(ngram) => lookup::look_up(history, *ngram, most),
            Draft::Counted(counted) => counted.guess(history.ids(), most),
            Draft::Small(small) => imitate(small, active, settings, chain, most)?,
            Draft::Retold(retold) => retold.guess(history.ids(), most)?,
        };
        self.drafted += ids.len();
        Ok(ids)
    }

    /// Hears how many of so many guesses were right.
    pub fn learn(&mut self, guessed: usize, right: usize) {
        self.accepted += right;
        if self.adaptive && guessed > 0 {
            // As transformers' heuristic schedule.
            self.length =
                if right == guessed { (self.length + 2).min(self.most) } else { self.length.saturating_sub(1).max(1) };
        }
    }

    /// Hears the whole text, once it has ended.
    pub fn remember(&self, history: &History) {
        if let Draft::Counted(counted) = &self.draft {
            counted.remember(history.ids());
        }
    }
}

/// What a model of the same tokens would write in the model's place: through the same processors, with the draw of each step.
/// The nearer the distributions, the likelier is the same id.
fn imitate(
    small: &mut Small,
    active: &Active,
    settings: &Settings,
    chain: &[Box<dyn Processor>],
    most: usize,
) -> Result<Vec<u32>> {
    let mut history = active.history.clone();
    small.write(active.history.ids(), most, &settings.eos, |row| {
        chain.iter().for_each(|processor| processor.apply(row, &history));
        let (id, _) = pick(row, settings, &active.rng, &mut history)?;
        history.push(id);
        Ok(id)
    })
}

/// What speculation cannot be combined with, and who cannot guess for this model.
pub(super) fn check(generator: &Generator, settings: &Settings) -> Result<()> {
    if settings.speculates && (settings.beams > 1 || settings.returns > 1) {
        return Err(Error::Settings(format!(
            "speculation follows one sequence of a prompt, found num_beams {} and num_return_sequences {}",
            settings.beams, settings.returns
        )));
    }
    let arch = &generator.model.arch;
    if let Some(layers) = settings.early_exit {
        let there = arch.main().layers.len();
        if generator.assistant.is_some() {
            return Err(Error::Settings(
                "assistant_early_exit: the model's first layers guess, or an assistant does, not both".into(),
            ));
        }
        if arch.source().is_some() || !(1..there).contains(&layers) {
            return Err(Error::Settings(format!(
                "assistant_early_exit: expected a decoder, and fewer layers than it has, found {layers} of {there} in {}",
                generator.model.family.model_type
            )));
        }
    }
    let Some(assistant) = generator.assistant else { return Ok(()) };
    let ours = arch.vocab();
    match assistant {
        Assistant::Ngrams(ngrams) if ngrams.vocab() == ours => Ok(()),
        Assistant::Ngrams(ngrams) => Err(Error::Settings(format!(
            "the n-grams are of a vocabulary of {}, and the model's has {ours} tokens",
            ngrams.vocab()
        ))),
        Assistant::Model(model) | Assistant::Translated(model, _)
            if model.arch.source().is_some() || !model.arch.main().causal =>
        {
            Err(Error::Settings(format!("the assistant is to be a decoder, found {}", model.family.model_type)))
        }
        Assistant::Model(model) if model.arch.vocab() != ours => Err(Error::Settings(format!(
            "the assistant is a decoder with the model's {ours} tokens, found {} with {}",
            model.family.model_type,
            model.arch.vocab()
        ))),
        Assistant::Model(_) => Ok(()),
        Assistant::Translated(..) if generator.tokenizer.is_none() => {
            Err(Error::Settings("an assistant of another tokenizer needs the model's own, and there is none".into()))
        }
        Assistant::Translated(..) => Ok(()),
    }
}

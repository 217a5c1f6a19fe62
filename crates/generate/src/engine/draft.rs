//! Speculation: ids are guessed, and the model checks all of them in one pass, which costs little more than one id of its own.
//! Each id is picked from the model's own logits, with the draw that its step would have had: what comes out is what would
//! have come out without, id for id (Leviathan et al. 2023 show it for distributions).

use phyla_models::Model;
use phyla_nn::{Cache, Pass};
use phyla_ops::cpu;

use crate::processor::{History, Processor};
use crate::sequence::Active;
use crate::{Result, Settings, sampler};

/// Ids that are checked together, at most: so many queries have the same bits together as alone.
pub(super) const MOST: usize = 8;

/// Where guesses come from.
pub(super) enum Draft<'a> {
    /// What followed when the last ids stood there before.
    Lookup {
        /// Of how many last ids, at most.
        ngram: usize,
    },
    /// A smaller model of the same tokenizer.
    Model(Small<'a>),
}

/// A smaller model, and what it has read.
pub(super) struct Small<'a> {
    model: &'a Model,
    cache: Cache,
    ids: Vec<u32>,
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
    pub fn new(settings: &Settings, assistant: Option<&'a Model>) -> Option<Self> {
        let (draft, most, adaptive) = match (assistant, settings.lookup) {
            (Some(model), _) => {
                let small = Small { model, cache: Cache::new(1), ids: vec![] };
                (Draft::Model(small), settings.assistant_tokens, settings.assistant_adapts)
            }
            // A text that does not repeat itself should cost little.
            (None, Some(tokens)) => (Draft::Lookup { ngram: settings.lookup_ngram }, tokens, true),
            (None, None) => return None,
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
        let most = self.length.min(room);
        let ids = match &mut self.draft {
            Draft::Lookup { ngram } => look_up(&active.history, *ngram, most),
            Draft::Model(small) => small.guess(active, settings, chain, most)?,
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
}

/// What followed the last ids where they, as many as possible, stood before: in the text or else in its source.
fn look_up(history: &History, ngram: usize, most: usize) -> Vec<u32> {
    let ids = history.ids();
    let texts =
        if std::ptr::eq(history.source(), history.prompt()) { &[ids][..] } else { &[ids, history.source()][..] };
    for n in (1..=ngram.min(ids.len())).rev() {
        let last = &ids[ids.len() - n..];
        for text in texts {
            let found = text.windows(n).position(|run| run == last).map(|at| at + n).filter(|&at| at < text.len());
            if let Some(at) = found {
                return text[at..].iter().take(most).copied().collect();
            }
        }
    }
    vec![]
}

impl Small<'_> {
    fn guess(
        &mut self,
        active: &Active,
        settings: &Settings,
        chain: &[Box<dyn Processor>],
        most: usize,
    ) -> Result<Vec<u32>> {
        let mut history = active.history.clone();
        let arch = &self.model.arch;
        if arch.context_is_hard && history.ids().len() + most > arch.context {
            // It has read as much as it can.
            return Ok(vec![]);
        }
        let known = self.ids.iter().zip(history.ids()).take_while(|(a, b)| a == b).count().min(history.ids().len() - 1);
        self.ids.truncate(known);
        self.cache.truncate(0, known);
        let mut guessed = vec![];
        while guessed.len() < most {
            let new = history.ids()[self.ids.len()..].to_vec();
            let hidden = self.model.forward(&new, None, &mut Pass::cached(self.cache.all(), new.len()))?;
            self.ids.extend(&new);
            let logits = self.model.logits(&hidden.narrow(1, new.len() - 1, 1)?)?.into_data().flatten_all()?;
            let mut row = cpu::view::<f32>(&logits)?.to_vec();
            chain.iter().for_each(|processor| processor.apply(&mut row, &history));
            // With the draw of the step: the nearer the distributions, the likelier is the same id.
            let id = match settings.sampling {
                None => sampler::greedy(&row)?,
                Some(_) => sampler::draw(&row, &active.rng, history.new_ids().len() as u64)?,
            };
            guessed.push(id);
            history.push(id);
            if settings.eos.contains(&id) {
                break;
            }
        }
        Ok(guessed)
    }
}

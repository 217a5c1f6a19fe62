//! Hides tokens for masked language modelling: which ones, and what stands in their place.

use std::ops::Range;

use phyla_kernels::rng::Rng;
use serde::{Deserialize, Serialize};

use super::words::{Place, WordTable};
use crate::batch::IGNORE;
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// What is hidden, and how (Devlin et al. 2019, arXiv:1810.04805, section 3.1).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MaskSettings {
    /// Share of the tokens to be guessed.
    pub probability: f64,
    /// Share of these that the mask token stands for.
    pub mask_share: f64,
    /// Share of these that a random token stands for; the rest stay as they are.
    pub random_share: f64,
    /// What is hidden together.
    pub unit: MaskUnit,
}

impl Default for MaskSettings {
    fn default() -> Self {
        Self { probability: 0.15, mask_share: 0.8, random_share: 0.1, unit: MaskUnit::Token }
    }
}

/// What is hidden together.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum MaskUnit {
    /// Each token for itself.
    #[default]
    Token,
    /// All tokens of a word or none, as BERT's later checkpoints.
    WholeWord,
    /// Runs of whole words, until the share of tokens is reached (SpanBERT, MacBERT); mask token, random tokens or the
    /// text itself stand for a run as a whole.
    Span {
        /// Longest run, in words.
        longest: usize,
        /// How long runs are.
        #[serde(default)]
        lengths: SpanLengths,
    },
}

/// How the lengths of runs are drawn, from 1 to the longest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum SpanLengths {
    /// With probability proportional to `p (1 - p)^(length - 1)`: SpanBERT (arXiv:1907.10529) has p = 0.2 and at most
    /// 10 words.
    Geometric {
        /// The chance of a run to end after each word.
        p: f64,
    },
    /// All equally often.
    Uniform,
    /// With weights longest, …, 2, 1: MacBERT (arXiv:2004.13922) has 40, 30, 20 and 10 % for one to four words.
    Falling,
}

impl Default for SpanLengths {
    fn default() -> Self {
        Self::Geometric { p: 0.2 }
    }
}

/// Hides tokens of rows; one serves any number of threads.
#[derive(Debug, Clone)]
pub struct Masker {
    settings: MaskSettings,
    mask: u32,
    /// Ids that may stand in for others: all but special tokens.
    ordinary: Vec<u32>,
    /// By id: never hidden.
    special: Vec<bool>,
    words: WordTable,
    /// Cumulative weights of the lengths of runs.
    lengths: Vec<f64>,
}

impl Masker {
    /// A masker for the rows of a tokenizer.
    ///
    /// # Errors
    /// When the tokenizer has no mask token, and for shares outside 0 to 1.
    pub fn new(tokenizer: &Tokenizer, settings: &MaskSettings) -> Result<Self> {
        check(settings)?;
        let mask = tokenizer.mask().ok_or_else(|| {
            Error::Settings(
                "masked language modelling needs a mask token, and the tokenizer names none: set `mask_token` in \
                 tokenizer_config.json"
                    .to_owned(),
            )
        })?;
        let special: Vec<bool> = (0..tokenizer.vocab_size() as u32).map(|id| tokenizer.is_special(id)).collect();
        let ordinary = tokenizer.vocabulary().into_iter().map(|(_, id)| id);
        let ordinary: Vec<u32> = ordinary.filter(|&id| special.get(id as usize) == Some(&false)).collect();
        if ordinary.is_empty() {
            return Err(Error::Settings("the vocabulary has special tokens only".to_owned()));
        }
        let words = WordTable::new(tokenizer);
        Ok(Self { settings: settings.clone(), mask, ordinary, special, words, lengths: weights(settings.unit) })
    }

    /// Hides tokens of one row. Returns what each position is to predict: the token that was there, or [`IGNORE`].
    ///
    /// Special tokens stay, unknown ones included, since there is nothing to learn from guessing them. When chance
    /// picks nothing, one unit is hidden all the same; a row of special tokens alone has no targets.
    pub fn mask(&self, ids: &mut [u32], rng: &mut Rng) -> Vec<i32> {
        let mut targets = vec![IGNORE; ids.len()];
        let units = self.units(ids);
        if units.is_empty() {
            return targets;
        }
        for group in self.pick(&units, rng) {
            // SpanBERT decides once for a run, BERT for every token.
            let mut shared = None;
            for at in group {
                let draw = match self.settings.unit {
                    MaskUnit::Span { .. } => *shared.get_or_insert_with(|| rng.next_f64()),
                    _ => rng.next_f64(),
                };
                targets[at] = ids[at] as i32;
                if draw < self.settings.mask_share {
                    ids[at] = self.mask;
                } else if draw < self.settings.mask_share + self.settings.random_share {
                    ids[at] = self.ordinary[rng.below(self.ordinary.len() as u64) as usize];
                }
            }
        }
        targets
    }

    /// The tokens or words that may be hidden, in order.
    fn units(&self, ids: &[u32]) -> Vec<Range<usize>> {
        let mut units: Vec<Range<usize>> = Vec::with_capacity(ids.len());
        let alone = self.settings.unit == MaskUnit::Token;
        let mut place = Place::default();
        // A special token ends a word.
        let mut cut = true;
        for (at, &id) in ids.iter().enumerate() {
            if self.special.get(id as usize) != Some(&false) {
                (place, cut) = (Place::default(), true);
                continue;
            }
            let begins = self.words.begins(&mut place, id);
            match units.last_mut() {
                Some(word) if !(alone || cut || begins) => word.end = at + 1,
                _ => units.push(at..at + 1),
            }
            cut = false;
        }
        units
    }

    /// The runs of tokens to hide: of units one by one, or of spans.
    fn pick(&self, units: &[Range<usize>], rng: &mut Rng) -> Vec<Range<usize>> {
        let probability = self.settings.probability;
        if matches!(self.settings.unit, MaskUnit::Span { .. }) {
            return self.spans(units, rng);
        }
        let mut picked: Vec<_> = units.iter().filter(|_| rng.next_f64() < probability).cloned().collect();
        if picked.is_empty() && probability > 0.0 {
            picked.push(units[rng.below(units.len() as u64) as usize].clone());
        }
        picked
    }

    /// Draws runs of free neighbouring words until the share of tokens is hidden; the last run stops there.
    fn spans(&self, units: &[Range<usize>], rng: &mut Rng) -> Vec<Range<usize>> {
        let tokens: usize = units.iter().map(Range::len).sum();
        let wanted = (tokens as f64 * self.settings.probability).round().max(1.0) as usize;
        let (mut taken, mut hidden, mut runs) = (vec![false; units.len()], 0, Vec::new());
        // A run that finds no room is drawn again. After many tries what is free lies scattered: then word by word.
        let mut tries = 10 * units.len();
        while hidden < wanted.min(tokens) {
            let length = if tries > 0 { self.length(rng) } else { 1 };
            let start = rng.below(units.len() as u64) as usize;
            tries = tries.saturating_sub(1);
            let Some(run) = units.get(start..start + length) else { continue };
            let adjoining = run.windows(2).all(|pair| pair[0].end == pair[1].start);
            if !adjoining || taken[start..start + length].contains(&true) {
                continue;
            }
            let mut end = run[0].start;
            for (word, taken) in run.iter().zip(&mut taken[start..]) {
                if hidden < wanted {
                    *taken = true;
                    hidden += word.len();
                    end = word.end;
                }
            }
            runs.push(run[0].start..end);
        }
        runs.sort_unstable_by_key(|run| run.start);
        runs
    }

    fn length(&self, rng: &mut Rng) -> usize {
        let total = self.lengths.last().copied().unwrap_or(1.0);
        let draw = rng.next_f64() * total;
        self.lengths.partition_point(|&bound| bound <= draw) + 1
    }
}

fn check(settings: &MaskSettings) -> Result<()> {
    let share = |name: &str, value: f64| {
        if (0.0..=1.0).contains(&value) {
            return Ok(());
        }
        Err(Error::Settings(format!("`{name}` should lie between 0 and 1, found {value}")))
    };
    share("probability", settings.probability)?;
    share("mask_share", settings.mask_share)?;
    share("random_share", settings.random_share)?;
    share("mask_share + random_share", settings.mask_share + settings.random_share)?;
    if settings.probability == 0.0 {
        return Err(Error::Settings("a `probability` of 0 hides nothing, so there is nothing to learn".to_owned()));
    }
    if let MaskUnit::Span { longest, lengths } = settings.unit {
        if !(1..=1024).contains(&longest) {
            return Err(Error::Settings(format!("`longest` should lie between 1 and 1024 words, found {longest}")));
        }
        if let SpanLengths::Geometric { p } = lengths {
            share("p", p)?;
        }
    }
    Ok(())
}

/// Cumulative weights of the lengths 1, 2, …
fn weights(unit: MaskUnit) -> Vec<f64> {
    let MaskUnit::Span { longest, lengths } = unit else { return Vec::new() };
    let weight = |length: usize| match lengths {
        SpanLengths::Geometric { p } => (1.0 - p).powi(length as i32 - 1),
        SpanLengths::Uniform => 1.0,
        SpanLengths::Falling => (longest + 1 - length) as f64,
    };
    (1..=longest)
        .scan(0.0, |sum, length| {
            *sum += weight(length);
            Some(*sum)
        })
        .collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;

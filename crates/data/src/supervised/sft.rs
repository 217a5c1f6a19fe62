//! Supervised fine-tuning: dialogues in token ids, cut to a length, one a row or packed several to a row.

mod pack;

use std::collections::BTreeMap;

pub use pack::pack;
use serde::{Deserialize, Serialize};

use super::dialogue::{Encoded, Encoder, LossOn};
use super::loader::Examples;
use super::records::Dialogue;
use super::rows::{Digest, Ragged, in_parallel, note};
use crate::batch::{Batch, IGNORE};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// What happens to an example of more than `max_len` tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncate {
    /// Its end is cut off (trl's `keep_start`).
    #[default]
    End,
    /// Its beginning is cut off (trl's `keep_end`): of a long prompt and a short answer, the answer stays.
    Start,
    /// It is left out.
    Drop,
}

/// How dialogues become rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SftSettings {
    /// Tokens of a row at most.
    pub max_len: usize,
    /// Which tokens are learned; each kind of example has its usual ones.
    pub loss_on: Option<LossOn>,
    /// What is cut of longer examples.
    pub truncate: Truncate,
    /// Several examples to a row, each of which sees itself alone.
    pub packing: bool,
}

impl Default for SftSettings {
    fn default() -> Self {
        Self { max_len: 1024, loss_on: None, truncate: Truncate::End, packing: false }
    }
}

/// What became of an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All of it is there.
    Whole,
    /// So many tokens were cut off.
    Cut(usize),
    /// Left out: longer than `max_len`.
    TooLong,
    /// Left out: nothing of what is left after cutting is learned.
    CutEmpty,
    /// Left out: nothing of it is learned, such as a conversation in which the assistant says nothing.
    Empty,
}

impl Outcome {
    /// Whether the example is learned from.
    pub fn is_kept(self) -> bool {
        matches!(self, Self::Whole | Self::Cut(_))
    }
}

/// Something to predict: the first token of a row never is.
fn has_targets(learned: &[bool]) -> bool {
    learned.iter().skip(1).any(|&learned| learned)
}

/// Cuts an example to the length that is asked for, unless it is to be left out.
pub fn cut(encoded: &mut Encoded, settings: &SftSettings) -> Outcome {
    let length = encoded.ids.len();
    if !has_targets(&encoded.learned) {
        return Outcome::Empty;
    }
    if length <= settings.max_len {
        return Outcome::Whole;
    }
    let kept = match settings.truncate {
        Truncate::End => 0..settings.max_len,
        Truncate::Start => length - settings.max_len..length,
        Truncate::Drop => return Outcome::TooLong,
    };
    if !has_targets(&encoded.learned[kept.clone()]) {
        return Outcome::CutEmpty;
    }
    encoded.ids = encoded.ids[kept.clone()].to_vec();
    encoded.learned = encoded.learned[kept.clone()].to_vec();
    encoded.bytes = encoded.bytes[kept].to_vec();
    Outcome::Cut(length - settings.max_len)
}

/// What the examples of a data set amount to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Statistics {
    /// Examples in the data.
    pub examples: usize,
    /// Of which tokens were cut off.
    pub cut: usize,
    /// Left out for their length.
    pub too_long: usize,
    /// Left out, since nothing that would be learned is left after cutting.
    pub cut_empty: usize,
    /// Left out, since nothing of them would be learned.
    pub empty: usize,
    /// Tokens, of those that are not left out and after cutting.
    pub tokens: usize,
    /// Tokens of these that are learned.
    pub learned: usize,
    /// Sentences about examples whose parts could not be told apart with certainty, and how many each is about.
    pub doubts: BTreeMap<String, usize>,
}

impl Statistics {
    /// Counts an example.
    pub fn add(&mut self, encoded: &Encoded, outcome: Outcome) {
        self.examples += 1;
        let mut doubts = encoded.doubts.clone();
        doubts.sort();
        doubts.dedup();
        for doubt in doubts {
            *self.doubts.entry(doubt).or_default() += 1;
        }
        match outcome {
            Outcome::Whole => {}
            Outcome::Cut(_) => self.cut += 1,
            Outcome::TooLong => self.too_long += 1,
            Outcome::CutEmpty => self.cut_empty += 1,
            Outcome::Empty => self.empty += 1,
        }
        if outcome.is_kept() {
            self.tokens += encoded.ids.len();
            self.learned += encoded.count();
        }
    }

    /// Examples that are learned from.
    pub fn kept(&self) -> usize {
        self.examples - self.too_long - self.cut_empty - self.empty
    }

    /// Refuses data of which nothing would be learned.
    ///
    /// # Errors
    /// Says why, and what to do.
    pub fn check(&self, settings: &SftSettings) -> Result<()> {
        if self.examples == 0 || self.kept() > 0 {
            return Ok(());
        }
        let mut why = vec![];
        why.extend(note(
            self.empty,
            self.examples,
            "have nothing to learn under `loss_on`, such as a turn of the assistant",
        ));
        why.extend(note(
            self.cut_empty,
            self.examples,
            &format!("have it beyond `max_len` = {} tokens", settings.max_len),
        ));
        why.extend(note(
            self.too_long,
            self.examples,
            &format!("are longer than `max_len` = {} tokens", settings.max_len),
        ));
        why.extend(self.doubts.keys().cloned());
        Err(Error::Settings(format!(
            "nothing would be learned: the mask of every example is empty. {}. `phyla data inspect` shows each example \
             with its mask",
            why.join("; ")
        )))
    }

    /// What a user should know.
    pub fn notes(&self, settings: &SftSettings) -> Vec<String> {
        let (all, max_len) = (self.examples, settings.max_len);
        let mut notes = vec![];
        notes.extend(note(self.cut, all, &format!("examples were cut at {max_len} tokens")));
        notes.extend(note(self.too_long, all, &format!("examples have more than {max_len} tokens and were left out")));
        notes.extend(note(
            self.cut_empty,
            all,
            &format!("examples were left out: what would be learned of them lies beyond {max_len} tokens"),
        ));
        notes.extend(note(self.empty, all, "examples were left out: nothing of them would be learned"));
        notes.extend(self.doubts.iter().map(|(doubt, count)| format!("{count} of {all} examples: {doubt}")));
        let share = 100. * self.learned as f64 / self.tokens.max(1) as f64;
        notes.push(format!("{} tokens, of which {share:.1}% are learned", self.tokens));
        notes
    }
}

/// Dialogues in token ids with their masks.
#[derive(Debug)]
pub struct Sft {
    ids: Ragged<u32>,
    learned: Ragged<bool>,
    /// Which examples share a row; without packing empty.
    rows: Vec<Vec<u32>>,
    pad: u32,
    end: Option<u32>,
    notes: Vec<String>,
}

impl Sft {
    /// Encodes `dialogues` under the tokenizer's chat template.
    ///
    /// # Errors
    /// A wrong example, and data of which nothing would be learned.
    pub fn new(
        dialogues: impl Iterator<Item = Result<Dialogue>>,
        tokenizer: &Tokenizer,
        settings: &SftSettings,
    ) -> Result<Self> {
        let encoder = Encoder::new(tokenizer, settings.loss_on);
        let (mut ids, mut learned) = (Ragged::default(), Ragged::default());
        let (mut statistics, mut ends) = (Statistics::default(), BTreeMap::<u32, usize>::new());
        let work = |dialogue: Dialogue| {
            let mut encoded = encoder.encode(&dialogue)?;
            let outcome = cut(&mut encoded, settings);
            Ok((encoded, outcome))
        };
        in_parallel(dialogues, work, |(encoded, outcome)| {
            statistics.add(&encoded, outcome);
            if outcome.is_kept() {
                ids.push(&encoded.ids);
                learned.push(&encoded.learned);
                let pairs = encoded.ids.iter().zip(&encoded.learned);
                let mut ending = pairs.rev().filter(|(id, learned)| **learned && tokenizer.is_special(**id));
                if let Some((id, _)) = ending.next() {
                    *ends.entry(*id).or_default() += 1;
                }
            }
            Ok(())
        })?;
        statistics.check(settings)?;
        let mut notes = statistics.notes(settings);
        let rows = match settings.packing {
            true => pack(&(0..ids.len()).map(|at| ids.length(at)).collect::<Vec<_>>(), settings.max_len),
            false => vec![],
        };
        if settings.packing {
            let filled = 100. * ids.values().len() as f64 / (rows.len().max(1) * settings.max_len) as f64;
            notes.push(format!("packed into {} rows, {filled:.1}% full", rows.len()));
        }
        let end = ends.into_iter().max_by_key(|(_, count)| *count).map(|(id, _)| id);
        Ok(Self { ids, learned, rows, pad: tokenizer.pad().or(tokenizer.eos()).unwrap_or(0), end, notes })
    }

    /// Tokens of a kept example before what is learned of it last, and those: a question and its answer. Of an example that is
    /// learned as a whole, its first half and the rest.
    pub fn asked(&self, index: usize) -> (&[u32], &[u32]) {
        let (ids, learned) = (self.ids.get(index), self.learned.get(index));
        let end = learned.iter().rposition(|&learned| learned).map_or(ids.len(), |last| last + 1);
        let begin = learned[..end].iter().rposition(|&learned| !learned).map_or(0, |last| last + 1);
        let begin = if begin == 0 { end / 2 } else { begin };
        (&ids[..begin], &ids[begin..end])
    }

    /// Examples that are kept.
    pub fn examples(&self) -> usize {
        self.ids.len()
    }

    /// The special token that most examples end with, at which generation is to stop.
    pub fn end(&self) -> Option<u32> {
        self.end
    }

    /// The examples that share a row.
    fn row(&self, index: usize) -> Vec<u32> {
        self.rows.get(index).cloned().unwrap_or_else(|| vec![index as u32])
    }
}

impl Examples for Sft {
    fn count(&self) -> usize {
        if self.rows.is_empty() { self.ids.len() } else { self.rows.len() }
    }

    fn length(&self, index: usize) -> usize {
        self.row(index).iter().map(|&example| self.ids.length(example as usize)).sum()
    }

    fn collate(&self, indices: &[u32]) -> Batch {
        let time = indices.iter().map(|&index| self.length(index as usize)).max().unwrap_or(0).max(1);
        let mut batch = Batch::with_room(indices.len(), time, !self.rows.is_empty());
        for &index in indices {
            let (mut length, mut segment) = (0, 0);
            for example in self.row(index as usize) {
                let (ids, learned) = (self.ids.get(example as usize), self.learned.get(example as usize));
                // The last token of an example predicts nothing, whatever stands behind it in the row.
                let next = ids.iter().zip(learned).skip(1);
                let targets = next.map(|(&id, &learned)| if learned { id as i32 } else { IGNORE }).chain([IGNORE]);
                batch.push(ids, targets, segment);
                length += ids.len();
                segment += 1;
            }
            batch.end_row(length, self.pad, segment);
        }
        batch.finish()
    }

    fn digest(&self) -> u64 {
        let mut digest = Digest::default();
        digest.all(self.ids.values().iter().map(|&id| u64::from(id)));
        digest.all(self.learned.values().iter().map(|&learned| u64::from(learned)));
        digest.all((0..self.ids.len()).map(|at| self.ids.length(at) as u64));
        digest.all(self.rows.iter().map(|row| row.len() as u64));
        digest.value()
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}

#[cfg(test)]
mod tests;

//! Preferences: completions of prompts in token ids, two of a prompt to be compared, or one by one to be judged.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::dialogue::{Encoder, LossOn};
use super::loader::Examples;
use super::records::{Dialogue, Judgement, Origin, Preference};
use super::rows::{Digest, TokenRows, in_parallel, note};
use crate::batch::{Batch, IGNORE, Judged, Labels, Pairs};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// Which end a text keeps that is too long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncation {
    /// The beginning; where a prompt alone is too long, nothing would be left of its completion, and it is left out.
    #[default]
    KeepStart,
    /// The end: the beginning of the prompt is lost.
    KeepEnd,
}

/// How prompts and completions become examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreferenceSettings {
    /// Tokens of a prompt with its completion at most.
    pub max_len: usize,
    /// Which end longer ones keep.
    pub truncation: Truncation,
    /// Whether the likelihood of preferred texts is that of their prompts too.
    pub whole: bool,
}

/// Prompts with completions in token ids, two rows for each example: the chosen and the rejected one; or the completion,
/// and that of another prompt.
#[derive(Debug)]
pub struct Preferences {
    rows: TokenRows,
    /// Tokens before the completion of each row.
    prompts: Vec<usize>,
    kind: Kind,
    whole: bool,
    /// `[2 · examples]`.
    reference: OnceLock<Vec<f32>>,
    notes: Vec<String>,
}

/// How far back another prompt is looked for.
const LOOK_BACK: usize = 256;

#[derive(Debug)]
enum Kind {
    Compared { margins: Option<Vec<f32>> },
    Judged { desirable: Vec<bool> },
}

/// A prompt with its completion.
#[derive(Debug, Clone)]
struct Row {
    ids: Vec<u32>,
    prompt: usize,
}

/// What a record became: its rows, or nothing when they have no room for a completion.
struct Made<T> {
    rows: Vec<Row>,
    cut: bool,
    rest: T,
}

impl Preferences {
    /// Encodes `records` of completions that were compared.
    ///
    /// A completion begins where the tokens of the prompt alone and of prompt and completion part, as in trl: some
    /// tokenizers join letters across that border. Conversations are rendered by the tokenizer's chat template.
    ///
    /// # Errors
    /// A wrong record, and records of which some have a margin and some not.
    pub fn compared(
        records: impl Iterator<Item = Result<Preference>>,
        tokenizer: &Tokenizer,
        settings: PreferenceSettings,
    ) -> Result<Self> {
        let encoder = Encoder::new(tokenizer, Some(LossOn::Completion));
        let work = |record: Preference| {
            let rows = together(&encoder, &[&record.chosen, &record.rejected])?;
            Ok(fitted(rows, settings, (record.margin, record.chosen.origin)))
        };
        let (mut margins, mut first) = (Vec::new(), None);
        let mut made = Self::gather(records, tokenizer, settings, work, |(margin, origin): (Option<f64>, Origin)| {
            if *first.get_or_insert(margin.is_some()) != margin.is_some() {
                return Err(origin.error("some records have a margin and some not".to_owned()));
            }
            margins.extend(margin.map(|margin| margin as f32));
            Ok(())
        })?;
        let margins = (!margins.is_empty()).then_some(margins);
        made.kind = Kind::Compared { margins };
        Ok(made)
    }

    /// Encodes `records` of completions that were judged; beside each stands its prompt with the completion of another
    /// one, the nearest before it whose prompt differs.
    ///
    /// # Errors
    /// A wrong record.
    pub fn judged(
        records: impl Iterator<Item = Result<Judgement>>,
        tokenizer: &Tokenizer,
        settings: PreferenceSettings,
    ) -> Result<Self> {
        let encoder = Encoder::new(tokenizer, Some(LossOn::Completion));
        let work = |record: Judgement| {
            let rows = together(&encoder, &[&record.dialogue])?;
            Ok(fitted(rows, settings, record.desirable))
        };
        let mut desirable = Vec::new();
        let made = Self::gather(records, tokenizer, settings, work, |label| {
            desirable.push(label);
            Ok(())
        })?;
        let good = desirable.iter().filter(|&&label| label).count();
        let mut notes = made.notes.clone();
        notes.push(format!("{good} good completions and {} bad ones", desirable.len() - good));
        let mut paired = Self { rows: rows_of(tokenizer), prompts: vec![], notes, ..made };
        let rows = |at: usize| (made.rows.ids.get(at), made.prompts[at]);
        for at in 0..desirable.len() {
            let (ids, prompt) = rows(at);
            paired.push(ids, prompt);
            let before =
                (1..desirable.len().min(LOOK_BACK)).map(|back| (at + desirable.len() - back) % desirable.len());
            let other = before.map(rows).find(|(other, length)| other[..*length] != ids[..prompt]);
            let completion = other.map_or(&ids[prompt..], |(other, length)| &other[length..]);
            let mut mixed = Row { ids: [&ids[..prompt], completion].concat(), prompt };
            mixed.cut(settings);
            paired.push(&mixed.ids, mixed.prompt);
        }
        paired.kind = Kind::Judged { desirable };
        Ok(paired)
    }

    fn gather<R: Send, T: Send>(
        records: impl Iterator<Item = Result<R>>,
        tokenizer: &Tokenizer,
        settings: PreferenceSettings,
        work: impl Fn(R) -> Result<Made<T>> + Sync,
        mut take: impl FnMut(T) -> Result<()>,
    ) -> Result<Self> {
        let mut made = Self {
            rows: rows_of(tokenizer),
            prompts: vec![],
            kind: Kind::Compared { margins: None },
            whole: settings.whole,
            reference: OnceLock::new(),
            notes: vec![],
        };
        let (mut count, mut left_out, mut cut) = (0, 0, 0);
        in_parallel(records, work, |one| {
            count += 1;
            if one.rows.is_empty() {
                left_out += 1;
                return Ok(());
            }
            cut += usize::from(one.cut);
            one.rows.iter().for_each(|row| made.push(&row.ids, row.prompt));
            take(one.rest)
        })?;
        let max_len = settings.max_len;
        let what = format!("were left out: their prompt alone has {max_len} tokens or more");
        made.notes.extend(note(left_out, count, &what));
        made.notes.extend(note(cut, count, &format!("were cut at {max_len} tokens")));
        Ok(made)
    }

    fn push(&mut self, ids: &[u32], prompt: usize) {
        self.rows.push(ids, &[]);
        self.prompts.push(prompt);
    }

    /// The token that fills rows up.
    pub fn pad(&self) -> u32 {
        self.rows.pad
    }

    /// Rows of all examples.
    pub fn row_count(&self) -> usize {
        self.rows.len()
    }

    /// Tokens of a row.
    pub fn row_length(&self, row: usize) -> usize {
        self.rows.ids.length(row)
    }

    /// A batch of some rows by themselves, for a reference to be asked about both rows of an example.
    pub fn rows_alone(&self, rows: &[usize]) -> Batch {
        let mut batch = self.rows.batch(rows.iter().copied());
        batch.targets = vec![IGNORE; batch.batch * batch.time];
        for (at, &row) in rows.iter().enumerate() {
            let ids = self.rows.ids.get(row);
            // What stands at a place predicts the token behind it.
            let first = self.prompts[row].max(1);
            let targets = &mut batch.targets[at * batch.time + first - 1..];
            targets.iter_mut().zip(&ids[first.min(ids.len())..]).for_each(|(target, &id)| *target = id as i32);
        }
        batch.tokens = batch.targets.iter().filter(|&&target| target != IGNORE).count();
        batch
    }

    /// Gives the log-probabilities of all rows under a reference; batches carry them from then on.
    ///
    /// # Errors
    /// When there are more or fewer than rows, or some were given before.
    pub fn set_reference(&self, log_probs: Vec<f32>) -> Result<()> {
        if log_probs.len() != self.row_count() {
            return Err(Error::Settings(format!(
                "{} log-probabilities of a reference for {} rows",
                log_probs.len(),
                self.row_count()
            )));
        }
        self.reference.set(log_probs).map_err(|_| Error::Settings("the reference is already known".to_owned()))
    }

    fn reference_of(&self, rows: &[usize]) -> Option<Vec<f32>> {
        self.reference.get().map(|known| rows.iter().map(|&row| known[row]).collect())
    }
}

/// No rows yet, to be filled up with a token that no text holds in its middle: a reward is read before the filling.
fn rows_of(tokenizer: &Tokenizer) -> TokenRows {
    let mut rows = TokenRows::new(tokenizer);
    rows.pad = tokenizer.pad().or(tokenizer.eos()).unwrap_or(0);
    rows
}

/// The rows of a prompt's completions; all begin with the same tokens, which are the prompt.
fn together(encoder: &Encoder<'_>, dialogues: &[&Dialogue]) -> Result<Vec<Row>> {
    let rows = dialogues.iter().map(|dialogue| {
        let made = encoder.encode(dialogue)?;
        let prompt = made.learned.iter().position(|&learned| learned).unwrap_or(made.ids.len());
        Ok(Row { ids: made.ids, prompt })
    });
    let mut rows = rows.collect::<Result<Vec<_>>>()?;
    let prompt = rows.iter().map(|row| row.prompt).min().unwrap_or(0);
    rows.iter_mut().for_each(|row| row.prompt = prompt);
    Ok(rows)
}

impl Row {
    fn cut(&mut self, settings: PreferenceSettings) -> bool {
        let Some(over) = self.ids.len().checked_sub(settings.max_len).filter(|&over| over > 0) else { return false };
        match settings.truncation {
            Truncation::KeepStart => self.ids.truncate(settings.max_len),
            Truncation::KeepEnd => {
                self.ids.drain(..over);
                self.prompt = self.prompt.saturating_sub(over);
            }
        }
        true
    }

    /// Whether anything is predicted: the first token of a row never is.
    fn is_empty(&self) -> bool {
        self.ids.len() <= self.prompt.max(1)
    }
}

fn fitted<T>(mut rows: Vec<Row>, settings: PreferenceSettings, rest: T) -> Made<T> {
    let mut cut = false;
    rows.iter_mut().for_each(|row| cut |= row.cut(settings));
    if rows.iter().any(Row::is_empty) {
        rows.clear();
    }
    Made { rows, cut, rest }
}

impl Examples for Preferences {
    fn count(&self) -> usize {
        self.rows.len() / 2
    }

    fn length(&self, index: usize) -> usize {
        self.row_length(2 * index).max(self.row_length(2 * index + 1))
    }

    fn rows(&self) -> usize {
        2
    }

    fn collate(&self, indices: &[u32]) -> Batch {
        let rows = |second: usize| indices.iter().map(move |&index| 2 * index as usize + second);
        match &self.kind {
            Kind::Compared { margins } => {
                let rows: Vec<usize> = rows(0).chain(rows(1)).collect();
                let margins = margins.as_ref().map(|known| indices.iter().map(|&at| known[at as usize]).collect());
                let labels = Pairs { reference: self.reference_of(&rows), margins, whole: self.whole };
                Batch { labels: Labels::Pairs(labels), ..self.rows_alone(&rows) }
            }
            Kind::Judged { desirable } => {
                let [own, other]: [Vec<usize>; 2] = [rows(0).collect(), rows(1).collect()];
                let desirable: Vec<bool> = indices.iter().map(|&at| desirable[at as usize]).collect();
                let labels = |rows: &[usize]| Judged {
                    reference: self.reference_of(rows),
                    desirable: desirable.clone(),
                    mismatched: None,
                };
                let mismatched = Batch { labels: Labels::Judged(labels(&other)), ..self.rows_alone(&other) };
                let labels = Judged { mismatched: Some(Box::new(mismatched)), ..labels(&own) };
                Batch { labels: Labels::Judged(labels), ..self.rows_alone(&own) }
            }
        }
    }

    fn digest(&self) -> u64 {
        let mut digest = Digest::default();
        self.rows.digest(&mut digest);
        digest.all(self.prompts.iter().map(|&prompt| prompt as u64));
        match &self.kind {
            Kind::Compared { margins } => {
                digest.all(
                    margins.iter().flatten().map(|margin| u64::from(margin.to_bits())).collect::<Vec<_>>().into_iter(),
                );
            }
            Kind::Judged { desirable } => digest.all(desirable.iter().map(|&label| u64::from(label))),
        }
        digest.value()
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}

#[cfg(test)]
mod tests;

//! Extractive question answering: a question and a text in, the tokens where the answer begins and ends out.
//!
//! A text longer than a row is read in windows that overlap (Devlin et al. 2019, arXiv:1810.04805, and transformers'
//! `run_qa.py`, whose `doc_stride` is the overlap). A window without the answer is labelled with token 0.

mod answers;
mod window;

use serde::{Deserialize, Serialize};

pub use answers::{AnswerSettings, Ranked, Span, answers};
pub use window::{Window, windows};

use super::loader::Examples;
use super::records::Question;
use super::rows::{Digest, TokenRows, in_parallel, note};
use crate::batch::{Batch, Labels};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// How questions become examples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct QaSettings {
    /// Tokens of a window at most: question, part of the text, and what the tokenizer adds.
    pub max_len: usize,
    /// Tokens that neighbouring windows share.
    pub doc_stride: usize,
    /// Tokens of a question at most; longer ones are cut, and counted.
    pub max_question_len: usize,
}

impl Default for QaSettings {
    fn default() -> Self {
        Self { max_len: 384, doc_stride: 128, max_question_len: 64 }
    }
}

/// What the examples are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Learning: every window with its label; questions whose answers stand nowhere in the text are left out.
    Train,
    /// Answering: all questions, and for each window what leads from its tokens back to the text.
    Evaluate,
}

/// Windows of questions in token ids.
#[derive(Debug)]
pub struct QuestionAnswering {
    rows: TokenRows,
    starts: Vec<i32>,
    ends: Vec<i32>,
    /// The question each window belongs to.
    questions: Vec<u32>,
    windows: Vec<Window>,
    kept: Vec<Question>,
    notes: Vec<String>,
}

/// What one question's answer became in its windows.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    all: usize,
    impossible: usize,
    lost: usize,
    moved: usize,
    inexact: usize,
    /// In no window whole, for want of room.
    divided: usize,
    cut: usize,
}

/// First and last token of the bytes `start..end` of the context in a window, if they are in it whole.
fn tokens_of(window: &Window, start: usize, end: usize) -> Option<(usize, usize)> {
    let spans = &window.spans;
    if spans.first()?.start > start || spans.last()?.end < end {
        return None;
    }
    // The last token that begins no later, and the first that ends no earlier.
    let first = spans.iter().rposition(|span| span.start <= start)?;
    let last = spans.iter().position(|span| span.end >= end)?;
    (first <= last).then_some((window.context_start + first, window.context_start + last))
}

/// The bytes of an answer in its context.
fn bytes_of(question: &Question) -> Option<std::ops::Range<usize>> {
    let answer = question.answers.iter().find(|answer| answer.start.is_some())?;
    let start = question.context.char_indices().nth(answer.start?)?.0;
    Some(start..start + answer.text.len())
}

impl QuestionAnswering {
    /// Encodes `records`.
    ///
    /// # Errors
    /// A wrong record, and windows too small for question, overlap and text.
    pub fn new(
        records: impl Iterator<Item = Result<Question>>,
        tokenizer: &Tokenizer,
        settings: &QaSettings,
        purpose: Purpose,
    ) -> Result<Self> {
        let mut made = Self {
            rows: TokenRows::new(tokenizer),
            starts: Vec::new(),
            ends: Vec::new(),
            questions: Vec::new(),
            windows: Vec::new(),
            kept: Vec::new(),
            notes: Vec::new(),
        };
        let mut counts = Counts::default();
        let mut index = 0;
        let work = |question: Question| {
            let (windows, cut) =
                windows(tokenizer, &question.question, &question.context, settings).map_err(|error| match error {
                    Error::Settings(message) => question.origin.error(message),
                    other => other,
                })?;
            Ok((question, windows, cut))
        };
        in_parallel(records, work, |(question, windows, cut)| {
            counts.all += 1;
            counts.cut += usize::from(cut);
            counts.moved += question.moved;
            counts.impossible += usize::from(question.answers.is_empty());
            let answer = bytes_of(&question);
            if answer.is_none() && !question.answers.is_empty() {
                counts.lost += 1;
                if purpose == Purpose::Train {
                    return Ok(());
                }
            }
            let mut found = false;
            for window in windows {
                let (start, end) =
                    answer.clone().and_then(|bytes| tokens_of(&window, bytes.start, bytes.end)).unwrap_or((0, 0));
                if let (Some(bytes), true) = (&answer, end > 0) {
                    let span = window.bytes(start, end).unwrap_or_default();
                    let exact =
                        question.context.get(span).map(str::trim) == question.context.get(bytes.clone()).map(str::trim);
                    counts.inexact += usize::from(!exact && !found);
                    found = true;
                }
                made.starts.push(start as i32);
                made.ends.push(end as i32);
                made.questions.push(index);
                made.rows.push(&window.ids, &window.types);
                if purpose == Purpose::Evaluate {
                    // The ids are in `rows` already.
                    made.windows.push(Window { ids: Vec::new(), types: Vec::new(), ..window });
                }
            }
            counts.divided += usize::from(answer.is_some() && !found);
            index += 1;
            if purpose == Purpose::Evaluate {
                made.kept.push(question);
            }
            Ok(())
        })?;
        made.describe(counts, settings, purpose);
        Ok(made)
    }

    fn describe(&mut self, counts: Counts, settings: &QaSettings, purpose: Purpose) {
        let left = if purpose == Purpose::Train { " and were left out" } else { "" };
        self.notes.push(format!("{} questions in {} windows", counts.all, self.rows.len()));
        for (part, what) in [
            (counts.impossible, "questions have no answer".to_owned()),
            (counts.lost, format!("questions have answers that do not stand in their text{left}")),
            (
                counts.moved,
                "answers did not stand where they should, and were found elsewhere in their text".to_owned(),
            ),
            (counts.inexact, "answers begin or end inside a token, and are labelled with the whole token".to_owned()),
            (
                counts.divided,
                "answers stand whole in no window, and count as no answer; set `doc_stride` higher".to_owned(),
            ),
            (counts.cut, format!("questions were cut at {} tokens", settings.max_question_len)),
        ] {
            self.notes.extend(note(part, counts.all, &what));
        }
    }

    /// The question, by its place among those kept, that a window belongs to.
    pub fn question_of(&self, window: usize) -> usize {
        self.questions[window] as usize
    }

    /// The windows, for [`answers`]; their `ids` are empty, since batches have them. Empty when made for training.
    pub fn windows(&self) -> &[Window] {
        &self.windows
    }

    /// The questions; empty when made for training.
    pub fn questions(&self) -> &[Question] {
        &self.kept
    }
}

impl Examples for QuestionAnswering {
    fn count(&self) -> usize {
        self.rows.len()
    }

    fn length(&self, index: usize) -> usize {
        self.rows.ids.length(index)
    }

    fn collate(&self, indices: &[u32]) -> Batch {
        let mut batch = self.rows.batch(indices.iter().map(|&index| index as usize));
        let pick = |places: &[i32]| indices.iter().map(|&index| places[index as usize]).collect();
        batch.labels = Labels::Span { start: pick(&self.starts), end: pick(&self.ends) };
        batch.tokens = indices.len();
        batch
    }

    fn digest(&self) -> u64 {
        let mut digest = Digest::default();
        self.rows.digest(&mut digest);
        digest.all(self.starts.iter().map(|&place| u64::from(place as u32)));
        digest.all(self.ends.iter().map(|&place| u64::from(place as u32)));
        digest.value()
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}

#[cfg(test)]
mod tests;

//! Windows over a text too long for one row, each with the question in front.

use std::ops::Range;

use super::super::rows::room;
use super::QaSettings;
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// One row: the question and a part of the text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Window {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Token types, beside `ids`.
    pub types: Vec<u8>,
    /// The first token that is of the text.
    pub context_start: usize,
    /// For each token of the text, in a row from `context_start` on, the bytes of the text that it covers.
    pub spans: Vec<Range<usize>>,
}

impl Window {
    /// The bytes of the text from the first to the last of these tokens of the window, if both are of the text.
    pub fn bytes(&self, first: usize, last: usize) -> Option<Range<usize>> {
        let span = |token: usize| self.spans.get(token.checked_sub(self.context_start)?);
        let (start, end) = (span(first)?.start, span(last)?.end);
        (start <= end).then_some(start..end)
    }
}

/// The windows of one question, in the order of the text, and whether the question was cut.
///
/// # Errors
/// Windows too small for question, overlap and any text.
pub fn windows(
    tokenizer: &Tokenizer,
    question: &str,
    context: &str,
    settings: &QaSettings,
) -> Result<(Vec<Window>, bool)> {
    let whole = tokenizer.encode_pair_detailed(question, context, true)?;
    let of = |which: u8| whole.texts.iter().filter(|text| **text == Some(which)).count();
    let (asked, read) = (of(0), of(1));
    let added = whole.len() - asked - read;
    let asked_kept = asked.min(settings.max_question_len);
    let room = room(settings.max_len, added + asked_kept)?;
    if read > room && room <= settings.doc_stride {
        return Err(Error::Settings(format!(
            "a window of {} tokens has room for {room} of the text beside a question of {asked_kept}, which must be more \
             than the overlap `doc_stride` = {}: set `max_len` higher, or `doc_stride` or `max_question_len` lower",
            settings.max_len, settings.doc_stride
        )));
    }
    // Before the text, and after it: the order of the two and what stands around them is the tokenizer's.
    let mut asked_seen = 0;
    let kept: Vec<usize> = (0..whole.len())
        .filter(|&at| {
            asked_seen += usize::from(whole.texts[at] == Some(0));
            whole.texts[at] != Some(0) || asked_seen <= asked_kept
        })
        .collect();
    let is_read = |at: &&usize| whole.texts[**at] == Some(1);
    let text: Vec<usize> = kept.iter().filter(is_read).copied().collect();
    let front: Vec<usize> = match text.first() {
        Some(first) => kept.iter().take_while(|at| *at < first).copied().collect(),
        None => kept.clone(),
    };
    let back: Vec<usize> =
        text.last().map_or_else(Vec::new, |last| kept.iter().filter(|at| *at > last).copied().collect());
    let mut made = Vec::new();
    let mut start = 0;
    loop {
        let end = text.len().min(start + room);
        let row = || front.iter().chain(&text[start..end]).chain(&back);
        made.push(Window {
            ids: row().map(|&at| whole.ids[at]).collect(),
            types: row().map(|&at| whole.types[at].min(255) as u8).collect(),
            context_start: front.len(),
            spans: text[start..end].iter().map(|&at| whole.offsets[at].clone()).collect(),
        });
        if end == text.len() {
            return Ok((made, asked > asked_kept));
        }
        start += room - settings.doc_stride;
    }
}

//! A tag for each word and the entities that tags spell, with their places in the text; long texts in windows.

use std::ops::Range;

use phyla_data::supervised::labels::LabelSet;
use phyla_data::supervised::records::Tagged;
use phyla_data::tokenizer::{Detailed, Tokenizer};
use phyla_metrics::tags::{Scheme, entities};
use phyla_models::Task;

use super::prediction::{Entity, Prediction};
use super::{Head, Row, Scores, expect, highest, labels, softmax};
use crate::{Error, Session};

/// What is tagged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passage {
    /// A text, whose words are found: at spaces, and where the tokenizer divides.
    Text(String),
    /// Words.
    Words(Tagged),
}

/// A word and its tag.
#[derive(Clone, Debug, PartialEq)]
pub struct Word {
    /// Its bytes in the text; of words given divided, its number and the next.
    pub place: Range<usize>,
    /// Its tag; `None` if no token stands for it.
    pub tag: Option<u32>,
    /// Probability of the tag.
    pub score: f32,
}

/// Tags of words.
#[derive(Debug)]
pub struct Tag<'a> {
    tokenizer: &'a Tokenizer,
    max_len: usize,
    labels: LabelSet,
    /// How tags spell entities; `None` if these do not.
    scheme: Option<Scheme>,
}

/// Windows over a passage's tokens, and where its words begin.
#[derive(Debug)]
pub struct Windows {
    /// For each window, the first of the passage's tokens in it, and the tokens before that.
    starts: Vec<(usize, usize)>,
    /// Of the passage's tokens, how many each window has.
    counts: Vec<usize>,
    /// For each word its place and its first token, counted within the passage.
    words: Vec<(Range<usize>, Option<usize>)>,
}

impl<'a> Tag<'a> {
    /// The task of a model with such a head; `max_len` as in [`super::max_len`].
    ///
    /// # Errors
    /// Another head; labels that do not fit it.
    pub fn new(session: &'a Session, max_len: Option<usize>) -> Result<Self, Error> {
        let (model, tokenizer) = super::parts(session)?;
        expect(model, &[Task::TokenClassification], "tagging words")?;
        let max_len = super::max_len(model, tokenizer, max_len)?;
        let labels = labels(model)?;
        let scheme = labels.names().iter().all(|name| entities(&[name], Scheme::Lenient).is_ok());
        Ok(Self { tokenizer, max_len, labels, scheme: scheme.then_some(Scheme::Lenient) })
    }

    /// The tags.
    pub fn labels(&self) -> &LabelSet {
        &self.labels
    }

    /// Whether the tags spell entities (`B-PER`, `I-PER`, `O`), rather than that each stands for itself.
    pub fn spells_entities(&self) -> bool {
        self.scheme.is_some()
    }

    /// A word's tag by name; a word without a token is outside of everything.
    pub fn name(&self, word: &Word) -> &str {
        word.tag.and_then(|tag| self.labels.name(tag)).unwrap_or("O")
    }

    /// The answer as it is written down.
    pub fn prediction(&self, passage: &Passage, words: &[Word]) -> Prediction {
        let names: Vec<&str> = words.iter().map(|word| self.name(word)).collect();
        let groups: Vec<(String, Range<usize>)> = match self.scheme.map(|scheme| entities(&names, scheme)) {
            Some(Ok(found)) => found.into_iter().map(|one| (one.kind.to_owned(), one.start..one.end)).collect(),
            _ => names.iter().enumerate().map(|(at, name)| ((*name).to_owned(), at..at + 1)).collect(),
        };
        let entity = |(entity, group): (String, Range<usize>)| {
            let words = &words[group];
            let score = words.iter().map(|word| word.score).sum::<f32>() / words.len().max(1) as f32;
            let place = words.first().map_or(0, |word| word.place.start)..words.last().map_or(0, |word| word.place.end);
            match passage {
                Passage::Text(text) => {
                    let said = text.get(place.clone()).unwrap_or_default();
                    let start = text.get(..place.start).unwrap_or_default().chars().count();
                    Entity { entity, text: said.to_owned(), start, end: start + said.chars().count(), score }
                }
                Passage::Words(Tagged { tokens, .. }) => {
                    let text = tokens.get(place.clone()).unwrap_or_default().join(" ");
                    Entity { entity, text, start: place.start, end: place.end, score }
                }
            }
        };
        let tags = match passage {
            Passage::Text(_) => vec![],
            Passage::Words(_) => names.iter().map(|name| (*name).to_owned()).collect(),
        };
        Prediction::Entities { entities: groups.into_iter().map(entity).collect(), tags }
    }
}

/// The words of a text: a new one where the tokenizer begins a word, or behind a space.
fn words(text: &str, detailed: &Detailed, content: &[usize]) -> Vec<(Range<usize>, Option<usize>)> {
    let mut found: Vec<(Range<usize>, Option<usize>)> = vec![];
    let mut last = None;
    for (token, &at) in content.iter().enumerate() {
        let offsets = detailed.offsets[at].clone();
        let piece = text.get(offsets.clone()).unwrap_or_default();
        let start = offsets.start + (piece.len() - piece.trim_start().len());
        let end = offsets.start + piece.trim_end().len();
        if end <= start {
            continue;
        }
        let spaced = text.get(..start).is_some_and(|before| before.ends_with(char::is_whitespace));
        match found.last_mut() {
            // The pieces of one letter in bytes cover the same place.
            Some((word, _)) if !spaced && (detailed.words[at] == last || start < word.end) => {
                word.end = word.end.max(end);
            }
            _ => found.push((start..end, Some(token))),
        }
        last = detailed.words[at];
    }
    found
}

impl Head for Tag<'_> {
    type Input = Passage;
    type Prepared = Windows;
    type Output = Vec<Word>;

    fn rows(&self, input: &Passage) -> phyla_data::Result<(Vec<Row>, Windows)> {
        let detailed = match input {
            Passage::Text(text) => self.tokenizer.encode_detailed(text, true)?,
            Passage::Words(words) => {
                self.tokenizer.encode_words(&words.tokens.iter().map(String::as_str).collect::<Vec<_>>(), true)?
            }
        };
        let content: Vec<usize> = (0..detailed.len()).filter(|&at| detailed.texts[at].is_some()).collect();
        let (first, last) = (content.first().copied().unwrap_or(detailed.len()), content.last().map_or(0, |at| at + 1));
        let (front, back) = (&detailed.ids[..first], &detailed.ids[last.max(first)..]);
        let added = front.len() + back.len();
        let Some(room) = self.max_len.checked_sub(added).filter(|&room| room > 0) else {
            let message = format!("rows of {} tokens have no room beside {added} special ones", self.max_len);
            return Err(phyla_data::Error::Settings(message));
        };
        let words = match input {
            Passage::Text(text) => words(text, &detailed, &content),
            Passage::Words(words) => {
                let mut firsts = vec![None; words.tokens.len()];
                for (token, &at) in content.iter().enumerate().rev() {
                    if let Some(first) = detailed.words[at].and_then(|word| firsts.get_mut(word as usize)) {
                        *first = Some(token);
                    }
                }
                firsts.into_iter().enumerate().map(|(word, first)| (word..word + 1, first)).collect()
            }
        };
        let mut windows = Windows { starts: vec![], counts: vec![], words };
        // A quarter in common: a word near an edge has context on both sides in the other window.
        let (step, mut start, mut rows) = ((room - room / 4).max(1), 0, vec![]);
        loop {
            let end = content.len().min(start + room);
            let ids = content[start..end].iter().map(|&at| detailed.ids[at]);
            rows.push(front.iter().copied().chain(ids).chain(back.iter().copied()).collect::<Vec<u32>>().into());
            windows.starts.push((start, front.len()));
            windows.counts.push(end - start);
            if end == content.len() {
                return Ok((rows, windows));
            }
            start += step;
        }
    }

    fn answer(&self, _: &Passage, windows: Windows, scores: Vec<Scores>) -> phyla_data::Result<Vec<Word>> {
        let width = self.labels.len();
        let tagged = |(place, token): (Range<usize>, Option<usize>)| {
            // The window in which the token is farthest from the edges.
            let inside = |window: &usize| {
                let (start, _) = windows.starts[*window];
                token.is_some_and(|token| (start..start + windows.counts[*window]).contains(&token))
            };
            let from_edge = |window: &usize| {
                let (start, _) = windows.starts[*window];
                let at = token.unwrap_or(0) - start;
                at.min(windows.counts[*window] - 1 - at)
            };
            let best = (0..windows.starts.len()).filter(inside).max_by_key(from_edge);
            let row = best.and_then(|window| {
                let (start, front) = windows.starts[window];
                scores[window].values.chunks_exact(width.max(1)).nth(front + token? - start)
            });
            let Some(row) = row else { return Word { place, tag: None, score: 0. } };
            let tag = highest(row);
            Word { place, tag: Some(tag as u32), score: softmax(row)[tag] }
        };
        Ok(windows.words.clone().into_iter().map(tagged).collect())
    }
}

//! Where text ends: stop strings over the borders of tokens, and what may be shown before it is sure that none begins.

use std::sync::Arc;

use phyla_data::stream::StreamDecoder;
use phyla_data::tokenizer::Tokenizer;

use crate::Result;

/// Texts of which the first to appear ends a sequence. A clone copies none of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopStrings {
    stops: Arc<[String]>,
    longest: usize,
}

impl StopStrings {
    /// Empty strings are left out.
    pub fn new(stops: impl IntoIterator<Item = String>) -> Self {
        let stops: Arc<[String]> = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        let longest = stops.iter().map(String::len).max().unwrap_or(0);
        Self { stops, longest }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.stops.is_empty()
    }

    /// Where the stop string that is complete first begins, given that none ends within `text`'s first `clean` bytes.
    fn find(&self, text: &str, clean: usize) -> Option<usize> {
        let from = floor(text, (clean + 1).saturating_sub(self.longest));
        // First complete, not first begun: what the text says must not depend on how it was cut into tokens.
        let found = |stop: &String| text[from..].find(stop.as_str()).map(|at| (at + stop.len(), at));
        self.stops.iter().filter_map(found).min().map(|(_, at)| from + at)
    }

    /// Where at the end of `text` a stop string may have begun; its length if none has.
    fn begun(&self, text: &str) -> usize {
        let from = floor(text, (text.len() + 1).saturating_sub(self.longest));
        let begins = |at: &usize| self.stops.iter().any(|stop| stop.starts_with(&text[*at..]));
        let starts = text[from..].char_indices().map(|(at, _)| from + at);
        starts.into_iter().find(begins).unwrap_or(text.len())
    }
}

/// The last border of characters at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0)
}

/// The growing text of a sequence: decoded, searched for stop strings, and given out as far as it is sure.
pub(crate) struct Text<'a> {
    tokenizer: &'a Tokenizer,
    decoder: StreamDecoder<&'a Tokenizer>,
    /// Ids that have no token, and so no text.
    pub silent: usize,
    stops: StopStrings,
    text: String,
    /// Bytes of `text` that have been given out.
    given: usize,
    stopped: bool,
}

/// The decoder reads so many of the prompt's last ids first: what a token says may depend on those before it (the
/// space of a SentencePiece word, the first bytes of a character).
const CONTEXT: usize = 8;

impl<'a> Text<'a> {
    /// The empty text behind `prompt`.
    pub fn after(prompt: &[u32], tokenizer: &'a Tokenizer, stops: &StopStrings) -> Result<Self> {
        let mut decoder = StreamDecoder::new(tokenizer, true);
        for &id in &prompt[prompt.len().saturating_sub(CONTEXT)..] {
            if tokenizer.id_to_token(id).is_some() {
                decoder.push(id)?;
            }
        }
        Ok(Self { tokenizer, decoder, silent: 0, stops: stops.clone(), text: String::new(), given: 0, stopped: false })
    }

    /// Whether a stop string has been found.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Takes an id; returns the text that is sure now. Tables of models are often larger than their tokenizers: an id beyond
    /// these has no text, and is counted.
    pub fn push(&mut self, id: u32) -> Result<&str> {
        if self.tokenizer.id_to_token(id).is_none() {
            self.silent += 1;
            return Ok("");
        }
        let new = self.decoder.push(id)?;
        self.append(&new);
        let end = if self.stopped { self.text.len() } else { self.stops.begun(&self.text) };
        Ok(self.give(end))
    }

    /// Ends the text.
    pub fn finish(&mut self) -> Result<()> {
        if !self.stopped {
            let new = self.decoder.finish()?;
            self.append(&new);
        }
        Ok(())
    }

    /// What has not been given out yet, once the text has ended.
    pub fn rest(&mut self) -> &str {
        self.give(self.text.len())
    }

    /// Adds to the text.
    pub fn append(&mut self, new: &str) {
        let clean = self.text.len();
        self.text.push_str(new);
        if let Some(at) = self.stops.find(&self.text, clean) {
            self.text.truncate(at);
            self.stopped = true;
        }
    }

    fn give(&mut self, end: usize) -> &str {
        let start = self.given.min(end);
        self.given = end.max(start);
        &self.text[start..self.given]
    }

    /// The whole text.
    pub fn into_string(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests;

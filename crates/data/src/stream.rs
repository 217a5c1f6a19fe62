//! Text from ids one at a time, as a model produces them: never half a character, and the same text as decoding at once.

use std::ops::Deref;

use crate::error::Result;
use crate::tokenizer::Tokenizer;

const REPLACEMENT: char = '\u{FFFD}';

/// Tokens in the window before it is shortened. Decoding costs one pass over the window for each token.
const LONG: usize = 8;

/// Tokens without a clean end after which the window is given out as it is, so that it stays bounded.
const HOPELESS: usize = 64;

/// Decodes a growing sequence of ids.
///
/// A single id has no text of its own: SentencePiece drops the space of a first word, and a character may be spread
/// over several byte tokens. So a short window of recent ids is decoded again each time, and only what is new at its
/// end is given out. Bytes that may yet become a character are held back; bytes that cannot any more come out as
/// U+FFFD, as they do when the whole is decoded at once.
#[derive(Debug)]
pub struct StreamDecoder<T> {
    tokenizer: T,
    skip_special: bool,
    window: Vec<u32>,
    /// What the window's text begins with and has been given out.
    given: String,
    /// Ids of the window at whose end the text was last whole.
    clean: usize,
}

impl<T: Deref<Target = Tokenizer>> StreamDecoder<T> {
    /// A decoder at the beginning of a text; `tokenizer` is a reference or an `Arc`.
    pub fn new(tokenizer: T, skip_special: bool) -> Self {
        Self { tokenizer, skip_special, window: Vec::with_capacity(LONG + 1), given: String::new(), clean: 0 }
    }

    /// Takes one id and returns the text that is certain now: often a word, sometimes nothing.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.window.push(id);
        let text = self.decode(0)?;
        let stable = stable(&text);
        let whole = stable.len() == text.len();
        let new = match stable.strip_prefix(self.given.as_str()) {
            Some(new) => {
                let new = new.to_owned();
                self.given.truncate(0);
                self.given.push_str(stable);
                new
            }
            // A run of byte tokens reads as rubbish until its last byte is there: wait for it.
            None if !whole => String::new(),
            // A decoder that changes what it said before (`do` + `n't`): give out what lies beyond the difference.
            None => {
                let new = stable[common(stable, &self.given)..].to_owned();
                self.given = stable.to_owned();
                new
            }
        };
        if whole {
            if self.window.len() > LONG {
                self.window.drain(..self.clean);
                self.given = self.decode(0)?;
            }
            self.clean = self.window.len();
        } else if self.window.len() > HOPELESS {
            return Ok(new + &self.finish()?);
        }
        Ok(new)
    }

    /// Ends the text: returns what was held back, and makes the decoder ready for another text.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn finish(&mut self) -> Result<String> {
        let text = self.decode(0)?;
        let rest = match text.strip_prefix(self.given.as_str()) {
            Some(rest) => rest.to_owned(),
            // The held-back bytes spoil the run they belong to; without that run they are themselves.
            None => self.decode(self.clean)?,
        };
        self.window.clear();
        self.given.clear();
        self.clean = 0;
        Ok(rest)
    }

    fn decode(&self, from: usize) -> Result<String> {
        let ids = self.window.get(from..).unwrap_or_default();
        self.tokenizer.decode_raw(ids, self.skip_special)
    }
}

/// `text` without the replacement characters at its end that may still become something else.
///
/// A character has at most four bytes, so at most three stand for an unfinished one.
fn stable(text: &str) -> &str {
    let mut stable = text;
    for _ in 0..3 {
        stable = stable.strip_suffix(REPLACEMENT).unwrap_or(stable);
    }
    stable
}

/// The length of the beginning two texts share.
fn common(a: &str, b: &str) -> usize {
    a.char_indices().zip(b.chars()).find(|((_, a), b)| a != b).map_or(a.len().min(b.len()), |((at, _), _)| at)
}

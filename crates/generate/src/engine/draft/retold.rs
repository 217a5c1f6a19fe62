//! Guesses of a smaller model that has other tokens: the text is told again in its tokens, and what it writes in ours.
//!
//! The whole text is told each time, about a millisecond for a thousand tokens, so that the assistant reads it as it reads
//! any text, whatever was guessed before.

use phyla_data::tokenizer::Tokenizer;

use super::Small;
use crate::{Result, sampler};

/// The assistant, and both tokenizers.
pub(super) struct Retold<'a> {
    small: Small<'a>,
    ours: &'a Tokenizer,
    theirs: &'a Tokenizer,
}

/// What ids say may depend on so many before them: the space of a word, the first bytes of a character.
const CONTEXT: usize = 8;

impl<'a> Retold<'a> {
    /// Nothing told yet.
    pub fn new(small: Small<'a>, ours: &'a Tokenizer, theirs: &'a Tokenizer) -> Self {
        Self { small, ours, theirs }
    }

    /// Up to `most` ids behind `text`; none where the assistant has no words for the text.
    pub fn guess(&mut self, text: &[u32], most: usize) -> Result<Vec<u32>> {
        // Not every tokenizer has a word for everything: then there is nothing to guess.
        let Ok(mut told) = self.theirs.encode(&self.ours.decode(&self.said(text), false)?, true) else {
            return Ok(vec![]);
        };
        // Where an encoding ends with a mark of its own, nothing could follow.
        while told.last().is_some_and(|&id| self.theirs.is_special(id)) {
            told.pop();
        }
        let ends: Vec<u32> = self.theirs.eos().into_iter().collect();
        let mut written = self.small.write(&told, most, &ends, |row| sampler::greedy(row))?;
        written.retain(|id| !self.theirs.is_special(*id) && self.theirs.id_to_token(*id).is_some());
        let new = behind(self.theirs, &told, &written)?;
        // A character that has just begun is not one yet.
        let new = new.trim_end_matches('\u{FFFD}');
        let mut ids = self.in_ours(text, new)?;
        ids.truncate(most);
        Ok(ids)
    }

    /// The ids that have a text, or a name that the assistant knows, too.
    fn said(&self, ids: &[u32]) -> Vec<u32> {
        let known = |id: &u32| {
            let name = self.ours.id_to_token(*id);
            name.is_some_and(|name| !self.ours.is_special(*id) || self.theirs.token_to_id(&name).is_some())
        };
        ids.iter().copied().filter(known).collect()
    }

    /// `new` in our tokens, as they would follow `text`.
    fn in_ours(&self, text: &[u32], new: &str) -> Result<Vec<u32>> {
        if new.is_empty() {
            return Ok(vec![]);
        }
        // With some text before it, since a word of its own begins otherwise than one behind another.
        let tail = self.ours.decode(&text[text.len().saturating_sub(CONTEXT)..], true)?;
        let (before, all) = (self.ours.encode(&tail, false)?, self.ours.encode(&(tail + new), false)?);
        match all.strip_prefix(&before[..]) {
            Some(ids) => Ok(ids.to_vec()),
            // The last token goes on in the guess: as if nothing stood before.
            None => Ok(self.ours.encode(new, false)?),
        }
    }
}

/// The text of `ids` behind that of `before`.
fn behind(tokenizer: &Tokenizer, before: &[u32], ids: &[u32]) -> Result<String> {
    let before = &before[before.len().saturating_sub(CONTEXT)..];
    let (start, all) = (tokenizer.decode(before, true)?, tokenizer.decode(&[before, ids].concat(), true)?);
    Ok(all.strip_prefix(start.trim_end_matches('\u{FFFD}')).unwrap_or_default().to_owned())
}

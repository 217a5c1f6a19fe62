//! Beginnings of texts that have been read, so that others which begin alike read only what differs: across calls, where a
//! [`crate::Session`] follows one conversation. Texts share the pages that they have in common, and may be kept in a file.

mod file;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use phyla_nn::{Cache, Prefix};

use crate::Result;

/// Fewer ids in common are read again: that costs less than having their page twice.
const LEAST: usize = 16;

/// What has been read of texts, up to a number of bytes; what has not been of use for longest goes first. For one model only.
///
/// What [`crate::Generator::remembering`] such generates equals what it would without but for rounding, since prompts are read
/// in other pieces; where what is known ends with a multiple of 512 ids it has the same bits.
#[derive(Debug)]
pub struct PrefixCache {
    limit: usize,
    answers: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    texts: Vec<Text>,
    /// Counts uses.
    clock: u64,
}

#[derive(Debug)]
struct Text {
    ids: Vec<u32>,
    prefix: Prefix,
    used: u64,
}

impl PrefixCache {
    /// An empty one, for pages of up to `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, answers: false, state: Mutex::default() }
    }

    /// Remembers answers behind their prompts, too.
    pub fn with_answers(self) -> Self {
        Self { answers: true, ..self }
    }

    pub(crate) fn answers(&self) -> bool {
        self.answers
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Texts that are remembered.
    pub fn len(&self) -> usize {
        self.state().texts.len()
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of all pages; those that texts share count once.
    pub fn bytes(&self) -> usize {
        self.state().bytes()
    }

    /// Ids that the text of last use holds.
    pub fn latest(&self) -> Vec<u32> {
        self.state().latest().map(|text| text.ids.clone()).unwrap_or_default()
    }

    /// Lets an empty row of a cache begin with what is known of `ids`; returns how many of them that is. The last is always
    /// read: the logits behind it are wanted.
    pub(crate) fn begin(&self, ids: &[u32], cache: &mut Cache, row: usize) -> Result<usize> {
        let (mut state, most) = (self.state(), ids.len().saturating_sub(1));
        let alike = |text: &Text| common(&text.ids, ids).min(most);
        let mut found: Vec<(usize, usize)> = state.texts.iter().map(alike).enumerate().collect();
        found.retain(|(_, alike)| *alike >= LEAST);
        found.sort_by_key(|(_, alike)| std::cmp::Reverse(*alike));
        for (index, alike) in found {
            let begun = cache.begin_with(row, &state.texts[index].prefix, alike)?;
            if begun > 0 {
                state.touch(index);
                return Ok(begun);
            }
        }
        Ok(0)
    }

    /// Remembers what a row holds, which are these ids.
    pub(crate) fn remember(&self, ids: &[u32], cache: &Cache, row: usize) {
        let Some(prefix) = cache.prefix(row).filter(|prefix| prefix.length() == ids.len()) else { return };
        self.state().add(ids.to_vec(), prefix, self.limit);
    }
}

impl State {
    fn bytes(&self) -> usize {
        self.texts.iter().flat_map(|text| text.prefix.pages()).collect::<HashMap<_, _>>().values().sum()
    }

    fn latest(&self) -> Option<&Text> {
        self.texts.iter().max_by_key(|text| text.used)
    }

    fn touch(&mut self, index: usize) {
        self.clock += 1;
        self.texts[index].used = self.clock;
    }

    fn add(&mut self, ids: Vec<u32>, prefix: Prefix, limit: usize) {
        let serves = |text: &Text, other: &Text| {
            text.prefix.spec() == other.prefix.spec()
                && text.ids.starts_with(&other.ids)
                && text.prefix.reaches(other.ids.len())
        };
        let new = Text { ids, prefix, used: 0 };
        if let Some(index) = self.texts.iter().position(|text| serves(text, &new)) {
            return self.touch(index);
        }
        self.texts.retain(|text| !serves(&new, text));
        self.texts.push(new);
        self.touch(self.texts.len() - 1);
        while self.bytes() > limit {
            let oldest = self.texts.iter().enumerate().min_by_key(|(_, text)| text.used).map(|(index, _)| index);
            match oldest {
                Some(oldest) => drop(self.texts.swap_remove(oldest)),
                None => break,
            }
        }
    }
}

/// How many ids two texts begin with alike.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

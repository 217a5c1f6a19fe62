//! Token classification: words in, a tag for each out, learnt on the sub-words that words become.

use serde::{Deserialize, Serialize};

use super::labels::{Interner, LabelSet};
use super::loader::Examples;
use super::records::Tagged;
use super::rows::{Digest, Ragged, TokenRows, in_parallel, note, room};
use crate::batch::{Batch, IGNORE};
use crate::error::{Error, Result};
use crate::tokenizer::{Detailed, Tokenizer};

/// In [`TokenClassify::first_tokens`]: a word that no token of the row stands for.
pub const NO_TOKEN: u32 = u32::MAX;

/// How tagged words become examples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenClassifySettings {
    /// Tokens of a row at most, with those that the tokenizer adds; words beyond are lost, and counted.
    pub max_len: usize,
    /// The tags in the order of their ids; without it they are sorted.
    pub labels: Option<Vec<String>>,
    /// Label every piece of a word, not only the first: the later ones of `B-X` with `I-X`, if there is such a tag.
    pub label_all: bool,
}

impl Default for TokenClassifySettings {
    fn default() -> Self {
        Self { max_len: 512, labels: None, label_all: false }
    }
}

/// Tagged words in token ids.
#[derive(Debug)]
pub struct TokenClassify {
    rows: TokenRows,
    /// Beside `rows`, unless the data has no tags.
    targets: Option<Ragged<i32>>,
    firsts: Ragged<u32>,
    set: LabelSet,
    notes: Vec<String>,
}

/// One sentence encoded: its tokens, and the word each belongs to.
struct Encoded {
    record: Tagged,
    ids: Vec<u32>,
    types: Vec<u8>,
    words: Vec<Option<u32>>,
    /// Words with all or some of their tokens beyond `max_len`.
    lost: usize,
}

fn encode(tokenizer: &Tokenizer, record: Tagged, max_len: usize) -> Result<Encoded> {
    let words: Vec<&str> = record.tokens.iter().map(String::as_str).collect();
    let Detailed { ids, types, words, texts, .. } = tokenizer.encode_words(&words, true)?;
    let added = texts.iter().filter(|text| text.is_none()).count();
    let room = if ids.len() > max_len { room(max_len, added)? } else { ids.len() };
    let (mut seen, mut first_lost) = (0, None);
    let keep: Vec<bool> = texts
        .iter()
        .zip(&words)
        .map(|(text, word)| {
            seen += usize::from(text.is_some());
            let kept = text.is_none() || seen <= room;
            first_lost = first_lost.or(if kept { None } else { *word });
            kept
        })
        .collect();
    let lost = first_lost.map_or(0, |first| record.tokens.len().saturating_sub(first as usize));
    let kept = |at: &usize| keep[*at];
    Ok(Encoded {
        ids: (0..ids.len()).filter(kept).map(|at| ids[at]).collect(),
        types: (0..ids.len()).filter(kept).map(|at| types[at].min(255) as u8).collect(),
        words: (0..ids.len()).filter(kept).map(|at| words[at]).collect(),
        record,
        lost,
    })
}

impl TokenClassify {
    /// Encodes `records`. For a second set (evaluation), `known` gives the tags of the first.
    ///
    /// # Errors
    /// A wrong record; a tag that is none of the listed or known ones; sentences of which some have tags and some not.
    pub fn new(
        records: impl Iterator<Item = Result<Tagged>>,
        tokenizer: &Tokenizer,
        settings: &TokenClassifySettings,
        known: Option<&LabelSet>,
    ) -> Result<Self> {
        let mut rows = TokenRows::new(tokenizer);
        let (mut firsts, mut tags, mut pieces) = (Ragged::default(), Ragged::default(), Ragged::default());
        let (mut interner, mut origins) = (Interner::default(), Vec::new());
        let (mut words, mut lost, mut cut, mut silent, mut untagged) = (0, 0, 0, 0, 0);
        in_parallel(
            records,
            |record| encode(tokenizer, record, settings.max_len),
            |encoded| {
                let Encoded { record, ids, types, words: of_word, lost: beyond } = encoded;
                rows.push(&ids, &types);
                let mut first = vec![NO_TOKEN; record.tokens.len()];
                for (token, word) in of_word.iter().enumerate().rev() {
                    if let Some(first) = word.and_then(|word| first.get_mut(word as usize)) {
                        *first = token as u32;
                    }
                }
                let without = first.iter().filter(|token| **token == NO_TOKEN).count();
                words += record.tokens.len();
                (lost, cut) = (lost + beyond, cut + usize::from(beyond > 0));
                silent += without.saturating_sub(beyond);
                untagged += usize::from(record.tags.is_empty());
                firsts.push(&first);
                tags.push(&record.tags.iter().map(|tag| interner.id(tag)).collect::<Vec<_>>());
                // Which word each token is of, so that tags can be laid on tokens once their ids are known.
                pieces.push(&of_word.iter().map(|word| word.unwrap_or(NO_TOKEN)).collect::<Vec<_>>());
                origins.push(record.origin);
                Ok(())
            },
        )?;
        if untagged > 0 && untagged < rows.len() {
            return Err(Error::Settings(format!(
                "{untagged} of {} sentences have no tags, the others have",
                rows.len()
            )));
        }
        let set = match (known, &settings.labels) {
            (Some(known), _) => known.clone(),
            (None, Some(names)) => LabelSet::new(names.clone())?,
            (None, None) => LabelSet::sorted(interner.names().iter().cloned()),
        };
        let mut counts = vec![0_usize; set.len()];
        let targets = if untagged > 0 {
            None
        } else {
            let ids: Vec<_> = interner.names().iter().map(|name| set.expect(name)).collect();
            // The tag of a word's later pieces: inside an entity that its first piece began.
            let later: Vec<Option<u32>> = set
                .names()
                .iter()
                .map(|name| name.strip_prefix("B-").and_then(|kind| set.id(&format!("I-{kind}"))))
                .collect();
            let mut targets = Ragged::default();
            for (row, origin) in origins.iter().enumerate() {
                let tags: std::result::Result<Vec<u32>, String> =
                    tags.get(row).iter().map(|&tag| ids[tag as usize].clone()).collect();
                let tags = tags.map_err(|message| origin.error(message))?;
                tags.iter().for_each(|&tag| counts[tag as usize] += 1);
                let target = |(token, &word): (usize, &u32)| {
                    let Some(&tag) = tags.get(word as usize) else { return IGNORE };
                    let first = firsts.get(row)[word as usize] == token as u32;
                    match (first, settings.label_all) {
                        (true, _) => tag as i32,
                        (false, true) => later[tag as usize].unwrap_or(tag) as i32,
                        (false, false) => IGNORE,
                    }
                };
                targets.push(&pieces.get(row).iter().enumerate().map(target).collect::<Vec<_>>());
            }
            Some(targets)
        };
        let mut notes: Vec<String> = note(
            cut,
            rows.len(),
            &format!("sentences were cut at {} tokens: {lost} of {words} words lost", settings.max_len),
        )
        .into_iter()
        .collect();
        notes.extend(note(silent, words, "words have no token of their own and cannot be tagged"));
        if targets.is_some() {
            let named = counts.iter().zip(set.names()).take(20).map(|(count, name)| format!("{name} {count}"));
            notes.push(format!("tags: {}", named.collect::<Vec<_>>().join(", ")));
        }
        Ok(Self { rows, targets, firsts, set, notes })
    }

    /// The tags.
    pub fn labels(&self) -> &LabelSet {
        &self.set
    }

    /// For each word of an example the token whose tag is the word's, or [`NO_TOKEN`].
    pub fn first_tokens(&self, example: usize) -> &[u32] {
        self.firsts.get(example)
    }
}

impl Examples for TokenClassify {
    fn count(&self) -> usize {
        self.rows.len()
    }

    fn length(&self, index: usize) -> usize {
        self.rows.ids.length(index)
    }

    fn collate(&self, indices: &[u32]) -> Batch {
        let mut batch = self.rows.batch(indices.iter().map(|&index| index as usize));
        if let Some(targets) = &self.targets {
            batch.targets.reserve(batch.ids.len());
            for (at, &index) in indices.iter().enumerate() {
                batch.targets.extend_from_slice(targets.get(index as usize));
                batch.targets.resize((at + 1) * batch.time, IGNORE);
            }
            batch.tokens = batch.targets.iter().filter(|&&target| target != IGNORE).count();
        }
        batch
    }

    fn digest(&self) -> u64 {
        let mut digest = Digest::default();
        self.rows.digest(&mut digest);
        if let Some(targets) = &self.targets {
            digest.all(targets.values().iter().map(|&target| u64::from(target as u32)));
        }
        digest.value()
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}

#[cfg(test)]
mod tests;

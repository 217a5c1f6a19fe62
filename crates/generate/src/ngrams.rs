//! Counts of what has followed what in texts: a memory of runs of ids that costs no model, from which
//! [`crate::Assistant::Ngrams`] guesses, and its file.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use phyla_models::checkpoint::atomic_write;

use crate::{Error, Result};

/// Runs of so many ids are looked for, at most.
pub(crate) const LONGEST: usize = 4;

/// Runs that are kept, about: more are forgotten, the rare ones first.
const MOST_RUNS: usize = 1 << 22;

/// Stands in a run for an id that is not there.
const NONE: u32 = u32::MAX;

const MAGIC: &[u8; 8] = b"phylang1";
/// Numbers of a record: a run, what followed, and how often.
const RECORD: usize = LONGEST + 2;

/// A run of up to [`LONGEST`] ids, behind as many [`NONE`] as are missing.
type Run = [u32; LONGEST];

/// What followed runs, and how often.
#[derive(Debug, Default)]
pub(crate) struct Table(HashMap<Run, Vec<(u32, u32)>>);

impl Table {
    /// Counts what follows what in `text`, but for what its first `known` ids have said already.
    pub fn learn(&mut self, text: &[u32], known: usize) {
        for at in known.max(1)..text.len() {
            for n in 1..=LONGEST.min(at) {
                self.count(run(&text[at - n..at]), text[at], 1);
            }
        }
        if self.0.len() > MOST_RUNS {
            self.forget();
        }
    }

    fn count(&mut self, run: Run, next: u32, times: u32) {
        let followed = self.0.entry(run).or_default();
        match followed.iter_mut().find(|(id, _)| *id == next) {
            Some((_, count)) => *count = count.saturating_add(times),
            None => followed.push((next, times)),
        }
    }

    /// Halves all counts: what was there once is gone.
    fn forget(&mut self) {
        self.0.retain(|_, followed| {
            followed.iter_mut().for_each(|(_, count)| *count /= 2);
            followed.retain(|(_, count)| *count > 0);
            !followed.is_empty()
        });
    }

    /// What followed `ids` more often than all else together; behind a single id, more than once.
    pub fn likely(&self, ids: &[u32]) -> Option<u32> {
        let followed = self.0.get(&run(ids))?;
        let all: u64 = followed.iter().map(|(_, count)| u64::from(*count)).sum();
        let (next, most) = followed.iter().max_by_key(|(id, count)| (*count, std::cmp::Reverse(*id)))?;
        (2 * u64::from(*most) > all && (ids.len() > 1 || *most > 1)).then_some(*next)
    }
}

fn run(ids: &[u32]) -> Run {
    let mut run = [NONE; LONGEST];
    run[LONGEST - ids.len()..].copy_from_slice(ids);
    run
}

/// A memory of texts of one vocabulary. Calls that share it learn from each other's texts; it changes what is guessed, never
/// what is written.
#[derive(Debug)]
pub struct Ngrams {
    vocab: usize,
    table: Mutex<Table>,
}

impl Ngrams {
    /// Nothing known of texts in `vocab` tokens.
    pub fn new(vocab: usize) -> Self {
        Self { vocab, table: Mutex::default() }
    }

    /// Its number of tokens.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what follows what in a text.
    pub fn learn(&self, text: &[u32]) {
        self.table().learn(text, 0);
    }

    /// Runs that are known.
    pub fn len(&self) -> usize {
        self.table().0.len()
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads what [`Ngrams::save`] wrote for the same vocabulary.
    ///
    /// # Errors
    /// A file that cannot be read, is none of these, was cut off, or is of another vocabulary.
    pub fn load(path: &Path, vocab: usize) -> Result<Self> {
        let wrong = |reason: String| Error::Settings(format!("n-grams of `{}`: {reason}", path.display()));
        let bytes = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
        let Some(body) = bytes.strip_prefix(MAGIC) else {
            return Err(wrong("this is no file of n-grams; name a new one, or one that was written so".into()));
        };
        let (numbers, rest) = body.as_chunks::<4>();
        let numbers: Vec<u32> = numbers.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        let (Some([tokens, records]), true) = (numbers.first_chunk(), rest.is_empty()) else {
            return Err(wrong("the file was cut off; delete it to begin anew".into()));
        };
        let (found, rest) = numbers[2..].as_chunks::<RECORD>();
        if found.len() != *records as usize || !rest.is_empty() {
            return Err(wrong(format!("expected {records} records, found {}; delete it to begin anew", found.len())));
        }
        if *tokens as usize != vocab {
            return Err(wrong(format!("they are of a vocabulary of {tokens}, and the model's has {vocab} tokens")));
        }
        let mut table = Table::default();
        for (number, record) in found.iter().enumerate() {
            let [a, b, c, d, next, count] = *record;
            let id = |id: &u32| (*id as usize) < vocab;
            let ids = [a, b, c, d].into_iter().skip_while(|&id| id == NONE).collect::<Vec<_>>();
            if ids.is_empty() || !ids.iter().all(id) || !id(&next) || count == 0 {
                return Err(wrong(format!("record {number} is damaged; delete the file to begin anew")));
            }
            table.count([a, b, c, d], next, count);
        }
        Ok(Self { vocab, table: Mutex::new(table) })
    }

    /// Writes all counts; a reader finds the old file or the new one, never half of it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let table = self.table();
        let of = |(run, followed): (&Run, &Vec<(u32, u32)>)| {
            let [a, b, c, d] = *run;
            followed.iter().map(|&(next, count)| [a, b, c, d, next, count]).collect::<Vec<_>>()
        };
        let mut records: Vec<[u32; RECORD]> = table.0.iter().flat_map(of).collect();
        records.sort_unstable();
        let mut bytes = MAGIC.to_vec();
        let numbers = [self.vocab as u32, records.len() as u32];
        bytes.extend(numbers.iter().chain(records.iter().flatten()).flat_map(|number| number.to_le_bytes()));
        let wrong = |error| Error::Settings(format!("the n-grams cannot be kept: {error}"));
        atomic_write(path, &bytes).map_err(wrong)
    }
}

#[cfg(test)]
mod tests;

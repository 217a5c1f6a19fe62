//! Rows of unequal length laid end to end, filled up only when they become a batch; and what all objectives share.

use phyla_kernels::rng::philox;
use rayon::prelude::*;

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// Rows of unequal length in one vector.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ragged<T> {
    values: Vec<T>,
    ends: Vec<usize>,
}

impl<T> Default for Ragged<T> {
    fn default() -> Self {
        Self { values: Vec::new(), ends: Vec::new() }
    }
}

impl<T: Copy> Ragged<T> {
    pub(super) fn push(&mut self, row: &[T]) {
        self.values.extend_from_slice(row);
        self.ends.push(self.values.len());
    }

    pub(super) fn get(&self, index: usize) -> &[T] {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.values[start..self.ends[index]]
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn length(&self, index: usize) -> usize {
        self.get(index).len()
    }

    pub(super) fn values(&self) -> &[T] {
        &self.values
    }
}

/// Token ids and, where a tokenizer gives them, token types.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct TokenRows {
    pub(super) ids: Ragged<u32>,
    types: Ragged<u8>,
    /// Some token is of another type than 0; else types say nothing.
    typed: bool,
    pub(super) pad: u32,
}

impl TokenRows {
    pub(super) fn new(tokenizer: &Tokenizer) -> Self {
        // Filling is masked by lengths, so that without a token for it any will do.
        Self { pad: tokenizer.pad().unwrap_or(0), ..Self::default() }
    }

    pub(super) fn push(&mut self, ids: &[u32], types: &[u8]) {
        self.typed |= types.iter().any(|&token_type| token_type != 0);
        self.ids.push(ids);
        self.types.push(types);
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// These rows, filled up on the right to the longest of them.
    pub(super) fn batch(&self, rows: impl Iterator<Item = usize> + Clone) -> Batch {
        let mut batch = Batch::of_rows(rows.clone().map(|row| self.ids.get(row)), self.pad);
        batch.token_types = self.typed.then(|| {
            let mut types = Vec::with_capacity(batch.ids.len());
            for (at, row) in rows.enumerate() {
                types.extend(self.types.get(row).iter().map(|&token_type| u32::from(token_type)));
                types.resize((at + 1) * batch.time, 0);
            }
            types
        });
        batch
    }

    pub(super) fn digest(&self, digest: &mut Digest) {
        digest.all(self.ids.values().iter().map(|&id| u64::from(id)));
        digest.all(self.ids.ends.iter().map(|&end| end as u64));
        digest.all(self.types.values().iter().map(|&token_type| u64::from(token_type)));
    }
}

/// A running hash of numbers: it must tell one data set from another, not withstand anyone.
#[derive(Debug, Default)]
pub(super) struct Digest(u64);

impl Digest {
    pub(super) fn add(&mut self, number: u64) {
        let (state, number) = (self.0, number);
        let words = [state as u32, (state >> 32) as u32, number as u32, (number >> 32) as u32];
        let [lo, hi, ..] = philox(words, [0x6469_6765, 0x7374_0000]);
        self.0 = u64::from(lo) | u64::from(hi) << 32;
    }

    pub(super) fn all(&mut self, numbers: impl ExactSizeIterator<Item = u64>) {
        self.add(numbers.len() as u64);
        numbers.for_each(|number| self.add(number));
    }

    pub(super) fn value(self) -> u64 {
        self.0
    }
}

/// Records through `work` on all threads, and its results, in order, to `take`.
pub(super) fn in_parallel<R: Send, T: Send>(
    records: impl Iterator<Item = Result<R>>,
    work: impl Fn(R) -> Result<T> + Sync,
    mut take: impl FnMut(T) -> Result<()>,
) -> Result<()> {
    /// Enough to keep threads busy, few enough to hold in memory beside the ids.
    const CHUNK: usize = 1024;
    let mut records = records.peekable();
    while records.peek().is_some() {
        let chunk: Vec<Result<R>> = records.by_ref().take(CHUNK).collect();
        let done: Vec<Result<T>> = chunk.into_par_iter().map(|record| work(record?)).collect();
        for result in done {
            take(result?)?;
        }
    }
    Ok(())
}

/// One text or two as ids and token types of at most `max_len` tokens, and whether something was cut off.
///
/// Of two texts the longer one is cut first (transformers' `longest_first`); what the tokenizer puts around them stays.
///
/// # Errors
/// When the tokenizer cannot encode a text, and `max_len` without room for any of it.
pub fn encode(
    tokenizer: &Tokenizer,
    text: &str,
    second: Option<&str>,
    max_len: usize,
) -> Result<(Vec<u32>, Vec<u8>, bool)> {
    let (ids, types) = match second {
        None => {
            let ids = tokenizer.encode(text, true)?;
            let types = vec![0; ids.len()];
            (ids, types)
        }
        Some(second) => {
            let (ids, types) = tokenizer.encode_pair(text, second, true)?;
            (ids, types.into_iter().map(|token_type| token_type.min(255) as u8).collect())
        }
    };
    if ids.len() <= max_len {
        return Ok((ids, types, false));
    }
    // Few texts are too long, and only for those does it matter where each token comes from.
    let detailed = match second {
        None => tokenizer.encode_detailed(text, true)?,
        Some(second) => tokenizer.encode_pair_detailed(text, second, true)?,
    };
    let count = |which: u8| detailed.texts.iter().filter(|text| **text == Some(which)).count();
    let added = detailed.texts.iter().filter(|text| text.is_none()).count();
    let room = room(max_len, added)?;
    let keep = longest_first(count(0), count(1), room);
    let (mut kept, mut seen) = ((Vec::new(), Vec::new()), [0, 0]);
    for (at, text) in detailed.texts.iter().enumerate() {
        if let Some(text) = text {
            let which = usize::from(*text).min(1);
            seen[which] += 1;
            if seen[which] > keep[which] {
                continue;
            }
        }
        kept.0.push(detailed.ids[at]);
        kept.1.push(if second.is_some() { detailed.types[at].min(255) as u8 } else { 0 });
    }
    Ok((kept.0, kept.1, true))
}

/// What is left of `max_len` beside the tokens that the tokenizer adds.
pub(super) fn room(max_len: usize, added: usize) -> Result<usize> {
    match max_len.checked_sub(added) {
        Some(room) if room > 0 => Ok(room),
        _ => Err(Error::Settings(format!(
            "`max_len` is {max_len}, which leaves no room beside the {added} tokens that the tokenizer adds"
        ))),
    }
}

/// How many tokens of each text fit into `room`, the longer one cut first, as the tokenizers library does.
fn longest_first(first: usize, second: usize, room: usize) -> [usize; 2] {
    let (short, long) = (first.min(second), first.max(second));
    if short + long <= room {
        return [first, second];
    }
    let (short, long) =
        if room.saturating_sub(short) >= short { (short, room - short) } else { (room / 2, room - room / 2) };
    if first > second { [long, short] } else { [short, long] }
}

/// `part` of `whole` as a note, or nothing when there is no part.
pub(super) fn note(part: usize, whole: usize, what: &str) -> Option<String> {
    (part > 0).then(|| format!("{part} of {whole} {what}"))
}

#[cfg(test)]
mod tests {
    use super::longest_first;

    #[test]
    fn the_longer_text_is_cut_first() {
        assert_eq!(longest_first(3, 4, 7), [3, 4]);
        assert_eq!(longest_first(3, 9, 10), [3, 7]);
        assert_eq!(longest_first(9, 3, 10), [7, 3]);
        assert_eq!(longest_first(9, 8, 11), [6, 5]);
        assert_eq!(longest_first(8, 9, 11), [5, 6]);
        assert_eq!(longest_first(20, 0, 11), [11, 0]);
    }
}

//! DRY, "don't repeat yourself": the longer the run that an id would continue, the less likely it becomes, by a power; where
//! `no_repeat_ngram_size` rules it out at one length. As in llama.cpp (`llama_sampler_init_dry`).

use std::collections::HashMap;

use phyla_data::tokenizer::Tokenizer;

use super::{History, Processor};
use crate::Result;

/// Takes `multiplier · base^(length - allowed)` from the logit of an id that would continue a run of `length` ids, from `allowed` on,
/// that has been before; runs are not followed beyond a breaker, and an id that is one costs nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Dry {
    /// What a run of the allowed length costs.
    pub multiplier: f32,
    /// At least 1.
    pub base: f32,
    /// Runs below this length cost nothing.
    pub allowed: usize,
    /// So many last ids are looked at.
    pub last: usize,
    /// Texts that no run goes beyond, until [`Dry::resolved`] makes `breakers` of them; `None` stands for the usual ones.
    pub texts: Option<Vec<String>>,
    /// Runs of ids that no run goes beyond.
    pub breakers: Vec<Vec<u32>>,
}

/// A line's end, a colon, a double quote, an asterisk.
const USUAL: [&str; 4] = ["\n", ":", "\"", "*"];

/// So large a power of `base` is still a number.
const LARGEST_LOG: f32 = 88.722_84;

/// Ids of a breaker's end that are compared, at most.
const LONGEST_TAIL: usize = 20;

impl Processor for Dry {
    fn name(&self) -> &'static str {
        "dry_multiplier"
    }

    fn apply(&self, row: &mut [f32], history: &History) {
        let ids = &history.ids()[history.ids().len().saturating_sub(self.last)..];
        let reach = self.reach(ids);
        if ids.len() <= self.allowed || reach < self.allowed {
            return;
        }
        let most = if self.base > 1.000_001 { (LARGEST_LOG / self.base.ln()).floor() } else { f32::INFINITY };
        let mut longest: HashMap<u32, usize> = HashMap::new();
        for (back, length) in endings(ids).into_iter().enumerate().skip(1) {
            let length = length.min(reach);
            if length >= self.allowed {
                // What came behind the run the time before.
                let known = longest.entry(ids[ids.len() - back]).or_default();
                *known = length.max(*known);
            }
        }
        // What breaks runs by itself continues none.
        let breaks = |id: u32| self.breakers.iter().any(|run| *run == [id]);
        for (id, length) in longest.into_iter().filter(|(id, _)| !breaks(*id)) {
            if let Some(x) = row.get_mut(id as usize) {
                *x -= self.multiplier * self.base.powf(((length - self.allowed) as f32).min(most));
            }
        }
    }
}

impl Dry {
    /// How many last ids stand behind the last breaker.
    fn reach(&self, ids: &[u32]) -> usize {
        for back in 0..ids.len() {
            let from = &ids[ids.len() - 1 - back..];
            let breaks = self.breakers.iter().filter(|run| from.starts_with(run));
            if let Some(longest) = breaks.map(Vec::len).max() {
                return back + 1 - longest;
            }
        }
        ids.len()
    }

    /// Finds what ids spell the breakers: every token that holds one, and every token that one begins in, with the ids of the
    /// rest of it.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn resolved(mut self, tokenizer: &Tokenizer) -> Result<Self> {
        let texts = self.texts.take().unwrap_or_else(|| USUAL.map(str::to_owned).to_vec());
        let ids = tokenizer.vocabulary().into_iter().filter(|_| !texts.is_empty());
        for (_, id) in ids {
            let word = tokenizer.decode(&[id], false)?;
            for text in &texts {
                if word.contains(text.as_str()) {
                    self.breakers.push(vec![id]);
                    continue;
                }
                // Where the end of the word is the beginning of the text.
                for (at, _) in word.char_indices().filter(|(at, _)| text.starts_with(&word[*at..])) {
                    let rest = tokenizer.encode(&text[word.len() - at..], false)?;
                    self.breakers.push(std::iter::once(id).chain(rest.into_iter().take(LONGEST_TAIL)).collect());
                }
            }
        }
        self.breakers.sort_unstable();
        self.breakers.dedup();
        Ok(self)
    }
}

/// For each position, counted from the end, how many ids before it, itself included, are those that all of `ids` end with (the
/// Z-function of the reversed ids: Gusfield 1997, section 1.4).
fn endings(ids: &[u32]) -> Vec<usize> {
    let (n, at) = (ids.len(), |back: usize| ids[ids.len() - 1 - back]);
    let mut lengths = vec![0; n];
    // The range that reaches farthest of those that are known to equal the beginning.
    let (mut from, mut to) = (0, 0);
    for i in 1..n {
        let mut length = if i < to { lengths[i - from].min(to - i) } else { 0 };
        while i + length < n && at(length) == at(i + length) {
            length += 1;
        }
        if i + length > to {
            (from, to) = (i, i + length);
        }
        lengths[i] = length;
    }
    lengths
}

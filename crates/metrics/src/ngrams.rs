//! Counting the n-grams of a sequence of ids, for the metrics that compare texts by them.

use std::collections::HashMap;

/// How often each run of `n` ids occurs; `n` is at least 1.
pub fn count(ids: &[u32], n: usize) -> HashMap<&[u32], u64> {
    let mut counts = HashMap::with_capacity((ids.len() + 1).saturating_sub(n));
    for ngram in ids.windows(n.max(1)) {
        *counts.entry(ngram).or_insert(0) += 1;
    }
    counts
}

/// How many n-grams two texts share, each counted as often as both hold it.
pub fn shared(a: &HashMap<&[u32], u64>, b: &HashMap<&[u32], u64>) -> u64 {
    let (few, many) = if a.len() < b.len() { (a, b) } else { (b, a) };
    few.iter().filter_map(|(ngram, count)| many.get(ngram).map(|other| *count.min(other))).sum()
}

/// Numbers words by their first appearance, so that n-grams compare as numbers.
#[derive(Debug, Default)]
pub struct Interner<'a>(HashMap<&'a str, u32>);

impl<'a> Interner<'a> {
    /// The ids of words.
    pub fn ids(&mut self, words: impl Iterator<Item = &'a str>) -> Vec<u32> {
        words
            .map(|word| {
                let next = self.0.len() as u32;
                *self.0.entry(word).or_insert(next)
            })
            .collect()
    }
}

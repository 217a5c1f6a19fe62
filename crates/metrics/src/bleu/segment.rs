//! The counts of one segment: a translation against the n-grams of all its references.

use std::collections::HashMap;

use super::{Options, Statistics};
use crate::ngrams::{Interner, count, shared};
use crate::text::{is_space, words};

/// Counts a segment. Of each n-gram as many count as the reference that holds the most of it; the reference length is
/// the nearest to the hypothesis, the shorter of two equally near.
pub fn statistics<T: AsRef<str>>(options: &Options, hypothesis: &str, references: &[T]) -> Statistics {
    let hypothesis = prepared(options, hypothesis);
    let references: Vec<String> = references.iter().map(|text| prepared(options, text.as_ref())).collect();
    let mut interner = Interner::default();
    let hypothesis = interner.ids(words(&hypothesis));
    let references: Vec<Vec<u32>> = references.iter().map(|text| interner.ids(words(text))).collect();

    let near = |reference: &Vec<u32>| (reference.len().abs_diff(hypothesis.len()), reference.len());
    let mut statistics = Statistics {
        length: hypothesis.len() as u64,
        reference_length: references.iter().map(near).min().map_or(0, |(_, length)| length as u64),
        ..Statistics::default()
    };
    for n in 1..=options.max_order {
        let mut most: HashMap<&[u32], u64> = HashMap::new();
        for reference in &references {
            for (ngram, count) in count(reference, n) {
                let most = most.entry(ngram).or_insert(0);
                *most = count.max(*most);
            }
        }
        statistics.correct.push(shared(&count(&hypothesis, n), &most));
        statistics.total.push((hypothesis.len() + 1).saturating_sub(n) as u64);
    }
    statistics
}

fn prepared(options: &Options, text: &str) -> String {
    // The end of a line is not part of the text: `-` before it would be taken for a hyphenation.
    if options.lowercase {
        return options.tokenizer.tokenize(text.to_lowercase().trim_end_matches(is_space));
    }
    options.tokenizer.tokenize(text.trim_end_matches(is_space))
}

impl std::ops::AddAssign<&Self> for Statistics {
    fn add_assign(&mut self, other: &Self) {
        self.length += other.length;
        self.reference_length += other.reference_length;
        for (sum, counts) in [(&mut self.correct, &other.correct), (&mut self.total, &other.total)] {
            sum.resize(counts.len().max(sum.len()), 0);
            sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
    }
}

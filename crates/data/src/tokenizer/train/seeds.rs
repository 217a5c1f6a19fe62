//! Where vocabularies begin: the characters they know, and of unigram ones the frequent substrings of words.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::error::{Error, Result};

/// A word or a piece of one, and how often it occurs.
pub(super) type Counted = (Vec<char>, u64);

/// Begins a word in place of the space before it.
pub(super) const SPACE: char = '▁';

/// Refuses a share that is none.
pub(super) fn check_coverage(coverage: f64) -> Result<()> {
    if coverage > 0.0 && coverage <= 1.0 {
        return Ok(());
    }
    Err(Error::Settings(format!("`character_coverage` should lie above 0 and at most at 1, found {coverage}")))
}

/// The most frequent characters that make up this share of the text, and all of ASCII that occurs (digits are rare in
/// stories, and cost little), in the order of their code points.
pub(super) fn characters(words: &BTreeMap<Box<str>, u64>, coverage: f64) -> BTreeMap<char, u64> {
    let mut counts = BTreeMap::<char, u64>::new();
    for (word, count) in words {
        word.chars().for_each(|c| *counts.entry(c).or_default() += count);
    }
    let total: u64 = counts.values().sum();
    let mut counts: Vec<(char, u64)> = counts.into_iter().collect();
    // Stable: of equally frequent characters the one with the lower code point stays.
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let mut covered = 0;
    counts.retain(|(c, count)| {
        let wanted = c.is_ascii() || (covered as f64) < total as f64 * coverage;
        covered += count;
        wanted
    });
    counts.into_iter().collect()
}

/// The words cut at characters that are not in the vocabulary.
pub(super) fn known_parts(words: BTreeMap<Box<str>, u64>, characters: &BTreeMap<char, u64>) -> Vec<Counted> {
    let parts = |(word, count): (Box<str>, u64)| {
        let word: Vec<char> = word.chars().collect();
        let parts = word.split(|c| !characters.contains_key(c)).filter(|part| !part.is_empty());
        parts.map(|part| (part.to_vec(), count)).collect::<Vec<_>>()
    };
    words.into_iter().flat_map(parts).collect()
}

/// Substrings of 2 to `longest` characters that occur at least twice, the `most` that cover the most text.
///
/// Found length by length: a substring can only be frequent when its beginning is. One that never stands without the
/// same neighbour is left out, since the longer one says the same (suffix trees leave it out as well).
pub(super) fn substrings(words: &[Counted], longest: usize, most: usize) -> Vec<Counted> {
    let mut found = Vec::<(u64, &[char])>::new();
    let mut before = HashMap::<&[char], u64>::new();
    for length in 2..=longest + 1 {
        let mut counts = HashMap::<&[char], u64>::new();
        for (word, count) in words {
            for part in word.windows(length) {
                if (length == 2 || before.contains_key(&part[..length - 1])) && is_piece(part) {
                    *counts.entry(part).or_default() += count;
                }
            }
        }
        counts.retain(|_, count| *count >= 2);
        let redundant: HashSet<&[char]> = counts
            .iter()
            .flat_map(|(part, count)| [(&part[..length - 1], count), (&part[1..], count)])
            .filter(|(shorter, count)| before.get(shorter) == Some(count))
            .map(|(shorter, _)| shorter)
            .collect();
        let kept = before.iter().filter(|(part, _)| !redundant.contains(*part));
        found.extend(kept.map(|(part, count)| (count * part.len() as u64, *part)));
        before = counts;
    }
    found.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    found.truncate(most);
    found.into_iter().map(|(covered, part)| (part.to_vec(), covered)).collect()
}

/// Pieces do not mix letters, digits and other signs, and a space stands only at the beginning.
fn is_piece(part: &[char]) -> bool {
    let kind = |c: &char| (c.is_alphabetic(), c.is_numeric());
    let rest = part.strip_prefix(&[SPACE]).unwrap_or(part);
    !rest.contains(&SPACE) && rest.windows(2).all(|pair| kind(&pair[0]) == kind(&pair[1]))
}

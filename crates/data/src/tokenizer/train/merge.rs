//! The merges of byte-pair encoding, learnt from counted words; independent of how words are found or spelled.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};

type Pair = (u32, u32);

/// A word as tokens, and how often it occurs.
type Word = (Vec<u32>, u64);

/// Merges the most frequent pair until there are `size` tokens or no pair occurs `least` times.
///
/// `spelled` holds the alphabet and is extended by the new tokens; `inside` is what the spelling of a token that
/// does not begin a word begins with (`##`), and is dropped where two are joined. Returns the pairs in order of
/// merging.
pub(super) fn learn(
    mut words: Vec<Word>,
    spelled: &mut Vec<String>,
    size: usize,
    least: u64,
    inside: &str,
    progress: &mut dyn FnMut(usize),
) -> Vec<Pair> {
    let mut known: HashMap<String, u32> = spelled.iter().cloned().zip(0..).collect();
    let mut counts = HashMap::<Pair, u64>::new();
    // Words in which a pair was seen: a word may have lost it since, and then is passed over.
    let mut places = HashMap::<Pair, Vec<u32>>::new();
    for (index, (word, count)) in words.iter().enumerate() {
        for pair in pairs(word) {
            *counts.entry(pair).or_default() += count;
            let places = places.entry(pair).or_default();
            if places.last() != Some(&(index as u32)) {
                places.push(index as u32);
            }
        }
    }
    // Ordered by count, then by the smaller ids. Counts that have fallen since are corrected when they come up.
    let mut heap: BinaryHeap<(u64, Reverse<Pair>)> =
        counts.iter().map(|(&pair, &count)| (count, Reverse(pair))).collect();
    let mut merges = Vec::new();
    while spelled.len() < size
        && let Some((count, Reverse(pair))) = heap.pop()
    {
        let now = counts.get(&pair).copied().unwrap_or(0);
        if now != count {
            if now > 0 {
                heap.push((now, Reverse(pair)));
            }
            continue;
        }
        if now < least {
            break;
        }
        let right = &spelled[pair.1 as usize];
        let spelling = format!("{}{}", spelled[pair.0 as usize], right.strip_prefix(inside).unwrap_or(right));
        // "ab" + "c" and "a" + "bc" are one token, reached by two merges.
        let token = *known.entry(spelling.clone()).or_insert_with(|| {
            spelled.push(spelling);
            spelled.len() as u32 - 1
        });
        merges.push(pair);
        let mut grown = BTreeSet::new();
        for index in places.remove(&pair).unwrap_or_default() {
            let (word, count) = &mut words[index as usize];
            if !pairs(word).any(|other| other == pair) {
                continue;
            }
            for old in pairs(word) {
                if let Some(total) = counts.get_mut(&old) {
                    *total -= *count;
                }
            }
            replace(word, pair, token);
            for new in pairs(word) {
                *counts.entry(new).or_default() += *count;
                if new.0 == token || new.1 == token {
                    grown.insert(new);
                    let places = places.entry(new).or_default();
                    if places.last() != Some(&index) {
                        places.push(index);
                    }
                }
            }
        }
        for pair in grown {
            heap.push((counts[&pair], Reverse(pair)));
        }
        progress(spelled.len());
    }
    merges
}

fn pairs(word: &[u32]) -> impl Iterator<Item = Pair> + '_ {
    word.windows(2).map(|pair| (pair[0], pair[1]))
}

/// Replaces each occurrence of the pair by the token, from the left.
fn replace(word: &mut Vec<u32>, (left, right): Pair, token: u32) {
    let (mut read, mut write) = (0, 0);
    while read < word.len() {
        if word[read] == left && word.get(read + 1) == Some(&right) {
            word[write] = token;
            read += 2;
        } else {
            word[write] = word[read];
            read += 1;
        }
        write += 1;
    }
    word.truncate(write);
}

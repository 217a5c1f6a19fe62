//! How far a beam has come with the words that it must write, and which beams go on so that some come further: those with
//! equally much written form a bank, and the best of each bank go on in turns (Post and Vilar 2018, "Fast Lexically
//! Constrained Decoding with Dynamic Beam Allocation", section 3; in the form of transformers 4.28.1).

use super::best::Candidate;
use crate::config::ForcedWords;

/// How far a sequence has come. One id never serves two words; an id that breaks a word off begins no other.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Progress {
    /// Words that have not been begun.
    pending: Vec<usize>,
    /// The word in hand, and what has been written of it.
    begun: Option<(usize, Vec<u32>)>,
    /// How many are written.
    written: usize,
}

/// The ids that may follow a beginning of these runs, in the order in which the runs name them.
fn next<'w>(words: &'w ForcedWords, begun: &'w [u32]) -> Vec<u32> {
    let mut ids = vec![];
    for id in words.0.iter().filter_map(|run| run.strip_prefix(begun)?.first()) {
        if !ids.contains(id) {
            ids.push(*id);
        }
    }
    ids
}

impl Progress {
    /// After `ids`.
    pub fn after(ids: &[u32], words: &[ForcedWords]) -> Self {
        let mut progress = Self { pending: (0..words.len()).collect(), ..Self::default() };
        ids.iter().for_each(|&id| progress.add(id, words));
        progress
    }

    /// Whether all words are written.
    pub fn whole(&self) -> bool {
        self.pending.is_empty() && self.begun.is_none()
    }

    /// One id more.
    pub fn add(&mut self, id: u32, words: &[ForcedWords]) {
        let (word, mut begun) = match self.begun.take() {
            Some(begun) => begun,
            None => {
                let Some(at) = self.pending.iter().position(|&word| next(&words[word], &[]).contains(&id)) else {
                    return;
                };
                (self.pending.remove(at), vec![])
            }
        };
        if !next(&words[word], &begun).contains(&id) {
            self.pending.push(word);
            return;
        }
        begun.push(id);
        if next(&words[word], &begun).is_empty() {
            self.written += 1;
        } else {
            self.begun = Some((word, begun));
        }
    }

    /// Ids that are missing at least.
    pub fn missing(&self, words: &[ForcedWords]) -> usize {
        let rest = |(word, begun): &(usize, Vec<u32>)| {
            let runs = words[*word].0.iter().filter(|run| run.starts_with(begun));
            runs.map(|run| run.len() - begun.len()).min().unwrap_or(0)
        };
        let begun = self.begun.as_ref().map_or(0, rest);
        begun + self.pending.iter().map(|&word| words[word].shortest()).sum::<usize>()
    }

    /// The bank: words written count as the longest, the one in hand by what is missing of its longest run.
    pub fn bank(&self, words: &[ForcedWords]) -> usize {
        let begun = self.begun.as_ref().map_or(0, |(word, begun)| part(&words[*word], begun.len(), words));
        self.written * longest(words) + begun
    }

    /// The ids that bring the words further, and the bank that each leads to.
    ///
    /// The reference's copies of a word in hand share what has been written of it, so that the second of several ids that may
    /// come next finds the first there. That decides which beams go on, and is done here as well.
    pub fn advances(&self, words: &[ForcedWords]) -> Vec<(u32, usize)> {
        let Some((word, begun)) = &self.begun else {
            let ids = self.pending.iter().flat_map(|&word| next(&words[word], &[]));
            let bank = |id| {
                let mut after = self.clone();
                after.add(id, words);
                after.bank(words)
            };
            return ids.map(|id| (id, bank(id))).collect();
        };
        let (base, word, mut shared) = (self.written * longest(words), &words[*word], begun.clone());
        let mut open = vec![];
        let mut found: Vec<(u32, usize)> = vec![];
        for id in next(word, begun) {
            if next(word, &shared).contains(&id) {
                shared.push(id);
                if next(word, &shared).is_empty() {
                    found.push((id, base + longest(words)));
                    continue;
                }
                open.push(found.len());
            }
            found.push((id, base));
        }
        open.into_iter().for_each(|at| found[at].1 += part(word, shared.len(), words));
        found
    }
}

/// What so many ids of a word count in its bank.
fn part(word: &ForcedWords, begun: usize, words: &[ForcedWords]) -> usize {
    (longest(words) + begun).saturating_sub(word.longest())
}

fn longest(words: &[ForcedWords]) -> usize {
    words.iter().map(ForcedWords::longest).max().unwrap_or(0)
}

/// Puts candidates with their banks in the order in which they go on: the best of each bank, then the second of each.
pub(super) fn in_turns(candidates: Vec<(Candidate, usize)>) -> Vec<Candidate> {
    // Sums in f32, whose rounding decides between near candidates of a high bank.
    let mut sorted: Vec<(f32, usize, Candidate)> = candidates
        .into_iter()
        .map(|(candidate, bank)| ((bank * 100) as f32 + candidate.score, bank, candidate))
        .collect();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut turns: Vec<(usize, Candidate)> = Vec::with_capacity(sorted.len());
    let (mut turn, mut last) = (0, None);
    for (_, bank, candidate) in sorted {
        turn = if last == Some(bank) { turn + 1 } else { 0 };
        last = Some(bank);
        turns.push((turn, candidate));
    }
    turns.sort_by_key(|(turn, _)| *turn);
    turns.into_iter().map(|(_, candidate)| candidate).collect()
}

//! The unigram language model over pieces: expected counts, best segmentations, and what losing a piece would cost.

use rayon::prelude::*;

use super::seeds::Counted;

/// Parts of the words worked on at once. Fixed, so that sums are taken in the same order on any number of threads.
const PARTS: usize = 16;

/// A piece with the logarithm of its probability.
pub(super) type Piece = (Vec<char>, f64);

/// Pieces and a trie over them.
pub(super) struct Unigram {
    pub(super) pieces: Vec<Piece>,
    nodes: Vec<Node>,
}

#[derive(Default)]
struct Node {
    /// Sorted by character.
    children: Vec<(char, u32)>,
    piece: Option<u32>,
}

impl Unigram {
    /// Pieces with their counts, in any unit.
    pub(super) fn new(pieces: Vec<Counted>) -> Self {
        let total: u64 = pieces.iter().map(|(_, count)| count).sum();
        let score = |count: u64| (count as f64 / total as f64).ln();
        Self::with(pieces.into_iter().map(|(piece, count)| (piece, score(count))).collect())
    }

    fn with(pieces: Vec<Piece>) -> Self {
        let mut nodes = vec![Node::default()];
        for (index, (piece, _)) in pieces.iter().enumerate() {
            let mut at = 0;
            for &c in piece {
                at = match nodes[at].children.binary_search_by_key(&c, |child| child.0) {
                    Ok(place) => nodes[at].children[place].1 as usize,
                    Err(place) => {
                        let new = nodes.len();
                        nodes[at].children.insert(place, (c, new as u32));
                        nodes.push(Node::default());
                        new
                    }
                };
            }
            nodes[at].piece = Some(index as u32);
        }
        Self { pieces, nodes }
    }

    /// Calls `each(end, piece)` for every piece that begins at `start`.
    fn matches(&self, word: &[char], start: usize, mut each: impl FnMut(usize, u32)) {
        let mut at = 0;
        for (offset, &c) in word[start..].iter().enumerate() {
            let children = &self.nodes[at].children;
            let Ok(place) = children.binary_search_by_key(&c, |child| child.0) else { return };
            at = children[place].1 as usize;
            if let Some(piece) = self.nodes[at].piece {
                each(start + offset + 1, piece);
            }
        }
    }

    /// Sums a vector over all words.
    fn sum(&self, words: &[Counted], add: impl Fn(&Counted, &mut [f64]) + Sync) -> Vec<f64> {
        let parts: Vec<Vec<f64>> = words
            .par_chunks(words.len().div_ceil(PARTS).max(1))
            .map(|words| {
                let mut sums = vec![0.0; self.pieces.len()];
                words.iter().for_each(|word| add(word, &mut sums));
                sums
            })
            .collect();
        let mut total = vec![0.0; self.pieces.len()];
        for part in parts {
            total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
        }
        total
    }

    /// How often each piece occurs, averaged over all segmentations by their probability (forward and backward sums).
    pub(super) fn expected(&self, words: &[Counted]) -> Vec<f64> {
        self.sum(words, |(word, count), sums| {
            let mut edges = Vec::new();
            let mut forward = vec![f64::NEG_INFINITY; word.len() + 1];
            forward[0] = 0.0;
            for start in 0..word.len() {
                self.matches(word, start, |end, piece| {
                    edges.push((start, end, piece));
                    forward[end] = log_add(forward[end], forward[start] + self.pieces[piece as usize].1);
                });
            }
            let mut backward = vec![f64::NEG_INFINITY; word.len() + 1];
            backward[word.len()] = 0.0;
            for &(start, end, piece) in edges.iter().rev() {
                backward[start] = log_add(backward[start], backward[end] + self.pieces[piece as usize].1);
            }
            for (start, end, piece) in edges {
                let path = forward[start] + self.pieces[piece as usize].1 + backward[end] - forward[word.len()];
                sums[piece as usize] += *count as f64 * path.exp();
            }
        })
    }

    /// Gives pieces the probabilities that their expected counts make likely, under a prior that favours few pieces
    /// (hence the digamma function); pieces that hardly occur go, characters stay.
    pub(super) fn maximise(self, expected: &[f64]) -> Self {
        const RARE: f64 = 0.5;
        let kept =
            |((piece, _), &count): (Piece, &f64)| (piece.len() == 1 || count >= RARE).then(|| (piece, count.max(RARE)));
        let mut pieces: Vec<Piece> = self.pieces.into_iter().zip(expected).filter_map(kept).collect();
        let total = digamma(pieces.iter().map(|(_, count)| count).sum());
        pieces.iter_mut().for_each(|(_, count)| *count = digamma(*count) - total);
        Self::with(pieces)
    }

    /// The pieces of the most probable segmentation; `without` one piece.
    fn best(&self, word: &[char], without: Option<u32>) -> Vec<u32> {
        let mut best: Vec<(f64, usize, u32)> = vec![(f64::NEG_INFINITY, 0, 0); word.len() + 1];
        best[0].0 = 0.0;
        for start in 0..word.len() {
            let here = best[start].0;
            self.matches(word, start, |end, piece| {
                let score = here + self.pieces[piece as usize].1;
                if Some(piece) != without && score > best[end].0 {
                    best[end] = (score, start, piece);
                }
            });
        }
        let (mut pieces, mut at) = (Vec::new(), word.len());
        while at > 0 && best[at].0 > f64::NEG_INFINITY {
            pieces.push(best[at].2);
            at = best[at].1;
        }
        pieces
    }

    /// Keeps the `size` pieces whose loss would cost the most likelihood, and all characters (Kudo 2018, section 3.2).
    pub(super) fn prune(self, words: &[Counted], size: usize) -> Self {
        let counts = self.sum(words, |(word, count), sums| {
            self.best(word, None).into_iter().for_each(|piece| sums[piece as usize] += *count as f64);
        });
        let total: f64 = counts.iter().sum();
        let mut costs: Vec<(f64, u32)> = (0..self.pieces.len() as u32)
            .into_par_iter()
            .filter(|&piece| self.pieces[piece as usize].0.len() > 1 && counts[piece as usize] > 0.0)
            .map(|piece| {
                let count = counts[piece as usize];
                let instead = self.best(&self.pieces[piece as usize].0, Some(piece));
                // Its occurrences go over to the pieces that spell it then, which also makes all of them more.
                let grown = (total + count * (instead.len() as f64 - 1.0)).ln();
                let after: f64 = instead.iter().map(|&other| (counts[other as usize] + count).ln() - grown).sum();
                (count * (count.ln() - total.ln() - after), piece)
            })
            .collect();
        let place = |piece: u32| &self.pieces[piece as usize].0;
        costs.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then_with(|| place(a.1).cmp(place(b.1))));
        let characters = self.pieces.iter().filter(|(piece, _)| piece.len() == 1).count();
        costs.truncate(size.saturating_sub(characters));
        let mut kept = vec![false; self.pieces.len()];
        costs.iter().for_each(|(_, piece)| kept[*piece as usize] = true);
        let kept = self.pieces.into_iter().zip(kept).filter(|((piece, _), kept)| *kept || piece.len() == 1);
        Self::with(kept.map(|(piece, _)| piece).collect())
    }
}

/// `ln(exp(a) + exp(b))`.
fn log_add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// The derivative of ln Γ, for positive numbers: its recurrence up to where the asymptotic series is exact enough.
fn digamma(mut x: f64) -> f64 {
    let mut sum = 0.0;
    while x < 8.0 {
        sum -= 1.0 / x;
        x += 1.0;
    }
    let square = 1.0 / (x * x);
    sum + x.ln() - 0.5 / x - square * (1.0 / 12.0 - square * (1.0 / 120.0 - square * (1.0 / 252.0 - square / 240.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(pieces: &[(&str, f64)]) -> Unigram {
        Unigram::with(pieces.iter().map(|(piece, p)| (piece.chars().collect(), p.ln())).collect())
    }

    #[test]
    fn digamma_has_its_known_values() {
        // ψ(1) = -γ, ψ(1/2) = -γ - 2 ln 2, ψ(10) = H_9 - γ.
        let gamma = 0.577_215_664_901_532_9;
        assert!((digamma(1.0) + gamma).abs() < 1e-9);
        assert!((digamma(0.5) + gamma + 2.0 * 2f64.ln()).abs() < 1e-9);
        let harmonic: f64 = (1..10).map(|n| 1.0 / f64::from(n)).sum();
        assert!((digamma(10.0) - harmonic + gamma).abs() < 1e-9);
    }

    #[test]
    fn expected_counts_are_those_of_all_segmentations() {
        // "aba" as a+b+a, ab+a or a+ba, counted three times.
        let model = model(&[("a", 0.4), ("b", 0.1), ("ab", 0.3), ("ba", 0.2)]);
        let [one, two, three] = [0.4 * 0.1 * 0.4, 0.3 * 0.4, 0.4 * 0.2];
        let all = one + two + three;
        let expected = [2.0 * one + two + three, one, two, three].map(|weight| 3.0 * weight / all);
        let found = model.expected(&[("aba".chars().collect(), 3)]);
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?} {expected:?}");
        assert_eq!(model.best(&['a', 'b', 'a'], None), [0, 2]);
        assert_eq!(model.best(&['a', 'b', 'a'], Some(2)), [3, 0]);
    }

    #[test]
    fn pruning_keeps_characters_and_what_saves_most() {
        let model = model(&[("a", 0.1), ("b", 0.1), ("c", 0.1), ("ab", 0.4), ("bc", 0.3)]);
        let words = [("ab".chars().collect(), 100), ("bc".chars().collect(), 10), ("cba".chars().collect(), 1)];
        let kept = model.prune(&words, 4);
        let kept: Vec<String> = kept.pieces.iter().map(|(piece, _)| piece.iter().collect()).collect();
        assert_eq!(kept, ["a", "b", "c", "ab"]);
    }
}

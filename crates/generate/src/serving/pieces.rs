//! Where what a line has to read is cut, so that it can be read between the steps of others and from the middle on, and yet
//! every number has the bits that it has when the line is alone.

use phyla_nn::Block;

use crate::engine::batch::{CHUNK, FEW};
use crate::engine::draft::MOST;

/// Positions of a block.
const BLOCK: usize = Block::POSITIONS;

/// Ids to read: a prompt and, after a line gave its blocks back, what it has written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// Ids of the prompt. Alone these are read in chunks of [`CHUNK`].
    pub prompt: usize,
    /// All ids to read. Alone those behind the prompt are read one by one, which a few together equal.
    pub all: usize,
    /// See [`crate::engine::batch::Batch::piece`].
    pub piece: Option<usize>,
}

impl Reading {
    /// Where to begin, if the first `known` positions, whole blocks, are there. The last id is always read.
    pub fn begin(&self, known: usize) -> usize {
        let Some(piece) = self.piece else { return 0 };
        let known = known.min(self.all.saturating_sub(1) / BLOCK * BLOCK);
        if known >= self.prompt {
            return known;
        }
        let known = known / piece * piece;
        // Too few would be left of what is read among many.
        if !known.is_multiple_of(CHUNK) && self.chunk_end(known) - known <= FEW { known - BLOCK } else { known }
    }

    /// Where the piece that begins at `at` ends: it has about `budget` ids at most, but always some.
    pub fn next(&self, at: usize, budget: usize) -> usize {
        match self.piece {
            None if at < self.prompt => self.prompt,
            None => at + 1,
            Some(_) if at >= self.prompt => self.all.min(at + MOST),
            Some(CHUNK) => self.chunk_end(at),
            Some(_) => {
                let (cut, end) = (((at + budget) / BLOCK * BLOCK).max(at + BLOCK), self.chunk_end(at));
                match end.checked_sub(cut) {
                    None | Some(0) => end,
                    Some(left) if left > FEW => cut,
                    Some(_) if cut - BLOCK > at => cut - BLOCK,
                    Some(_) => end,
                }
            }
        }
    }

    /// What a piece counts of a step's budget of ids: a few take as long as more would.
    pub fn cost(&self, at: usize, end: usize) -> usize {
        if at < self.prompt { end - at } else { BLOCK.max(end - at) }
    }

    /// The end of the chunk of the prompt in which a position is.
    fn chunk_end(&self, at: usize) -> usize {
        ((at / CHUNK + 1) * CHUNK).min(self.prompt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pieces of a reading.
    fn pieces(reading: Reading, known: usize, budget: usize) -> Vec<usize> {
        let mut ends = vec![reading.begin(known)];
        while let Some(&at) = ends.last().filter(|&&at| at < reading.all) {
            ends.push(reading.next(at, budget));
        }
        ends
    }

    #[test]
    fn pieces_leave_too_few_nowhere() {
        for prompt in (1..700).chain([1024, 1025, 1056, 1057, 1088, 1090]) {
            for written in [0, 1, 70] {
                for (known, budget) in [(0, 512), (0, 64), (64, 100), (448, 1), (576, 200), (1024, 130), (4096, 64)] {
                    let reading = Reading { prompt, all: prompt + written, piece: Some(BLOCK) };
                    let known = known.min((prompt + written) / BLOCK * BLOCK);
                    let ends = pieces(reading, known, budget);
                    assert!(
                        ends[0] < reading.all && ends[0] <= known && ends[0].is_multiple_of(BLOCK),
                        "{reading:?} {ends:?}"
                    );
                    for pair in ends.windows(2).map(|pair| pair[0]..pair[1]) {
                        let chunk = pair.start / CHUNK * CHUNK..reading.chunk_end(pair.start);
                        if pair.start >= prompt {
                            assert!(pair.len() <= MOST && !pair.is_empty());
                        } else {
                            let many = chunk.len() > FEW;
                            assert!(
                                pair.end <= chunk.end && (pair.len() > FEW) == many,
                                "{reading:?} {known} {ends:?}"
                            );
                            assert!(pair.len() <= budget.max(BLOCK) + FEW, "{reading:?} {budget} {ends:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_cut_is_read_as_it_is_alone() {
        let chunks = |prompt, all, known| pieces(Reading { prompt, all, piece: Some(CHUNK) }, known, 64);
        assert_eq!(chunks(1100, 1100, 0), [0, 512, 1024, 1100]);
        assert_eq!(chunks(1100, 1110, 640), [512, 1024, 1100, 1108, 1110]);
        let whole = |prompt, all| pieces(Reading { prompt, all, piece: None }, 512, 64);
        assert_eq!((whole(1100, 1100), whole(70, 72)), (vec![0, 1100], vec![0, 70, 71, 72]));
    }
}

//! A look over decoding's shoulder: what each step weighs, picks and keeps, told as it happens, where a [`crate::Event`]
//! tells what came of it. What is decoded stays the same; without a watcher nothing is computed for one.

use std::fmt;

use crate::outputs::Layers;
use crate::processor::{History, Processor};

/// Is told what decoding does. What a [`Moment`] borrows is gone when it returns.
pub type Watch<'a> = dyn Fn(&Moment) + Sync + 'a;

/// Where something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct At {
    /// Index of the prompt.
    pub prompt: usize,
    /// Which of the prompt's sequences; in a search the rank of the running beam, best first.
    pub branch: usize,
    /// New ids before this one.
    pub step: usize,
}

/// Something that happens.
#[derive(Clone, Copy, Debug)]
pub enum Moment<'a> {
    /// Scores of what may come next, one for each id; minus infinity is ruled out.
    ///
    /// A step tells them as the model gives them, in a search then as log-probabilities, behind each processor in its
    /// order, and in the end once more as what the choice is made from.
    Scores {
        /// Of which branch.
        at: At,
        /// What has been done to them.
        stage: Stage,
        /// One for each id of the vocabulary.
        scores: &'a [f32],
    },
    /// A sequence goes on with an id. In a search [`Moment::Beams`] says so for all beams at once.
    Picked {
        /// Of which branch.
        at: At,
        /// The id.
        id: u32,
        /// Why this one.
        why: Why<'a>,
    },
    /// Ids were guessed ahead, read in one pass and compared with what the model picks. It comes behind the picks.
    Guessed {
        /// The first of them.
        at: At,
        /// The guesses.
        ids: &'a [u32],
        /// How many of them, from the first, were right.
        right: usize,
    },
    /// A search has chosen how it goes on.
    Beams {
        /// Index of the prompt.
        prompt: usize,
        /// New ids of each beam before this one.
        step: usize,
        /// The best continuations of all beams, in the order in which they were chosen.
        candidates: &'a [BeamCandidate],
    },
    /// What the layers held of the pass behind which the next id is picked, where [`crate::Wanted`] asks for it.
    Layers {
        /// Of which branch.
        at: At,
        /// What they held.
        layers: Layers<'a>,
    },
    /// The same of an encoder's layers.
    Encoded {
        /// Index of the prompt.
        prompt: usize,
        /// What they held; rows may be filled.
        layers: Layers<'a>,
    },
    /// A pass has read ids.
    Read {
        /// Ids that were new in it, over all rows.
        ids: usize,
        /// Ids that the cache holds now, over all rows; what rows share counts for each of them.
        positions: usize,
        /// Bytes that the cache takes up now; what rows share counts once.
        bytes: usize,
    },
}

/// What has been done to scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing: the model's logits.
    Logits,
    /// They are log-probabilities now, as beams add them up.
    LogProbabilities,
    /// A processor has changed them: the name of its setting.
    Processor(&'static str),
    /// All: the choice is made from these.
    Choice,
}

/// Why an id was picked.
#[derive(Clone, Copy, Debug)]
pub enum Why<'a> {
    /// It is the likeliest, the lowest of equals.
    Likeliest,
    /// It was drawn: where the probabilities of all ids lie side by side, this number from 0 to 1 fell upon it.
    Drawn {
        /// The number.
        uniform: f64,
    },
    /// Contrastive search weighed the likeliest ids, and it won.
    Contrast {
        /// The ids, likeliest first.
        weighed: &'a [Weighed],
    },
}

/// What contrastive search finds of an id.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weighed {
    /// The id.
    pub id: u32,
    /// Its probability.
    pub probability: f32,
    /// How like its state is to the earlier one that is most like it: a cosine.
    pub likeness: f32,
    /// What decides.
    pub score: f32,
}

/// A continuation of a beam.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BeamCandidate {
    /// Rank of the beam that it continues.
    pub parent: usize,
    /// The id.
    pub id: u32,
    /// Sum of log-probabilities, this id's included.
    pub score: f32,
    /// What becomes of it.
    pub fate: Fate,
}

/// What becomes of a continuation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    /// It goes on, as a beam of this rank.
    Runs(usize),
    /// It has ended, with this score: the sum over its length to a power.
    Finished(f32),
    /// It is given up.
    Dropped,
}

/// Whom to tell, if anyone.
#[derive(Clone, Copy, Default)]
pub(crate) struct Watcher<'a>(pub Option<&'a Watch<'a>>);

impl fmt::Debug for Watcher<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_there() { "Watcher" } else { "None" })
    }
}

impl Watcher<'_> {
    /// Whether anyone is told.
    pub fn is_there(self) -> bool {
        self.0.is_some()
    }

    /// Tells it.
    pub fn tell(self, moment: Moment) {
        if let Some(watch) = self.0 {
            watch(&moment);
        }
    }

    /// Tells scores.
    pub fn scores(self, at: At, stage: Stage, scores: &[f32]) {
        self.tell(Moment::Scores { at, stage, scores });
    }

    /// Lets the processors change `row`, told after each, and at the end.
    pub fn process(self, at: At, chain: &[Box<dyn Processor>], row: &mut [f32], history: &History) {
        for processor in chain {
            processor.apply(row, history);
            self.scores(at, Stage::Processor(processor.name()), row);
        }
        self.scores(at, Stage::Choice, row);
    }
}

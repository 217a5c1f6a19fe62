//! The generated stories as material for labels: divided into portions by their own text, and what is found in them.

use std::ops::Range;

use phyla_kernels::rng::Rng;
use serde_json::Value;

use super::{portion_of, stream};
use crate::dataset::Portion;
use crate::stories::{self, Outcome, Story};
use crate::supervised::records::{Labelled, Origin};

/// Stories of one portion without end, each in one paragraph.
///
/// Which portion a story belongs to, its text decides, so that one told under two seeds cannot be in both.
pub(super) fn tales(task: &'static str, seed: u64, portion: Portion) -> impl Iterator<Item = Story> + Send {
    let mut told = stories::generate(stream(task, seed, portion).next_u64(), usize::MAX);
    std::iter::from_fn(move || {
        let mut story = told.by_ref().find(|story| portion_of("stories", hash(&story.text)) == portion)?;
        story.text = story.text.replace("\n\n", " ");
        Some(story)
    })
}

pub(super) fn hash(text: &str) -> u64 {
    Rng::new(0).split(text).stream()
}

/// Stories and how they end, `good` or `sad`, as many of each.
pub fn sentiment(seed: u64, portion: Portion) -> impl Iterator<Item = Labelled> + Send {
    let mut rng = stream("endings kept", seed, portion);
    tales("sentiment", seed, portion).filter_map(move |story| {
        // Three of four stories end well; of these, one of three is taken.
        let taken = story.outcome == Outcome::Sad || rng.below(3) == 0;
        let label = if story.outcome == Outcome::Good { "good" } else { "sad" };
        taken.then(|| Labelled {
            text: story.text,
            text_b: None,
            label: Value::from(label),
            gold: false,
            origin: Origin::default(),
        })
    })
}

/// Places in which stories happen.
pub(super) const PLACES: [&str; 16] = [
    "park",
    "garden",
    "forest",
    "meadow",
    "farm",
    "hill",
    "beach",
    "lake",
    "pond",
    "river",
    "village",
    "market",
    "school",
    "snowy field",
    "kitchen",
    "cabin",
];

/// What can be said with a direct quotation, and by whom: `"…," said Tom`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Quotation {
    pub(super) words: String,
    pub(super) verb: &'static str,
    /// The speaker's name where it stands behind the verb.
    pub(super) speaker: Range<usize>,
}

/// The quotations of a story whose speaker is named right after them.
pub(super) fn quotations(story: &Story) -> Vec<Quotation> {
    const VERBS: [&str; 5] = ["said", "asked", "cried", "shouted", "thought"];
    let text = &story.text;
    let mut marks = text.match_indices('"').map(|(at, _)| at);
    let mut found = Vec::new();
    while let (Some(open), Some(close)) = (marks.next(), marks.next()) {
        let words = text[open + 1..close].trim_end_matches([',', '.', '!', '?']);
        let after = &text[close + 1..];
        for verb in VERBS {
            let Some(name) = after.strip_prefix(' ').and_then(|after| after.strip_prefix(verb)) else { continue };
            let Some(name) = name.strip_prefix(' ') else { continue };
            let start = text.len() - name.len();
            let length = name.find(|c: char| !c.is_alphabetic()).unwrap_or(name.len());
            if story.characters.iter().any(|character| character.name == name[..length]) {
                found.push(Quotation { words: words.to_owned(), verb, speaker: start..start + length });
            }
        }
    }
    // Words that come twice may have two speakers.
    let once =
        |quotation: &Quotation| text.matches(quotation.words.as_str()).count() == 1 && !quotation.words.is_empty();
    found.retain(once);
    found
}

/// True when `word` stands in `text` as a word of its own.
pub(super) fn has_word(text: &str, word: &str) -> bool {
    places_of(text, word).next().is_some()
}

/// Where `word` (or several) stands in `text` with no letter on either side.
pub(super) fn places_of<'t>(text: &'t str, word: &'t str) -> impl Iterator<Item = Range<usize>> + 't {
    let bounded = move |at: usize| {
        let before = text[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric());
        before && text[at + word.len()..].chars().next().is_none_or(|c| !c.is_alphanumeric())
    };
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| bounded(at)).map(|at| at..at + word.len())
}

/// The last few stories told, to take wrong answers from.
#[derive(Debug, Default)]
pub(super) struct Memory {
    stories: std::collections::VecDeque<Story>,
}

impl Memory {
    const SIZE: usize = 64;

    pub(super) fn keep(&mut self, story: Story) {
        self.stories.push_back(story);
        if self.stories.len() > Self::SIZE {
            self.stories.pop_front();
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.stories.len() == Self::SIZE
    }

    /// The remembered stories from a random one on, all once.
    pub(super) fn shuffled(&self, rng: &mut Rng) -> impl Iterator<Item = &Story> {
        let mut order: Vec<usize> = (0..self.stories.len()).collect();
        rng.shuffle(&mut order);
        order.into_iter().map(|index| &self.stories[index])
    }
}

/// Fills `memory` and gives the next story; stories that fill it are used up.
pub(super) fn next_with(memory: &mut Memory, told: &mut impl Iterator<Item = Story>) -> Option<Story> {
    while !memory.is_full() {
        memory.keep(told.next()?);
    }
    told.next()
}

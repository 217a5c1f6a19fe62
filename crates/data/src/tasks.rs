//! Tasks to learn from without a download: generated from a seed, each with training items and held-out items apart.
//!
//! Whether an item is held out depends on the item alone (the date, the number, the story), not on the seed: a model
//! trained under one seed may be judged under any other. All are endless iterators of typed [`records`](crate::supervised::records);
//! [`Task::write`] puts them into files to look at. Beside them stand [`sums`](self::sums), texts to continue, and puzzles to be
//! evaluated on, [`coin_flips`] and [`last_letters`].

mod choices;
mod dates;
mod entities;
mod instructions;
mod numbers;
mod preferences;
mod questions;
mod reviews;
pub mod sums;
mod symbols;
mod tales;

use std::path::Path;

use phyla_kernels::rng::Rng;
use serde::{Deserialize, Serialize};

pub use choices::{endings, speakers};
pub use dates::{Date, dates};
pub use entities::entities;
pub use instructions::instructions;
pub use numbers::{Direction, Language, numbers, words};
pub use preferences::{beginnings, judgements, preferences};
pub use questions::questions;
pub use reviews::reviews;
pub use sums::{Sum, sums};
pub use symbols::{coin_flips, last_letters};
pub use tales::sentiment;

use crate::dataset::Portion;
use crate::error::{Error, Result};
use crate::supervised::records::write_jsonl;

/// A generated task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Task {
    /// Dates in words to ISO form, for sequence to sequence.
    Dates,
    /// Numbers to words or back, for sequence to sequence.
    Numbers {
        /// Whose words.
        #[serde(default)]
        language: Language,
        /// Which way.
        #[serde(default)]
        direction: Direction,
    },
    /// Stories and whether they end well, for sequence classification.
    Sentiment,
    /// Stories with people, places, animals and things marked, for token classification.
    Entities,
    /// Questions on stories, some without an answer, for extractive question answering.
    Questions,
    /// Stories and four endings, for multiple choice.
    Endings,
    /// Who said it, of four names, for multiple choice.
    Speakers,
    /// Beginnings of stories, each with a good and a sad ending, of which the good one is preferred.
    Preferences,
    /// Conversations in which stories are told and talked about, for supervised fine-tuning.
    Instructions,
    /// Reviews with one to five stars, for models that grade texts.
    Reviews,
}

impl Task {
    /// The names by which tasks are called, in the order of the variants.
    pub const NAMES: [&'static str; 10] = [
        "dates",
        "numbers",
        "sentiment",
        "entities",
        "questions",
        "endings",
        "speakers",
        "preferences",
        "instructions",
        "reviews",
    ];

    /// Writes `count` items as JSON lines.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(self, path: impl AsRef<Path>, seed: u64, portion: Portion, count: usize) -> Result<()> {
        match self {
            Self::Dates => write_jsonl(path, dates(seed, portion).take(count)),
            Self::Numbers { language, direction } => {
                write_jsonl(path, numbers(seed, portion, language, direction).take(count))
            }
            Self::Sentiment => write_jsonl(path, sentiment(seed, portion).take(count)),
            Self::Entities => write_jsonl(path, entities(seed, portion).take(count)),
            Self::Questions => write_jsonl(path, questions(seed, portion).take(count)),
            Self::Endings => write_jsonl(path, endings(seed, portion).take(count)),
            Self::Speakers => write_jsonl(path, speakers(seed, portion).take(count)),
            Self::Preferences => write_jsonl(path, preferences(seed, portion).take(count)),
            Self::Instructions => write_jsonl(path, instructions(seed, portion).take(count)),
            Self::Reviews => write_jsonl(path, reviews(seed, portion).take(count)),
        }
    }
}

impl std::str::FromStr for Task {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Ok(match name {
            "dates" => Self::Dates,
            "numbers" => Self::Numbers { language: Language::default(), direction: Direction::default() },
            "sentiment" => Self::Sentiment,
            "entities" => Self::Entities,
            "questions" => Self::Questions,
            "endings" => Self::Endings,
            "speakers" => Self::Speakers,
            "preferences" => Self::Preferences,
            "instructions" => Self::Instructions,
            "reviews" => Self::Reviews,
            other => {
                return Err(Error::Settings(format!("no task `{other}`; there are {}", Self::NAMES.join(", "))));
            }
        })
    }
}

/// True when an answer is the expected one, whatever the white space around and between its words.
pub fn is_exact(answer: &str, expected: &str) -> bool {
    answer.split_whitespace().eq(expected.split_whitespace())
}

/// Share of items held out.
const HELD_OUT: f32 = 0.1;

/// Which portion the item of that number belongs to, in the task of that name.
fn portion_of(task: &str, item: u64) -> Portion {
    // A number's place in a stream, not the seed of one: neighbouring items fall apart.
    let draw = Rng::new(item).split(task).uniform_at(0);
    if draw < HELD_OUT { Portion::Validation } else { Portion::Train }
}

/// The stream of a task under a seed, another for each portion.
fn stream(task: &str, seed: u64, portion: Portion) -> Rng {
    Rng::new(seed).split(task).split(match portion {
        Portion::Train => 0,
        Portion::Validation => 1,
    })
}

/// One of `items`, which must not be empty.
fn pick<'t, T>(rng: &mut Rng, items: &'t [T]) -> &'t T {
    &items[rng.below(items.len() as u64) as usize]
}

#[cfg(test)]
mod tests;

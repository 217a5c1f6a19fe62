//! `[data] kind = "task"`: labelled data from a generator, so that a recipe needs no files.

use phyla_data::tasks::{Direction, Language, Task};
use serde::{Deserialize, Serialize};

use crate::recipe::Reads;

/// A generated task; what is held out is decided by the item alone, so that no item of the training part is in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generated {
    /// Which one.
    pub task: TaskName,
    /// Items to train on.
    #[serde(default = "items")]
    pub items: usize,
    /// Items held out for validation; 0 for none.
    #[serde(default = "validation_items")]
    pub validation_items: usize,
    /// Seed of the generator.
    #[serde(default)]
    pub seed: u64,
    /// Task `numbers`: whose words; English unless given.
    pub language: Option<Language>,
    /// Task `numbers`: which way; from words to digits unless given.
    pub direction: Option<Direction>,
}

/// The tasks by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskName {
    /// Dates in words to ISO form (pairs of texts).
    Dates,
    /// Numbers to words or back (pairs of texts).
    Numbers,
    /// Stories and whether they end well (texts with labels).
    Sentiment,
    /// Stories with people, places, animals and things marked (words with tags).
    Entities,
    /// Questions on stories, some without an answer (questions on texts).
    Questions,
    /// Stories and four endings (questions with choices).
    Endings,
    /// Who said it, of four names (questions with choices).
    Speakers,
    /// Beginnings of stories with a good ending, which is preferred, and a sad one (preferences); or with one of them
    /// (judgements); or with none (prompts).
    Preferences,
    /// Stories asked for, told, and talked about (dialogues).
    Instructions,
    /// Reviews with one to five stars (texts with grades).
    Reviews,
}

/// Examples are held in memory.
const LARGEST: usize = 20_000_000;

fn items() -> usize {
    10_000
}

fn validation_items() -> usize {
    500
}

impl Generated {
    /// The generator.
    #[must_use]
    pub fn task(&self) -> Task {
        match self.task {
            TaskName::Dates => Task::Dates,
            TaskName::Numbers => Task::Numbers {
                language: self.language.unwrap_or_default(),
                direction: self.direction.unwrap_or_default(),
            },
            TaskName::Sentiment => Task::Sentiment,
            TaskName::Entities => Task::Entities,
            TaskName::Questions => Task::Questions,
            TaskName::Endings => Task::Endings,
            TaskName::Speakers => Task::Speakers,
            TaskName::Preferences => Task::Preferences,
            TaskName::Instructions => Task::Instructions,
            TaskName::Reviews => Task::Reviews,
        }
    }

    /// What its items are; some are one thing or another, as wanted.
    #[must_use]
    pub fn gives(&self, wanted: Reads) -> Reads {
        match self.task {
            TaskName::Preferences if matches!(wanted, Reads::Judgements | Reads::Prompts) => wanted,
            TaskName::Preferences => Reads::Preferences,
            TaskName::Dates | TaskName::Numbers => Reads::Pairs,
            TaskName::Sentiment => Reads::Labelled,
            TaskName::Entities => Reads::Tagged,
            TaskName::Questions => Reads::Questions,
            TaskName::Endings | TaskName::Speakers => Reads::Choices,
            TaskName::Instructions => Reads::Dialogues,
            TaskName::Reviews => Reads::Grades,
        }
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        if !(1..=LARGEST).contains(&self.items) {
            problems.push(format!("`data.items` is {}; expected 1 to {LARGEST}", self.items));
        }
        if self.validation_items > LARGEST {
            problems.push(format!("`data.validation_items` is {}; expected at most {LARGEST}", self.validation_items));
        }
        if self.task != TaskName::Numbers && (self.language.is_some() || self.direction.is_some()) {
            problems.push("`data.language` and `data.direction` are for `data.task` \"numbers\" alone".into());
        }
    }
}

//! From the recipe's labelled `[data]` to records: files or a generated task, training and held-out parts apart; text
//! without labels is the neighbour's, `corpus`.

use phyla_data::Result;
use phyla_data::dataset::Portion;
use phyla_data::supervised::records::{
    Choice, Dialogue, Graded, Judgement, Labelled, Parallel, Preference, Prompt, Question, Record, Tagged,
};
use phyla_data::supervised::table::Table;
use phyla_data::tasks::{self, Task};
use phyla_kernels::rng::Rng;

use crate::TrainError;
use crate::recipe::{Recipe, Source};

/// Records of some kind; errors stand where a file has them.
pub type Stream<'a, R> = Box<dyn Iterator<Item = Result<R>> + Send + 'a>;

/// A kind of records that files and tasks give.
pub trait Kind: Record + 'static {
    /// The items of a task, without end; none when the task has items of another kind.
    fn generate(task: Task, seed: u64, portion: Portion) -> Box<dyn Iterator<Item = Self> + Send>;
    /// Every text in it, for a tokenizer to be trained on.
    fn texts(self) -> Vec<String>;
}

impl Kind for Parallel {
    fn generate(task: Task, seed: u64, portion: Portion) -> Box<dyn Iterator<Item = Self> + Send> {
        match task {
            Task::Dates => Box::new(tasks::dates(seed, portion)),
            Task::Numbers { language, direction } => Box::new(tasks::numbers(seed, portion, language, direction)),
            _ => Box::new(std::iter::empty()),
        }
    }

    fn texts(self) -> Vec<String> {
        std::iter::once(self.source).chain(self.target).collect()
    }
}

impl Kind for Labelled {
    fn generate(task: Task, seed: u64, portion: Portion) -> Box<dyn Iterator<Item = Self> + Send> {
        match task {
            Task::Sentiment => Box::new(tasks::sentiment(seed, portion)),
            _ => Box::new(std::iter::empty()),
        }
    }

    fn texts(self) -> Vec<String> {
        std::iter::once(self.text).chain(self.text_b).collect()
    }
}

impl Kind for Tagged {
    fn generate(task: Task, seed: u64, portion: Portion) -> Box<dyn Iterator<Item = Self> + Send> {
        match task {
            Task::Entities => Box::new(tasks::entities(seed, portion)),
            _ => Box::new(std::iter::empty()),
        }
    }

    fn texts(self) -> Vec<String> {
        vec![self.tokens.join(" ")]
    }
}

impl Kind for Question {
    fn generate(task: Task, seed: u64, portion: Portion) -> Box<dyn Iterator<Item = Self> + Send> {
        match task {
            Task::Questions => Box::new(tasks::questions(seed, portion)),
            _ => Box::new(std::iter::empty()),
        }
    }

    fn texts(self) -> Vec<String> {
        vec![self.question, self.context]
    }
}

impl Kind for Choice {
    fn generate(task: Task, seed: u64, portion: Portion) -> Box<dyn Iterator<Item = Self> + Send> {
        match task {
            Task::Endings => Box::new(tasks::endings(seed, portion)),
            Task::Speakers => Box::new(tasks::speakers(seed, portion)),
            _ => Box::new(std::iter::empty()),
        }
    }

    fn texts(self) -> Vec<String> {
        self.context.into_iter().chain([self.question]).chain(self.choices).collect()
    }
}

impl Kind for Preference {
    fn generate(task: Task, seed: u64, portion: Portion) -> Box<dyn Iterator<Item = Self> + Send> {
        match task {
            Task::Preferences => Box::new(tasks::preferences(seed, portion)),
            _ => Box::new(std::iter::empty()),
        }
    }

    fn texts(self) -> Vec<String> {
        Self::texts(self)
    }
}

impl Kind for Judgement {
    fn generate(task: Task, seed: u64, portion: Portion) -> Box<dyn Iterator<Item = Self> + Send> {
        match task {
            Task::Preferences => Box::new(tasks::judgements(seed, portion)),
            _ => Box::new(std::iter::empty()),
        }
    }

    fn texts(self) -> Vec<String> {
        self.dialogue.texts()
    }
}

impl Kind for Graded {
    fn generate(task: Task, seed: u64, portion: Portion) -> Box<dyn Iterator<Item = Self> + Send> {
        match task {
            Task::Reviews => Box::new(tasks::reviews(seed, portion)),
            _ => Box::new(std::iter::empty()),
        }
    }

    fn texts(self) -> Vec<String> {
        self.dialogue.texts()
    }
}

impl Kind for Dialogue {
    fn generate(task: Task, seed: u64, portion: Portion) -> Box<dyn Iterator<Item = Self> + Send> {
        match task {
            Task::Instructions => Box::new(tasks::instructions(seed, portion)),
            _ => Box::new(std::iter::empty()),
        }
    }

    fn texts(self) -> Vec<String> {
        Self::texts(self)
    }
}

impl Kind for Prompt {
    fn generate(task: Task, seed: u64, portion: Portion) -> Box<dyn Iterator<Item = Self> + Send> {
        match task {
            Task::Preferences => Box::new(tasks::beginnings(seed, portion)),
            _ => Box::new(std::iter::empty()),
        }
    }

    fn texts(self) -> Vec<String> {
        Self::texts(self)
    }
}

/// Training and held-out records.
#[derive(Debug)]
pub struct Records {
    /// What is learned from.
    pub train: Part,
    /// What is held out.
    pub validation: Option<Part>,
}

/// One of the two.
#[derive(Debug)]
pub enum Part {
    /// Of files.
    Files {
        /// Where and how.
        table: Table,
        /// Which share of the rows, when both parts come of the same files.
        share: Option<Share>,
    },
    /// Of a generator.
    Task {
        /// Which.
        task: Task,
        /// Its seed.
        seed: u64,
        /// Which portion.
        portion: Portion,
        /// How many.
        items: usize,
    },
}

/// The rows that one of two parts takes of the same files: each falls by a draw of its own.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    held_out: f64,
    seed: u64,
    portion: Portion,
}

impl Share {
    fn takes(&self, rng: &Rng, row: u64) -> bool {
        let held_out = f64::from(rng.uniform_at(row)) < self.held_out;
        held_out == (self.portion == Portion::Validation)
    }
}

impl Records {
    /// Finds the files, or names the generator.
    pub fn open(recipe: &Recipe) -> std::result::Result<Self, TrainError> {
        let data = &recipe.data;
        match &data.source {
            Source::Task(made) => {
                let part = |portion, items| Part::Task { task: made.task(), seed: made.seed, portion, items };
                let held_out = made.validation_items;
                Ok(Self {
                    train: part(Portion::Train, made.items),
                    validation: (held_out > 0).then(|| part(Portion::Validation, held_out)),
                })
            }
            Source::Table(files) => {
                let open = |paths: &[std::path::PathBuf], share| -> std::result::Result<Part, TrainError> {
                    Ok(Part::Files { table: Table::new(files.settings(paths))?, share })
                };
                let Some(held_out) = data.validation_fraction.filter(|&fraction| fraction > 0.) else {
                    let validation =
                        (!files.validation.is_empty()).then(|| open(&files.validation, None)).transpose()?;
                    return Ok(Self { train: open(&files.train, None)?, validation });
                };
                let share = |portion| Some(Share { held_out, seed: recipe.seed, portion });
                Ok(Self {
                    train: open(&files.train, share(Portion::Train))?,
                    validation: Some(open(&files.train, share(Portion::Validation))?),
                })
            }
            _ => Err(TrainError::Settings("this objective learns from `data.kind` table or task".into())),
        }
    }
}

impl Part {
    /// Its records, from the first one on, the same each time.
    pub fn records<R: Kind>(&self) -> Stream<'_, R> {
        match self {
            Self::Task { task, seed, portion, items } => {
                Box::new(R::generate(*task, *seed, *portion).take(*items).map(Ok))
            }
            Self::Files { table, share: None } => Box::new(table.records()),
            Self::Files { table, share: Some(share) } => {
                let (share, rng) = (*share, Rng::new(share.seed).split("validation records"));
                Box::new(table.numbered_records::<R>().filter_map(move |record| match record {
                    Ok((row, record)) => share.takes(&rng, row).then_some(Ok(record)),
                    Err(error) => Some(Err(error)),
                }))
            }
        }
    }

    /// What the last reading left out.
    pub fn faults(&self) -> Option<String> {
        let Self::Files { table, .. } = self else { return None };
        let faults = table.faults();
        (faults.count > 0).then(|| {
            format!("{} rows could not be used and were left out, first: {}", faults.count, faults.first.join("; "))
        })
    }
}

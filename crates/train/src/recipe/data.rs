//! `[data]`: what the model reads.

mod sums;
mod table;
mod task;

use std::path::PathBuf;

use phyla_data::stories::{self, Outcome, Story};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

pub use sums::Sums;
pub use table::Table;
pub use task::{Generated, TaskName};

use super::read::Kinded;
use super::{Objective, Reads, check_range};

/// `[data]`: keys common to every kind of source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Data {
    /// Where the text comes from (`kind` and its keys).
    #[serde(skip)]
    pub source: Source,
    /// Share of the text held out for validation, when there is no validation file: documents or records drawn by the
    /// seed, or the tail of a single document.
    pub validation_fraction: Option<f64>,
    /// Objective `lm`: how documents become rows. Other objectives have lengths and packing of their own.
    pub packing: Packing,
    /// Objective `lm`: tokens per row; the model's context length when absent.
    pub max_len: Option<usize>,
}

/// How documents are laid out in rows of `max_len` tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Packing {
    /// Several documents per row, each attending only to itself.
    #[default]
    Packed,
    /// One endless stream, rows cut anywhere at random, attention across documents (nanoGPT's way).
    Stream,
    /// One document per row, padded and cut at `max_len`.
    Padded,
}

/// Where the text comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Plain text files.
    Text(Text),
    /// One JSON object per line.
    Jsonl(Columns),
    /// Parquet tables.
    Parquet(Columns),
    /// Generated stories: no files needed.
    Stories(Stories),
    /// Generated sums, with or without worked steps: no files needed.
    Sums(Sums),
    /// Files of labelled records.
    Table(Table),
    /// Generated labelled records: no files needed.
    Task(Generated),
}

/// Plain text files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Text {
    /// One path or a list.
    #[serde(deserialize_with = "paths")]
    pub train: Vec<PathBuf>,
    /// One path or a list.
    #[serde(default, deserialize_with = "paths")]
    pub validation: Vec<PathBuf>,
    /// The line between two documents of a file, `""` for blank lines; when absent, a file is one document.
    pub document_separator: Option<String>,
}

/// Files of records, one document each.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// One path or a list.
    #[serde(deserialize_with = "paths")]
    pub train: Vec<PathBuf>,
    /// One path or a list.
    #[serde(default, deserialize_with = "paths")]
    pub validation: Vec<PathBuf>,
    /// The key or column that holds the text.
    #[serde(default = "text")]
    pub field: String,
}

/// Generated stories.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Stories {
    /// Size of the corpus in bytes; at least this much is written.
    pub bytes: usize,
    /// Seed of the generator.
    pub seed: u64,
    /// Stories that end so alone, `good` or `sad`; three of four end well when absent.
    pub outcome: Option<Outcome>,
}

/// Generated text is held in memory on its way to the file.
const LARGEST: usize = 4_000_000_000;

impl Default for Stories {
    fn default() -> Self {
        Self { bytes: 2_500_000, seed: 0, outcome: None }
    }
}

impl Stories {
    /// The texts to train on, or those to be measured on, of at least so many bytes.
    pub fn texts(&self, held_out: bool, bytes: usize) -> Box<dyn Iterator<Item = String>> {
        let told = |bytes: usize| -> Box<dyn Iterator<Item = Story>> {
            match held_out {
                true => Box::new(stories::held_out(self.seed, bytes)),
                false => Box::new(stories::generate(self.seed, bytes)),
            }
        };
        let Some(outcome) = self.outcome else { return Box::new(told(bytes).map(|story| story.text)) };
        let mut written = 0;
        let kept = told(usize::MAX).filter(move |story| story.outcome == outcome).map(|story| story.text);
        Box::new(kept.take_while(move |text| {
            let before = written;
            written += text.len();
            before < bytes
        }))
    }
}

impl Default for Data {
    fn default() -> Self {
        let source = Source::Stories(Stories::default());
        Self { source, validation_fraction: None, packing: Packing::default(), max_len: None }
    }
}

fn text() -> String {
    "text".into()
}

/// One path or a list of paths.
fn paths<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    let found = match toml::Value::deserialize(deserializer)? {
        toml::Value::String(path) => return Ok(vec![path.into()]),
        toml::Value::Array(items) => {
            let paths: Option<Vec<PathBuf>> = items.iter().map(|item| item.as_str().map(PathBuf::from)).collect();
            match paths {
                Some(paths) => return Ok(paths),
                None => "a list with something else in it",
            }
        }
        other => other.type_str(),
    };
    Err(D::Error::custom(format!("expected a path or a list of paths, found {found}")))
}

impl Kinded for Data {
    type Kind = Source;
    const DEFAULT: Option<&'static str> = None;
    fn kind(&self) -> &Source {
        &self.source
    }
    fn set_kind(&mut self, kind: Source) {
        self.source = kind;
    }
}

impl Data {
    /// Training files, or none for generated text.
    #[must_use]
    pub fn train_files(&self) -> &[PathBuf] {
        match &self.source {
            Source::Text(text) => &text.train,
            Source::Jsonl(columns) | Source::Parquet(columns) => &columns.train,
            Source::Table(table) => &table.train,
            Source::Stories(_) | Source::Sums(_) | Source::Task(_) => &[],
        }
    }

    /// Validation files, if validation has files of its own.
    #[must_use]
    pub fn validation_files(&self) -> &[PathBuf] {
        match &self.source {
            Source::Text(text) => &text.validation,
            Source::Jsonl(columns) | Source::Parquet(columns) => &columns.validation,
            Source::Table(table) => &table.validation,
            Source::Stories(_) | Source::Sums(_) | Source::Task(_) => &[],
        }
    }

    /// Whether the run has anything to evaluate on.
    #[must_use]
    pub fn has_validation(&self) -> bool {
        !self.validation_files().is_empty()
            || self.validation_fraction.is_some_and(|fraction| fraction > 0.0)
            || matches!(&self.source, Source::Task(task) if task.validation_items > 0)
    }

    /// Adds the sentence when an objective cannot learn from this kind of data.
    pub(super) fn check_fits(&self, objective: &Objective, problems: &mut Vec<String>) {
        let (name, wanted) = (objective.name(), objective.reads());
        let labelled = matches!(self.source, Source::Table(_) | Source::Task(_));
        if labelled && wanted == Reads::Text {
            problems.push(format!(
                "`objective.kind` \"{name}\" learns from text without labels; expected `data.kind` text, jsonl, parquet, \
                 stories or sums"
            ));
        } else if !labelled && wanted != Reads::Text {
            problems.push(format!(
                "`objective.kind` \"{name}\" learns from {}; expected `data.kind` table or task",
                wanted.describe()
            ));
        }
        if let Source::Task(task) = &self.source
            && wanted != Reads::Text
            && task.gives(wanted) != wanted
        {
            problems.push(format!(
                "`objective.kind` \"{name}\" learns from {}, and the items of `data.task` are {}",
                wanted.describe(),
                task.gives(wanted).describe()
            ));
        }
        if !matches!(objective, Objective::Lm(_)) && (self.max_len.is_some() || self.packing != Packing::default()) {
            problems.push(format!(
                "`data.max_len` and `data.packing` are for `objective.kind` \"lm\"; \"{name}\" has lengths of its own \
                 in [objective]"
            ));
        }
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        if self.train_files().is_empty()
            && !matches!(self.source, Source::Stories(_) | Source::Sums(_) | Source::Task(_))
        {
            problems.push("`data.train` is an empty list; expected at least one file".into());
        }
        if let Some(fraction) = self.validation_fraction {
            check_range(problems, "data.validation_fraction", fraction, 0.0, 0.9);
            if matches!(self.source, Source::Task(_)) {
                problems.push("`data.validation_fraction` is for files; a task has `data.validation_items`".into());
            }
            if !self.validation_files().is_empty() {
                problems.push("`data.validation` and `data.validation_fraction` are both given; keep one".into());
            }
        }
        if self.max_len.is_some_and(|len| len < 2) {
            problems.push("`data.max_len` is below 2; a row needs a token and the one that follows it".into());
        }
        match &self.source {
            Source::Table(table) => table.check(problems),
            Source::Task(task) => task.check(problems),
            Source::Sums(sums) => sums.check(problems),
            Source::Stories(Stories { bytes, .. }) if !(1000..=LARGEST).contains(bytes) => {
                problems.push(format!("`data.bytes` is {bytes}; expected 1000 to {LARGEST}"));
            }
            _ => {}
        }
    }
}

//! Text for language modelling, read in constant memory: plain files, JSON lines, Parquet; split into documents.

mod position;
mod read;
mod split;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use position::{Part, Position};
pub use split::{Portion, Split};

use crate::error::{Error, Result};

/// One document, or one piece of a long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its text.
    pub text: String,
    /// Where it begins.
    pub position: Position,
    /// The same document goes on in the next record.
    pub more: bool,
}

/// What to do with invalid UTF-8, a missing field or an empty document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Faults {
    /// Stop, naming the place.
    #[default]
    Refuse,
    /// Leave the record out, count it, and keep the place of the first ones (see [`Corpus::faults`]).
    Skip,
}

/// What kind of file, when its name does not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Plain text.
    Text,
    /// One JSON object a line.
    Jsonl,
    /// Apache Parquet.
    Parquet,
}

/// Which files, and how they divide into documents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextSettings {
    /// Files and folders; a folder means the files in it (and below) with a known ending, in order of names.
    pub paths: Vec<PathBuf>,
    /// Overrides what the files' endings say.
    #[serde(default)]
    pub format: Option<Format>,
    /// JSON lines and Parquet: the field or column that holds the text.
    #[serde(default = "text")]
    pub field: String,
    /// Plain text: a line equal to this one ends a document (`""`: blank lines do); without it a file is one.
    #[serde(default)]
    pub separator: Option<String>,
    /// What to do with records that cannot be used.
    #[serde(default)]
    pub faults: Faults,
    /// Which part of the whole this corpus is.
    #[serde(default)]
    pub split: Option<Split>,
}

fn text() -> String {
    "text".to_owned()
}

impl TextSettings {
    /// The settings for one file or folder, everything else at its default.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            paths: vec![path.into()],
            format: None,
            field: text(),
            separator: None,
            faults: Faults::Refuse,
            split: None,
        }
    }
}

/// Records that were left out under [`Faults::Skip`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FaultReport {
    /// How many.
    pub count: u64,
    /// The first few, with their places.
    pub first: Vec<String>,
}

/// A set of text files, found and checked to exist; its documents are read anew by each iterator.
#[derive(Debug)]
pub struct Corpus {
    settings: TextSettings,
    files: Vec<(Arc<Path>, Format)>,
    faults: Arc<Mutex<FaultReport>>,
}

impl Corpus {
    /// Finds the files.
    ///
    /// # Errors
    /// A path that is not there, a file of unknown kind, or a folder without any file of a known kind.
    pub fn new(settings: TextSettings) -> Result<Self> {
        if let Some(split) = &settings.split {
            split.check()?;
        }
        let mut files = Vec::new();
        for path in &settings.paths {
            read::find(path, settings.format, &mut files)?;
        }
        if files.is_empty() {
            return Err(Error::Settings("no data: `paths` is empty".to_owned()));
        }
        Ok(Self { settings, files, faults: Arc::default() })
    }

    /// The files, in the order in which they are read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| &**path)
    }

    /// Bytes on disk, for a progress bar.
    ///
    /// # Errors
    /// When a file is gone.
    pub fn bytes(&self) -> Result<u64> {
        self.files().map(|path| Ok(std::fs::metadata(path).map_err(Error::io(path))?.len())).sum()
    }

    /// The documents in order; a long plain text comes in pieces (see [`Document::more`]).
    ///
    /// # Errors
    /// Each item is an error where its record is; under [`Split::Characters`] the text is read once beforehand.
    pub fn documents(&self) -> Result<Box<dyn Iterator<Item = Result<Document>> + '_>> {
        match &self.settings.split {
            None => Ok(Box::new(self.records())),
            Some(split) => split::part(split, || self.records()),
        }
    }

    fn records(&self) -> impl Iterator<Item = Result<Document>> + '_ {
        // A second reading finds the same faults again; they must not count twice.
        if let Ok(mut faults) = self.faults.lock() {
            *faults = FaultReport::default();
        }
        self.files.iter().flat_map(move |(path, format)| read::open(path, *format, &self.settings)).filter_map(
            move |record| match record {
                Err(error @ Error::Record { .. }) if self.settings.faults == Faults::Skip => {
                    self.note(&error);
                    None
                }
                other => Some(other),
            },
        )
    }

    fn note(&self, error: &Error) {
        if let Ok(mut faults) = self.faults.lock() {
            faults.count += 1;
            if faults.first.len() < 10 {
                faults.first.push(error.to_string());
            }
        }
    }

    /// What the last reading left out.
    pub fn faults(&self) -> FaultReport {
        self.faults.lock().map(|faults| faults.clone()).unwrap_or_default()
    }

    /// A digest of the content of all files and of how they divide into documents.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn fingerprint(&self) -> Result<[u8; 32]> {
        let mut hash = Sha256::new();
        let settings = (&self.settings.field, &self.settings.separator, self.settings.faults, &self.settings.split);
        let settings = serde_json::to_vec(&settings).map_err(|error| Error::Settings(error.to_string()))?;
        hash.update((settings.len() as u64).to_le_bytes());
        hash.update(settings);
        for (path, format) in &self.files {
            let mut file = std::fs::File::open(path).map_err(Error::io(&**path))?;
            hash.update([*format as u8]);
            let mut content = Sha256::new();
            std::io::copy(&mut file, &mut content).map_err(Error::io(&**path))?;
            hash.update(content.finalize());
        }
        Ok(hash.finalize().into())
    }
}

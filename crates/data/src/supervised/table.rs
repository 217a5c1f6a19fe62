//! Rows of named fields out of JSON, CSV, Parquet, CoNLL and plain files; the records beside this file say what they mean.

mod conll;
mod delimited;
mod json;
mod parquet;
mod plain;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::records::{Record, Roles};
use crate::dataset::{FaultReport, Faults, Position};
use crate::error::{Error, Result};

/// Bytes in a row at most: beyond this a file is not what its name says, or is made to fill the memory.
const LONGEST: usize = 1 << 28;

/// What kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableFormat {
    /// One JSON object a line.
    Jsonl,
    /// A list of JSON objects, objects one after the other, or an object with such a list under `data` (as SQuAD has).
    Json,
    /// Cells divided by commas (or tabs or semicolons, if the first line has these), quoted as RFC 4180 says.
    Csv,
    /// Cells divided by tabs; quotes are plain characters.
    Tsv,
    /// Apache Parquet.
    Parquet,
    /// A word and its tags a line; a blank line ends a sentence.
    Conll,
    /// A text a line, with the name of its file (`file`) and folder (`folder`) as further fields.
    Text,
    /// Two files whose lines belong together: fields `source` and `target`.
    Parallel,
}

/// What a quotation mark means in a delimited file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quotes {
    /// As in RFC 4180: a cell may stand in quotes, may then hold delimiters and line ends, and `""` is a quote.
    Rfc,
    /// A character like any other, as in GLUE's files.
    Raw,
}

/// Which column plays a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Column {
    /// By number from 0.
    Number(usize),
    /// By name; `a.b` is the field `b` of the object in field `a`.
    Name(String),
    /// Several columns together: one for each choice or each class.
    Several(Vec<String>),
}

/// Where labelled data lies and how to read it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableSettings {
    /// Files, each plain or packed (`.gz`); for `parallel`, the source's and the target's.
    pub paths: Vec<PathBuf>,
    /// Overrides what the files' endings say.
    #[serde(default)]
    pub format: Option<TableFormat>,
    /// Which column plays which role (`{ text = "review", label = "stars" }`), where names do not tell.
    #[serde(default)]
    pub columns: BTreeMap<String, Column>,
    /// Delimited files: whether the first line names the columns; without it, known names there decide.
    #[serde(default)]
    pub header: Option<bool>,
    /// Delimited files: the character between cells; without it, the ending and the first line decide.
    #[serde(default)]
    pub delimiter: Option<char>,
    /// Delimited files: what quotes mean; without it, `raw` between tabs and `rfc` otherwise.
    #[serde(default)]
    pub quotes: Option<Quotes>,
    /// CoNLL: columns of the word and of the tag, from 0, or from the end if negative.
    #[serde(default = "conll_columns")]
    pub conll_columns: (i32, i32),
    /// What to do with rows that cannot be used.
    #[serde(default)]
    pub faults: Faults,
}

fn conll_columns() -> (i32, i32) {
    (0, -1)
}

impl TableSettings {
    /// The settings for one file, everything else at its default.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            paths: vec![path.into()],
            format: None,
            columns: BTreeMap::new(),
            header: None,
            delimiter: None,
            quotes: None,
            conll_columns: conll_columns(),
            faults: Faults::Refuse,
        }
    }

    /// The same with `column` playing `role`.
    #[must_use]
    pub fn with(mut self, role: &str, column: Column) -> Self {
        self.columns.insert(role.to_owned(), column);
        self
    }
}

/// One row: its fields by name, and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The fields, in the file's order; columns without names are called by their numbers.
    pub fields: Map<String, Value>,
    /// Where it begins.
    pub position: Position,
    /// The file has no column names.
    pub numbered: bool,
}

pub(crate) type Rows<'a> = Box<dyn Iterator<Item = Result<Row>> + Send + 'a>;

/// Files of labelled data, found and checked to exist; rows are read anew by each iterator.
#[derive(Debug)]
pub struct Table {
    settings: TableSettings,
    files: Vec<(Arc<Path>, TableFormat)>,
    faults: Arc<Mutex<FaultReport>>,
}

impl Table {
    /// Finds the files.
    ///
    /// # Errors
    /// A path that is not there or not a file, a file of unknown kind, and parallel text that is not two files.
    pub fn new(settings: TableSettings) -> Result<Self> {
        if settings.paths.is_empty() {
            return Err(Error::Settings("no data: `paths` is empty".to_owned()));
        }
        if settings.format == Some(TableFormat::Parallel) && settings.paths.len() != 2 {
            return Err(Error::Settings(format!(
                "parallel text is two files, the source's and the target's; `paths` has {}",
                settings.paths.len()
            )));
        }
        let mut files = Vec::new();
        for path in &settings.paths {
            let metadata = std::fs::metadata(path).map_err(Error::io(path))?;
            if metadata.is_dir() {
                return Err(Error::format(path, "a folder; `paths` should name the files"));
            }
            let format = settings.format.or_else(|| format_of(path)).ok_or_else(|| {
                Error::format(
                    path,
                    "the name does not tell the format (.jsonl, .json, .csv, .tsv, .parquet, .conll, with or without \
                     .gz); set `format`",
                )
            })?;
            files.push((path.as_path().into(), format));
        }
        Ok(Self { settings, files, faults: Arc::default() })
    }

    /// Shorthand for one file with default settings.
    ///
    /// # Errors
    /// As [`Table::new`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self> {
        Self::new(TableSettings::new(path))
    }

    /// The settings it was made with.
    pub fn settings(&self) -> &TableSettings {
        &self.settings
    }

    /// The rows in order, as they stand in the files; the first line of a delimited file is a header, unless told otherwise.
    pub fn rows(&self) -> impl Iterator<Item = Result<Row>> + Send + '_ {
        self.open_files(|_| true)
    }

    /// The rows as records. Under [`Faults::Skip`] those that cannot be used are counted and left out.
    pub fn records<'a, R: Record + 'a>(&'a self) -> impl Iterator<Item = Result<R>> + Send + 'a {
        self.numbered_records().map(|record| record.map(|(_, record)| record))
    }

    /// The records, each with the number of its row among those that can be used: a row may have several, which must not be
    /// parted when some rows are held out.
    pub fn numbered_records<'a, R: Record + 'a>(&'a self) -> impl Iterator<Item = Result<(u64, R)>> + Send + 'a {
        // A second reading finds the same faults again; they must not count twice.
        if let Ok(mut faults) = self.faults.lock() {
            *faults = FaultReport::default();
        }
        let mut roles = Roles::default();
        let all = move |row: Result<Row>| R::all_of_row(row?, &self.settings.columns, &mut roles);
        let usable = self.open_files(R::knows).map(all).filter_map(move |records| match records {
            Err(error @ Error::Record { .. }) if self.settings.faults == Faults::Skip => {
                self.note(&error);
                None
            }
            other => Some(other),
        });
        usable.zip(0u64..).flat_map(|(records, row)| match records {
            Ok(records) => records.into_iter().map(|record| Ok((row, record))).collect(),
            Err(error) => vec![Err(error)],
        })
    }

    /// `known` says of a name, in small letters, whether a header may hold it.
    fn open_files(&self, known: fn(&str) -> bool) -> Rows<'_> {
        if self.settings.format == Some(TableFormat::Parallel) {
            return Box::new(plain::parallel(&self.files[0].0, &self.files[1].0));
        }
        let settings = &self.settings;
        Box::new(self.files.iter().flat_map(move |(path, format)| {
            let opened: Result<Rows<'_>> = match format {
                TableFormat::Jsonl => json::lines(path),
                TableFormat::Json => json::elements(path),
                TableFormat::Csv | TableFormat::Tsv => delimited::open(path, *format, settings, known),
                TableFormat::Parquet => parquet::open(path),
                TableFormat::Conll => conll::open(path, settings.conll_columns),
                TableFormat::Text | TableFormat::Parallel => plain::open(path),
            };
            opened.unwrap_or_else(|error| Box::new(std::iter::once(Err(error))))
        }))
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

    /// A digest of the content of all files and of how they are read.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn fingerprint(&self) -> Result<[u8; 32]> {
        let mut hash = Sha256::new();
        let settings = TableSettings { paths: Vec::new(), ..self.settings.clone() };
        hash.update(serde_json::to_vec(&settings).map_err(|error| Error::Settings(error.to_string()))?);
        for (path, format) in &self.files {
            let mut file = File::open(path).map_err(Error::io(&**path))?;
            hash.update([*format as u8]);
            let mut content = Sha256::new();
            std::io::copy(&mut file, &mut content).map_err(Error::io(&**path))?;
            hash.update(content.finalize());
        }
        Ok(hash.finalize().into())
    }
}

fn format_of(path: &Path) -> Option<TableFormat> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    match name.rsplit_once('.')?.1 {
        "jsonl" | "ndjson" => Some(TableFormat::Jsonl),
        "json" => Some(TableFormat::Json),
        "csv" => Some(TableFormat::Csv),
        "tsv" | "tab" => Some(TableFormat::Tsv),
        "parquet" => Some(TableFormat::Parquet),
        "conll" | "conll2003" | "iob" | "iob2" | "bio" => Some(TableFormat::Conll),
        _ => None,
    }
}

/// The file's bytes, unpacked when its name ends in `.gz`.
fn reader(path: &Path) -> Result<Box<dyn BufRead + Send>> {
    let file = File::open(path).map_err(Error::io(path))?;
    let packed = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz"));
    Ok(if packed {
        Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(BufReader::new(file))))
    } else {
        Box::new(BufReader::with_capacity(1 << 16, file))
    })
}

/// Lines of a file, each with its number from 1, without its end and without a byte order mark.
struct Lines {
    input: Box<dyn BufRead + Send>,
    path: Arc<Path>,
    line: Vec<u8>,
    number: u64,
}

impl Lines {
    fn open(path: &Arc<Path>) -> Result<Self> {
        Ok(Self { input: reader(path)?, path: path.clone(), line: Vec::new(), number: 0 })
    }

    /// The next line, or `None` at the end of the file; a line too long is a faulty record, and is stepped over.
    fn next(&mut self) -> Option<Result<&str>> {
        self.line.clear();
        match self.input.by_ref().take(LONGEST as u64 + 1).read_until(b'\n', &mut self.line) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(error) => return Some(Err(Error::io(&*self.path)(error))),
        }
        self.number += 1;
        if self.line.len() > LONGEST {
            if let Err(error) = self.input.skip_until(b'\n') {
                return Some(Err(Error::io(&*self.path)(error)));
            }
            return Some(Err(self.wrong(format!("a line of more than {} MiB", LONGEST >> 20))));
        }
        let mark: &[u8] = if self.number == 1 { b"\xEF\xBB\xBF" } else { b"" };
        let line = self.line.strip_prefix(mark).unwrap_or(&self.line);
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match std::str::from_utf8(line) {
            Ok(text) => Some(Ok(text)),
            Err(error) => Some(Err(self.wrong(format!(
                "invalid UTF-8 at byte {} of the line; convert the file (for instance with iconv), or set \
                 `faults = \"skip\"`",
                error.valid_up_to()
            )))),
        }
    }

    fn position(&self) -> Position {
        Position::at(&self.path, crate::dataset::Part::Line, self.number)
    }

    fn wrong(&self, message: String) -> Error {
        Error::Record { position: self.position(), message }
    }
}

/// True for errors after which a file cannot be read on.
fn fatal<T>(item: &Result<T>) -> bool {
    matches!(item, Err(error) if !matches!(error, Error::Record { .. }))
}

#[cfg(test)]
pub(crate) mod shared;
#[cfg(test)]
mod tests;

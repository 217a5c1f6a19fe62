//! `[data] kind = "table"`: files of labelled records in the formats that users have.

use std::collections::BTreeMap;
use std::path::PathBuf;

use phyla_data::dataset::Faults;
use phyla_data::supervised::table::{Column, Quotes, TableFormat, TableSettings};
use serde::{Deserialize, Serialize};

use super::paths;

/// Labelled files: JSONL, JSON, CSV, TSV, Parquet, CoNLL, SQuAD's JSON, or parallel text, each plain or `.gz`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// One path or a list; of parallel text the source's file and the target's.
    #[serde(deserialize_with = "paths")]
    pub train: Vec<PathBuf>,
    /// One path or a list.
    #[serde(default, deserialize_with = "paths")]
    pub validation: Vec<PathBuf>,
    /// The format, where the names of the files do not tell.
    pub format: Option<TableFormat>,
    /// Delimited files: whether the first line names the columns; without it, known names there decide.
    pub header: Option<bool>,
    /// Delimited files: the character between cells.
    pub delimiter: Option<char>,
    /// Delimited files: what quotes mean.
    pub quotes: Option<Quotes>,
    /// CoNLL: columns of the word and of the tag, from 0, or from the end if negative; the first and the last unless
    /// given.
    pub conll_columns: Option<(i32, i32)>,
    /// What to do with rows that cannot be used.
    #[serde(default)]
    pub faults: Faults,
    /// Which column plays which role (`columns = { text = "review", label = "stars" }`), where names do not tell.
    #[serde(default)]
    pub columns: BTreeMap<String, Column>,
}

impl Table {
    /// How to read some of its files.
    #[must_use]
    pub fn settings(&self, paths: &[PathBuf]) -> TableSettings {
        let defaults = TableSettings::new("");
        TableSettings {
            paths: paths.to_vec(),
            format: self.format,
            columns: self.columns.clone(),
            header: self.header,
            delimiter: self.delimiter,
            quotes: self.quotes,
            conll_columns: self.conll_columns.unwrap_or(defaults.conll_columns),
            faults: self.faults,
        }
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        if self.format == Some(TableFormat::Parallel) {
            for (key, files) in [("train", &self.train), ("validation", &self.validation)] {
                if files.len() != 2 && !(key == "validation" && files.is_empty()) {
                    problems.push(format!(
                        "`data.{key}` has {} files; parallel text is two, the source's and the target's",
                        files.len()
                    ));
                }
            }
        }
    }
}

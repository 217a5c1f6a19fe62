//! CoNLL's columns: a word and its tags a line, a blank line after each sentence.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Lines, Row, Rows, fatal};
use crate::dataset::Position;
use crate::error::{Error, Result};

struct Sentences {
    lines: Lines,
    columns: (i32, i32),
    /// Of lines so far that are no remarks: whether they had tabs, and how many columns.
    shape: Option<(bool, usize)>,
    done: bool,
}

pub(super) fn open<'a>(path: &Arc<Path>, columns: (i32, i32)) -> Result<Rows<'a>> {
    Ok(Box::new(Sentences { lines: Lines::open(path)?, columns, shape: None, done: false }))
}

/// A column by number, from the end if negative.
fn pick<'a>(cells: &[&'a str], column: i32) -> Option<&'a str> {
    let index = if column < 0 { cells.len().checked_sub(column.unsigned_abs() as usize)? } else { column as usize };
    cells.get(index).copied()
}

impl Sentences {
    /// Reads up to the blank line; after a fault the rest of the sentence is stepped over.
    fn sentence(&mut self) -> Option<Result<Row>> {
        let (mut tokens, mut tags) = (Vec::new(), Vec::new());
        let mut begun: Option<Position> = None;
        let mut fault = None;
        loop {
            let line = match self.lines.next() {
                None => break,
                Some(Ok(line)) => line.trim(),
                Some(Err(error)) if matches!(error, Error::Record { .. }) => {
                    fault.get_or_insert(error);
                    continue;
                }
                Some(Err(error)) => return Some(Err(error)),
            };
            let document = line.starts_with("-DOCSTART-");
            if line.is_empty() || document {
                if begun.is_some() || fault.is_some() {
                    break;
                }
                continue;
            }
            // Tabs where there are any: a word may hold a space (a non-breaking one, or a number's).
            let tabs = line.contains('\t');
            let cells: Vec<&str> =
                if tabs { line.split('\t').map(str::trim).collect() } else { line.split_whitespace().collect() };
            // Some files have remarks that begin so; the word `#` stands in a line like all others.
            if line.starts_with('#') && self.shape != Some((tabs, cells.len())) && !(tabs && self.shape.is_none()) {
                continue;
            }
            let (word, tag) = (pick(&cells, self.columns.0), pick(&cells, self.columns.1));
            match (word, tag) {
                (Some(word), Some(tag)) if cells.len() > 1 && !word.is_empty() && !tag.is_empty() => {
                    self.shape = Some((tabs, cells.len()));
                    tokens.push(Value::String(word.to_owned()));
                    tags.push(Value::String(tag.to_owned()));
                }
                _ => {
                    let message = format!(
                        "expected a word in column {} and a tag in column {}, found {} column{}",
                        self.columns.0,
                        self.columns.1,
                        cells.len(),
                        if cells.len() == 1 { "" } else { "s" }
                    );
                    let error = self.lines.wrong(message);
                    fault.get_or_insert(error);
                }
            }
            begun.get_or_insert_with(|| self.lines.position());
        }
        if let Some(fault) = fault {
            return Some(Err(fault));
        }
        let mut fields = Map::with_capacity(2);
        fields.insert("tokens".to_owned(), Value::Array(tokens));
        fields.insert("tags".to_owned(), Value::Array(tags));
        Some(Ok(Row { fields, position: begun?, numbered: false }))
    }
}

impl Iterator for Sentences {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let row = self.sentence()?;
        self.done = fatal(&row);
        Some(row)
    }
}

//! Cells between commas or tabs: RFC 4180 with its quotes, or plain cells in which a quote is a character.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{LONGEST, Lines, Quotes, Row, Rows, TableFormat, TableSettings, fatal};
use crate::dataset::Position;
use crate::error::{Error, Result};

struct Cells {
    lines: Lines,
    delimiter: char,
    quotes: Quotes,
    /// Column names; `None` in files without a header.
    header: Option<Vec<String>>,
    /// A first record that was not a header.
    first: Option<(Position, Vec<String>)>,
    done: bool,
}

pub(super) fn open<'a>(
    path: &Arc<Path>,
    format: TableFormat,
    settings: &TableSettings,
    known: fn(&str) -> bool,
) -> Result<Rows<'a>> {
    let delimiter = match settings.delimiter {
        Some(delimiter) if delimiter.is_ascii() && !matches!(delimiter, '"' | '\n' | '\r') => delimiter,
        Some(other) => {
            return Err(Error::Settings(format!(
                "`delimiter` should be an ASCII character and no quote, found {other:?}"
            )));
        }
        None if format == TableFormat::Tsv => '\t',
        None => guess(path)?,
    };
    let quotes = settings.quotes.unwrap_or(if delimiter == '\t' { Quotes::Raw } else { Quotes::Rfc });
    let lines = Lines::open(path)?;
    let mut cells = Cells { lines, delimiter, quotes, header: None, first: None, done: false };
    if settings.header != Some(false)
        && let Some(first) = cells.record()
    {
        let (position, names) = first?;
        let configured = |name: &str| {
            settings.columns.values().any(|column| match column {
                super::Column::Name(other) => name == other,
                super::Column::Several(others) => others.iter().any(|other| name == other),
                super::Column::Number(_) => false,
            })
        };
        let is_name = |name: &String| known(&name.trim().to_lowercase()) || configured(name);
        let numbered = settings.columns.values().any(|column| matches!(column, super::Column::Number(_)));
        if settings.header == Some(true) || names.iter().any(is_name) {
            if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
                return Err(Error::format(path, format!("the header names the column `{}` twice", twice.1)));
            }
            cells.header = Some(names);
        } else if format == TableFormat::Csv && !numbered {
            // Most such files have a header, and to read one as data would be a silent mistake.
            let names: Vec<_> = names.iter().take(20).map(|name| format!("`{}`", brief(name))).collect();
            return Err(Error::format(
                path,
                format!(
                    "the first line names no column that is known ({}): set `header = true` and `columns`, or `header = \
                     false`",
                    names.join(", ")
                ),
            ));
        } else {
            cells.first = Some((position, names));
        }
    }
    Ok(Box::new(cells))
}

/// Tabs or semicolons on the first line of a `.csv` are stronger than its name.
fn guess(path: &Arc<Path>) -> Result<char> {
    let mut lines = Lines::open(path)?;
    let Some(line) = lines.next() else { return Ok(',') };
    let line = line?;
    Ok(if line.contains('\t') {
        '\t'
    } else if line.contains(';') && !line.contains(',') {
        ';'
    } else {
        ','
    })
}

impl Cells {
    /// The cells of the next record and where it begins; blank lines are stepped over.
    fn record(&mut self) -> Option<Result<(Position, Vec<String>)>> {
        loop {
            let line = match self.lines.next()? {
                Ok(line) => line,
                Err(error) => return Some(Err(error)),
            };
            if line.is_empty() {
                continue;
            }
            if self.quotes == Quotes::Raw || !line.contains('"') {
                let cells = line.split(self.delimiter).map(str::to_owned).collect();
                return Some(Ok((self.lines.position(), cells)));
            }
            let mut text = line.to_owned();
            let position = self.lines.position();
            return Some(self.quoted(&mut text, &position).map(|cells| (position, cells)));
        }
    }

    /// The cells of a record in which there are quotes, which may go on over further lines.
    fn quoted(&mut self, text: &mut String, position: &Position) -> Result<Vec<String>> {
        let wrong = |message: &str| Error::Record {
            position: position.clone(),
            message: format!("{message}; if quotes are plain characters in this file, set `quotes = \"raw\"`"),
        };
        let (mut cells, mut at) = (Vec::new(), 0);
        loop {
            let rest = &text[at..];
            if !rest.starts_with('"') {
                let end = rest.find(self.delimiter);
                let cell = &rest[..end.unwrap_or(rest.len())];
                if cell.contains('"') {
                    return Err(wrong(&format!(
                        "a quote inside the cell {:?}, which does not begin with one",
                        brief(cell)
                    )));
                }
                cells.push(cell.to_owned());
                match end {
                    Some(end) => at += end + 1,
                    None => return Ok(cells),
                }
                continue;
            }
            let (mut cell, mut from) = (String::new(), at + 1);
            loop {
                let Some(quote) = text[from..].find('"').map(|quote| from + quote) else {
                    cell.push_str(&text[from..]);
                    // The cell goes on in the next line.
                    from = text.len();
                    match self.lines.next() {
                        Some(line) => {
                            text.push('\n');
                            text.push_str(line?);
                        }
                        None => return Err(wrong("the file ends inside a cell in quotes that begins here")),
                    }
                    if text.len() > LONGEST {
                        return Err(wrong(&format!("a cell in quotes of more than {} MiB", LONGEST >> 20)));
                    }
                    continue;
                };
                cell.push_str(&text[from..quote]);
                from = quote + 1;
                if text[from..].starts_with('"') {
                    cell.push('"');
                    from += 1;
                    continue;
                }
                break;
            }
            cells.push(cell);
            match text[from..].chars().next() {
                None => return Ok(cells),
                Some(c) if c == self.delimiter => at = from + 1,
                Some(c) => {
                    return Err(wrong(&format!(
                        "after a cell in quotes, {:?} or the line's end should follow, found {c:?} (after {:?})",
                        self.delimiter,
                        brief(cells.last().map_or("", String::as_str))
                    )));
                }
            }
        }
    }

    fn row(&self, position: Position, cells: Vec<String>) -> Result<Row> {
        let mut fields = Map::with_capacity(cells.len());
        match &self.header {
            Some(names) if names.len() != cells.len() => {
                return Err(Error::Record {
                    position,
                    message: format!("expected {} cells, as the header has, found {}", names.len(), cells.len()),
                });
            }
            Some(names) => {
                for (name, cell) in names.iter().zip(cells) {
                    fields.insert(name.trim().to_owned(), Value::String(cell));
                }
            }
            None => {
                for (number, cell) in cells.into_iter().enumerate() {
                    fields.insert(number.to_string(), Value::String(cell));
                }
            }
        }
        Ok(Row { fields, position, numbered: self.header.is_none() })
    }
}

fn brief(text: &str) -> &str {
    text.char_indices().nth(40).map_or(text, |(at, _)| &text[..at])
}

impl Iterator for Cells {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let item = match self.first.take() {
            Some(first) => Ok(first),
            None => self.record()?,
        };
        let row = item.and_then(|(position, cells)| self.row(position, cells));
        self.done = fatal(&row);
        Some(row)
    }
}

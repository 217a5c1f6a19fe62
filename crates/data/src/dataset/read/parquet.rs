//! Apache Parquet: one string column, a few hundred rows at a time.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::super::{Document, Part, Position, TextSettings};
use super::{Records, filled};
use crate::error::{Error, Result};
use crate::guard::quietly;

/// Rows decoded at once.
const ROWS: usize = 256;

pub(super) fn open<'a>(path: &Arc<Path>, settings: &'a TextSettings) -> Result<Records<'a>> {
    let file = File::open(path).map_err(Error::io(&**path))?;
    let file = guarded(path, || SerializedFileReader::new(file))?;
    let column = column(path, &file, &settings.field)?;
    Ok(Box::new(Rows {
        file,
        path: path.clone(),
        column,
        group: 0,
        reader: None,
        row: 0,
        ready: Vec::new().into_iter(),
        done: false,
    }))
}

/// The index of the leaf column of that name, which must hold one string a row.
fn column(path: &Arc<Path>, file: &SerializedFileReader<File>, field: &str) -> Result<usize> {
    let schema = file.metadata().file_metadata().schema_descr();
    let names: Vec<String> = schema.columns().iter().map(|column| column.path().string()).collect();
    let Some(index) = names.iter().position(|name| name == field) else {
        let names: Vec<String> = names.iter().take(20).map(|name| format!("`{name}`")).collect();
        return Err(Error::format(path, format!("no column `{field}`; this file has {}", names.join(", "))));
    };
    let column = schema.column(index);
    if column.physical_type() != Type::BYTE_ARRAY || column.max_rep_level() != 0 {
        return Err(Error::format(
            path,
            format!(
                "column `{field}` should hold one string a row, found {}{}",
                column.physical_type(),
                if column.max_rep_level() == 0 { "" } else { " in lists" }
            ),
        ));
    }
    Ok(index)
}

/// The library's errors and panics, as errors that name the file.
fn guarded<T>(path: &Arc<Path>, work: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T> {
    match quietly(work) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::format(path, error.to_string())),
        Err(panic) => Err(Error::format(path, format!("the file contradicts itself ({panic})"))),
    }
}

struct Rows {
    file: SerializedFileReader<File>,
    path: Arc<Path>,
    column: usize,
    group: usize,
    reader: Option<ColumnReaderImpl<ByteArrayType>>,
    row: u64,
    ready: std::vec::IntoIter<Option<ByteArray>>,
    done: bool,
}

impl Rows {
    /// Decodes the next rows into `ready`; false at the end of the file.
    fn refill(&mut self) -> Result<bool> {
        loop {
            if self.reader.is_none() {
                if self.group >= self.file.num_row_groups() {
                    return Ok(false);
                }
                let (file, group, column) = (&self.file, self.group, self.column);
                let reader = guarded(&self.path, || file.get_row_group(group)?.get_column_reader(column))?;
                let ColumnReader::ByteArrayColumnReader(reader) = reader else {
                    return Err(Error::format(&self.path, "the text column holds no byte arrays"));
                };
                self.reader = Some(reader);
                self.group += 1;
            }
            let Some(reader) = &mut self.reader else { continue };
            let (mut levels, mut values) = (Vec::new(), Vec::new());
            let (rows, ..) = guarded(&self.path, || reader.read_records(ROWS, Some(&mut levels), None, &mut values))?;
            if rows == 0 {
                self.reader = None;
                continue;
            }
            // Present values only are stored; a row without one has a lower definition level.
            let highest = self.file.metadata().file_metadata().schema_descr().column(self.column).max_def_level();
            let mut values = values.into_iter();
            let cells: Vec<Option<ByteArray>> = if highest == 0 {
                values.map(Some).collect()
            } else {
                levels.iter().map(|&level| if level == highest { values.next() } else { None }).collect()
            };
            self.ready = cells.into_iter();
            return Ok(true);
        }
    }
}

impl Iterator for Rows {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            let Some(cell) = self.ready.next() else {
                match self.refill() {
                    Ok(true) => continue,
                    Ok(false) => break,
                    Err(error) => {
                        self.done = true;
                        return Some(Err(error));
                    }
                }
            };
            self.row += 1;
            let position = Position::at(&self.path, Part::Row, self.row);
            let text = match &cell {
                None => Err("null instead of a text".to_owned()),
                Some(bytes) => std::str::from_utf8(bytes.data())
                    .map_err(|error| format!("invalid UTF-8 at byte {} of the text", error.valid_up_to())),
            };
            return Some(match text {
                Ok(text) => filled(Document { text: text.to_owned(), position, more: false }),
                Err(message) => Err(Error::Record { position, message }),
            });
        }
        self.done = true;
        None
    }
}

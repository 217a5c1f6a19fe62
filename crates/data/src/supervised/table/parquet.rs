//! Apache Parquet row by row: strings, numbers, lists and structs as JSON values.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row as ParquetRow};
use serde_json::{Map, Number, Value};

use super::{Row, Rows};
use crate::dataset::{Part, Position};
use crate::error::{Error, Result};
use crate::guard::quietly;

pub(super) fn open<'a>(path: &Arc<Path>) -> Result<Rows<'a>> {
    let file = File::open(path).map_err(Error::io(&**path))?;
    let bytes = file.metadata().map_err(Error::io(&**path))?.len();
    let reader = guarded(path, || SerializedFileReader::new(file))?;
    let claimed = reader.metadata().file_metadata().num_rows();
    // Runs of one value compress well, but not so well; an endless file of nothing is a lie.
    if u64::try_from(claimed).map_or(true, |rows| rows > bytes.saturating_mul(10_000)) {
        return Err(Error::format(path, format!("claims {claimed} rows in {bytes} bytes")));
    }
    let mut rows = guarded(path, || Ok(RowIter::from_file_into(Box::new(reader))))?;
    let path = path.clone();
    let (mut number, mut done) = (0, false);
    Ok(Box::new(std::iter::from_fn(move || {
        if done {
            return None;
        }
        let row = guarded(&path, || rows.next().transpose()).transpose()?;
        number += 1;
        done = row.is_err() || number > claimed as u64;
        Some(row.map(|row| {
            let position = Position::at(&path, Part::Row, number);
            Row { fields: object(row), position, numbered: false }
        }))
    })))
}

/// The library's errors and panics, as errors that name the file.
fn guarded<T>(path: &Arc<Path>, work: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T> {
    match quietly(work) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::format(path, error.to_string())),
        Err(panic) => Err(Error::format(path, format!("the file contradicts itself ({panic})"))),
    }
}

fn object(row: ParquetRow) -> Map<String, Value> {
    row.into_columns().into_iter().map(|(name, field)| (name, value(field))).collect()
}

/// What a struct of a list has: all rows share its fields, so that an argument of one function is a null in the calls of
/// others. A message without content says so.
fn without_absent(mut fields: Map<String, Value>) -> Map<String, Value> {
    fields.retain(|name, value| name == "content" || !value.is_null());
    fields
}

/// The JSON value that a reader of the same table as JSON lines would find.
fn value(field: Field) -> Value {
    let float = |number: f64| Number::from_f64(number).map_or(Value::Null, Value::Number);
    match field {
        Field::Bool(value) => Value::Bool(value),
        Field::Byte(value) => value.into(),
        Field::Short(value) => value.into(),
        Field::Int(value) | Field::Date(value) | Field::TimeMillis(value) => value.into(),
        Field::Long(value)
        | Field::TimeMicros(value)
        | Field::TimestampMillis(value)
        | Field::TimestampMicros(value) => value.into(),
        Field::UByte(value) => value.into(),
        Field::UShort(value) => value.into(),
        Field::UInt(value) => value.into(),
        Field::ULong(value) => value.into(),
        Field::Float16(value) => float(value.to_f64()),
        // Through its shortest decimal, so that 0.1 stays 0.1.
        Field::Float(value) => float(value.to_string().parse().unwrap_or(f64::from(value))),
        Field::Double(value) => float(value),
        Field::Str(value) => Value::String(value),
        // Written without the annotation that makes bytes a string.
        Field::Bytes(bytes) => std::str::from_utf8(bytes.data()).map_or(Value::Null, Value::from),
        Field::Group(row) => Value::Object(without_absent(object(row))),
        Field::ListInternal(list) => list.elements().iter().cloned().map(value).collect(),
        // No labelled set keeps texts or labels in decimals or maps.
        Field::Null | Field::Decimal(_) | Field::MapInternal(_) => Value::Null,
    }
}

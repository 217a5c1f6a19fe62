//! A text a line: one file by itself, or two whose lines belong together.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Lines, Row, Rows, fatal};
use crate::error::{Error, Result};

/// Each line with its file's name and folder, in which many sets keep the label (`rt-polarity.pos`, `neg/1.txt`).
pub(super) fn open<'a>(path: &Arc<Path>) -> Result<Rows<'a>> {
    let mut lines = Lines::open(path)?;
    let name =
        |part: Option<&std::ffi::OsStr>| part.map_or_else(String::new, |part| part.to_string_lossy().into_owned());
    let file = name(path.file_name());
    let folder = name(path.parent().and_then(Path::file_name));
    let mut done = false;
    Ok(Box::new(std::iter::from_fn(move || {
        while !done {
            let text = lines.next()?.map(str::to_owned);
            done = fatal(&text);
            match text {
                Err(error) => return Some(Err(error)),
                Ok(text) if text.trim().is_empty() => {}
                Ok(text) => {
                    let fields = [("text", text), ("file", file.clone()), ("folder", folder.clone())];
                    let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value)));
                    return Some(Ok(Row { fields: fields.collect(), position: lines.position(), numbered: false }));
                }
            }
        }
        None
    })))
}

/// The lines of two files side by side; a file that ends before the other is an error.
pub(super) fn parallel<'a>(source: &Arc<Path>, target: &Arc<Path>) -> Rows<'a> {
    let (mut left, mut right) = match (Lines::open(source), Lines::open(target)) {
        (Ok(left), Ok(right)) => (left, right),
        (Err(error), _) | (_, Err(error)) => return Box::new(std::iter::once(Err(error))),
    };
    let mut done = false;
    Box::new(std::iter::from_fn(move || {
        if done {
            return None;
        }
        let pair = (left.next().map(|line| line.map(str::to_owned)), right.next().map(|line| line.map(str::to_owned)));
        let row = match pair {
            (None, None) => return None,
            (Some(Ok(source)), Some(Ok(target))) => {
                let mut fields = Map::with_capacity(2);
                fields.insert("source".to_owned(), Value::String(source));
                fields.insert("target".to_owned(), Value::String(target));
                Ok(Row { fields, position: left.position(), numbered: false })
            }
            (Some(Err(error)), _) | (_, Some(Err(error))) => Err(error),
            (Some(_), None) | (None, Some(_)) => {
                let (longer, shorter) = if left.number > right.number { (&left, &right) } else { (&right, &left) };
                let message = format!("ends after {} lines, but {} goes on", shorter.number, longer.path.display());
                Err(Error::format(&shorter.path, message))
            }
        };
        done = fatal(&row);
        Some(row)
    }))
}

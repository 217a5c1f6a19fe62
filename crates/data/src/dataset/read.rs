//! Finds data files and opens each as a stream of documents, whatever its format.

mod jsonl;
mod parquet;
mod plain;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;

use super::{Document, Format, TextSettings};
use crate::error::{Error, Result};

pub(super) type Records<'a> = Box<dyn Iterator<Item = Result<Document>> + 'a>;

/// The format a file's name tells, with or without `.gz`.
fn format_of(path: &Path) -> Option<Format> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    match name.rsplit_once('.')?.1 {
        "txt" | "text" | "md" => Some(Format::Text),
        "jsonl" | "ndjson" | "json" => Some(Format::Jsonl),
        "parquet" => Some(Format::Parquet),
        _ => None,
    }
}

/// Adds the data files at `path` to `files`, those of a folder in order of names.
pub(super) fn find(path: &Path, format: Option<Format>, files: &mut Vec<(Arc<Path>, Format)>) -> Result<()> {
    let metadata = std::fs::metadata(path).map_err(Error::io(path))?;
    if !metadata.is_dir() {
        let format = format.or_else(|| format_of(path)).ok_or_else(|| {
            Error::format(
                path,
                "the name does not tell the format (.txt, .md, .jsonl, .json, .parquet, with or without .gz); \
                 set `format`",
            )
        })?;
        files.push((path.into(), format));
        return Ok(());
    }
    let before = files.len();
    walk(path, format, files, 0)?;
    if files.len() == before {
        return Err(Error::format(
            path,
            "no data file in this folder: expected .txt, .md, .jsonl, .json or .parquet, with or without .gz",
        ));
    }
    Ok(())
}

fn walk(folder: &Path, format: Option<Format>, files: &mut Vec<(Arc<Path>, Format)>, depth: usize) -> Result<()> {
    // A link may lead back up.
    if depth > 16 {
        return Err(Error::format(folder, "folders nested deeper than 16"));
    }
    let mut paths = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>())
        .map_err(Error::io(folder))?;
    paths.sort();
    for path in paths {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().first() == Some(&b'.'));
        if hidden {
            continue;
        }
        if path.is_dir() {
            walk(&path, format, files, depth + 1)?;
        } else if let Some(found) = format_of(&path)
            && format.is_none_or(|format| format == found)
        {
            files.push((path.into(), found));
        }
    }
    Ok(())
}

/// The documents of one file; an error of opening is the first and only item.
pub(super) fn open<'a>(path: &Arc<Path>, format: Format, settings: &'a TextSettings) -> Records<'a> {
    let opened = match format {
        Format::Text => plain::open(path, settings),
        Format::Jsonl => jsonl::open(path, settings),
        Format::Parquet => parquet::open(path, settings),
    };
    opened.unwrap_or_else(|error| Box::new(std::iter::once(Err(error))))
}

/// The file's bytes, unpacked when its name ends in `.gz`.
fn reader(path: &Path) -> Result<Box<dyn BufRead>> {
    let file = File::open(path).map_err(Error::io(path))?;
    let packed = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz"));
    Ok(if packed {
        Box::new(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(BufReader::new(file))))
    } else {
        Box::new(BufReader::with_capacity(1 << 16, file))
    })
}

const EMPTY: &str = "an empty document; set `faults = \"skip\"` to leave such out and count them";

/// Refuses a document of nothing but white space.
fn filled(document: Document) -> Result<Document> {
    if document.text.trim_ascii().is_empty() {
        return Err(Error::Record { position: document.position, message: EMPTY.to_owned() });
    }
    Ok(document)
}

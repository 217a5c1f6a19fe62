//! GGUF files, llama.cpp's format: weights, configuration and tokenizer in one file, read through a memory map. The
//! names and fields that a family has there stand in the family's file; here is what they all share.

mod config;
mod convert;
mod error;
mod header;
mod plan;
mod say;
pub(crate) mod table;
mod value;
mod write;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use phyla_kernels::map::{MappedFile, MappedSlice};
use serde_json::Map;

pub use config::config;
pub use convert::{Converted, FileType, GgufOptions, Progress, convert, save_gguf};
pub use error::{Fault, GgufError};
pub use table::{Field, Fixed, Table};
pub use value::{Kind, List, Value};
pub use write::{Datum, GgufWriter};

use crate::checkpoint::{Entry, TensorView, nearest};
use header::{Header, Stored};

type Result<T> = std::result::Result<T, GgufError>;

/// A GGUF file, mapped: opening reads the header alone, whatever the size.
///
/// The file must not be truncated while mapped; see [`phyla_kernels::map`].
#[derive(Debug)]
pub struct Gguf {
    path: PathBuf,
    file: Arc<MappedFile>,
    header: Header,
}

impl Gguf {
    /// Opens a file and checks its header in full.
    ///
    /// # Errors
    /// [`GgufError::Map`], or [`GgufError::Invalid`] for a file that contradicts itself.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let file = MappedFile::open(&path).map_err(GgufError::Map)?;
        match header::parse(file.bytes()) {
            Ok(header) => Ok(Self { path, file, header }),
            Err(fault) => Err(GgufError::Invalid { path, fault }),
        }
    }

    /// What was opened, as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The format's version: 2 or 3.
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// Tensors begin at multiples of this.
    pub fn alignment(&self) -> usize {
        self.header.alignment
    }

    /// All keys of the metadata, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.header.metadata.keys().map(String::as_str)
    }

    /// The value of a key; `None` when it is not there, and for a string that is not UTF-8.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        let Stored { kind, list, range } = self.header.metadata.get(key)?;
        let bytes = self.file.bytes().get(range.clone())?;
        match list {
            Some((of, len)) => Some(Value::List(List { of: *of, len: *len, bytes })),
            None => value::decode(*kind, bytes).map(|(value, _)| value),
        }
    }

    /// The value of a key as it is stored, to be written into another file.
    pub fn datum(&self, key: &str) -> Option<Datum> {
        let Stored { kind, list, range } = self.header.metadata.get(key)?;
        let mut stored = kind.id().to_le_bytes().to_vec();
        if let Some((of, len)) = list {
            stored.extend(of.id().to_le_bytes());
            stored.extend((*len as u64).to_le_bytes());
        }
        stored.extend(self.file.bytes().get(range.clone())?);
        Some(Datum::Copied(stored))
    }

    /// The string of a key.
    ///
    /// # Errors
    /// [`GgufError::Type`] for a value of another type.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a string", |value| match value {
            Value::Text(text) => Some(text),
            _ => None,
        })
    }

    /// The whole number of a key, at least 0.
    ///
    /// # Errors
    /// As [`Gguf::text`].
    pub fn count(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "a whole number of at least 0", whole)
    }

    /// The number of a key.
    ///
    /// # Errors
    /// As [`Gguf::text`].
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", |value| match value {
            Value::Unsigned(n) => Some(n as f64),
            Value::Signed(n) => Some(n as f64),
            Value::Float(x) => Some(x),
            _ => None,
        })
    }

    /// The truth of a key.
    ///
    /// # Errors
    /// As [`Gguf::text`].
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", |value| match value {
            Value::Bool(flag) => Some(flag),
            _ => None,
        })
    }

    /// The list of a key.
    ///
    /// # Errors
    /// As [`Gguf::text`].
    pub fn list(&self, key: &str) -> Result<Option<List<'_>>> {
        self.typed(key, "a list", |value| match value {
            Value::List(list) => Some(list),
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &'static str,
        read: impl Fn(Value<'a>) -> Option<T>,
    ) -> Result<Option<T>> {
        if !self.header.metadata.contains_key(key) {
            return Ok(None);
        }
        let value = self.get(key);
        value.and_then(read).map(Some).ok_or_else(|| GgufError::Type {
            path: self.path.clone(),
            key: key.to_string(),
            expected,
            found: value.map_or_else(|| "a string that is not UTF-8".into(), |value| value.to_string()),
        })
    }

    /// What a key that has to be there holds, from one of the getters.
    ///
    /// # Errors
    /// The getter's, or [`GgufError::MissingKey`] with the nearest keys.
    pub fn need<T>(&self, key: &str, found: Result<Option<T>>) -> Result<T> {
        found?.ok_or_else(|| {
            let near = nearest(key, self.keys());
            let nearest =
                if near.is_empty() { String::new() } else { format!("; the nearest are {}", near.join(", ")) };
            GgufError::MissingKey { path: self.path.clone(), key: key.to_string(), nearest }
        })
    }

    /// The metadata whose keys begin with `prefix`, as JSON: what reads a tokenizer takes it so.
    ///
    /// # Errors
    /// [`GgufError::Type`] for strings that are not UTF-8.
    pub fn json(&self, prefix: &str) -> Result<Map<String, serde_json::Value>> {
        let keys = self.header.metadata.keys().filter(|key| key.starts_with(prefix));
        let json = |key: &String| {
            let value = self.typed(key, "UTF-8", |value| match value {
                Value::List(list) if list.iter().count() < list.len() => None,
                value => Some(value),
            })?;
            Ok((key.clone(), value.map_or(serde_json::Value::Null, Into::into)))
        };
        keys.map(json).collect()
    }

    /// The tensors, in the order of the file's list.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.header.entries
    }

    /// The names of all tensors, in the order of the file's list.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.header.entries.iter().map(|entry| entry.name.as_str())
    }

    /// A tensor by name, without reading it; axes outermost first, as PyTorch has them.
    pub fn tensor(&self, name: &str) -> Option<TensorView> {
        let Entry { name, dtype, shape, begin, end } = self.header.entries.iter().find(|entry| entry.name == name)?;
        let slice = MappedSlice::new(self.file.clone(), *begin..*end)?;
        Some(TensorView { name: name.clone(), dtype: *dtype, shape: shape.clone(), slice })
    }

    /// The map.
    pub(crate) fn file(&self) -> &Arc<MappedFile> {
        &self.file
    }
}

/// A whole number of at least 0, whichever type it is stored as.
pub(crate) fn whole(value: Value<'_>) -> Option<u64> {
    match value {
        Value::Unsigned(n) => Some(n),
        Value::Signed(n) => u64::try_from(n).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

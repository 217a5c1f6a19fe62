//! The files a tokenizer consists of, held as bytes so that saving gives back exactly what was loaded.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Names that belong to a tokenizer in a checkpoint's folder.
const NAMES: [&str; 14] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
    "encoder.json",
    "vocab.bpe",
    "vocab.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
];

/// Where named templates beside the default one lie.
pub(crate) const MORE_TEMPLATES: &str = "additional_chat_templates";

/// File name to content; `origin` serves error messages only.
#[derive(Default)]
pub(crate) struct Files {
    origin: PathBuf,
    contents: BTreeMap<String, Vec<u8>>,
}

impl Files {
    /// Reads what is there of a tokenizer in a folder, or one `tokenizer.json` under any name.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        if path.is_file() {
            let bytes = std::fs::read(path).map_err(Error::io(path))?;
            return Ok(Self {
                origin: path.parent().unwrap_or(Path::new("")).to_owned(),
                contents: BTreeMap::from([("tokenizer.json".to_owned(), bytes)]),
            });
        }
        // Read first: a folder that does not exist should say so, not "no tokenizer in it".
        std::fs::read_dir(path).map_err(Error::io(path))?;
        let mut files = Self { origin: path.to_owned(), contents: BTreeMap::new() };
        for name in NAMES {
            let file = path.join(name);
            if file.is_file() {
                files.insert(name, std::fs::read(&file).map_err(Error::io(&file))?);
            }
        }
        if let Ok(entries) = std::fs::read_dir(path.join(MORE_TEMPLATES)) {
            for entry in entries {
                let file = entry.map_err(Error::io(path.join(MORE_TEMPLATES)))?.path();
                let name = file.file_name().and_then(|name| name.to_str());
                if let Some(name) = name.filter(|name| name.ends_with(".jinja")) {
                    let bytes = std::fs::read(&file).map_err(Error::io(&file))?;
                    files.insert(&format!("{MORE_TEMPLATES}/{name}"), bytes);
                }
            }
        }
        Ok(files)
    }

    pub(crate) fn in_memory(contents: BTreeMap<String, Vec<u8>>) -> Self {
        Self { origin: PathBuf::new(), contents }
    }

    pub(crate) fn insert(&mut self, name: &str, bytes: Vec<u8>) {
        self.contents.insert(name.to_owned(), bytes);
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.contents.contains_key(name)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        self.contents.get(name).map(Vec::as_slice)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.contents.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }

    /// The file's path for messages.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.origin.join(name)
    }

    /// A file as text.
    pub(crate) fn text(&self, name: &str) -> Result<Option<Cow<'_, str>>> {
        let Some(bytes) = self.get(name) else {
            return Ok(None);
        };
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(Cow::Borrowed(text))),
            Err(error) => {
                Err(Error::format(&self.path(name), format!("not UTF-8 from byte {} on", error.valid_up_to())))
            }
        }
    }

    /// A file as JSON.
    pub(crate) fn json(&self, name: &str) -> Result<Option<Value>> {
        let Some(bytes) = self.get(name) else {
            return Ok(None);
        };
        serde_json::from_slice(bytes)
            .map(Some)
            .map_err(|error| Error::format(&self.path(name), format!("not valid JSON: {error}")))
    }

    /// A file as a JSON object.
    pub(crate) fn object(&self, name: &str) -> Result<Option<Map<String, Value>>> {
        match self.json(name)? {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => {
                Err(Error::format(&self.path(name), format!("expected a JSON object, found {}", kind(&other))))
            }
        }
    }

    /// Writes all files into `dir`, made when it is not there.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        for (name, bytes) in &self.contents {
            let path = dir.join(name);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
            }
            std::fs::write(&path, bytes).map_err(Error::io(&path))?;
        }
        Ok(())
    }
}

/// What a JSON value is, in words.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

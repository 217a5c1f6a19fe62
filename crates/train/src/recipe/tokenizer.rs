//! `tokenizer = "path"` or `[tokenizer]`: how text becomes ids when the model does not say.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use toml::Value;

use super::RecipeError;
use super::read::Reader;

/// A tokenizer trained on the run's own data, or a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenizerTable {
    /// Byte-level BPE trained on the training text.
    Bpe(Bpe),
    /// One token per character of the training text.
    Characters(Characters),
    /// An existing `tokenizer.json`, or a folder that holds one.
    Path(FromFile),
}

/// Settings of a trained byte-level BPE.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bpe {
    /// Size of the vocabulary, special tokens included.
    pub vocab_size: usize,
}

/// A character tokenizer has no settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Characters {}

/// An existing tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FromFile {
    /// `tokenizer.json`, or its folder.
    pub path: PathBuf,
}

pub(super) fn read(reader: &Reader<'_>, value: Value) -> Result<TokenizerTable, RecipeError> {
    match value {
        Value::String(path) => Ok(TokenizerTable::Path(FromFile { path: path.into() })),
        Value::Table(table) => reader.tagged("tokenizer", table, None),
        other => {
            let message = format!("`tokenizer` must be a path or a table, found a {}", other.type_str());
            Err(reader.at(&["tokenizer"], message))
        }
    }
}

impl TokenizerTable {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        if let Self::Bpe(bpe) = self
            && bpe.vocab_size < 257
        {
            // 256 bytes and the document separator: below that some text would have no ids.
            problems.push(format!("`tokenizer.vocab_size` is {}; byte-level BPE needs at least 257", bpe.vocab_size));
        }
    }
}

//! The one error type of this crate, so that a caller can tell a missing file from a bad line.

use std::path::{Path, PathBuf};

/// Everything that can go wrong between a file on disk and a batch of ids.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file was read but its content is not what its name promises.
    #[error("{}: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was expected, what was found, and what to do.
        message: String,
    },
    /// One record (a line, a row, a document) of a data set is wrong.
    #[error("{position}: {message}")]
    Record {
        /// Where the record stands.
        position: crate::dataset::Position,
        /// What was expected and what was found.
        message: String,
    },
    /// A chat template does not parse, or refuses the conversation it was given.
    #[error("chat template `{name}`: {message}")]
    Template {
        /// The template's name: `default` unless the checkpoint names several.
        name: String,
        /// What the template engine, or the template itself, said.
        message: String,
    },
    /// A template of prompts does not parse, or asks for what there is not.
    #[error("template `{name}`: {message}")]
    Prompt {
        /// The template's name or file.
        name: String,
        /// What the template engine said.
        message: String,
    },
    /// The tokenizer failed on a text or on ids.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// Settings that contradict each other or the data.
    #[error("{0}")]
    Settings(String),
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Names the file an input or output error happened on.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }

    /// Names the file whose content is wrong.
    pub(crate) fn format(path: &Path, message: impl Into<String>) -> Self {
        Self::Format { path: path.to_owned(), message: short(message.into()) }
    }
}

/// A message may quote a value as long as its file: what says something about it stands at the ends.
fn short(text: String) -> String {
    const HALF: usize = 400;
    let count = text.chars().count();
    if count <= 2 * HALF {
        return text;
    }
    let (head, tail): (String, String) = (text.chars().take(HALF).collect(), text.chars().skip(count - HALF).collect());
    format!("{head} … {tail}")
}

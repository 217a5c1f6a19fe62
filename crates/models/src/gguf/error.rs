//! What can be wrong with a GGUF file, each case named so that callers can branch on it.

use std::io;
use std::path::{Path, PathBuf};

/// Why a GGUF file cannot be opened, read or understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// A file that cannot be opened or mapped; the text names it.
    #[error(transparent)]
    Map(io::Error),

    /// A file that contradicts itself or its own length.
    #[error("`{}` is not a valid GGUF file: {fault}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: Fault,
    },

    /// A valid file that asks for something that is not done here.
    #[error("`{}`: {thing} is {found}, which is not supported: {advice}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The key or tensor.
        thing: String,
        /// What it says.
        found: String,
        /// What is supported, or what to do.
        advice: String,
    },

    /// A key that has to be there.
    #[error("`{}` has no {key} in its metadata{nearest}", path.display())]
    MissingKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The nearest keys, as the end of the sentence.
        nearest: String,
    },

    /// A key with a value of another type.
    #[error("`{}`: {key}: expected {expected}, found {found}", path.display())]
    Type {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is asked for.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
}

/// What is wrong with a file's bytes: the thing, what was expected and what was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{thing}: expected {expected}, found {found}{advice}")]
pub struct Fault {
    /// A part of the header, a key or a tensor.
    pub thing: String,
    /// What it should be.
    pub expected: String,
    /// What it is.
    pub found: String,
    /// What to do, as the end of the sentence.
    pub advice: &'static str,
}

impl Fault {
    pub(crate) fn new(thing: impl Into<String>, expected: impl Into<String>, found: impl ToString) -> Self {
        Self { thing: thing.into(), expected: expected.into(), found: found.to_string(), advice: "" }
    }

    pub(crate) fn advising(self, advice: &'static str) -> Self {
        Self { advice, ..self }
    }
}

impl GgufError {
    pub(crate) fn unsupported(
        path: &Path,
        thing: impl Into<String>,
        found: impl ToString,
        advice: impl Into<String>,
    ) -> Self {
        let (thing, found, advice) = (thing.into(), found.to_string(), advice.into());
        Self::Unsupported { path: path.to_path_buf(), thing, found, advice }
    }
}

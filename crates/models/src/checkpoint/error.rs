//! What can be wrong with a checkpoint, each case named so that callers can branch on it.

use std::io;
use std::path::{Path, PathBuf};

use super::Dtype;
use crate::gguf::GgufError;

/// Why a checkpoint cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The operating system refused.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// What was tried: "open", "rename".
        action: &'static str,
        /// The file or folder concerned.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },

    /// A file that cannot be opened or mapped; the text names it.
    #[error(transparent)]
    Map(io::Error),

    /// A GGUF file.
    #[error(transparent)]
    Gguf(Box<GgufError>),

    /// A folder without weights.
    #[error("no weights in `{}`: looked for {looked_for}{found}", path.display())]
    NoWeights {
        /// The folder.
        path: PathBuf,
        /// The names tried.
        looked_for: &'static str,
        /// What lies there instead, as the end of the sentence.
        found: String,
    },

    /// A PyTorch pickle, which runs code when it is read.
    #[error(
        "`{}` is a PyTorch pickle; reading one runs code from the file, so only safetensors are read. Convert it once, in Python:\n    \
         from transformers import AutoModelForCausalLM\n    \
         AutoModelForCausalLM.from_pretrained(\"{folder}\").save_pretrained(\"{folder}-safetensors\", safe_serialization=True)",
        path.display()
    )]
    Pickle {
        /// The file refused.
        path: PathBuf,
        /// Its folder, for the snippet.
        folder: String,
    },

    /// A format known by name and not read.
    #[error("`{}` is a {format} file, which is not read yet: give a safetensors file or a folder that holds one", path.display())]
    UnsupportedFormat {
        /// The file refused.
        path: PathBuf,
        /// "Flax", "TensorFlow".
        format: &'static str,
    },

    /// A safetensors file that contradicts itself or its own length.
    #[error("`{}` is not a valid safetensors file: {reason}", path.display())]
    InvalidFile {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },

    /// An index (`*.safetensors.index.json`) that is malformed or disagrees with its shards.
    #[error("`{}` is not a valid safetensors index: {reason}", path.display())]
    InvalidIndex {
        /// The index file.
        path: PathBuf,
        /// What was expected and what was found.
        reason: String,
    },

    /// A tensor that the checkpoint does not hold.
    #[error("no tensor `{name}` in `{}`{}", path.display(), nearest_text(nearest))]
    MissingTensor {
        /// The name asked for.
        name: String,
        /// The checkpoint.
        path: PathBuf,
        /// Up to three names of the checkpoint, nearest first.
        nearest: Vec<String>,
    },

    /// An element type that cannot become what was asked for.
    #[error("tensor `{name}` holds {dtype}, which cannot be read as {wanted}")]
    Conversion {
        /// The tensor.
        name: String,
        /// Its stored type.
        dtype: Dtype,
        /// The type asked for.
        wanted: &'static str,
    },

    /// A tensor handed to a writer that does not fit its own description.
    #[error("cannot write tensor `{name}`: {reason}")]
    InvalidTensor {
        /// The tensor.
        name: String,
        /// What was expected and what was found.
        reason: String,
    },
}

impl From<GgufError> for CheckpointError {
    fn from(error: GgufError) -> Self {
        Self::Gguf(Box::new(error))
    }
}

impl CheckpointError {
    /// An [`CheckpointError::Io`] builder for `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CheckpointError {
        let path = path.to_path_buf();
        move |source| CheckpointError::Io { action, path, source }
    }
}

fn nearest_text(nearest: &[String]) -> String {
    match nearest {
        [] => String::new(),
        [one] => format!("; did you mean `{one}`?"),
        many => format!("; the nearest are `{}`", many.join("`, `")),
    }
}

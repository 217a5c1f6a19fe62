//! Where a model or an adapter comes from: `lineage.json` beside its weights names its parent, data and recipe, by hashes
//! that nobody can mistake.

pub mod chain;

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::LoadError;
use crate::checkpoint::{Checkpoint, atomic_write};

/// The file's name.
pub const FILE: &str = "lineage.json";

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lineage {
    /// The version of Phyla that wrote it.
    pub version: String,
    /// How it came about: `[method]`'s kind, or `merge`.
    pub method: String,
    /// What is minimised: `[objective]`'s kind.
    pub objective: Option<String>,
    /// What it began as; none for a model from scratch.
    pub parent: Option<Parent>,
    /// What was merged into it.
    pub merged: Vec<Parent>,
    /// What the parent's weights were kept as meanwhile.
    pub quantize: Option<String>,
    /// A number of the training data.
    pub data: Option<String>,
    /// SHA-256 of the complete recipe.
    pub recipe: Option<String>,
    /// The recipe's seed.
    pub seed: Option<u64>,
    /// Updates made.
    pub step: Option<u64>,
    /// The last losses and scores.
    pub metrics: Map<String, Value>,
}

/// Something that this one came of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// A folder or a hub id, as it was called then.
    pub name: String,
    /// SHA-256 of its weights: see [`digest`].
    pub weights: String,
}

impl Parent {
    /// What `name`, found at `path`, is.
    ///
    /// # Errors
    /// Weights that cannot be read.
    pub fn of(name: &str, path: &Path) -> Result<Self, LoadError> {
        Ok(Self { name: name.to_string(), weights: digest(path)? })
    }
}

impl Lineage {
    /// Reads a folder's file; `None` if it has none.
    ///
    /// # Errors
    /// A file that is there and cannot be read.
    pub fn read(folder: &Path) -> Result<Option<Self>, LoadError> {
        let path = folder.join(FILE);
        let wrong = |error: &dyn std::fmt::Display| LoadError::Adapter(format!("{}: {error}", path.display()));
        match std::fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| wrong(&error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(wrong(&error)),
        }
    }

    /// Writes a folder's file.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, folder: &Path) -> Result<(), LoadError> {
        let text = serde_json::to_vec_pretty(self).map_err(|error| LoadError::Adapter(format!("{FILE}: {error}")))?;
        Ok(atomic_write(folder.join(FILE), &text)?)
    }
}

/// SHA-256 of the weights of a folder or a file, in the order of the tensors' names: name, type, shape and numbers. How
/// they are cut into files does not matter.
///
/// # Errors
/// Weights that cannot be read.
pub fn digest(path: &Path) -> Result<String, LoadError> {
    let checkpoint = Checkpoint::open(path)?;
    let mut names: Vec<&str> = checkpoint.names().collect();
    names.sort_unstable();
    let mut hash = Sha256::new();
    for name in names {
        let view = checkpoint.get(name)?;
        hash.update(format!("{name} {:?} {:?} ", view.dtype, view.shape));
        hash.update(view.bytes());
    }
    Ok(hex(&hash.finalize()))
}

/// Bytes as text.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

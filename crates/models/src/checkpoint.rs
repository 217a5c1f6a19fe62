//! Weights on disk: safetensors files, single or sharded, and GGUF files, read through a memory map;
//! safetensors files are written here, too, whole or not at all. What their names mean to a model is the families' affair, not this folder's.

mod atomic;
mod disk;
mod dtype;
mod error;
mod find;
mod header;
mod report;
mod tensor;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use phyla_kernels::map::{MappedFile, MappedSlice};

pub use atomic::{AtomicDir, atomic_write, atomic_write_parts};
pub(crate) use atomic::{TempFile, folder_of, name_of};
#[cfg(test)]
pub(crate) use disk::fault;
pub(crate) use disk::sync_dir;
pub use dtype::Dtype;
pub use error::CheckpointError;
#[cfg(feature = "hub")]
pub(crate) use find::{SINGLE, shard_names};
pub(crate) use find::{is_gguf, weight_files};
pub use report::{Report, TensorReport};
pub use tensor::TensorView;
pub use write::{MAX_SHARD_BYTES, SafetensorsWriter, TensorSpec, Values};

pub(crate) use header::{Entry, Shown};

use crate::gguf::Gguf;
use find::Weights;
use header::Header;

/// The weights of one model, mapped: opening reads the headers alone, whatever the size.
///
/// The files must not be truncated while mapped, as with any memory map; replacing them by rename,
/// which is how this crate writes, is safe.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    files: Vec<Arc<MappedFile>>,
    tensors: BTreeMap<String, Place>,
    metadata: BTreeMap<String, String>,
    gguf: Option<Gguf>,
}

/// Where a tensor is: the file's number and the header's entry.
#[derive(Debug)]
struct Place {
    file: usize,
    entry: Entry,
}

impl Checkpoint {
    /// Opens a folder (`model.safetensors`, an index with its shards, or one other `*.safetensors`),
    /// a `.safetensors` file, an index file or a `.gguf` file.
    ///
    /// # Errors
    /// [`CheckpointError`]: nothing to read there, a format that is refused (pickles, with how to
    /// convert them), or a file that contradicts itself.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        let path = path.as_ref();
        let mut checkpoint = Checkpoint {
            path: path.to_path_buf(),
            files: Vec::new(),
            tensors: BTreeMap::new(),
            metadata: BTreeMap::new(),
            gguf: None,
        };
        match find::weights(path)? {
            Weights::Gguf(file) => checkpoint.add_gguf(Gguf::open(file)?),
            Weights::Single(file) => checkpoint.add(&file)?,
            Weights::Sharded { index, shards } => {
                for (file, names) in shards {
                    checkpoint.add_shard(&index, &file, &names)?;
                }
            }
        }
        Ok(checkpoint)
    }

    /// Maps one file and takes in its tensors.
    fn add(&mut self, path: &Path) -> Result<(), CheckpointError> {
        let (file, header) = open_file(path)?;
        let number = self.files.len();
        self.files.push(file);
        self.metadata.extend(header.metadata);
        for entry in header.entries {
            let twice = self.tensors.insert(entry.name.clone(), Place { file: number, entry });
            if let Some(Place { entry, .. }) = twice {
                let reason = format!("tensor `{}` is in an earlier shard too", entry.name);
                return Err(CheckpointError::InvalidFile { path: path.to_path_buf(), reason });
            }
        }
        Ok(())
    }

    /// Takes in the tensors of a GGUF file.
    fn add_gguf(&mut self, gguf: Gguf) {
        let file = self.files.len();
        self.files.push(gguf.file().clone());
        let places = gguf.entries().iter().map(|entry| (entry.name.clone(), Place { file, entry: entry.clone() }));
        self.tensors.extend(places);
        self.gguf = Some(gguf);
    }

    /// As [`Checkpoint::add`], and the shard holds what the index says it holds.
    fn add_shard(&mut self, index: &Path, path: &Path, names: &[String]) -> Result<(), CheckpointError> {
        let invalid = |reason| CheckpointError::InvalidIndex { path: index.to_path_buf(), reason };
        let shard = find::file_name(path);
        if !path.is_file() {
            return Err(invalid(format!("its shard `{shard}` is missing; is the download complete?")));
        }
        let number = self.files.len();
        self.add(path)?;
        for name in names {
            if self.tensors.get(name).is_none_or(|place| place.file != number) {
                return Err(invalid(format!("tensor `{}` is not in its shard `{shard}`", Shown(name))));
            }
        }
        Ok(())
    }

    /// What was opened, as given.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A tensor by name, without reading it.
    ///
    /// # Errors
    /// [`CheckpointError::MissingTensor`] with the nearest names.
    pub fn get(&self, name: &str) -> Result<TensorView, CheckpointError> {
        let Some(place) = self.tensors.get(name) else {
            return Err(CheckpointError::MissingTensor {
                name: name.to_string(),
                path: self.path.clone(),
                nearest: nearest(name, self.names()),
            });
        };
        let Entry { name, dtype, shape, begin, end } = &place.entry;
        // In range: the header was checked against this very map.
        let slice = MappedSlice::new(self.files[place.file].clone(), *begin..*end).ok_or_else(|| {
            let reason = format!("tensor `{name}` lies outside of it");
            CheckpointError::InvalidFile { path: self.path.clone(), reason }
        })?;
        Ok(TensorView { name: name.clone(), dtype: *dtype, shape: shape.clone(), slice })
    }

    /// Bytes of all tensors together.
    pub fn total_bytes(&self) -> u64 {
        self.tensors.values().map(|place| (place.entry.end - place.entry.begin) as u64).sum()
    }

    /// The GGUF file, if it is one: its metadata is a configuration and a tokenizer.
    pub fn gguf(&self) -> Option<&Gguf> {
        self.gguf.as_ref()
    }

    /// The free-form strings of the files' headers, such as `format = pt`; a later shard's win.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Sizes per dtype and per tensor, from the headers alone.
    pub fn report(&self) -> Report {
        Report::new(self.tensors.values().map(|place| &place.entry))
    }
}

fn open_file(path: &Path) -> Result<(Arc<MappedFile>, Header), CheckpointError> {
    let invalid = |reason| CheckpointError::InvalidFile { path: path.to_path_buf(), reason };
    let file = MappedFile::open(path).map_err(CheckpointError::Map)?;
    let header = header::parse(file.bytes()).map_err(invalid)?;
    Ok((file, header))
}

/// Up to three names, nearest first, that could have been meant.
pub(crate) fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut scored = names
        .map(|other| (strsim::normalized_damerau_levenshtein(name, other), other))
        // Below one half two names share little more than `weight`.
        .filter(|(score, _)| *score > 0.5)
        .collect::<Vec<_>>();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    scored.into_iter().take(3).map(|(_, name)| name.to_string()).collect()
}

#[cfg(test)]
mod tests;

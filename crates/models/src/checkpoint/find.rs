//! Which files of a path are the weights, and why the others are refused.

use std::fs;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;
use std::collections::BTreeMap;

use super::CheckpointError;
use super::header::{Shown, UniqueMap};

pub(crate) const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
const INDEX_END: &str = ".safetensors.index.json";
const LOOKED_FOR: &str = "`model.safetensors`, `model.safetensors.index.json` or a single other `*.safetensors`";
/// An index of 100 MB would name about a million tensors.
const MAX_INDEX_BYTES: u64 = 100_000_000;

/// The files to map.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Weights {
    /// One file with everything.
    Single(PathBuf),
    /// An index, and for each shard file the tensors that it must hold.
    Sharded { index: PathBuf, shards: BTreeMap<PathBuf, Vec<String>> },
    /// A GGUF file.
    Gguf(PathBuf),
}

/// Decides what to read for `path`: a folder, a `.safetensors` file, an index file or a `.gguf` file.
pub(crate) fn weights(path: &Path) -> Result<Weights, CheckpointError> {
    let kind = fs::metadata(path).map_err(CheckpointError::io("open", path))?;
    if kind.is_dir() { in_folder(path) } else { as_file(path) }
}

fn as_file(path: &Path) -> Result<Weights, CheckpointError> {
    let name = file_name(path);
    if name.ends_with(INDEX_END) {
        return index(path);
    }
    if is_gguf(path) {
        return Ok(Weights::Gguf(path.to_path_buf()));
    }
    refuse(path, &name)?;
    Ok(Weights::Single(path.to_path_buf()))
}

fn in_folder(folder: &Path) -> Result<Weights, CheckpointError> {
    let has = |name: &str| folder.join(name).is_file();
    // A single file wins over an index left from an earlier, sharded save, as in transformers.
    if has(SINGLE) {
        return Ok(Weights::Single(folder.join(SINGLE)));
    }
    if has(INDEX) {
        return index(&folder.join(INDEX));
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(CheckpointError::io("list", folder))? {
        let entry = entry.map_err(CheckpointError::io("list", folder))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let ending = |end: &str| names.iter().filter(|name| name.ends_with(end)).collect::<Vec<_>>();
    match (ending(INDEX_END).as_slice(), ending(".safetensors").as_slice()) {
        ([one], _) => return index(&folder.join(one)),
        ([], [one]) => return Ok(Weights::Single(folder.join(one))),
        ([], []) => {}
        (indices, files) => {
            let several = if indices.is_empty() { files } else { indices };
            return Err(no_weights(folder, several, "; several candidates lie there, name one"));
        }
    }
    let gguf: Vec<&String> = names.iter().filter(|name| is_gguf(Path::new(name))).collect();
    if !gguf.is_empty() {
        return Err(no_weights(folder, &gguf, "; GGUF files are opened by their own names, here"));
    }
    for name in &names {
        refuse(&folder.join(name), name)?;
    }
    Err(no_weights(folder, &names.iter().collect::<Vec<_>>(), "; it holds"))
}

/// Whether a path is of a GGUF file, by its name.
pub(crate) fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf"))
}

fn no_weights(folder: &Path, names: &[&String], what: &str) -> CheckpointError {
    let found = if names.is_empty() {
        "; the folder is empty".to_string()
    } else {
        let more = if names.len() > 8 { ", …" } else { "" };
        let shown = names.iter().take(8).map(|name| format!("`{name}`")).collect::<Vec<_>>();
        format!("{what}: {}{more}", shown.join(", "))
    };
    CheckpointError::NoWeights { path: folder.to_path_buf(), looked_for: LOOKED_FOR, found }
}

/// Errors for the formats that are known and not read; anything else is tried as safetensors.
fn refuse(path: &Path, name: &str) -> Result<(), CheckpointError> {
    let lower = name.to_ascii_lowercase();
    let ends = |ends: &[&str]| ends.iter().any(|end| lower.ends_with(end));
    // `training_args.bin`, `optimizer.pt` and the like are pickles too, but no weights to convert.
    let aside = ["training_args.bin", "optimizer.", "scheduler.", "rng_state", "trainer_state"];
    let unsupported = |format| Err(CheckpointError::UnsupportedFormat { path: path.to_path_buf(), format });
    if ends(&[".bin", ".pt", ".ckpt", ".pth", ".pkl", ".bin.index.json"])
        && !aside.iter().any(|start| lower.starts_with(start))
    {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        return Err(CheckpointError::Pickle { path: path.to_path_buf(), folder: folder.display().to_string() });
    }
    if ends(&[".h5"]) {
        return unsupported("TensorFlow");
    }
    if ends(&[".msgpack"]) {
        return unsupported("Flax");
    }
    Ok(())
}

#[derive(Deserialize)]
struct RawIndex {
    weight_map: UniqueMap,
    // `metadata.total_size` is informative: the shards' own headers are what is believed.
}

/// Reads an index: which shard holds which tensors.
fn index(path: &Path) -> Result<Weights, CheckpointError> {
    let size = fs::metadata(path).map_err(CheckpointError::io("open", path))?.len();
    let invalid = |reason: String| CheckpointError::InvalidIndex { path: path.to_path_buf(), reason };
    if size > MAX_INDEX_BYTES {
        return Err(invalid(format!("it has {size} bytes, and {MAX_INDEX_BYTES} are the most that is read")));
    }
    let json = fs::read(path).map_err(CheckpointError::io("read", path))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let shards = parse_index(&json).map_err(invalid)?;
    let shards = shards.into_iter().map(|(file, names)| (folder.join(file), names)).collect();
    Ok(Weights::Sharded { index: path.to_path_buf(), shards })
}

/// The files that opening `folder` would map, whether or not the shards exist.
pub(crate) fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    Ok(match weights(folder)? {
        Weights::Single(file) | Weights::Gguf(file) => vec![file],
        Weights::Sharded { shards, .. } => shards.into_keys().collect(),
    })
}

/// The names of an index's shards, relative to its folder.
#[cfg(feature = "hub")]
pub(crate) fn shard_names(path: &Path) -> Result<Vec<String>, CheckpointError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let Weights::Sharded { shards, .. } = index(path)? else { return Ok(Vec::new()) };
    let name = |file: PathBuf| Some(file.strip_prefix(folder).ok()?.to_str()?.to_string());
    Ok(shards.into_keys().filter_map(name).collect())
}

/// The shards of an index's text: file name to tensor names. Errors are ends of sentences.
pub(crate) fn parse_index(json: &[u8]) -> Result<BTreeMap<String, Vec<String>>, String> {
    let raw: RawIndex = serde_json::from_slice(json).map_err(|error| Shown(&error.to_string()).to_string())?;
    let mut shards = BTreeMap::<String, Vec<String>>::new();
    for (tensor, file) in raw.weight_map.0 {
        let says = || format!("tensor `{}` is said to be in `{}`", Shown(&tensor), Shown(&file));
        if !stays_inside(&file) {
            return Err(format!("{}, which is no path below the folder", says()));
        }
        if !file.ends_with(".safetensors") {
            return Err(format!("{}, which is no safetensors file", says()));
        }
        shards.entry(file).or_default().push(tensor);
    }
    if shards.is_empty() {
        return Err("its `weight_map` is empty".into());
    }
    Ok(shards)
}

/// A shard is a plain relative path: no `..`, no root, no drive, no control characters.
fn stays_inside(file: &str) -> bool {
    !file.is_empty()
        && !file.contains(['\\', ':'])
        && !file.chars().any(char::is_control)
        && Path::new(file).components().all(|part| matches!(part, Component::Normal(_)))
}

pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

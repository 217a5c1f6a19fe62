//! Writing a model's tensors to a folder: one file or shards with an index, streamed and converted in
//! bounded memory, and visible to readers only once complete.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use phyla_kernels::map::bytes_of;
use serde_json::{Map, Value, json};

use super::atomic::{TempFile, atomic_write, folder_of, name_of};
use super::find::{INDEX, SINGLE, parse_index};
use super::{CheckpointError, Dtype, disk};

type Result<T> = std::result::Result<T, CheckpointError>;

/// The customary limit of a shard: 5 GB.
pub const MAX_SHARD_BYTES: u64 = 5_000_000_000;
/// Elements converted at a time; 1 MiB of f32.
const CHUNK: usize = 1 << 18;
/// The data starts on a cache line, so that weights used in place do too as far as their sizes allow.
const ALIGN: usize = 64;

/// A tensor to be written: what its header entry says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name in the file.
    pub name: String,
    /// Type to store as.
    pub dtype: Dtype,
    /// Lengths of the axes.
    pub shape: Vec<usize>,
}

/// Values handed to the writer; floats are converted to the stored type, rounding to nearest even.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// The upper half of f32.
    Bf16(&'a [bf16]),
    /// Half precision.
    F16(&'a [f16]),
    /// Little-endian bytes of exactly the stored type, written as they are.
    Bytes(&'a [u8]),
}

/// Streams tensors into `folder/model.safetensors`, or into shards with an index.
///
/// Memory stays bounded by one chunk. Until [`SafetensorsWriter::finish`] a reader sees the folder as
/// it was; dropped before, the writer leaves no trace.
#[derive(Debug)]
pub struct SafetensorsWriter {
    folder: PathBuf,
    /// The name of a file that stands for itself, and not for its folder's weights.
    alone: Option<PathBuf>,
    shards: Vec<Shard>,
    /// Name to place, removed once written.
    pending: HashMap<String, Place>,
    total_bytes: u64,
}

#[derive(Debug)]
struct Shard {
    file: TempFile,
    names: Vec<String>,
}

#[derive(Debug)]
struct Place {
    shard: usize,
    offset: u64,
    bytes: u64,
    dtype: Dtype,
}

impl SafetensorsWriter {
    /// Plans the files for `tensors` and writes their headers under temporary names; a missing folder
    /// is created. A tensor larger than `max_shard_bytes` gets a shard of its own.
    ///
    /// # Errors
    /// [`CheckpointError::InvalidTensor`] for a name given twice or a shape that overflows,
    /// [`CheckpointError::Io`] from the disk.
    pub fn create(folder: impl AsRef<Path>, tensors: &[TensorSpec], max_shard_bytes: u64) -> Result<Self> {
        let folder = folder.as_ref();
        let sizes = sizes(tensors)?;
        fs::create_dir_all(folder).map_err(CheckpointError::io("create", folder))?;
        let mut writer = SafetensorsWriter {
            folder: folder.to_path_buf(),
            alone: None,
            shards: Vec::new(),
            pending: HashMap::with_capacity(tensors.len()),
            total_bytes: sizes.iter().sum(),
        };
        // In the given order, so that a layer's weights stay together.
        let mut shard = Vec::new();
        let mut filled = 0;
        for (tensor, bytes) in tensors.iter().zip(sizes) {
            if !shard.is_empty() && filled + bytes > max_shard_bytes {
                writer.add_shard(std::mem::take(&mut shard))?;
                filled = 0;
            }
            shard.push((tensor, bytes));
            filled += bytes;
        }
        writer.add_shard(shard)?;
        Ok(writer)
    }

    /// As [`SafetensorsWriter::create`], for one file of any name; its folder's other files stay as they are.
    ///
    /// # Errors
    /// As [`SafetensorsWriter::create`], also when `path` is a folder or has no name.
    pub fn create_file(path: impl AsRef<Path>, tensors: &[TensorSpec]) -> Result<Self> {
        let path = path.as_ref();
        name_of(path)?;
        if path.is_dir() {
            return Err(CheckpointError::io("write", path)(std::io::ErrorKind::IsADirectory.into()));
        }
        let writer = SafetensorsWriter::create(folder_of(path), tensors, u64::MAX)?;
        Ok(SafetensorsWriter { alone: Some(path.to_path_buf()), ..writer })
    }

    /// Lays out one file and writes its header.
    fn add_shard(&mut self, mut tensors: Vec<(&TensorSpec, u64)>) -> Result<()> {
        // Wide types first: every tensor is then aligned to its type.
        tensors.sort_by_key(|(tensor, _)| std::cmp::Reverse(tensor.dtype.bytes()));
        let mut header = Map::new();
        header.insert("__metadata__".into(), json!({"format": "pt"}));
        let mut end = 0;
        for (tensor, bytes) in &tensors {
            let range = [end, end + bytes];
            let TensorSpec { name, dtype, shape } = tensor;
            header.insert(name.clone(), json!({"dtype": dtype.as_str(), "shape": shape, "data_offsets": range}));
            end += bytes;
        }
        let mut json = Value::Object(header).to_string().into_bytes();
        json.resize((8 + json.len()).next_multiple_of(ALIGN) - 8, b' ');
        let number = self.shards.len();
        let mut offset = 8 + json.len() as u64;
        let names = tensors.iter().map(|(tensor, _)| tensor.name.clone()).collect();
        for (tensor, bytes) in tensors {
            let place = Place { shard: number, offset, bytes, dtype: tensor.dtype };
            offset += bytes;
            self.pending.insert(tensor.name.clone(), place);
        }
        let mut file = TempFile::create(&self.folder, format!("model-{:05}", number + 1))?;
        file.write_at(0, &[&(json.len() as u64).to_le_bytes(), json.as_slice()].concat())?;
        self.shards.push(Shard { file, names });
        Ok(())
    }

    /// Writes one tensor, in any order; the order of creation is fastest.
    ///
    /// # Errors
    /// As [`SafetensorsWriter::write_parts`].
    pub fn write(&mut self, name: &str, values: Values<'_>) -> Result<()> {
        self.write_parts(name, [values])
    }

    /// Writes one tensor from consecutive parts, so that a tensor assembled from several never has to
    /// exist in one piece.
    ///
    /// # Errors
    /// [`CheckpointError::InvalidTensor`] for a name that was not announced or is already written, or
    /// parts that do not add up to the shape; [`CheckpointError::Io`] from the disk.
    pub fn write_parts<'a>(&mut self, name: &str, parts: impl IntoIterator<Item = Values<'a>>) -> Result<()> {
        let invalid = |reason: String| CheckpointError::InvalidTensor { name: name.to_string(), reason };
        let Some(place) = self.pending.get(name) else {
            return Err(invalid("it was not announced, or is already written".into()));
        };
        let file = &mut self.shards[place.shard].file;
        let mut written = 0;
        for part in parts {
            let bytes = part.bytes_as(place.dtype).ok_or_else(|| invalid(part.mismatch(place.dtype)))?;
            if bytes > place.bytes - written {
                return Err(invalid(format!("its shape takes {} bytes, and more are given", place.bytes)));
            }
            part.chunks(place.dtype, |chunk| {
                file.write_at(place.offset + written, chunk)?;
                written += chunk.len() as u64;
                Ok(())
            })?;
        }
        if written != place.bytes {
            return Err(invalid(format!("its shape takes {} bytes, and {written} are given", place.bytes)));
        }
        self.pending.remove(name);
        Ok(())
    }

    /// Completes the checkpoint and returns its files, the index last. The step that makes it visible
    /// is a single rename or removal, whether or not the folder held a checkpoint before.
    ///
    /// # Errors
    /// [`CheckpointError::InvalidTensor`] for an announced tensor that was not written;
    /// [`CheckpointError::Io`] from the disk, the old checkpoint being intact unless the failure was in
    /// the very last sync.
    pub fn finish(self) -> Result<Vec<PathBuf>> {
        if let Some(name) = self.pending.keys().min() {
            let reason = "it was announced and never written".to_string();
            return Err(CheckpointError::InvalidTensor { name: name.clone(), reason });
        }
        for shard in &self.shards {
            shard.file.sync()?;
        }
        if let Some(path) = self.alone.clone() {
            return self.publish_single(path);
        }
        let old = old_files(&self.folder);
        let single = self.folder.join(SINGLE);
        let files = if self.shards.len() == 1 { self.publish_single(single)? } else { self.publish_shards()? };
        for stale in old.iter().filter(|old| !files.contains(old)) {
            // Nothing refers to it any more: failing to remove it is no failure to save.
            disk::remove(stale).ok();
        }
        Ok(files)
    }

    /// The rename is the step: readers prefer the single file to any index beside it.
    fn publish_single(self, path: PathBuf) -> Result<Vec<PathBuf>> {
        for shard in self.shards {
            shard.file.rename(&path)?;
        }
        disk::sync_dir(&self.folder)?;
        Ok(vec![path])
    }

    /// Shards get names that no file has yet, so the old index stays true until the new one replaces
    /// it; an old single file, which hides any index, stays until the end.
    fn publish_shards(self) -> Result<Vec<PathBuf>> {
        let folder = self.folder;
        let names = free_names(&folder, self.shards.len());
        let mut published = Published { files: Vec::new(), complete: false };
        let mut weight_map = BTreeMap::new();
        for (shard, name) in self.shards.into_iter().zip(&names) {
            let path = folder.join(name);
            shard.file.rename(&path)?;
            published.files.push(path);
            weight_map.extend(shard.names.into_iter().map(|tensor| (tensor, name)));
        }
        // The shards' names must be on the disk before the index that relies on them.
        disk::sync_dir(&folder)?;
        let index = json!({"metadata": {"total_size": self.total_bytes}, "weight_map": weight_map});
        let index_path = folder.join(INDEX);
        let single = folder.join(SINGLE);
        let hidden = single.exists();
        if hidden {
            // Nobody sees this index before the single file is gone; until then it is ours to take back.
            published.files.push(index_path.clone());
        }
        let written = atomic_write(&index_path, format!("{index:#}\n").as_bytes());
        // Once a visible index names the new shards they must stay, even if its sync then failed.
        published.complete = !hidden && refers_to(&index_path, &names);
        written?;
        if hidden {
            disk::remove(&single)?;
            published.complete = true;
            disk::sync_dir(&folder)?;
        } else {
            published.files.push(index_path);
        }
        Ok(std::mem::take(&mut published.files))
    }
}

/// Files already under their final names, taken back unless the save completes.
struct Published {
    files: Vec<PathBuf>,
    complete: bool,
}

impl Drop for Published {
    fn drop(&mut self) {
        if !self.complete {
            // The index first: without its shards it would be a lie.
            for file in self.files.iter().rev() {
                fs::remove_file(file).ok();
            }
        }
    }
}

impl Values<'_> {
    fn len(&self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::Bf16(values) => values.len(),
            Values::F16(values) => values.len(),
            Values::Bytes(bytes) => bytes.len(),
        }
    }

    /// The bytes that the values take as `dtype`; `None` where there is no conversion.
    fn bytes_as(&self, dtype: Dtype) -> Option<u64> {
        let size = match (self, dtype) {
            (Values::Bytes(_), _) => 1,
            (_, Dtype::F32 | Dtype::BF16 | Dtype::F16) => dtype.bytes(),
            _ => return None,
        };
        (self.len() as u64).checked_mul(size as u64)
    }

    fn mismatch(&self, dtype: Dtype) -> String {
        format!("floats are given, and it is announced as {dtype}; floats are stored as F32, BF16 or F16")
    }

    /// Hands over the little-endian bytes as `dtype`, a chunk at a time.
    fn chunks(&self, dtype: Dtype, mut sink: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        match (self, dtype) {
            (Values::Bytes(bytes), _) => bytes.chunks(4 * CHUNK).try_for_each(sink),
            (Values::F32(v), Dtype::F32) => bytes_of(v).chunks(4 * CHUNK).try_for_each(sink),
            (Values::Bf16(v), Dtype::BF16) => bytes_of(v).chunks(4 * CHUNK).try_for_each(sink),
            (Values::F16(v), Dtype::F16) => bytes_of(v).chunks(4 * CHUNK).try_for_each(sink),
            (Values::F32(v), _) => v.chunks(CHUNK).try_for_each(|v| narrow(v, dtype, |x| *x, &mut sink)),
            (Values::Bf16(v), _) => v.chunks(CHUNK).try_for_each(|v| narrow(v, dtype, |x| x.to_f32(), &mut sink)),
            (Values::F16(v), _) => v.chunks(CHUNK).try_for_each(|v| narrow(v, dtype, |x| x.to_f32(), &mut sink)),
        }
    }
}

/// One chunk converted through f32, which holds both half types exactly.
fn narrow<T>(
    values: &[T],
    dtype: Dtype,
    wide: impl Fn(&T) -> f32,
    sink: &mut impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    match dtype {
        Dtype::BF16 => sink(bytes_of(&values.iter().map(|x| bf16::from_f32(wide(x))).collect::<Vec<_>>())),
        Dtype::F16 => sink(bytes_of(&values.iter().map(|x| f16::from_f32(wide(x))).collect::<Vec<_>>())),
        _ => sink(bytes_of(&values.iter().map(wide).collect::<Vec<_>>())),
    }
}

/// Each tensor's bytes; names must differ and nothing overflow.
fn sizes(tensors: &[TensorSpec]) -> Result<Vec<u64>> {
    let mut seen = std::collections::HashSet::new();
    let mut total = 0u64;
    tensors
        .iter()
        .map(|TensorSpec { name, dtype, shape }| {
            let invalid = |reason: &str| CheckpointError::InvalidTensor { name: name.clone(), reason: reason.into() };
            if name == "__metadata__" {
                return Err(invalid("the format keeps that name for itself"));
            }
            if matches!(dtype, Dtype::Quant(_)) {
                return Err(invalid("safetensors files hold no quantised blocks"));
            }
            if !seen.insert(name) {
                return Err(invalid("it is announced twice"));
            }
            let bytes = shape.iter().try_fold(dtype.bytes() as u64, |n, &axis| n.checked_mul(axis as u64));
            let bytes = bytes.ok_or_else(|| invalid("its shape overflows"))?;
            total = total.checked_add(bytes).ok_or_else(|| invalid("the file's size overflows"))?;
            Ok(bytes)
        })
        .collect()
}

/// The weight files that readers of `folder` see now; those named by an unreadable index are unknown.
fn old_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = vec![folder.join(SINGLE), folder.join(INDEX)];
    if let Ok(shards) = fs::read(folder.join(INDEX)).map_err(|_| ()).and_then(|json| parse_index(&json).map_err(|_| ()))
    {
        files.extend(shards.keys().map(|file| folder.join(file)));
    }
    files.retain(|file| file.exists());
    files
}

fn refers_to(index: &Path, names: &[String]) -> bool {
    let shards = fs::read(index).ok().and_then(|json| parse_index(&json).ok());
    shards.is_some_and(|shards| names.iter().any(|name| shards.contains_key(name)))
}

/// `model-00001-of-00003.safetensors` and so on; with a letter put in where such files exist.
fn free_names(folder: &Path, shards: usize) -> Vec<String> {
    let names =
        |tag: &str| (1..=shards).map(|i| format!("model{tag}-{i:05}-of-{shards:05}.safetensors")).collect::<Vec<_>>();
    let free = |names: &Vec<String>| !names.iter().any(|name| folder.join(name).exists());
    let mut candidate = names("");
    let mut attempt = 1u64;
    while !free(&candidate) {
        attempt += 1;
        candidate = names(&format!("-r{attempt}"));
    }
    candidate
}

//! Writing a GGUF file: metadata and a plan of tensors first, then each tensor's numbers, converted in bounded memory;
//! the file appears whole or not at all.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use phyla_kernels::map::bytes_of;
use phyla_kernels::quant::Quant;

use super::Gguf;
use super::header::{ALIGN, MAGIC, PLAIN};
use super::value::Kind;
use crate::checkpoint::{CheckpointError, Dtype, TempFile, TensorSpec, folder_of, name_of, sync_dir};

type Result<T> = std::result::Result<T, CheckpointError>;

/// Elements converted at a time: a multiple of every block.
const CHUNK: usize = 1 << 18;
/// As the format is now.
const VERSION: u32 = 3;

/// A value to be written, of the types that llama.cpp expects.
#[derive(Clone, Debug, PartialEq)]
pub enum Datum {
    /// Counts and ids.
    U32(u32),
    /// Numbers.
    F32(f32),
    /// True or false.
    Bool(bool),
    /// A string.
    Text(String),
    /// Tokens, merges.
    Texts(Vec<String>),
    /// Types of tokens.
    I32s(Vec<i32>),
    /// Scores.
    F32s(Vec<f32>),
    /// A value of another file, type and all, from [`super::Gguf::datum`].
    Copied(Vec<u8>),
}

/// Streams tensors into one file; memory stays bounded by a chunk.
///
/// Until [`GgufWriter::finish`] nothing is seen under the file's name but what was there before; dropped before, the
/// writer leaves no trace.
#[derive(Debug)]
pub struct GgufWriter {
    path: PathBuf,
    file: TempFile,
    /// What is not yet written in full.
    pending: HashMap<String, Pending>,
    /// Bytes of the whole file.
    size: u64,
}

/// A tensor that is still to be written.
#[derive(Debug)]
struct Pending {
    /// Where its next byte goes.
    at: u64,
    /// Numbers that are missing.
    left: usize,
    spec: TensorSpec,
}

impl GgufWriter {
    /// Plans a file and writes its header under a temporary name. The alignment is the usual one: metadata must not
    /// state another.
    ///
    /// # Errors
    /// [`CheckpointError::InvalidTensor`] for a name given twice, more than four axes, a type that the format lacks, or
    /// rows that are not whole blocks; [`CheckpointError::Io`] from the disk.
    pub fn create(path: impl AsRef<Path>, metadata: &[(String, Datum)], tensors: &[TensorSpec]) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let mut header = [MAGIC.as_slice(), &VERSION.to_le_bytes()].concat();
        header.extend((tensors.len() as u64).to_le_bytes());
        header.extend((metadata.len() as u64).to_le_bytes());
        for (key, datum) in metadata {
            put_text(&mut header, key);
            datum.put(&mut header);
        }
        let (mut pending, mut places, mut end) = (HashMap::new(), vec![], 0u64);
        for spec in tensors {
            let bytes = bytes(spec)?;
            let left = spec.shape.iter().product();
            if pending.insert(spec.name.clone(), Pending { at: end, left, spec: spec.clone() }).is_some() {
                return Err(invalid(&spec.name, "it is announced twice"));
            }
            put_text(&mut header, &spec.name);
            header.extend((spec.shape.len() as u32).to_le_bytes());
            // The file lists the innermost axis first.
            header.extend(spec.shape.iter().rev().flat_map(|&axis| (axis as u64).to_le_bytes()));
            header.extend(id(spec.dtype).unwrap_or_default().to_le_bytes());
            header.extend(end.to_le_bytes());
            places.push(end + bytes);
            end =
                (end + bytes).checked_next_multiple_of(ALIGN as u64).ok_or_else(|| invalid(&spec.name, "too large"))?;
        }
        header.resize(header.len().next_multiple_of(ALIGN), 0);
        let data = header.len() as u64;
        for tensor in pending.values_mut() {
            tensor.at += data;
        }
        let mut file = TempFile::create(folder_of(&path), name_of(&path)?)?;
        file.write_at(0, &header)?;
        // Gaps between tensors, and the one after the last, are zeros; readers expect that one, too.
        if let Some(last) = places.last().filter(|&&last| last < end) {
            file.write_at(data + last, &vec![0; (end - last) as usize])?;
        }
        Ok(Self { path, file, pending, size: data + end })
    }

    /// The file as it will be but for its tensors' numbers: for a look at what it says before they are written.
    ///
    /// # Errors
    /// From the disk, and a header that contradicts itself.
    pub(crate) fn header(&self) -> Result<Gguf> {
        self.file.set_len(self.size)?;
        Ok(Gguf::open(self.file.path())?)
    }

    /// Writes one tensor, in any order, from its numbers: rounded to nearest, or put into blocks.
    ///
    /// # Errors
    /// [`CheckpointError::InvalidTensor`] for a name that was not announced or is already written, or numbers that are
    /// not as many as the shape says; [`CheckpointError::Io`] from the disk.
    pub fn write(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let elements = self.find(name)?.spec.shape.iter().product::<usize>();
        if values.len() != elements {
            return Err(invalid(name, format!("its shape takes {elements} numbers, and {} are given", values.len())));
        }
        self.append(name, values)
    }

    /// Writes the next numbers of a tensor: whole rows, one call after the other.
    ///
    /// # Errors
    /// As [`GgufWriter::write`], and for numbers that are not whole blocks or more than the shape takes.
    pub fn append(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let Pending { at, left, spec } = self.find(name)?;
        let (mut at, dtype) = (*at, spec.dtype);
        if values.len() > *left || !values.len().is_multiple_of(dtype.block()) {
            return Err(invalid(
                name,
                format!("{left} numbers are missing, in blocks of {}, and {} are given", dtype.block(), values.len()),
            ));
        }
        for values in values.chunks(CHUNK) {
            let bytes = match dtype {
                Dtype::F32 => bytes_of(values).to_vec(),
                Dtype::F16 => bytes_of(&values.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>()).to_vec(),
                Dtype::BF16 => bytes_of(&values.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>()).to_vec(),
                Dtype::Quant(kind) => {
                    let mut blocks = vec![0; values.len() / kind.block() * kind.bytes()];
                    kind.quantize_rows(values, &mut blocks);
                    blocks
                }
                other => {
                    return Err(invalid(
                        name,
                        format!("numbers are stored as F32, F16, BF16 or in blocks, not as {other}"),
                    ));
                }
            };
            self.file.write_at(at, &bytes)?;
            at += bytes.len() as u64;
        }
        self.moved(name, at, values.len());
        Ok(())
    }

    /// Writes one tensor as it is stored: little-endian numbers or blocks of exactly its type.
    ///
    /// # Errors
    /// As [`GgufWriter::write`].
    pub fn write_bytes(&mut self, name: &str, stored: &[u8]) -> Result<()> {
        let Pending { at, left, spec } = self.find(name)?;
        let (at, left, expected) = (*at, *left, bytes(spec)?);
        if stored.len() as u64 != expected {
            return Err(invalid(name, format!("its shape takes {expected} bytes, and {} are given", stored.len())));
        }
        // A file is mapped where it comes from: its pages are let go of as one goes.
        for (number, piece) in stored.chunks(4 * CHUNK).enumerate() {
            self.file.write_at(at + (number * 4 * CHUNK) as u64, piece)?;
        }
        self.moved(name, at + expected, left);
        Ok(())
    }

    fn find(&self, name: &str) -> Result<&Pending> {
        self.pending.get(name).ok_or_else(|| invalid(name, "it was not announced, or is already written"))
    }

    /// So many more numbers of a tensor are written, up to byte `at`.
    fn moved(&mut self, name: &str, at: u64, numbers: usize) {
        if let Some(tensor) = self.pending.get_mut(name) {
            (tensor.at, tensor.left) = (at, tensor.left - numbers);
            if tensor.left == 0 {
                self.pending.remove(name);
            }
        }
    }

    /// Completes the file: synced, then renamed.
    ///
    /// # Errors
    /// [`CheckpointError::InvalidTensor`] for an announced tensor that was not written; [`CheckpointError::Io`].
    pub fn finish(self) -> Result<PathBuf> {
        if let Some(name) = self.pending.keys().min() {
            return Err(invalid(name, "it was announced and never written in full"));
        }
        self.file.sync()?;
        self.file.rename(&self.path)?;
        sync_dir(folder_of(&self.path))?;
        Ok(self.path)
    }
}

impl Datum {
    /// From JSON, as tokenizers say it: whole numbers are ids (`u32`), in lists of `i32`; other numbers are `f32`. `None`
    /// for what the format has no value for.
    pub fn from_json(value: &serde_json::Value) -> Option<Datum> {
        use serde_json::Value as Json;
        Some(match value {
            Json::Bool(flag) => Datum::Bool(*flag),
            Json::String(text) => Datum::Text(text.clone()),
            Json::Number(number) => match number.as_u64() {
                Some(whole) => Datum::U32(u32::try_from(whole).ok()?),
                None => Datum::F32(number.as_f64()? as f32),
            },
            Json::Array(list) if list.iter().all(Json::is_string) => {
                Datum::Texts(list.iter().filter_map(|text| Some(text.as_str()?.to_owned())).collect())
            }
            Json::Array(list) if list.iter().all(Json::is_i64) => {
                Datum::I32s(list.iter().map(|n| i32::try_from(n.as_i64()?).ok()).collect::<Option<_>>()?)
            }
            Json::Array(list) => Datum::F32s(list.iter().map(|n| Some(n.as_f64()? as f32)).collect::<Option<_>>()?),
            Json::Null | Json::Object(_) => return None,
        })
    }

    /// Type and value.
    fn put(&self, to: &mut Vec<u8>) {
        let list = |to: &mut Vec<u8>, of: Kind, len: usize| {
            to.extend(Kind::List.id().to_le_bytes());
            to.extend(of.id().to_le_bytes());
            to.extend((len as u64).to_le_bytes());
        };
        let plain = |to: &mut Vec<u8>, kind: Kind, bytes: &[u8]| {
            to.extend(kind.id().to_le_bytes());
            to.extend(bytes);
        };
        match self {
            Datum::U32(n) => plain(to, Kind::U32, &n.to_le_bytes()),
            Datum::F32(x) => plain(to, Kind::F32, &x.to_le_bytes()),
            Datum::Bool(flag) => plain(to, Kind::Bool, &[u8::from(*flag)]),
            Datum::Text(text) => {
                plain(to, Kind::Text, &[]);
                put_text(to, text);
            }
            Datum::Texts(texts) => {
                list(to, Kind::Text, texts.len());
                texts.iter().for_each(|text| put_text(to, text));
            }
            Datum::I32s(numbers) => {
                list(to, Kind::I32, numbers.len());
                to.extend(bytes_of(numbers));
            }
            Datum::F32s(numbers) => {
                list(to, Kind::F32, numbers.len());
                to.extend(bytes_of(numbers));
            }
            Datum::Copied(stored) => to.extend(stored),
        }
    }
}

fn put_text(to: &mut Vec<u8>, text: &str) {
    to.extend((text.len() as u64).to_le_bytes());
    to.extend(text.as_bytes());
}

/// The number of a type in the format.
fn id(dtype: Dtype) -> Option<u32> {
    match dtype {
        Dtype::Quant(kind) => Some(Quant::id(kind)),
        plain => PLAIN.iter().find(|(_, known)| *known == plain).map(|(id, _)| *id),
    }
}

/// What a tensor takes, once the format can hold it.
fn bytes(spec: &TensorSpec) -> Result<u64> {
    let TensorSpec { name, dtype, shape } = spec;
    if id(*dtype).is_none() {
        return Err(invalid(name, format!("the format has no type {dtype}")));
    }
    if shape.len() > 4 {
        return Err(invalid(name, format!("the format has at most 4 axes, not {}", shape.len())));
    }
    let row = shape.last().copied().unwrap_or(1);
    if !row.is_multiple_of(dtype.block()) {
        return Err(invalid(name, format!("rows of {row} are not whole blocks of {} ({dtype})", dtype.block())));
    }
    let elements = shape.iter().try_fold(1u64, |n, &axis| n.checked_mul(axis as u64));
    let bytes = elements.and_then(|n| (n / dtype.block() as u64).checked_mul(dtype.bytes() as u64));
    bytes.ok_or_else(|| invalid(name, "its shape overflows"))
}

fn invalid(name: &str, reason: impl Into<String>) -> CheckpointError {
    CheckpointError::InvalidTensor { name: name.to_string(), reason: reason.into() }
}

//! The header of one GGUF file, checked in full before any of its numbers is believed.
//!
//! Stricter than llama.cpp in that no two tensors may share a byte, and laxer in that tensors may lie further apart
//! than the alignment asks for.

use std::collections::BTreeMap;
use std::ops::Range;

use phyla_kernels::quant::Quant;

use super::error::Fault;
use super::value::Kind;
use crate::checkpoint::{Dtype, Entry, Shown};

type Result<T> = std::result::Result<T, Fault>;

/// The first four bytes.
pub(crate) const MAGIC: &[u8; 4] = b"GGUF";
/// As in ggml.
const MAX_AXES: u32 = 4;
/// Where `general.alignment` does not stand.
pub(crate) const ALIGN: usize = 32;
/// The key that says how tensors are aligned.
pub(crate) const ALIGNMENT: &str = "general.alignment";
/// The shortest pair: an empty key's length, a type and a byte.
const MIN_PAIR: usize = 8 + 4 + 1;
/// The shortest tensor: an empty name's length, no axes, a type and an offset.
const MIN_TENSOR: usize = 8 + 4 + 4 + 8;
const CUT: &str = "; is the file cut short?";

/// Where a value lies and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    pub kind: Kind,
    /// Of a list: the type of its values, and how many there are.
    pub list: Option<(Kind, usize)>,
    /// The value's bytes; of a list, those of its values.
    pub range: Range<usize>,
}

/// What a file says before its data.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub version: u32,
    pub alignment: usize,
    pub metadata: BTreeMap<String, Stored>,
    /// In the order of the file's list; axes outermost first, as PyTorch has them.
    pub entries: Vec<Entry>,
}

/// Reads and checks the header at the start of `file` (the whole file, mapped).
pub(crate) fn parse(file: &[u8]) -> Result<Header> {
    let mut cursor = Cursor { file, at: 0 };
    let magic = cursor.take(4, || "the magic".into())?;
    if magic != MAGIC {
        let found = format!("{:02x?}", magic);
        return Err(match magic {
            b"ggml" | b"ggjt" | b"ggmf" => Fault::new("the magic", "`GGUF`", "an older format of llama.cpp")
                .advising("; convert it with llama.cpp's convert_llama_ggml_to_gguf.py"),
            b"vers" => {
                Fault::new("the magic", "`GGUF`", "a Git LFS pointer").advising("; run `git lfs pull` in its folder")
            }
            _ => Fault::new("the magic", "`GGUF`", found).advising("; is it a GGUF file?"),
        });
    }
    let version = cursor.u32(|| "the version".into())?;
    match version {
        2 | 3 => {}
        1 => {
            return Err(
                Fault::new("the version", "2 or 3", 1).advising("; convert the model again with a newer llama.cpp")
            );
        }
        other if other.swap_bytes() <= 3 && other != 0 => {
            return Err(Fault::new("the version", "2 or 3", format!("{}, big-endian", other.swap_bytes()))
                .advising("; convert the model again for a little-endian machine"));
        }
        other => return Err(Fault::new("the version", "2 or 3", other).advising("; is a newer phyla there?")),
    }
    let tensors = cursor.count("the number of tensors", MIN_TENSOR)?;
    let pairs = cursor.count("the number of metadata pairs", MIN_PAIR)?;
    let mut metadata = BTreeMap::new();
    for number in 0..pairs {
        let key = cursor.text(|| format!("the key of metadata pair {number}"))?;
        let stored = cursor.value(key)?;
        if metadata.insert(key.to_string(), stored).is_some() {
            return Err(Fault::new(format!("the key {}", Shown(key)), "a key of its own", "one that stands twice"));
        }
    }
    let alignment = alignment(file, &metadata)?;
    let mut entries = Vec::with_capacity(tensors);
    for number in 0..tensors {
        entries.push(cursor.tensor(number)?);
    }
    place(file, cursor.at, alignment, &mut entries)?;
    Ok(Header { version, alignment, metadata, entries })
}

fn alignment(file: &[u8], metadata: &BTreeMap<String, Stored>) -> Result<usize> {
    let Some(stored) = metadata.get(ALIGNMENT) else { return Ok(ALIGN) };
    let expected = "a power of 2, as a whole number of 32 bits";
    let value = match (stored.kind, file.get(stored.range.clone())) {
        (Kind::U32, Some(&[a, b, c, d])) => u32::from_le_bytes([a, b, c, d]),
        (kind, _) => return Err(Fault::new(ALIGNMENT, expected, kind.describe())),
    };
    if !value.is_power_of_two() {
        return Err(Fault::new(ALIGNMENT, expected, value));
    }
    // Fits: 32 bits.
    Ok(value as usize)
}

/// Turns offsets into ranges of the file, which must lie in it and apart from one another.
fn place(file: &[u8], header: usize, alignment: usize, entries: &mut [Entry]) -> Result<()> {
    let data = header.checked_next_multiple_of(alignment).unwrap_or(usize::MAX);
    for entry in entries.iter_mut() {
        let thing = || format!("tensor `{}`", Shown(&entry.name));
        if !entry.begin.is_multiple_of(alignment) {
            return Err(Fault::new(thing(), format!("an offset that is a multiple of {alignment}"), entry.begin));
        }
        let range = data.checked_add(entry.begin).and_then(|begin| Some((begin, data.checked_add(entry.end)?)));
        match range {
            Some((begin, end)) if end <= file.len() => (entry.begin, entry.end) = (begin, end),
            _ => {
                let there = file.len().saturating_sub(data);
                let expected = format!("data up to byte {}", entry.end);
                return Err(Fault::new(thing(), expected, format!("{there} bytes of data")).advising(CUT));
            }
        }
    }
    let mut order: Vec<&Entry> = entries.iter().filter(|entry| entry.begin < entry.end).collect();
    order.sort_by_key(|entry| entry.begin);
    for pair in order.windows(2) {
        if pair[1].begin < pair[0].end {
            let thing = format!("tensor `{}`", Shown(&pair[1].name));
            let found = format!("some that `{}` has too", Shown(&pair[0].name));
            return Err(Fault::new(thing, "bytes of its own", found));
        }
    }
    let mut names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => {
            Err(Fault::new(format!("tensor `{}`", Shown(pair[0])), "a name of its own", "one that stands twice"))
        }
        None => Ok(()),
    }
}

/// Reads forward, never past the end.
struct Cursor<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn left(&self) -> usize {
        self.file.len() - self.at
    }

    fn take(&mut self, bytes: usize, thing: impl Fn() -> String) -> Result<&'a [u8]> {
        let Some(taken) = self.at.checked_add(bytes).and_then(|end| self.file.get(self.at..end)) else {
            let found = format!("{} before the end of the file", self.left());
            return Err(Fault::new(thing(), format!("{bytes} bytes"), found).advising(CUT));
        };
        self.at += bytes;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, thing: impl Fn() -> String) -> Result<[u8; N]> {
        let taken = self.take(N, &thing)?;
        taken.first_chunk::<N>().copied().ok_or_else(|| Fault::new(thing(), format!("{N} bytes"), taken.len()))
    }

    fn u32(&mut self, thing: impl Fn() -> String) -> Result<u32> {
        self.array(thing).map(u32::from_le_bytes)
    }

    fn u64(&mut self, thing: impl Fn() -> String) -> Result<u64> {
        self.array(thing).map(u64::from_le_bytes)
    }

    /// A number of things of which each takes at least `bytes` of what is left of the file.
    fn count(&mut self, thing: &str, bytes: usize) -> Result<usize> {
        let count = self.u64(|| thing.to_string())?;
        self.check_count(count, bytes, || thing.to_string())
    }

    fn check_count(&self, count: u64, bytes: usize, thing: impl Fn() -> String) -> Result<usize> {
        match usize::try_from(count) {
            Ok(count) if count <= self.left() / bytes => Ok(count),
            _ => {
                let most = format!("at most {}, for {} bytes follow", self.left() / bytes, self.left());
                Err(Fault::new(thing(), most, count).advising(CUT))
            }
        }
    }

    fn text(&mut self, thing: impl Fn() -> String) -> Result<&'a str> {
        let length = self.u64(&thing)?;
        let length = self.check_count(length, 1, || format!("the length of {}", thing()))?;
        let bytes = self.take(length, &thing)?;
        let text = std::str::from_utf8(bytes)
            .map_err(|error| Fault::new(thing(), "UTF-8", format!("other bytes from {} on", error.valid_up_to())))?;
        match text.chars().any(char::is_control) {
            true => Err(Fault::new(thing(), "no control characters", format!("`{}`", Shown(text)))),
            false => Ok(text),
        }
    }

    fn kind(&mut self, thing: impl Fn() -> String) -> Result<Kind> {
        let id = self.u32(&thing)?;
        Kind::of(id).ok_or_else(|| Fault::new(thing(), "a type from 0 to 12", id))
    }

    /// Passes over a value, having seen that it is whole.
    fn value(&mut self, key: &str) -> Result<Stored> {
        let thing = || format!("the value of {}", Shown(key));
        let kind = self.kind(thing)?;
        if kind != Kind::List {
            let begin = self.at;
            self.pass(kind, 1, key)?;
            return Ok(Stored { kind, list: None, range: begin..self.at });
        }
        let of = self.kind(thing)?;
        if of == Kind::List {
            return Err(Fault::new(thing(), "a list of plain values", "a list of lists"));
        }
        let count = self.u64(thing)?;
        let least = of.bytes().unwrap_or(8);
        let count = self.check_count(count, least, || format!("the length of {}", Shown(key)))?;
        let begin = self.at;
        self.pass(of, count, key)?;
        Ok(Stored { kind, list: Some((of, count)), range: begin..self.at })
    }

    fn pass(&mut self, kind: Kind, count: usize, key: &str) -> Result<()> {
        let thing = || format!("the value of {}", Shown(key));
        let Some(bytes) = kind.bytes() else {
            for _ in 0..count {
                let length = self.u64(thing)?;
                let length = self.check_count(length, 1, || format!("the length of a string of {}", Shown(key)))?;
                self.take(length, thing)?;
            }
            return Ok(());
        };
        let taken = self.take(bytes.saturating_mul(count), thing)?;
        match taken.iter().find(|&&byte| kind == Kind::Bool && byte > 1) {
            Some(byte) => Err(Fault::new(thing(), "0 or 1", byte)),
            None => Ok(()),
        }
    }

    /// One tensor's line; its range stays relative to the data.
    fn tensor(&mut self, number: usize) -> Result<Entry> {
        let name = self.text(|| format!("the name of tensor {number}"))?.to_string();
        let thing = || format!("tensor `{}`", Shown(&name));
        let axes = self.u32(thing)?;
        if axes > MAX_AXES {
            return Err(Fault::new(thing(), format!("at most {MAX_AXES} axes"), axes));
        }
        let lengths = (0..axes).map(|_| self.u64(thing)).collect::<Result<Vec<u64>>>()?;
        let id = self.u32(thing)?;
        let offset = self.u64(thing)?;
        let dtype = dtype(id).map_err(|found| {
            Fault::new(thing(), format!("one of the types {}", known()), found)
                .advising("; quantise the model again to one of these")
        })?;
        let huge = || Fault::new(thing(), "as many elements as can be addressed", format!("axes {lengths:?}"));
        let mut shape =
            lengths.iter().map(|&n| usize::try_from(n).ok()).collect::<Option<Vec<_>>>().ok_or_else(huge)?;
        let row = shape.first().copied().unwrap_or(1);
        if !row.is_multiple_of(dtype.block()) {
            return Err(Fault::new(thing(), format!("rows of whole blocks of {} ({dtype})", dtype.block()), row));
        }
        let elements = shape.iter().try_fold(1usize, |n, &axis| n.checked_mul(axis)).ok_or_else(huge)?;
        let bytes = (elements / dtype.block()).checked_mul(dtype.bytes()).ok_or_else(huge)?;
        let begin = usize::try_from(offset).ok();
        let range = begin.and_then(|begin| Some((begin, begin.checked_add(bytes)?)));
        let (begin, end) = range.ok_or_else(|| Fault::new(thing(), "an offset in the file", offset).advising(CUT))?;
        // The file lists the innermost axis first.
        shape.reverse();
        Ok(Entry { name, dtype, shape, begin, end })
    }
}

/// The type of elements of that number, or what it is called.
fn dtype(id: u32) -> std::result::Result<Dtype, String> {
    let plain = PLAIN.iter().find(|(known, _)| *known == id).map(|(_, dtype)| *dtype);
    let quant = || Quant::ALL.into_iter().find(|quant| quant.id() == id).map(Dtype::Quant);
    plain.or_else(quant).ok_or_else(|| match RARE.iter().find(|(known, _)| *known == id) {
        Some((_, name)) => format!("{name} (type {id})"),
        None => format!("type {id}"),
    })
}

/// Types that are numbers as they stand.
pub(crate) const PLAIN: [(u32, Dtype); 8] = [
    (0, Dtype::F32),
    (1, Dtype::F16),
    (24, Dtype::I8),
    (25, Dtype::I16),
    (26, Dtype::I32),
    (27, Dtype::I64),
    (28, Dtype::F64),
    (30, Dtype::BF16),
];

/// Types of ggml that are not read.
const RARE: [(u32, &str); 21] = [
    (4, "Q4_2"),
    (5, "Q4_3"),
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (36, "IQ4_NL_4_4"),
    (37, "IQ4_NL_4_8"),
    (38, "IQ4_NL_8_8"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

fn known() -> String {
    let plain = PLAIN.iter().map(|(_, dtype)| dtype.as_str());
    let quant = Quant::ALL.into_iter().map(|quant| Dtype::Quant(quant).as_str());
    plain.chain(quant).collect::<Vec<_>>().join(", ")
}

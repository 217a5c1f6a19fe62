//! The header of one safetensors file, checked in full before any of its numbers is believed.
//!
//! Stricter than the reference reader in two points: a name given twice is an error (a map would
//! silently keep the last), and so is a field that the format does not know.

use std::collections::{BTreeMap, btree_map};
use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};

use super::Dtype;

/// Largest header that is read, as in the reference reader.
pub(crate) const MAX_HEADER_BYTES: u64 = 100_000_000;
/// More axes than any model has; bounds what a header of many small numbers can make us allocate.
const MAX_AXES: usize = 16;
/// How many characters of a name go into a message.
const SHOWN_NAME: usize = 120;

/// One tensor's description, its range relative to the file's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// First byte, counted from the start of the file.
    pub begin: usize,
    /// One past the last byte.
    pub end: usize,
}

/// A file's tensors in the order of their bytes, and its free-form metadata.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub entries: Vec<Entry>,
    pub metadata: BTreeMap<String, String>,
}

/// Reads and checks the header at the start of `file` (the whole file, mapped).
/// The error is the end of a sentence about the file.
pub(crate) fn parse(file: &[u8]) -> Result<Header, String> {
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(format!("it has {} bytes, and the header's length alone takes 8", file.len()));
    };
    let length = u64::from_le_bytes(*length);
    if file.starts_with(b"version https://git-lfs") {
        return Err("it is a Git LFS pointer, not the weights; run `git lfs pull` in its folder".into());
    }
    if length > MAX_HEADER_BYTES {
        return Err(format!("its header claims {length} bytes, and {MAX_HEADER_BYTES} are the most that is read"));
    }
    // Fits: at most 100 MB.
    let length = length as usize;
    let Some((json, data)) = rest.split_at_checked(length) else {
        return Err(format!("its header claims {length} bytes, and {} follow; is the file cut short?", rest.len()));
    };
    if json.first() != Some(&b'{') {
        return Err("its header does not start with `{`".into());
    }
    let raw: RawHeader =
        serde_json::from_slice(json).map_err(|error| format!("its header: {}", Shown(&error.to_string())))?;
    let data_start = file.len() - data.len();
    let mut entries = Vec::with_capacity(raw.tensors.len());
    for (name, tensor) in raw.tensors {
        entries.push(check_entry(name, &tensor, data.len())?);
    }
    check_layout(&mut entries, data.len())?;
    for entry in &mut entries {
        entry.begin += data_start;
        entry.end += data_start;
    }
    Ok(Header { entries, metadata: raw.metadata })
}

/// One tensor against itself and the end of the data; the range stays relative to the data.
fn check_entry(name: String, tensor: &RawTensor, data: usize) -> Result<Entry, String> {
    let shown = Shown(&name);
    if name.chars().any(char::is_control) {
        return Err(format!("the tensor name `{shown}` holds control characters"));
    }
    let dtype = Dtype::parse(&tensor.dtype)
        .ok_or_else(|| format!("tensor `{shown}` has the unknown dtype `{}`", Shown(&tensor.dtype)))?;
    let shape = tensor.shape.0.iter().map(|&axis| usize::try_from(axis).ok()).collect::<Option<Vec<_>>>();
    let bytes = shape.as_ref().and_then(|shape| {
        let elements = shape.iter().try_fold(1usize, |product, &axis| product.checked_mul(axis))?;
        elements.checked_mul(dtype.bytes())
    });
    let (Some(shape), Some(bytes)) = (shape, bytes) else {
        return Err(format!("tensor `{shown}` has shape {:?}, more elements than can be addressed", tensor.shape.0));
    };
    let [begin, end] = tensor.data_offsets;
    if begin > end {
        return Err(format!("tensor `{shown}` ends at byte {end}, before its start at {begin}"));
    }
    if end > data as u64 {
        return Err(format!(
            "tensor `{shown}` needs the data up to byte {end}, and {data} are there; is the file cut short?"
        ));
    }
    if end - begin != bytes as u64 {
        return Err(format!(
            "tensor `{shown}` of {dtype} {shape:?} takes {bytes} bytes, and its range has {}",
            end - begin
        ));
    }
    Ok(Entry { name, dtype, shape, begin: begin as usize, end: end as usize })
}

/// The ranges, sorted, must cover the data without hole or overlap, so that no byte of the file is
/// unaccounted for and none is two tensors' at once.
fn check_layout(entries: &mut [Entry], data: usize) -> Result<(), String> {
    entries.sort_by(|a, b| (a.begin, a.end, &a.name).cmp(&(b.begin, b.end, &b.name)));
    let mut covered = 0;
    let mut before = "the header";
    for entry in entries.iter() {
        let shown = Shown(&entry.name);
        if entry.begin < covered {
            return Err(format!("tensors `{}` and `{shown}` overlap at byte {}", Shown(before), entry.begin));
        }
        if entry.begin > covered {
            return Err(format!(
                "bytes {covered} to {} of the data, before tensor `{shown}`, belong to no tensor",
                entry.begin
            ));
        }
        covered = entry.end;
        before = &entry.name;
    }
    if covered != data {
        return Err(format!("its tensors take {covered} bytes of data, and {data} are there"));
    }
    Ok(())
}

/// A stranger's text made fit for a message: cut to a length, control characters spelled out.
pub(crate) struct Shown<'a>(pub &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, c) in self.0.chars().enumerate() {
            match c {
                _ if i == SHOWN_NAME => return f.write_str("…"),
                c if c.is_control() => write!(f, "{}", c.escape_default())?,
                c => fmt::Write::write_char(f, c)?,
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct RawHeader {
    tensors: BTreeMap<String, RawTensor>,
    metadata: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensor {
    dtype: String,
    shape: Axes,
    data_offsets: [u64; 2],
}

/// A shape that stops reading past [`MAX_AXES`], so that a long one never becomes a long vector.
struct Axes(Vec<u64>);

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = RawHeader;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from tensor names to descriptions")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut header = RawHeader::default();
                let mut metadata_seen = false;
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        if std::mem::replace(&mut metadata_seen, true) {
                            return Err(de::Error::custom("`__metadata__` stands twice"));
                        }
                        header.metadata = map.next_value::<UniqueMap>()?.0;
                        continue;
                    }
                    let tensor = map.next_value::<RawTensor>()?;
                    match header.tensors.entry(name) {
                        btree_map::Entry::Vacant(place) => {
                            place.insert(tensor);
                        }
                        btree_map::Entry::Occupied(place) => {
                            let name = Shown(place.key());
                            return Err(de::Error::custom(format!("tensor `{name}` stands twice")));
                        }
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

impl<'de> Deserialize<'de> for Axes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Numbers;
        impl<'de> Visitor<'de> for Numbers {
            type Value = Axes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {MAX_AXES} axis lengths")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Axes, A::Error> {
                let mut axes = Vec::new();
                while let Some(axis) = seq.next_element()? {
                    if axes.len() == MAX_AXES {
                        return Err(de::Error::custom(format!("a shape of more than {MAX_AXES} axes")));
                    }
                    axes.push(axis);
                }
                Ok(Axes(axes))
            }
        }
        deserializer.deserialize_seq(Numbers)
    }
}

/// A map of strings that refuses a key given twice.
#[derive(Default)]
pub(crate) struct UniqueMap(pub BTreeMap<String, String>);

impl<'de> Deserialize<'de> for UniqueMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = UniqueMap;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from strings to strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueMap, A::Error> {
                let mut pairs = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if pairs.contains_key(&key) {
                        return Err(de::Error::custom(format!("`{}` stands twice", Shown(&key))));
                    }
                    pairs.insert(key, value);
                }
                Ok(UniqueMap(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

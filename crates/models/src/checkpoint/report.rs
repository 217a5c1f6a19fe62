//! What a checkpoint holds, in numbers, for `inspect` to print.

use std::collections::BTreeMap;

use serde::Serialize;

use super::header::Entry;

/// Totals and the list of tensors; serialises as `inspect --json` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Number of elements of all tensors.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Bytes per stored type, under the type's name.
    pub bytes_by_dtype: BTreeMap<&'static str, u64>,
    /// Every tensor, `layers.2` before `layers.10`.
    pub tensors: Vec<TensorReport>,
}

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TensorReport {
    /// Name in the file.
    pub name: String,
    /// Stored type, as the format spells it.
    pub dtype: &'static str,
    /// Lengths of the axes.
    pub shape: Vec<usize>,
    /// Bytes stored.
    pub bytes: u64,
}

impl Report {
    pub(super) fn new<'a>(entries: impl Iterator<Item = &'a Entry>) -> Self {
        let mut report = Report { parameters: 0, bytes: 0, bytes_by_dtype: BTreeMap::new(), tensors: Vec::new() };
        for entry in entries {
            let bytes = (entry.end - entry.begin) as u64;
            report.parameters += bytes / entry.dtype.bytes() as u64 * entry.dtype.block() as u64;
            report.bytes += bytes;
            *report.bytes_by_dtype.entry(entry.dtype.as_str()).or_default() += bytes;
            report.tensors.push(TensorReport {
                name: entry.name.clone(),
                dtype: entry.dtype.as_str(),
                shape: entry.shape.clone(),
                bytes,
            });
        }
        report.tensors.sort_by_cached_key(|tensor| natural(&tensor.name));
        report
    }
}

/// A sort key under which numbers inside dotted names order by value.
fn natural(name: &str) -> Vec<(u64, String)> {
    name.split('.')
        // A number sorts by itself before every word; a word by its letters.
        .map(|part| part.parse::<u64>().map_or_else(|_| (u64::MAX, part.to_string()), |n| (n, String::new())))
        .collect()
}

//! Tokenised text on disk, mapped into memory: made once, then read at the speed of the page cache.

mod build;
mod layout;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use phyla_kernels::map::{MappedFile, bytes_of};

pub use build::{Made, TokenSettings, cache_dir};

use crate::error::{Error, Result};
use layout::{Header, check, checksum};

/// The documents of a data set as one run of token ids, with the place where each begins.
#[derive(Debug, Clone)]
pub struct TokenFile {
    storage: Storage,
    documents: usize,
    tokens: usize,
    digest: u64,
}

#[derive(Debug, Clone)]
enum Storage {
    Mapped { file: Arc<MappedFile>, wide: bool, ids: Range<usize>, offsets: Range<usize> },
    Owned { ids: Arc<[u32]>, offsets: Arc<[u64]> },
}

/// A borrowed run of ids: two bytes each when the vocabulary has at most 65,536 tokens, else four.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids<'a> {
    /// Two bytes an id.
    Narrow(&'a [u16]),
    /// Four bytes an id.
    Wide(&'a [u32]),
}

impl<'a> Ids<'a> {
    /// How many.
    pub fn len(self) -> usize {
        match self {
            Self::Narrow(ids) => ids.len(),
            Self::Wide(ids) => ids.len(),
        }
    }

    /// True when there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The id at `index`.
    pub fn get(self, index: usize) -> Option<u32> {
        match self {
            Self::Narrow(ids) => ids.get(index).map(|&id| u32::from(id)),
            Self::Wide(ids) => ids.get(index).copied(),
        }
    }

    /// A part; empty when out of range.
    pub fn slice(self, range: Range<usize>) -> Self {
        match self {
            Self::Narrow(ids) => Self::Narrow(ids.get(range).unwrap_or_default()),
            Self::Wide(ids) => Self::Wide(ids.get(range).unwrap_or_default()),
        }
    }

    /// Appends the ids to `out`.
    pub fn append_to(self, out: &mut Vec<u32>) {
        match self {
            Self::Narrow(ids) => out.extend(ids.iter().map(|&id| u32::from(id))),
            Self::Wide(ids) => out.extend_from_slice(ids),
        }
    }

    /// A copy, four bytes each.
    pub fn to_vec(self) -> Vec<u32> {
        let mut out = Vec::with_capacity(self.len());
        self.append_to(&mut out);
        out
    }
}

impl TokenFile {
    /// Opens a file made before, checking its sizes and its checksum (one pass over the bytes).
    ///
    /// # Errors
    /// Says in what way the file is not, or no longer, a whole token file of this version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_keyed(path.as_ref(), None)
    }

    fn open_keyed(path: &Path, key: Option<&[u8; 32]>) -> Result<Self> {
        let file = MappedFile::open(path).map_err(Error::io(path))?;
        let Header { wide, documents, tokens, ids, offsets, checksum: digest } =
            check(file.bytes(), key).map_err(|message| Error::format(path, message))?;
        Ok(Self { storage: Storage::Mapped { file, wide, ids, offsets }, documents, tokens, digest })
    }

    /// Holds documents in memory, for data too small to be worth a file.
    pub fn from_documents<D: AsRef<[u32]>>(documents: impl IntoIterator<Item = D>) -> Self {
        let (mut ids, mut offsets) = (Vec::new(), vec![0]);
        for document in documents {
            ids.extend_from_slice(document.as_ref());
            offsets.push(ids.len() as u64);
        }
        Self {
            documents: offsets.len() - 1,
            tokens: ids.len(),
            digest: checksum(bytes_of(&ids)) ^ checksum(bytes_of(&offsets)).rotate_left(1),
            storage: Storage::Owned { ids: ids.into(), offsets: offsets.into() },
        }
    }

    /// How many documents.
    pub fn documents(&self) -> usize {
        self.documents
    }

    /// How many tokens in all.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// A checksum of ids and documents, equal for equal files: whether a run still reads the same text.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Where document `index` lies in the run of tokens; empty when there is no such document.
    pub fn range(&self, index: usize) -> Range<usize> {
        match self.offsets().get(index..index.saturating_add(2)) {
            Some(&[start, end]) => start as usize..end as usize,
            _ => 0..0,
        }
    }

    /// The ids of document `index`; empty when there is no such document.
    pub fn document(&self, index: usize) -> Ids<'_> {
        self.slice(self.range(index))
    }

    /// The ids of a part of the whole run; empty when out of range.
    pub fn slice(&self, range: Range<usize>) -> Ids<'_> {
        self.all().slice(range)
    }

    /// All ids, document after document.
    pub fn all(&self) -> Ids<'_> {
        // `check` has seen that the views fit, so the defaults below are never reached.
        match &self.storage {
            Storage::Mapped { file, wide: true, ids, .. } => Ids::Wide(file.as_u32(ids.clone()).unwrap_or_default()),
            Storage::Mapped { file, ids, .. } => Ids::Narrow(file.as_u16(ids.clone()).unwrap_or_default()),
            Storage::Owned { ids, .. } => Ids::Wide(ids),
        }
    }

    /// Document beginnings, and the end of the last: one more than there are documents.
    fn offsets(&self) -> &[u64] {
        match &self.storage {
            Storage::Mapped { file, offsets, .. } => file.view(offsets.clone()).unwrap_or_default(),
            Storage::Owned { offsets, .. } => offsets,
        }
    }
}

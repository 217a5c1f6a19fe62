//! Files mapped into memory, read-only: weights are borrowed from the page cache instead of read into the heap.
//!
//! **Truncation.** A mapping is a view of the file, not a copy. When another process shortens the file while it is
//! mapped, touching a page beyond the new end raises SIGBUS and ends this process; when it rewrites the file in place,
//! the bytes seen here may change. Nothing in user space prevents either, so do not write over a checkpoint that is
//! in use: write a new file and rename it over the old one, which leaves the mapped one alive until it is unmapped.

mod settle;

use std::sync::atomic::AtomicBool;
use std::{fs::File, io, ops::Range, path::Path, sync::Arc};

use half::{bf16, f16};
use memmap2::{Advice, Mmap};

/// A whole file, mapped read-only.
#[derive(Debug)]
pub struct MappedFile {
    /// `None` for an empty file, which cannot be mapped.
    map: Option<Mmap>,
    /// Whether its bytes have been moved into memory of our own.
    settled: AtomicBool,
}

/// A numeric type any bit pattern of which is a value, so that file bytes may be viewed as it.
pub trait Plain: Copy + Send + Sync + sealed::Sealed + 'static {}

mod sealed {
    pub trait Sealed {}
}

macro_rules! plain {
    ($($t:ty),*) => { $(impl sealed::Sealed for $t {} impl Plain for $t {})* };
}
plain!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64, bf16, f16);

/// `bytes` as values of `T` in the machine's byte order; `None` when unaligned or not a whole number of them.
pub fn view<T: Plain>(bytes: &[u8]) -> Option<&[T]> {
    // SAFETY: `Plain` is sealed to types for which every bit pattern is valid.
    let (head, body, tail) = unsafe { bytes.align_to::<T>() };
    (head.is_empty() && tail.is_empty()).then_some(body)
}

/// The bytes of `values`, in the machine's byte order.
pub fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: `Plain` types have no padding, and u8 has alignment 1.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), std::mem::size_of_val(values)) }
}

/// As [`view`], for writing.
pub fn view_mut<T: Plain>(bytes: &mut [u8]) -> Option<&mut [T]> {
    // SAFETY: as in `view`; and every value of `T` is bytes.
    let (head, body, tail) = unsafe { bytes.align_to_mut::<T>() };
    (head.is_empty() && tail.is_empty()).then_some(body)
}

/// As [`bytes_of`], for writing.
pub fn bytes_of_mut<T: Plain>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: as in `bytes_of`; and any bytes are values of a `Plain` type.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), std::mem::size_of_val(values)) }
}

impl MappedFile {
    /// Maps the file at `path`. Errors are those of opening and mapping; the path is in their text.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Arc<Self>> {
        let path = path.as_ref();
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("cannot map `{}`: {error}", path.display()));
        let file = File::open(path).map_err(named)?;
        let metadata = file.metadata().map_err(named)?;
        if !metadata.is_file() {
            return Err(named(io::Error::new(io::ErrorKind::InvalidInput, "expected a regular file")));
        }
        if metadata.len() == 0 {
            return Ok(Arc::new(Self { map: None, settled: AtomicBool::new(false) }));
        }
        // SAFETY: private and read-only; that nobody else changes the file meanwhile is the caller's part (see above).
        let map = unsafe { memmap2::MmapOptions::new().map_copy_read_only(&file) }.map_err(named)?;
        Ok(Arc::new(Self { map: Some(map), settled: AtomicBool::new(false) }))
    }

    /// All bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or_default()
    }

    /// The bytes in `range` as values of `T`; `None` when out of range, unaligned or not a whole number of them.
    pub fn view<T: Plain>(&self, range: Range<usize>) -> Option<&[T]> {
        view(self.bytes().get(range)?)
    }

    /// The bytes in `range` as f32; `None` as for [`MappedFile::view`].
    pub fn as_f32(&self, range: Range<usize>) -> Option<&[f32]> {
        self.view(range)
    }

    /// The bytes in `range` as bf16; `None` as for [`MappedFile::view`].
    pub fn as_bf16(&self, range: Range<usize>) -> Option<&[bf16]> {
        self.view(range)
    }

    /// The bytes in `range` as f16; `None` as for [`MappedFile::view`].
    pub fn as_f16(&self, range: Range<usize>) -> Option<&[f16]> {
        self.view(range)
    }

    /// The bytes in `range` as u16; `None` as for [`MappedFile::view`].
    pub fn as_u16(&self, range: Range<usize>) -> Option<&[u16]> {
        self.view(range)
    }

    /// The bytes in `range` as u32; `None` as for [`MappedFile::view`].
    pub fn as_u32(&self, range: Range<usize>) -> Option<&[u32]> {
        self.view(range)
    }

    /// Asks the system to read `range` ahead. Advice only: what the system refuses is ignored.
    pub fn advise_will_need(&self, range: Range<usize>) {
        self.advise(Advice::WillNeed, range);
    }

    /// Tells the system that `range` is read once, front to back.
    pub fn advise_sequential(&self, range: Range<usize>) {
        self.advise(Advice::Sequential, range);
    }

    fn advise(&self, advice: Advice, range: Range<usize>) {
        let inside = range.start..range.end.min(self.bytes().len());
        if let Some(map) = self.map.as_ref().filter(|_| inside.start < inside.end) {
            // Losing the advice costs time, never correctness.
            map.advise_range(advice, inside.start, inside.len()).ok();
        }
    }
}

/// A range of a mapped file that keeps the mapping alive; cloning it copies two numbers and a pointer.
#[derive(Clone, Debug)]
pub struct MappedSlice {
    file: Arc<MappedFile>,
    range: Range<usize>,
}

impl MappedSlice {
    /// The bytes `range` of `file`; `None` when out of range.
    pub fn new(file: Arc<MappedFile>, range: Range<usize>) -> Option<Self> {
        file.bytes().get(range.clone())?;
        Some(Self { file, range })
    }

    /// The bytes `range` of this slice; `None` when out of range.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        self.bytes().get(range.clone())?;
        Some(Self { file: self.file.clone(), range: self.range.start + range.start..self.range.start + range.end })
    }

    /// The file.
    pub fn file(&self) -> &Arc<MappedFile> {
        &self.file
    }

    /// The bytes' place in the file.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // In range since `new`, and a mapping never changes its length.
        self.file.bytes().get(self.range.clone()).unwrap_or_default()
    }

    /// The bytes as values of `T`; `None` when unaligned or not a whole number of them.
    pub fn view<T: Plain>(&self) -> Option<&[T]> {
        view(self.bytes())
    }

    /// Asks the system to read these bytes ahead.
    pub fn advise_will_need(&self) {
        self.file.advise_will_need(self.range());
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn file(name: &str, bytes: &[u8]) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("phyla-map-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn views_are_the_bytes_and_refuse_bad_ranges() {
        let values = [1.5f32, -2.0, 3.25];
        let path = file("values", bytes_of(&values));
        let map = MappedFile::open(&path).unwrap();
        assert_eq!(map.as_f32(0..12).unwrap(), values);
        assert_eq!(map.as_f32(4..12).unwrap(), &values[1..]);
        assert_eq!(map.as_u32(0..4).unwrap(), [1.5f32.to_bits()]);
        assert_eq!(map.as_bf16(2..4).unwrap(), [bf16::from_f32(1.5)]);
        assert_eq!((map.as_u16(0..12).unwrap().len(), map.as_f16(4..4).unwrap().len()), (6, 0));
        assert!(map.as_f32(2..6).is_none(), "unaligned");
        assert!(map.as_f32(0..6).is_none(), "not whole");
        assert!(map.as_f32(8..16).is_none(), "beyond the end");
        #[expect(clippy::reversed_empty_ranges, reason = "a hostile header may hold one")]
        let reversed = 8..4;
        assert!(map.as_f32(reversed.clone()).is_none());
        map.advise_will_need(0..usize::MAX);
        map.advise_sequential(reversed);
        let slice = MappedSlice::new(map.clone(), 4..12).unwrap();
        drop(map);
        assert_eq!(slice.slice(4..8).unwrap().view::<f32>().unwrap(), [3.25]);
        assert!(slice.slice(4..9).is_none() && MappedSlice::new(slice.file().clone(), 0..13).is_none());
        std::fs::remove_file(path).unwrap();
        assert_eq!(slice.clone().view::<f32>().unwrap(), &values[1..], "alive after unlinking");
    }

    #[test]
    fn empty_and_missing_files() {
        let path = file("empty", b"");
        let map = MappedFile::open(&path).unwrap();
        assert!(map.bytes().is_empty() && map.as_f32(0..0).is_some_and(<[f32]>::is_empty));
        assert!(map.as_f32(0..4).is_none());
        map.advise_will_need(0..1);
        std::fs::remove_file(&path).unwrap();
        let error = MappedFile::open(&path).unwrap_err();
        assert!(error.kind() == io::ErrorKind::NotFound && error.to_string().contains("phyla-map"), "{error}");
        assert!(MappedFile::open(std::env::temp_dir()).is_err(), "a folder");
    }
}

//! Pages of a cache: keys, values or latent vectors of [`POSITIONS`] neighbouring positions, in floats or in blocks of few
//! bits.

use std::io;
use std::sync::Arc;

use half::bf16;
use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::map::{self, MappedSlice};
use crate::product::{Blocks, MatRef};
use crate::quant::Quant;
use crate::spool::{Slot, Spool};

/// Positions of a page: what attention reads at once.
pub const POSITIONS: usize = 64;

/// How a cache keeps numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// As they are.
    F32,
    /// In bfloat16.
    Bf16,
    /// In half precision: more digits than bfloat16, nothing beyond 65,504.
    F16,
    /// In blocks of 32 that share a scale: q8_0, q5_0, q5_1, q4_0, q4_1, iq4_nl.
    Blocks(Quant),
}

/// The spellings of [`Kept`].
pub const NAMES: [&str; 9] = ["f32", "bf16", "f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"];

impl Kept {
    /// By its name, one of [`NAMES`].
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "f32" => Some(Kept::F32),
            "bf16" => Some(Kept::Bf16),
            "f16" => Some(Kept::F16),
            _ => Quant::from_name(name).filter(|kind| kind.block() == 32).map(Kept::Blocks),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Kept::F32 => "f32",
            Kept::Bf16 => "bf16",
            Kept::F16 => "f16",
            Kept::Blocks(kind) => kind.name(),
        }
    }

    /// What the size of a head is a multiple of.
    pub fn block(self) -> usize {
        match self {
            Kept::Blocks(kind) => kind.block(),
            _ => 1,
        }
    }

    /// Bytes of so many numbers, which are whole blocks.
    pub fn bytes(self, numbers: usize) -> usize {
        match self {
            Kept::F32 => 4 * numbers,
            Kept::Bf16 | Kept::F16 => 2 * numbers,
            Kept::Blocks(kind) => numbers / kind.block() * kind.bytes(),
        }
    }
}

/// A page.
#[derive(Debug)]
pub struct Page {
    /// Numbers of a position.
    row: usize,
    kept: Kept,
    store: Store,
}

/// Where a page's numbers lie.
#[derive(Debug)]
enum Store {
    /// On the heap, in words of four bytes: numbers of every kind are aligned there.
    Heap(Vec<u32>),
    /// In a temporary file, from which the system may take its memory.
    Spooled(Slot),
    /// In a file that others have written, and nobody writes.
    File(MappedSlice),
}

impl Page {
    /// Zeros: `row` numbers for each position.
    ///
    /// # Panics
    /// If those are not whole blocks.
    pub fn new(kept: Kept, row: usize) -> Self {
        Self { row, kept, store: Store::Heap(vec![0; Self::size(kept, row) / 4]) }
    }

    /// A page in a temporary file, with whatever its place held before.
    ///
    /// # Errors
    /// If the file has no room for it.
    ///
    /// # Panics
    /// As [`Page::new`].
    pub fn spooled(kept: Kept, row: usize, spool: &Arc<Spool>) -> io::Result<Self> {
        Ok(Self { row, kept, store: Store::Spooled(spool.slot(Self::size(kept, row))?) })
    }

    /// A page that lies in a file, where nobody may write; `None` if it is not as long as a page is, or not aligned.
    ///
    /// # Panics
    /// As [`Page::new`].
    pub fn mapped(kept: Kept, row: usize, bytes: MappedSlice) -> Option<Self> {
        let fits = bytes.bytes().len() == Self::size(kept, row) && map::view::<u32>(bytes.bytes()).is_some();
        fits.then_some(Self { row, kept, store: Store::File(bytes) })
    }

    /// Bytes of a page: whole words, since there are 64 positions.
    fn size(kept: Kept, row: usize) -> usize {
        assert!(row.is_multiple_of(kept.block()), "{row} numbers are not whole blocks of {}", kept.name());
        kept.bytes(POSITIONS * row)
    }

    /// How it keeps its numbers.
    pub fn kept(&self) -> Kept {
        self.kept
    }

    /// Numbers of a position.
    pub fn row(&self) -> usize {
        self.row
    }

    /// Bytes of its numbers.
    pub fn bytes(&self) -> usize {
        self.kept.bytes(POSITIONS * self.row)
    }

    /// Whether it may be written.
    pub fn is_writable(&self) -> bool {
        !matches!(self.store, Store::File(_))
    }

    /// All of it as it lies in memory, in the machine's byte order.
    pub fn raw(&self) -> &[u8] {
        match &self.store {
            Store::Heap(words) => map::bytes_of(words),
            Store::Spooled(slot) => slot.bytes(),
            Store::File(bytes) => bytes.bytes(),
        }
    }

    /// The same for writing; nothing of a page that may not be written.
    fn raw_mut(&mut self) -> &mut [u8] {
        match &mut self.store {
            Store::Heap(words) => map::bytes_of_mut(words),
            Store::Spooled(slot) => slot.bytes_mut(),
            Store::File(_) => &mut [],
        }
    }

    /// Its numbers, `[POSITIONS, row]`.
    pub fn view(&self) -> MatRef<'_> {
        // Aligned and made of whole blocks since they were made.
        match self.kept {
            Kept::F32 => MatRef::F32(map::view(self.raw()).unwrap_or_default()),
            Kept::Bf16 => MatRef::Bf16(map::view(self.raw()).unwrap_or_default()),
            Kept::F16 => MatRef::F16(map::view(self.raw()).unwrap_or_default()),
            Kept::Blocks(kind) => Blocks::new(kind, self.raw()).map_or(MatRef::F32(&[]), MatRef::Blocks),
        }
    }

    /// Takes all numbers of a page that keeps as many; those of another kind are rounded on the way.
    ///
    /// # Panics
    /// If it keeps fewer or more, or this page lies in a file.
    pub fn copy_from(&mut self, other: &Page) {
        assert!(self.row == other.row, "a page of {} numbers a position takes {}", self.row, other.row);
        if self.kept == other.kept {
            self.raw_mut().copy_from_slice(other.raw());
        } else {
            let mut numbers = vec![0.0; POSITIONS * self.row];
            other.read(0, &mut numbers);
            self.write(0, &numbers);
        }
    }

    /// Writes the numbers of whole positions from position `at` on. What is not a number stays that, also in blocks.
    ///
    /// # Panics
    /// If they are not whole positions, or more than there are; if the page lies in a file.
    pub fn write(&mut self, at: usize, numbers: &[f32]) {
        assert!(
            numbers.len().is_multiple_of(self.row.max(1)) && at * self.row + numbers.len() <= POSITIONS * self.row,
            "{} numbers from position {at} on do not fit a page of {POSITIONS} times {}",
            numbers.len(),
            self.row
        );
        assert!(self.is_writable(), "a page of a file that was read is not written");
        let (kept, from) = (self.kept, self.kept.bytes(at * self.row));
        let bytes = &mut self.raw_mut()[from..][..kept.bytes(numbers.len())];
        match kept {
            Kept::F32 => bytes.copy_from_slice(map::bytes_of(numbers)),
            Kept::Bf16 => map::view_mut::<bf16>(bytes).unwrap_or_default().convert_from_f32_slice(numbers),
            Kept::F16 => map::view_mut::<f16>(bytes).unwrap_or_default().convert_from_f32_slice(numbers),
            Kept::Blocks(kind) => {
                kind.quantize(numbers, bytes);
                for (block, numbers) in bytes.chunks_exact_mut(kind.bytes()).zip(numbers.chunks_exact(kind.block())) {
                    if numbers.iter().any(|number| number.is_nan()) {
                        // The scale stands first.
                        block[..2].copy_from_slice(&f16::NAN.to_le_bytes());
                    }
                }
            }
        }
    }

    /// The numbers of whole positions from position `at` on.
    ///
    /// # Panics
    /// As [`Page::write`], but for files.
    pub fn read(&self, at: usize, to: &mut [f32]) {
        let bytes = &self.raw()[self.kept.bytes(at * self.row)..][..self.kept.bytes(to.len())];
        match self.kept {
            Kept::F32 => map::bytes_of_mut(to).copy_from_slice(bytes),
            Kept::Bf16 => map::view::<bf16>(bytes).unwrap_or_default().convert_to_f32_slice(to),
            Kept::F16 => map::view::<f16>(bytes).unwrap_or_default().convert_to_f32_slice(to),
            Kept::Blocks(kind) => kind.dequantize(bytes, to),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_is_written_is_read_as_exactly_as_it_is_kept() {
        let row: Vec<f32> = (0..128).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect();
        for name in NAMES {
            let kept = Kept::from_name(name).unwrap();
            assert_eq!(kept.name(), name);
            // Half a step of the widest block, whose values reach 2: of 4 bits 2 / 8, of 5 bits 2 / 16.
            let off = match name {
                "f32" => 0.0,
                "bf16" => 2.0 / 256.0,
                "f16" => 2.0 / 2048.0,
                "q8_0" => 2.1 / 127.0 / 2.0,
                "q5_0" | "q5_1" => 2.1 / 16.0,
                _ => 2.1 / 8.0,
            };
            let mut page = Page::new(kept, 64);
            page.write(3, &row);
            let mut back = vec![9.0; 64 * 4];
            page.read(2, &mut back);
            assert!(back[..64].iter().chain(&back[192..]).all(|x| *x == 0.0), "{name}: a neighbour was written");
            for (got, want) in back[64..192].iter().zip(&row) {
                assert!((got - want).abs() <= off, "{name}: {got} for {want}");
            }
            assert_eq!(page.bytes(), kept.bytes(64 * 64));
            assert_eq!(page.view().len(), 64 * 64);
        }
    }

    #[test]
    fn pages_hold_the_same_wherever_they_lie() {
        let spool = Spool::new().unwrap();
        let numbers: Vec<f32> = (0..64 * 32).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect();
        for name in NAMES {
            let kept = Kept::from_name(name).unwrap();
            let (mut heap, mut file) = (Page::new(kept, 32), Page::spooled(kept, 32, &spool).unwrap());
            heap.write(0, &numbers);
            file.write(0, &numbers);
            assert!(heap.raw() == file.raw(), "{name}");
            let path = std::env::temp_dir().join(format!("phyla-page-{}-{name}", std::process::id()));
            std::fs::write(&path, heap.raw()).unwrap();
            let bytes = map::MappedFile::open(&path).unwrap();
            std::fs::remove_file(path).unwrap();
            let all = MappedSlice::new(bytes.clone(), 0..heap.bytes()).unwrap();
            let mapped = Page::mapped(kept, 32, all).unwrap();
            assert!(!mapped.is_writable() && mapped.raw() == heap.raw());
            let short = MappedSlice::new(bytes, 0..heap.bytes() - 4).unwrap();
            assert!(Page::mapped(kept, 32, short).is_none());
            let mut copy = Page::spooled(kept, 32, &spool).unwrap();
            copy.copy_from(&mapped);
            assert!(copy.raw() == heap.raw(), "{name}");
            let mut exact = Page::new(Kept::F32, 32);
            exact.copy_from(&mapped);
            let mut back = vec![0.0; 64 * 32];
            heap.read(0, &mut back);
            assert!(exact.view().len() == back.len() && map::bytes_of(&back) == exact.raw(), "{name}");
        }
    }

    #[test]
    fn what_is_not_a_number_stays_that() {
        for name in NAMES {
            let (mut page, mut back) = (Page::new(Kept::from_name(name).unwrap(), 32), vec![0.0; 32]);
            let mut row = vec![1.0; 32];
            row[7] = f32::NAN;
            page.write(5, &row);
            page.read(5, &mut back);
            assert!(back[7].is_nan(), "{name}: {}", back[7]);
        }
    }
}

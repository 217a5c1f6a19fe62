//! Pages of a cache: keys, values or latent vectors of [`POSITIONS`] neighbouring positions, in floats or in blocks of few
//! bits.

use half::bf16;
use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::product::{Blocks, MatRef};
use crate::quant::Quant;

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
#[derive(Clone, Debug)]
pub struct Page {
    /// Numbers of a position.
    row: usize,
    values: Values,
}

#[derive(Clone, Debug)]
enum Values {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
    Blocks(Quant, Vec<u8>),
}

impl Page {
    /// Zeros: `row` numbers for each position.
    ///
    /// # Panics
    /// If those are not whole blocks.
    pub fn new(kept: Kept, row: usize) -> Self {
        assert!(row.is_multiple_of(kept.block()), "{row} numbers are not whole blocks of {}", kept.name());
        let len = POSITIONS * row;
        let values = match kept {
            Kept::F32 => Values::F32(vec![0.0; len]),
            Kept::Bf16 => Values::Bf16(vec![bf16::ZERO; len]),
            Kept::F16 => Values::F16(vec![f16::ZERO; len]),
            Kept::Blocks(kind) => Values::Blocks(kind, vec![0; kept.bytes(len)]),
        };
        Self { row, values }
    }

    /// How it keeps its numbers.
    pub fn kept(&self) -> Kept {
        match &self.values {
            Values::F32(_) => Kept::F32,
            Values::Bf16(_) => Kept::Bf16,
            Values::F16(_) => Kept::F16,
            Values::Blocks(kind, _) => Kept::Blocks(*kind),
        }
    }

    /// Numbers of a position.
    pub fn row(&self) -> usize {
        self.row
    }

    /// Bytes of its numbers.
    pub fn bytes(&self) -> usize {
        self.kept().bytes(POSITIONS * self.row)
    }

    /// Its numbers, `[POSITIONS, row]`.
    pub fn view(&self) -> MatRef<'_> {
        match &self.values {
            Values::F32(values) => MatRef::F32(values),
            Values::Bf16(values) => MatRef::Bf16(values),
            Values::F16(values) => MatRef::F16(values),
            // Made of whole blocks above.
            Values::Blocks(kind, bytes) => Blocks::new(*kind, bytes).map_or(MatRef::F32(&[]), MatRef::Blocks),
        }
    }

    /// Writes the numbers of whole positions from position `at` on. What is not a number stays that, also in blocks.
    ///
    /// # Panics
    /// If they are not whole positions, or more than there are.
    pub fn write(&mut self, at: usize, numbers: &[f32]) {
        assert!(
            numbers.len().is_multiple_of(self.row.max(1)) && at * self.row + numbers.len() <= POSITIONS * self.row,
            "{} numbers from position {at} on do not fit a page of {POSITIONS} times {}",
            numbers.len(),
            self.row
        );
        let from = at * self.row;
        match &mut self.values {
            Values::F32(values) => values[from..][..numbers.len()].copy_from_slice(numbers),
            Values::Bf16(values) => values[from..][..numbers.len()].convert_from_f32_slice(numbers),
            Values::F16(values) => values[from..][..numbers.len()].convert_from_f32_slice(numbers),
            Values::Blocks(kind, bytes) => {
                let bytes = &mut bytes[Kept::Blocks(*kind).bytes(from)..][..Kept::Blocks(*kind).bytes(numbers.len())];
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
    /// As [`Page::write`].
    pub fn read(&self, at: usize, to: &mut [f32]) {
        let from = at * self.row;
        match &self.values {
            Values::F32(values) => to.copy_from_slice(&values[from..][..to.len()]),
            Values::Bf16(values) => values[from..][..to.len()].convert_to_f32_slice(to),
            Values::F16(values) => values[from..][..to.len()].convert_to_f32_slice(to),
            Values::Blocks(kind, bytes) => {
                let kept = Kept::Blocks(*kind);
                kind.dequantize(&bytes[kept.bytes(from)..][..kept.bytes(to.len())], to);
            }
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

//! Watermarks (Kirchenbauer et al. 2023, 2024): ids that a key and the text before call green are a little likelier, which no
//! reader notices and a count of them does. Here is what is green; the processor `watermark` favours it, the detector counts.
//!
//! What is green comes of the random numbers of PyTorch's CPU generator, as in transformers: texts of either are detected by
//! the other.

mod detector;
mod mersenne;

use crate::{Error, Result};
pub use detector::{Detection, WatermarkDetector};
use mersenne::Mersenne;

/// Which ids before a place decide what is green there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SeedingScheme {
    /// `"lefthash"`: the last one (Kirchenbauer et al. 2023, algorithm 2).
    #[default]
    Left,
    /// `"selfhash"`: the least hash of the last ones and the id itself, which must be tried (algorithm 3). Only the likeliest
    /// 40 are.
    Own,
}

/// A watermark: the key `watermarking_config`, with the names and defaults of transformers.
#[derive(Clone, Debug, PartialEq)]
pub struct WatermarkingConfig {
    /// The share of the vocabulary that is green, between 0 and 1. Default: 0.25.
    pub greenlist_ratio: f64,
    /// What is added to the logit of a green id. Default: 2.
    pub bias: f32,
    /// The secret. Default: 15485863.
    pub hashing_key: i64,
    /// Default: [`SeedingScheme::Left`].
    pub seeding_scheme: SeedingScheme,
    /// Ids that the seed is made of; with [`SeedingScheme::Left`] so many must stand there, and the last counts. Default: 1.
    pub context_width: usize,
}

impl Default for WatermarkingConfig {
    fn default() -> Self {
        let (seeding_scheme, context_width) = (SeedingScheme::Left, 1);
        Self { greenlist_ratio: 0.25, bias: 2., hashing_key: 15_485_863, seeding_scheme, context_width }
    }
}

impl WatermarkingConfig {
    /// Whether all is in range.
    pub(crate) fn checked(self) -> Result<Self> {
        let wrong = |what: String| Err(Error::Settings(format!("watermarking_config: {what}")));
        if !(self.greenlist_ratio > 0. && self.greenlist_ratio < 1.) {
            return wrong(format!(
                "greenlist_ratio: expected a number between 0 and 1, found {}",
                self.greenlist_ratio
            ));
        }
        if !self.bias.is_finite() {
            return wrong(format!("bias: expected a finite number, found {}", self.bias));
        }
        if self.context_width == 0 {
            return wrong("context_width: expected at least 1, found 0".into());
        }
        Ok(self)
    }
}

/// Hashes of ids, a permutation of this many numbers.
const TABLE: usize = 1_000_003;

/// What is green.
#[derive(Clone, Debug)]
pub(crate) struct Green {
    config: WatermarkingConfig,
    /// Hashes, where the scheme has them.
    table: Vec<u32>,
}

impl Green {
    pub fn new(config: &WatermarkingConfig) -> Self {
        let table = match config.seeding_scheme {
            SeedingScheme::Left => vec![],
            SeedingScheme::Own => Mersenne::new(config.hashing_key as u32).permutation(TABLE, TABLE),
        };
        Self { config: config.clone(), table }
    }

    /// The green ids of a vocabulary behind `text`, which with [`SeedingScheme::Own`] ends with the id in question.
    pub fn ids(&self, text: &[u32], vocab: usize) -> Vec<u32> {
        let size = (vocab as f64 * self.config.greenlist_ratio) as usize;
        Mersenne::new(self.seed(text)).permutation(vocab, size)
    }

    /// PyTorch takes the lower 32 bits of a seed, which transformers takes modulo `2^64 - 1`.
    fn seed(&self, text: &[u32]) -> u32 {
        let text = &text[text.len().saturating_sub(self.config.context_width)..];
        let (key, last) = (self.config.hashing_key, text.last().copied().unwrap_or(0));
        let seed = match self.config.seeding_scheme {
            SeedingScheme::Left => i128::from(key) * i128::from(last),
            SeedingScheme::Own => {
                let hash = |id: u32| i64::from(self.table[id as usize % TABLE]) + 1;
                let product = |&id: &u32| key.wrapping_mul(hash(id)).wrapping_mul(hash(last));
                text.iter().map(product).min().unwrap_or(0).into()
            }
        };
        seed.rem_euclid(i128::from(u64::MAX)) as u32
    }
}

#[cfg(test)]
mod tests;

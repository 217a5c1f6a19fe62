//! Whether a text carries a watermark: more of its ids are green than chance allows.

use std::collections::HashMap;

use super::{Green, SeedingScheme, WatermarkingConfig};
use crate::{Error, Result};

/// Counts green ids, as transformers' `WatermarkDetector`.
///
/// ```
/// use phyla_generate::{WatermarkDetector, WatermarkingConfig};
///
/// let detector = WatermarkDetector::new(WatermarkingConfig::default(), 1000)?;
/// let found = detector.detect(&[17, 4, 99, 250, 3, 81], 3.)?;
/// assert_eq!(found.scored, 5);
/// assert!(!found.watermarked);
/// # Ok::<(), phyla_generate::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct WatermarkDetector {
    green: Green,
    vocab: usize,
    bos: Option<u32>,
    once: bool,
}

/// What a detector finds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// Ids, or runs of ids, that were judged.
    pub scored: usize,
    /// Green ones among them.
    pub green: usize,
    /// Standard deviations by which there are more green ones than chance makes (Kirchenbauer et al. 2023, equation 3).
    pub z_score: f64,
    /// How likely so many are by chance.
    pub p_value: f64,
    /// Whether the z-score is above the threshold.
    pub watermarked: bool,
}

impl Detection {
    /// The green share.
    pub fn green_fraction(&self) -> f64 {
        self.green as f64 / self.scored as f64
    }

    /// `1 - p_value`.
    pub fn confidence(&self) -> f64 {
        1. - self.p_value
    }
}

impl WatermarkDetector {
    /// For the settings and the size of the vocabulary (the model's, not the tokenizer's) that texts were made with.
    ///
    /// # Errors
    /// Settings out of range.
    pub fn new(config: WatermarkingConfig, vocab: usize) -> Result<Self> {
        Ok(Self { green: Green::new(&config.checked()?), vocab, bos: None, once: false })
    }

    /// Passes over this id where a text begins with it.
    pub fn after(self, bos: Option<u32>) -> Self {
        Self { bos, ..self }
    }

    /// Counts runs that come again once: repetition cannot pass for a watermark, nor weaken one.
    pub fn counting_once(self, once: bool) -> Self {
        Self { once, ..self }
    }

    /// Judges a text, best without its prompt, by this many standard deviations.
    ///
    /// # Errors
    /// If the text is too short, or has an id outside the vocabulary.
    pub fn detect(&self, ids: &[u32], z_threshold: f64) -> Result<Detection> {
        let ids = match ids {
            [first, rest @ ..] if Some(*first) == self.bos => rest,
            ids => ids,
        };
        let (config, own) = (&self.green.config, usize::from(self.green.config.seeding_scheme == SeedingScheme::Own));
        if ids.len() <= config.context_width {
            return Err(Error::Prompt(format!(
                "the text has {} ids, and to judge one more than context_width {} are needed",
                ids.len(),
                config.context_width
            )));
        }
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.vocab) {
            return Err(Error::Prompt(format!(
                "token id {id} is outside the vocabulary of {}; is this the model's tokenizer?",
                self.vocab
            )));
        }
        let mut runs: HashMap<&[u32], usize> = HashMap::new();
        for run in ids.windows(config.context_width + 1 - own) {
            *runs.entry(run).or_default() += 1;
        }
        // What decides is not the whole run, so runs share their lists of green ids.
        let mut lists: HashMap<&[u32], Vec<u32>> = HashMap::new();
        let (mut scored, mut green) = (0, 0);
        for (run, times) in runs {
            let (Some(last), times) = (run.last(), if self.once { 1 } else { times }) else { continue };
            let before = &run[..run.len() - 1 + own];
            let key = if own == 1 { before } else { &before[before.len() - 1..] };
            let list = lists.entry(key).or_insert_with(|| self.green.ids(before, self.vocab));
            scored += times;
            green += if list.contains(last) { times } else { 0 };
        }
        let (share, n) = (config.greenlist_ratio, scored as f64);
        let z_score = (green as f64 - share * n) / (n * share * (1. - share)).sqrt();
        let p_value = 0.5 * libm::erfc(z_score / std::f64::consts::SQRT_2);
        Ok(Detection { scored, green, z_score, p_value, watermarked: z_score > z_threshold })
    }
}

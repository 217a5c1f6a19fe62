//! Which part of a corpus is for training and which for validation.

use phyla_kernels::rng::Rng;
use serde::{Deserialize, Serialize};

use super::Document;
use crate::error::{Error, Result};

/// How a corpus is divided, and which portion is meant.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Split {
    /// Each document goes to validation with this probability, decided by seed and place in the corpus.
    Documents {
        /// Share of the documents, between 0 and 1.
        validation: f64,
        /// Decides which.
        #[serde(default)]
        seed: u64,
        /// The portion to read.
        portion: Portion,
    },
    /// The last characters of the whole text are for validation, as nanoGPT divides its Shakespeare.
    Characters {
        /// Share of the characters, between 0 and 1.
        validation: f64,
        /// The portion to read.
        portion: Portion,
    },
}

/// One side of a [`Split`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Portion {
    /// For training.
    Train,
    /// For validation.
    Validation,
}

impl Split {
    pub(super) fn check(&self) -> Result<()> {
        let (Self::Documents { validation, .. } | Self::Characters { validation, .. }) = self;
        if *validation > 0.0 && *validation < 1.0 {
            return Ok(());
        }
        Err(Error::Settings(format!("the validation share should lie between 0 and 1, found {validation}")))
    }
}

type Documents<'a> = Box<dyn Iterator<Item = Result<Document>> + 'a>;

/// The documents of one portion. `records` starts a reading of the whole.
pub(super) fn part<'a, I>(split: &Split, records: impl Fn() -> I) -> Result<Documents<'a>>
where
    I: Iterator<Item = Result<Document>> + 'a,
{
    match *split {
        Split::Documents { validation, seed, portion } => {
            let rng = Rng::new(seed).split("validation documents");
            let mut index = 0;
            Ok(Box::new(records().filter(move |record| {
                let Ok(document) = record else { return true };
                let here = index;
                index += u64::from(!document.more);
                (f64::from(rng.uniform_at(here)) < validation) == (portion == Portion::Validation)
            })))
        }
        Split::Characters { validation, portion } => {
            let mut total = 0;
            for record in records() {
                total += record?.text.chars().count();
            }
            let cut = (total as f64 * (1.0 - validation)) as usize;
            let mut seen = 0;
            let sides = records().map(move |record| {
                let mut document = record?;
                let length = document.text.chars().count();
                let here = cut.saturating_sub(seen).min(length);
                seen += length;
                let at = document.text.char_indices().nth(here).map_or(document.text.len(), |(byte, _)| byte);
                match portion {
                    Portion::Train => {
                        document.text.truncate(at);
                        // The cut ends the document that it goes through.
                        document.more &= seen < cut;
                    }
                    Portion::Validation => document.text = document.text.split_off(at),
                }
                Ok(document)
            });
            Ok(Box::new(sides.filter(|record| record.as_ref().map_or(true, |document| !document.text.is_empty()))))
        }
    }
}

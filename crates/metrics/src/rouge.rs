//! ROUGE (Lin 2004): the n-grams (ROUGE-N) or the longest common subsequence (ROUGE-L) that a summary shares with its
//! reference, equal to rouge-score's without stemming.

use serde::Serialize;

use crate::ngrams::{Interner, count, shared};
use crate::{Error, Result};

/// Precision, recall and F1 of one summary, as fractions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Score {
    /// The part of the summary that the reference holds.
    pub precision: f64,
    /// The part of the reference that the summary holds.
    pub recall: f64,
    /// Their harmonic mean.
    pub f1: f64,
}

/// Which ROUGE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rouge {
    /// n-grams of this length.
    N(usize),
    /// The longest common subsequence of the whole texts.
    L,
}

/// The score of a summary against one reference; 0 where either has no words.
///
/// Words are runs of ASCII letters and digits, lower-cased: other scripts have none, as in rouge-score.
///
/// # Errors
/// ROUGE-0.
pub fn score(reference: &str, summary: &str, kind: Rouge) -> Result<Score> {
    let (reference, summary) = (reference.to_lowercase(), summary.to_lowercase());
    let mut interner = Interner::default();
    let reference = interner.ids(tokens(&reference));
    let summary = interner.ids(tokens(&summary));
    match kind {
        Rouge::N(0) => Err(Error::Settings("ROUGE-N: expected n-grams of at least one word, found 0".to_owned())),
        Rouge::N(n) => {
            let length = |ids: &[u32]| (ids.len() + 1).saturating_sub(n) as u64;
            let same = shared(&count(&reference, n), &count(&summary, n));
            Ok(Score::new(same, length(&reference), length(&summary)))
        }
        Rouge::L => {
            Ok(Score::new(common_subsequence(&reference, &summary), reference.len() as u64, summary.len() as u64))
        }
    }
}

/// The score against the reference with the best F1, the first of equals.
///
/// # Errors
/// No references; as [`score`].
pub fn best<T: AsRef<str>>(references: &[T], summary: &str, kind: Rouge) -> Result<Score> {
    let mut best: Option<Score> = None;
    for reference in references {
        let score = score(reference.as_ref(), summary, kind)?;
        if best.is_none_or(|best| score.f1 > best.f1) {
            best = Some(score);
        }
    }
    best.ok_or(Error::Empty { metric: "ROUGE", unit: "reference" })
}

impl Score {
    fn new(same: u64, reference: u64, summary: u64) -> Self {
        if same == 0 {
            return Self::default();
        }
        let (precision, recall) = (same as f64 / summary as f64, same as f64 / reference as f64);
        Self { precision, recall, f1: 2.0 * precision * recall / (precision + recall) }
    }
}

fn tokens(lower: &str) -> impl Iterator<Item = &str> {
    lower.split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit()).filter(|token| !token.is_empty())
}

/// The length of the longest common subsequence; linear in memory.
fn common_subsequence(a: &[u32], b: &[u32]) -> u64 {
    let mut row = vec![0; b.len() + 1];
    for x in a {
        let mut diagonal = 0;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = if x == y { diagonal + 1 } else { above.max(row[j]) };
            diagonal = above;
        }
    }
    row[b.len()]
}

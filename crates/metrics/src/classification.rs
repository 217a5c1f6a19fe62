//! One class per sample: accuracy, confusion matrix, precision and recall, Matthews correlation, top-k accuracy.
//!
//! Equal to scikit-learn's with `zero_division=0`. Several labels per sample are in [`crate::multilabel`].

use std::collections::BTreeMap;

use serde::Serialize;

use crate::error::{mean, same_length};
use crate::{Averages, Counts, Error, Result, Scores};

/// The part of predictions that equal their reference: of classes, of strings (exact match), of anything.
///
/// # Errors
/// Lists of different lengths, and empty ones.
pub fn accuracy<T: PartialEq<U>, U>(references: &[T], predictions: &[U]) -> Result<f64> {
    same_length("predictions", references.len(), predictions.len())?;
    let right = references.iter().zip(predictions).filter(|(reference, prediction)| reference == prediction).count();
    mean(right as f64, references.len() as u64, "accuracy", "sample")
}

/// How often each class was taken for each: the source of all scores of a classifier.
///
/// Stored sparsely, so that a vocabulary of classes costs no square of it.
#[derive(Debug, Clone, Default)]
pub struct ConfusionMatrix {
    cells: BTreeMap<(usize, usize), u64>,
    counts: Vec<Counts>,
    samples: u64,
}

/// Which classes have a row and a part in the averages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Classes {
    /// Those that occur among references or predictions: what scikit-learn does when not told the labels.
    #[default]
    Seen,
    /// All; a class that never occurs scores 0, which lowers the macro average.
    All,
}

/// Scores of each class and over all.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The part of right predictions.
    pub accuracy: f64,
    /// Class and scores, by rising class.
    pub classes: Vec<(usize, Scores)>,
    /// Micro, macro and weighted average over these classes.
    #[serde(flatten)]
    pub averages: Averages,
}

impl ConfusionMatrix {
    /// A matrix for classes `0..classes`, all zero.
    pub fn new(classes: usize) -> Self {
        Self { cells: BTreeMap::new(), counts: vec![Counts::default(); classes], samples: 0 }
    }

    /// Counts one sample.
    ///
    /// # Errors
    /// A class that is not below the number of classes.
    pub fn add(&mut self, reference: usize, prediction: usize) -> Result<()> {
        self.check("reference", reference)?;
        self.check("prediction", prediction)?;
        self.put(reference, prediction, 1);
        Ok(())
    }

    /// Counts a batch of samples; all or, on an error, none.
    ///
    /// # Errors
    /// As [`Self::add`], and lists of different lengths.
    pub fn extend(&mut self, references: &[usize], predictions: &[usize]) -> Result<()> {
        same_length("predictions", references.len(), predictions.len())?;
        references.iter().try_for_each(|&class| self.check("reference", class))?;
        predictions.iter().try_for_each(|&class| self.check("prediction", class))?;
        for (&reference, &prediction) in references.iter().zip(predictions) {
            self.put(reference, prediction, 1);
        }
        Ok(())
    }

    /// Adds the counts of another part of the data.
    ///
    /// # Errors
    /// A matrix of another number of classes.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.counts.len() != other.counts.len() {
            let (ours, theirs) = (self.counts.len(), other.counts.len());
            return Err(Error::Input(format!("confusion matrix: expected {ours} classes, found {theirs}")));
        }
        for (&(reference, prediction), &count) in &other.cells {
            self.put(reference, prediction, count);
        }
        Ok(())
    }

    /// How often `reference` was taken for `prediction`.
    pub fn count(&self, reference: usize, prediction: usize) -> u64 {
        self.cells.get(&(reference, prediction)).copied().unwrap_or_default()
    }

    /// All counts `[classes, classes]`: a row for each reference class, a column for each predicted one.
    pub fn rows(&self) -> Vec<Vec<u64>> {
        let classes = 0..self.counts.len();
        classes.clone().map(|row| classes.clone().map(|column| self.count(row, column)).collect()).collect()
    }

    /// The part of right predictions.
    ///
    /// # Errors
    /// No samples.
    pub fn accuracy(&self) -> Result<f64> {
        mean(self.hits() as f64, self.samples, "accuracy", "sample")
    }

    /// The scores of one class against all others; with two classes, `binary(1)` is the usual F1.
    ///
    /// # Errors
    /// A class that is not below the number of classes.
    pub fn binary(&self, positive: usize) -> Result<Scores> {
        self.check("positive class", positive)?;
        Ok(self.counts[positive].scores())
    }

    /// Scores of each class and their averages.
    ///
    /// # Errors
    /// No samples.
    pub fn report(&self, classes: Classes) -> Result<Report> {
        let chosen = || {
            let seen = |counts: &Counts| classes == Classes::All || counts.predicted + counts.actual > 0;
            self.counts.iter().enumerate().filter(move |(_, counts)| seen(counts))
        };
        Ok(Report {
            accuracy: self.accuracy()?,
            classes: chosen().map(|(class, counts)| (class, counts.scores())).collect(),
            averages: Averages::over(chosen().map(|(_, counts)| *counts)),
        })
    }

    /// Matthews correlation coefficient in -1..=1, over any number of classes (Gorodkin 2004, R_K).
    ///
    /// 0 when either side is constant, by the convention of scikit-learn.
    ///
    /// # Errors
    /// No samples.
    pub fn matthews(&self) -> Result<f64> {
        mean(0.0, self.samples, "Matthews correlation", "sample")?;
        // Whole numbers: the differences below cancel nearly all digits when one class dominates.
        let (mut both, mut predicted, mut actual) = (0i128, 0i128, 0i128);
        for counts in &self.counts {
            let (p, a) = (i128::from(counts.predicted), i128::from(counts.actual));
            both += p * a;
            predicted += p * p;
            actual += a * a;
        }
        let samples = i128::from(self.samples);
        let covariance = i128::from(self.hits()) * samples - both;
        let variances = [samples * samples - predicted, samples * samples - actual];
        if variances.contains(&0) {
            return Ok(0.0);
        }
        Ok(covariance as f64 / (variances[0] as f64 * variances[1] as f64).sqrt())
    }

    fn hits(&self) -> u64 {
        self.counts.iter().map(|counts| counts.hits).sum()
    }

    fn put(&mut self, reference: usize, prediction: usize, times: u64) {
        *self.cells.entry((reference, prediction)).or_default() += times;
        self.counts[reference].actual += times;
        self.counts[prediction].predicted += times;
        if reference == prediction {
            self.counts[reference].hits += times;
        }
        self.samples += times;
    }

    fn check(&self, what: &str, class: usize) -> Result<()> {
        let classes = self.counts.len();
        if class < classes {
            return Ok(());
        }
        Err(Error::Input(format!("{what}: expected a class below {classes}, found {class}")))
    }
}

/// True when `reference` is among the `k` best scores.
///
/// Of equal scores the higher class wins, as in scikit-learn, so that a constant row is no hit for class 0.
///
/// # Errors
/// `k` of 0, a class without a score, a score that is not a number.
pub fn is_in_top(scores: &[f32], reference: usize, k: usize) -> Result<bool> {
    if k == 0 {
        return Err(Error::Settings("top-k accuracy: expected k of at least 1, found 0".to_owned()));
    }
    if let Some(class) = scores.iter().position(|score| score.is_nan()) {
        return Err(Error::Input(format!("top-k accuracy: the score of class {class} is not a number")));
    }
    let Some(&own) = scores.get(reference) else {
        let classes = scores.len();
        return Err(Error::Input(format!("reference: expected a class below {classes}, found {reference}")));
    };
    let better = |(class, &score): (usize, &f32)| score > own || (score == own && class > reference);
    Ok(scores.iter().enumerate().filter(|&entry| better(entry)).count() < k)
}

/// The part of samples whose class is among the `k` best of their row of `scores`, `[samples, classes]`.
///
/// # Errors
/// As [`is_in_top`]; no samples; scores that are not `classes` for each reference.
pub fn top_k_accuracy(scores: &[f32], classes: usize, references: &[usize], k: usize) -> Result<f64> {
    same_length("scores (samples x classes)", references.len().saturating_mul(classes), scores.len())?;
    if classes == 0 {
        return Err(Error::Input("top-k accuracy: expected at least one class, found 0".to_owned()));
    }
    let mut hits = 0u64;
    for (row, &reference) in scores.chunks(classes).zip(references) {
        hits += u64::from(is_in_top(row, reference, k)?);
    }
    mean(hits as f64, references.len() as u64, "top-k accuracy", "sample")
}

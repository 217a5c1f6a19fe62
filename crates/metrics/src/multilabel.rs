//! Any number of labels per sample: F1 over labels and over samples, and the part of samples with every label right.
//!
//! Equal to scikit-learn's with `zero_division=0`. One class per sample is in [`crate::classification`].

use serde::Serialize;

use crate::error::{mean, same_length};
use crate::{Averages, Counts, Result, Scores};

/// What is counted of samples that have any number of labels each.
#[derive(Debug, Clone, Default)]
pub struct MultiLabel {
    counts: Vec<Counts>,
    by_sample: Scores,
    exact: u64,
    samples: u64,
}

/// Scores of each label and over all.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The part of samples with every label right.
    pub subset_accuracy: f64,
    /// Scores of each label.
    pub labels: Vec<Scores>,
    /// Micro, macro and weighted average over labels.
    #[serde(flatten)]
    pub averages: Averages,
    /// The mean of each sample's own scores; a sample without labels, rightly seen as such, scores 0 there.
    pub samples: Scores,
}

impl MultiLabel {
    /// Counts for `labels` labels, all zero.
    pub fn new(labels: usize) -> Self {
        Self { counts: vec![Counts::default(); labels], ..Self::default() }
    }

    /// Counts one sample: for each label whether it applies, and whether it was predicted.
    ///
    /// # Errors
    /// Lists whose length is not the number of labels.
    pub fn add(&mut self, reference: &[bool], prediction: &[bool]) -> Result<()> {
        same_length("labels of a reference", self.counts.len(), reference.len())?;
        same_length("labels of a prediction", self.counts.len(), prediction.len())?;
        let mut own = Counts::default();
        for ((counts, &actual), &predicted) in self.counts.iter_mut().zip(reference).zip(prediction) {
            let one = Counts {
                hits: u64::from(actual && predicted),
                predicted: u64::from(predicted),
                actual: u64::from(actual),
            };
            *counts += one;
            own += one;
        }
        self.by_sample.add(own.scores(), 1.0);
        self.exact += u64::from(reference == prediction);
        self.samples += 1;
        Ok(())
    }

    /// All scores.
    ///
    /// # Errors
    /// No samples.
    pub fn report(&self) -> Result<Report> {
        Ok(Report {
            subset_accuracy: mean(self.exact as f64, self.samples, "subset accuracy", "sample")?,
            labels: self.counts.iter().map(|counts| counts.scores()).collect(),
            averages: Averages::over(self.counts.iter().copied()),
            samples: self.by_sample.divided(self.samples as f64),
        })
    }
}

//! Exact match and F1 of Chinese answers as CMRC 2018 scores them (Cui et al. 2019).
//!
//! Unlike SQuAD's, F1 depends on order: it counts the longest *run* of segments both answers share, where a segment is
//! a Chinese character or an English word.

mod segment;

use serde::Serialize;

use crate::error::mean;
use crate::{Error, Result};

pub use segment::segments;

/// Means over questions, in percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Report {
    /// Questions answered exactly, punctuation aside.
    pub exact: f64,
    /// Mean F1.
    pub f1: f64,
    /// The mean of the two, by which the task ranks.
    pub average: f64,
    /// Questions.
    pub total: u64,
}

/// Scores over a data set, question by question.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cmrc {
    exact: u64,
    f1: f64,
    total: u64,
}

impl Cmrc {
    /// Counts one question with all its accepted answers, of which the best counts.
    ///
    /// # Errors
    /// A question without answers.
    pub fn add<T: AsRef<str>>(&mut self, answers: &[T], prediction: &str) -> Result<()> {
        if answers.is_empty() {
            return Err(Error::Input("CMRC: expected at least one answer, found none".to_owned()));
        }
        let mut best = 0.0f64;
        for answer in answers {
            best = best.max(f1(answer.as_ref(), prediction)?);
        }
        self.f1 += best;
        self.exact += u64::from(answers.iter().any(|answer| exact_match(answer.as_ref(), prediction)));
        self.total += 1;
        Ok(())
    }

    /// Counts a question for which there is no prediction: it scores 0.
    pub fn skip(&mut self) {
        self.total += 1;
    }

    /// All scores.
    ///
    /// # Errors
    /// No questions.
    pub fn report(&self) -> Result<Report> {
        let percent = |sum: f64| mean(100.0 * sum, self.total, "CMRC", "question");
        let (exact, f1) = (percent(self.exact as f64)?, percent(self.f1)?);
        Ok(Report { exact, f1, average: (exact + f1) * 0.5, total: self.total })
    }
}

/// Whether the two are equal but for case and punctuation.
pub fn exact_match(answer: &str, prediction: &str) -> bool {
    segment::plain(answer) == segment::plain(prediction)
}

/// F1 of the longest run of segments that both answers hold; 0 when they hold none, even if both are empty.
///
/// # Errors
/// A text on which [`segments`] gives up.
pub fn f1(answer: &str, prediction: &str) -> Result<f64> {
    let (answer, prediction) = (segments(answer)?, segments(prediction)?);
    let run = longest_run(&answer, &prediction);
    Ok(if run == 0 { 0.0 } else { 2.0 * run as f64 / (answer.len() + prediction.len()) as f64 })
}

/// The length of the longest run that two lists share; linear in memory.
fn longest_run<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    // ending[j]: the longest shared run that ends with the current item of `a` and b[j - 1].
    let mut ending = vec![0; b.len() + 1];
    let mut longest = 0;
    for item in a {
        for (j, other) in b.iter().enumerate().rev() {
            ending[j + 1] = if item == other { ending[j] + 1 } else { 0 };
            longest = longest.max(ending[j + 1]);
        }
    }
    longest
}

//! Precision, recall and F1 from counts, and their three averages: what classes, labels and entities share.

use serde::Serialize;

/// What is counted of one class, label or entity type.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Predicted and right (true positives).
    pub hits: u64,
    /// Predicted, right or wrong.
    pub predicted: u64,
    /// There to be found.
    pub actual: u64,
}

/// Precision, recall and F1 as fractions; a division by zero counts as 0 (`zero_division=0`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Scores {
    /// hits / predicted.
    pub precision: f64,
    /// hits / actual.
    pub recall: f64,
    /// 2 hits / (predicted + actual), the harmonic mean of the two.
    pub f1: f64,
    /// How many there were to be found.
    pub support: u64,
}

/// The usual averages over classes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Averages {
    /// Scores of the summed counts: every instance weighs the same.
    pub micro: Scores,
    /// The mean of the scores: every class weighs the same.
    #[serde(rename = "macro")]
    pub macro_: Scores,
    /// The mean of the scores weighted by support; its F1 need not lie between its precision and its recall.
    pub weighted: Scores,
}

impl Counts {
    /// The scores of these counts.
    pub fn scores(self) -> Scores {
        Scores {
            precision: ratio(self.hits as f64, self.predicted as f64),
            recall: ratio(self.hits as f64, self.actual as f64),
            f1: ratio(2.0 * self.hits as f64, (self.predicted + self.actual) as f64),
            support: self.actual,
        }
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.hits += other.hits;
        self.predicted += other.predicted;
        self.actual += other.actual;
    }
}

impl Averages {
    /// The averages over the given classes; all zero when there are none.
    pub fn over(counts: impl IntoIterator<Item = Counts>) -> Self {
        let (mut sum, mut classes) = (Counts::default(), 0u64);
        let (mut plain, mut weighted) = (Scores::default(), Scores::default());
        for counts in counts {
            sum += counts;
            classes += 1;
            plain.add(counts.scores(), 1.0);
            weighted.add(counts.scores(), counts.actual as f64);
        }
        Self {
            micro: sum.scores(),
            macro_: plain.divided(classes as f64),
            weighted: weighted.divided(sum.actual as f64),
        }
    }
}

impl Scores {
    /// Adds `weight` times the other scores, and their support once.
    pub(crate) fn add(&mut self, other: Self, weight: f64) {
        self.precision += weight * other.precision;
        self.recall += weight * other.recall;
        self.f1 += weight * other.f1;
        self.support += other.support;
    }

    /// Divides the scores, not the support.
    pub(crate) fn divided(self, by: f64) -> Self {
        Self { precision: ratio(self.precision, by), recall: ratio(self.recall, by), f1: ratio(self.f1, by), ..self }
    }
}

/// `a / b`, and 0 where nothing is divided by nothing.
fn ratio(a: f64, b: f64) -> f64 {
    if b == 0.0 { 0.0 } else { a / b }
}

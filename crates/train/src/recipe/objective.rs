//! `[objective]`: what training minimises.

use serde::{Deserialize, Serialize};

/// The quantity that is minimised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Next-token prediction.
    Lm(Lm),
}

/// Cross-entropy of the next token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lm {
    /// Probability spread evenly over the vocabulary ("Attention is all you need", section 5.4).
    /// Validation loss is always measured without it.
    pub label_smoothing: f64,
}

impl Objective {
    /// Probability spread evenly over all classes, in training.
    #[must_use]
    pub fn label_smoothing(&self) -> f64 {
        let Self::Lm(lm) = self;
        lm.label_smoothing
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let Self::Lm(lm) = self;
        if !(0.0..1.0).contains(&lm.label_smoothing) {
            problems.push(format!(
                "`objective.label_smoothing` is {}; expected at least 0 and below 1",
                lm.label_smoothing
            ));
        }
    }
}

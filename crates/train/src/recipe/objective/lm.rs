//! `[objective] kind = "lm"`: the next token; rows are cut as `[data]` says.

use serde::{Deserialize, Serialize};

/// Cross-entropy of the next token.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Lm {
    /// Probability spread evenly over the vocabulary ("Attention is all you need", section 5.4).
    /// Validation loss is always measured without it.
    pub label_smoothing: f64,
}

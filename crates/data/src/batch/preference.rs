//! What the rows of a batch are to each other when completions are compared, or judged one by one.

use super::Batch;

/// The first half of the rows are the preferred completions, the second half the others, of the same prompts in the same
/// order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Pairs {
    /// `[batch]`: log-probabilities under a reference, where there is one.
    pub reference: Option<Vec<f32>>,
    /// `[batch / 2]`: by how much the first is better, where that is known.
    pub margins: Option<Vec<f32>>,
    /// Whether the likelihood of the preferred rows is that of their prompts too (ORPO).
    pub whole: bool,
}

/// Each row is a completion that is good or not.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Judged {
    /// `[batch]`.
    pub desirable: Vec<bool>,
    /// `[batch]`: log-probabilities under a reference, where there is one.
    pub reference: Option<Vec<f32>>,
    /// The same prompts with completions of others, to tell how far a model is from its reference.
    pub mismatched: Option<Box<Batch>>,
}

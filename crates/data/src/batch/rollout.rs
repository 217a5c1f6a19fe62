//! What is known of completions that the model in training wrote itself, when it learns from them.

/// Each row is a prompt with such a completion; the numbers stand beside the tokens of completions, row after row,
/// `[counted]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Played {
    /// Log-probabilities under the model that wrote them.
    pub old: Vec<f32>,
    /// Log-probabilities under the reference; empty without one.
    pub reference: Vec<f32>,
    /// By how much each token is better than what was expected.
    pub advantages: Vec<f32>,
    /// What the value head expected; empty without one.
    pub values: Vec<f32>,
    /// What came instead; empty without a value head.
    pub returns: Vec<f32>,
    /// `[batch]`: rows that count as if they had no tokens: they never came to their end.
    pub left_out: Vec<bool>,
    /// Tokens of an update, in the mean over all updates of the same roll-outs.
    pub tokens_per_update: f32,
}

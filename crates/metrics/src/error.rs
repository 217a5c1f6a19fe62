//! The one error type of this crate: inputs that do not fit together, and metrics that have no value for them.

/// Why a metric cannot be computed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// Two lists that belong together differ in length.
    #[error("{what}: expected {expected}, as many as there are references, found {found}")]
    Length {
        /// The list that does not fit.
        what: &'static str,
        /// The length of what it belongs to.
        expected: usize,
        /// Its length.
        found: usize,
    },
    /// There is nothing to take a mean over.
    #[error("{metric}: nothing to score; at least one {unit} is needed")]
    Empty {
        /// The metric.
        metric: &'static str,
        /// What it is a mean over.
        unit: &'static str,
    },
    /// The inputs are well formed but the metric has no value for them.
    #[error("{metric} is undefined: {reason}")]
    Undefined {
        /// The metric.
        metric: &'static str,
        /// What the metric divides by, and why that is nothing here.
        reason: String,
    },
    /// An input is not what it should be: a class out of range, a score that is no number, an unknown tag.
    #[error("{0}")]
    Input(String),
    /// Settings that contradict each other or lie out of range.
    #[error("{0}")]
    Settings(String),
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Refuses lists of different lengths.
pub(crate) fn same_length(what: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found { Ok(()) } else { Err(Error::Length { what, expected, found }) }
}

/// The mean of `count` values, or the error that names what is missing.
pub(crate) fn mean(sum: f64, count: u64, metric: &'static str, unit: &'static str) -> Result<f64> {
    if count == 0 { Err(Error::Empty { metric, unit }) } else { Ok(sum / count as f64) }
}

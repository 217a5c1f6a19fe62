//! Why nothing can be generated.

/// What went wrong, so that a caller can tell a user's mistake from a failure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting out of its range, or `generation_config.json` that does not parse.
    #[error("{0}")]
    Settings(String),
    /// A prompt that this model cannot take.
    #[error("{0}")]
    Prompt(String),
    /// Logits that no choice can be made from.
    #[error("{0}")]
    Logits(String),
    /// An engine that answers many requests: it has ended, or a pass over several of them failed.
    #[error("{0}")]
    Engine(String),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] phyla_data::Error),
    /// A tensor operation.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// Whether other settings or another prompt would help: a mistake of the user's rather than a failure.
    pub fn is_users(&self) -> bool {
        matches!(self, Self::Settings(_) | Self::Prompt(_))
    }
}

/// A result with this crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

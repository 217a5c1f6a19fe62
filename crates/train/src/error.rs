//! What can end a training run early.

use std::path::PathBuf;

use phyla_data::batch::Batch;
use phyla_models::LoadError;
use phyla_models::checkpoint::CheckpointError;

use crate::rundir::RunDirError;

/// Why a run could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The recipe.
    #[error(transparent)]
    Recipe(#[from] crate::recipe::RecipeError),
    /// The text, the tokenizer or the batches.
    #[error(transparent)]
    Data(#[from] phyla_data::Error),
    /// The model's configuration or weights.
    #[error(transparent)]
    Model(#[from] phyla_models::LoadError),
    /// The configuration of a model from scratch.
    #[error(transparent)]
    Config(#[from] phyla_models::ConfigError),
    /// The run folder.
    #[error(transparent)]
    RunDir(#[from] crate::rundir::RunDirError),
    /// A checkpoint's files.
    #[error(transparent)]
    Checkpoint(#[from] phyla_models::checkpoint::CheckpointError),
    /// The metrics file.
    #[error(transparent)]
    Metrics(#[from] crate::metrics::MetricsError),
    /// A tensor operation.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// Texts that the model writes while it learns.
    #[error(transparent)]
    Generate(#[from] phyla_generate::Error),
    /// A metric of the validation data.
    #[error("metrics of the validation data: {0}")]
    Scores(#[from] phyla_metrics::Error),
    /// A path pattern of the recipe.
    #[error(transparent)]
    Pattern(#[from] phyla_nn::pattern::PatternError),
    /// A file that is written along the way.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A judge of completions that fails, or that says what is no reward.
    #[error("reward `{name}`: {what}")]
    Reward {
        /// The judge.
        name: String,
        /// What it did, and what was expected.
        what: String,
    },
    /// Settings that do not fit the model or the data.
    #[error("{0}")]
    Settings(String),
    /// A resumed run whose state does not fit.
    #[error("cannot resume from {}: {reason}", path.display())]
    Resume {
        /// The checkpoint.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// A resumed run with another recipe.
    #[error(
        "cannot resume {}: the recipe has changed since the run began, and its checkpoints do not fit: {}; change it \
         back, or begin a new run with another `output`",
        path.display(), differences.join("; ")
    )]
    Changed {
        /// The run folder.
        path: PathBuf,
        /// `key: old -> new`.
        differences: Vec<String>,
    },
    /// Training has diverged, or the data or the arithmetic is broken.
    #[error(
        "step {step}: the {what} is {value}; the weights are those of step {}, the last checkpoint is intact. \
         Micro-batch {micro}: {rows} rows of {time} tokens, the first begins with ids {ids:?}. Learning rate {lr:.3e}: \
         try a lower one, a longer warm-up or a smaller `optim.clip`; if it happens at the first step, look at the data",
        step - 1
    )]
    NotFinite {
        /// Loss or gradient norm.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The step that was not made.
        step: u64,
        /// Which micro-batch of the step.
        micro: usize,
        /// Rows of the micro-batch.
        rows: usize,
        /// Tokens of a row.
        time: usize,
        /// The first ids of its first row.
        ids: Vec<u32>,
        /// The learning rate.
        lr: f64,
    },
    /// What the run has made of the weights is no number any more.
    #[error(
        "step {step}: {what}; no checkpoint of this step is written, the last one is intact. Try a learning rate below \
         {lr:.3e} or a longer warm-up"
    )]
    Diverged {
        /// What is not finite.
        what: String,
        /// The step that was made.
        step: u64,
        /// The learning rate.
        lr: f64,
    },
    /// A step without a single target.
    #[error("step {step}: no token of the batch is a target; is every document one token long?")]
    EmptyBatch {
        /// The step.
        step: u64,
    },
}

impl TrainError {
    pub(crate) fn not_finite(what: &'static str, value: f64, step: u64, micro: usize, batch: &Batch, lr: f64) -> Self {
        let ids = batch.ids.iter().take(batch.time.min(16)).copied().collect();
        Self::NotFinite { what, value, step, micro, rows: batch.batch, time: batch.time, ids, lr }
    }

    /// Whether the user's input is at fault, not the machine or the run.
    pub fn is_users(&self) -> bool {
        match self {
            Self::Recipe(_) | Self::Config(_) | Self::Pattern(_) | Self::Settings(_) | Self::Changed { .. } => true,
            Self::Data(phyla_data::Error::Io { source, .. }) => given_wrongly(source),
            Self::Data(_) => true,
            Self::Model(LoadError::Config(_) | LoadError::Weights(_)) => true,
            Self::Model(LoadError::Checkpoint(error)) | Self::Checkpoint(error) => checkpoint(error),
            Self::RunDir(RunDirError::Busy { .. } | RunDirError::Occupied { .. }) => true,
            Self::RunDir(RunDirError::Write(error)) => checkpoint(error),
            Self::RunDir(RunDirError::Io { source, .. }) | Self::Write { source, .. } => given_wrongly(source),
            _ => false,
        }
    }
}

fn checkpoint(error: &CheckpointError) -> bool {
    match error {
        CheckpointError::Io { source, .. } | CheckpointError::Map(source) => given_wrongly(source),
        // What a writer was handed came from us.
        CheckpointError::InvalidTensor { .. } => false,
        _ => true,
    }
}

/// A path that is not there or may not be used, and not a disk that is full or fails.
fn given_wrongly(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::NotFound | Kind::IsADirectory | Kind::NotADirectory | Kind::PermissionDenied | Kind::InvalidInput
    )
}

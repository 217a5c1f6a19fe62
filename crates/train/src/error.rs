//! What can end a training run early.

use std::path::PathBuf;

use phyla_data::batch::Batch;

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
        use phyla_models::LoadError;
        matches!(
            self,
            Self::Recipe(_) | Self::Data(_) | Self::Config(_) | Self::Pattern(_) | Self::Settings(_) | Self::RunDir(_)
        ) || matches!(self, Self::Model(LoadError::Config(_) | LoadError::Weights(_) | LoadError::Checkpoint(_)))
    }
}

//! Every branch of the transformer family tree in one toolkit: load, forward, generate, train.
//!
//! [`Session`] opens a model; [`train`] runs a recipe. Everything below them is in the crates re-exported here.
//!
//! ```
//! use phyla::{GenerationConfig, Input, Recipe, Session, TrainOptions};
//!
//! # let folder = std::env::temp_dir().join(format!("phyla-doc-{}", std::process::id()));
//! // Train: a recipe is a TOML file; this one makes its own text, tokenizer and weights.
//! let recipe = r#"
//!     model = { model_type = "llama", hidden_size = 32, intermediate_size = 64, num_hidden_layers = 1,
//!               num_attention_heads = 2, max_position_embeddings = 64 }
//!     tokenizer = { kind = "bpe", vocab_size = 300 }
//!     data = { kind = "stories", bytes = 20_000, max_len = 32 }
//!     optim = { lr = 1e-3 }
//!     train = { steps = 3, batch = 2 }
//! "#;
//! let overrides = [format!("output={:?}", folder.join("run"))];
//! let recipe = Recipe::parse("tiny.toml", recipe, &overrides)?;
//! let summary = phyla::train(&recipe, &TrainOptions { quiet: true, ..TrainOptions::default() })?;
//!
//! // Load what was trained; any Hugging Face folder or hub id opens the same way.
//! let folder = summary.model.expect("the run came to its end");
//! let session = Session::open(&folder.to_string_lossy())?;
//!
//! // Forward: logits of a batch.
//! let output = session.forward(&Input::row(&[5, 6, 7]))?;
//! assert_eq!(output.get("logits").map(|logits| logits.dims()), Some(&[1, 3, 300][..]));
//!
//! // Generate.
//! let settings = GenerationConfig { max_new_tokens: Some(8), temperature: Some(0.8), ..GenerationConfig::default() };
//! let text = session.generate("One day,", settings, 42)?;
//! println!("One day,{text}");
//! # std::fs::remove_dir_all(folder.parent().unwrap().parent().unwrap())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod cot;
pub mod device;
pub mod evaluate;
pub mod explain;
mod export;
mod session;
pub mod task;

pub use phyla_data as data;
pub use phyla_generate as generate;
pub use phyla_metrics as metrics;
pub use phyla_models as models;
pub use phyla_nn as nn;
pub use phyla_ops as ops;

pub use export::to_gguf;
pub use phyla_data::tokenizer::Tokenizer;
pub use phyla_generate::GenerationConfig;
pub use phyla_models::{Input, Model};
pub use phyla_train::recipe::Recipe;
pub use phyla_train::{Options as TrainOptions, Summary, TrainError, train};
pub use session::{AdapterFolder, Assistant, OpenOptions, Output, Session, adapt};
pub use task::{embed, predict};

/// Why a [`Session`] could not be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder or hub id.
    #[error(transparent)]
    Hub(#[from] phyla_models::hub::HubError),
    /// The weights or their configuration.
    #[error(transparent)]
    Load(#[from] phyla_models::LoadError),
    /// The tokenizer.
    #[error(transparent)]
    Data(#[from] phyla_data::Error),
    /// The generation settings, or the prompt.
    #[error(transparent)]
    Generate(#[from] phyla_generate::Error),
    /// A tensor operation, or the device.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
    /// A metric that has no value for what it was given.
    #[error(transparent)]
    Metric(#[from] phyla_metrics::Error),
    /// A model that is for something else, or inputs that do not fit it.
    #[error("{0}")]
    Task(String),
    /// Text was given to a model without a tokenizer.
    #[error("the model's folder has no tokenizer: give ids, or put its tokenizer.json there")]
    NoTokenizer,
}

/// The README's example, so that it is compiled and run as a doc test.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
pub struct Readme;

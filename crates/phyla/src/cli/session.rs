//! A model ready to write: weights, tokenizer and generation settings from one folder.

use std::path::Path;
use std::time::{Duration, Instant};

use phyla::device::Choice;
use phyla_data::tokenizer::Tokenizer;
use phyla_generate::GenerationConfig;
use phyla_models::Model;

use super::model::{self, Dtype};

pub struct Session {
    pub model: Model,
    /// Absent in folders without tokenizer files, which answer in ids alone.
    pub tokenizer: Option<Tokenizer>,
    /// The model's settings under the user's.
    pub config: GenerationConfig,
    /// Time to load all of it.
    pub load: Duration,
}

impl Session {
    pub fn open(reference: &str, device: Choice, dtype: Dtype, user: GenerationConfig) -> anyhow::Result<Self> {
        let start = Instant::now();
        let folder = model::folder(reference)?;
        let model = model::open(&folder.to_string_lossy(), device, dtype)?;
        let tokenizer = if has_tokenizer(&folder) { Some(Tokenizer::load(&folder)?) } else { None };
        let (config, warnings) = GenerationConfig::load(&folder, &model.config)?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        Ok(Self { model, tokenizer, config: config.merge(user), load: start.elapsed() })
    }
}

/// Whether the folder means to have a tokenizer: a broken one is then an error, not silence.
fn has_tokenizer(folder: &Path) -> bool {
    ["tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt"]
        .iter()
        .any(|name| folder.join(name).exists())
}

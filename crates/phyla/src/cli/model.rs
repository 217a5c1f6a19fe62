//! What commands that run a model ask for: which one, where, in which type of numbers.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use candle_core::{DType, Device};
use clap::ValueEnum;
use phyla::device::Choice;
use phyla::{OpenOptions, Session};
use phyla_models::hub::Hub;
use phyla_models::{LoadOptions, Model, load};

/// A type of numbers by its name; each command says what `auto` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    Auto,
    F32,
    Bf16,
    F16,
}

impl Dtype {
    /// The type asked for; `None` for `auto`.
    pub fn wanted(self) -> Option<DType> {
        match self {
            Self::Auto => None,
            Self::F32 => Some(DType::F32),
            Self::Bf16 => Some(DType::BF16),
            Self::F16 => Some(DType::F16),
        }
    }
}

/// The name of a type as the options spell it.
pub fn name(dtype: DType) -> &'static str {
    dtype.as_str()
}

/// Opens a device; an error says which this build and machine have not.
pub fn device(choice: Choice) -> anyhow::Result<Device> {
    choice.open().with_context(|| format!("device `{choice}` cannot be used"))
}

/// The folder that a path or a hub id means.
pub fn folder(reference: &str) -> anyhow::Result<PathBuf> {
    Ok(Hub::from_env().resolve(reference)?)
}

/// Loads a model and says what is odd about it.
pub fn open(reference: &str, device: Choice, dtype: Dtype) -> anyhow::Result<Model> {
    let start = Instant::now();
    let options = LoadOptions { device: self::device(device)?, dtype: dtype.wanted(), ..LoadOptions::default() };
    let (model, report) = load(&folder(reference)?, &options)?;
    for warning in &report.warnings {
        tracing::warn!("{warning}");
    }
    tracing::debug!(
        "loaded {} weights in {:.1?}, {} bytes of them in place",
        model.count(),
        start.elapsed(),
        report.mapped_bytes
    );
    Ok(model)
}

/// Opens a model with its tokenizer and generation settings, and says what is odd about it.
pub fn session(reference: &str, device: Choice, dtype: Dtype) -> anyhow::Result<Session> {
    let session = Session::open_with(reference, OpenOptions { device, dtype: dtype.wanted() })?;
    for warning in &session.warnings {
        tracing::warn!("{warning}");
    }
    Ok(session)
}

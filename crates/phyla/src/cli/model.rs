//! What commands that run a model ask for: which one, where, in which type of numbers.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use candle_core::{DType, Device};
use clap::ValueEnum;
use phyla::device::Choice;
use phyla::{AdapterFolder, OpenOptions, Session, adapt};
use phyla_models::hub::Hub;
use phyla_models::{LoadOptions, Model, Quantize, load};

use super::error::usage;

/// A type of numbers by its name; each command says what `auto` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    Auto,
    F32,
    Bf16,
    F16,
    Int8,
}

impl Dtype {
    /// The type asked for; `None` for `auto`.
    pub fn wanted(self) -> Option<DType> {
        match self {
            // Nobody's type: how matrices are quantised, see `quantize`.
            Self::Auto | Self::Int8 => None,
            Self::F32 => Some(DType::F32),
            Self::Bf16 => Some(DType::BF16),
            Self::F16 => Some(DType::F16),
        }
    }
}

/// What changes the model beside its weights.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct AdapterArgs {
    /// An adapter's folder, as peft or `phyla train` writes it; what several add (repeat it) is added up. With a name,
    /// lines of `generate --input` can choose it
    #[arg(long = "adapter", value_name = "[NAME=]DIR")]
    pub adapters: Vec<AdapterFolder>,
}

/// Into how few bits the weights are put on loading.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct QuantizeArgs {
    /// Quantise the matrices on loading: int8 (as --dtype int8) for the linear maps of the layers, with activations in
    /// bytes; nf4 (of QLoRA) for the same maps; embeddings too in llama.cpp's kinds and mixtures: q8_0, q6_k, q5_k_m,
    /// q4_k_m, q4_0, iq4_xs, q3_k_m, q2_k, … (a wrong name lists all)
    #[arg(long, value_name = "KIND")]
    pub quantize: Option<Quantize>,
}

/// What becomes of matrices on loading.
///
/// # Errors
/// `--dtype int8` beside another kind.
pub fn quantize(dtype: Dtype, bits: QuantizeArgs) -> anyhow::Result<Option<Quantize>> {
    match (dtype, bits.quantize) {
        (Dtype::Int8, Some(kind)) if kind != Quantize::Int8 => {
            Err(usage(format!("--dtype int8 and --quantize {kind} name different kinds"), "give one of them"))
        }
        (Dtype::Int8, _) => Ok(Some(Quantize::Int8)),
        (_, kind) => Ok(kind),
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
pub fn open(
    reference: &str,
    device: Choice,
    dtype: Dtype,
    bits: QuantizeArgs,
    adapters: &AdapterArgs,
) -> anyhow::Result<Model> {
    let start = Instant::now();
    let quantize = quantize(dtype, bits)?;
    let (device, dtype) = (self::device(device)?, dtype.wanted());
    let options = LoadOptions { device, dtype, quantize, ..LoadOptions::default() };
    let (model, report) = load(&folder(reference)?, &options)?;
    for warning in &report.warnings {
        tracing::warn!("{warning}");
    }
    adapt(&model, &adapters.adapters)?;
    tracing::debug!(
        "loaded {} weights in {:.1?}, {} bytes of them in place",
        model.count(),
        start.elapsed(),
        report.mapped_bytes
    );
    Ok(model)
}

/// Opens a model with its tokenizer and generation settings, and says what is odd about it.
pub fn session(reference: &str, device: Choice, dtype: Dtype, bits: QuantizeArgs) -> anyhow::Result<Session> {
    let options = OpenOptions { device, dtype: dtype.wanted(), quantize: quantize(dtype, bits)? };
    let session = Session::open_with(reference, options)?;
    for warning in &session.warnings {
        tracing::warn!("{warning}");
    }
    Ok(session)
}

//! The model that is measured: from a folder, or random weights of a bare configuration.

use std::path::PathBuf;

use candle_core::DType;
use phyla::device::Choice;
use phyla_kernels::rng::Rng;
use phyla_models::{Dropouts, LoadOptions, LoadReport, Model, fresh_with, load, read_config};

use super::at_least_one;
use crate::cli::error::usage;
use crate::cli::init::{named, warn_unknown};
use crate::cli::model::{self, Dtype, QuantizeArgs};

#[derive(clap::Args)]
pub struct Subject {
    /// A folder, or a hub id such as org/name
    #[arg(long, value_name = "DIR|HUB_ID", conflicts_with = "config")]
    model: Option<String>,

    /// A `config.json`, or a folder that holds one: random weights
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Type of the weights in the products; auto is the stored or configured one, for training f32
    #[arg(long, value_enum, default_value = "auto")]
    pub dtype: Dtype,

    #[command(flatten)]
    pub bits: QuantizeArgs,

    /// auto, cpu, cuda:N or metal
    #[arg(long, default_value = "auto")]
    pub device: Choice,

    /// Rows that are computed together
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one())]
    pub batch: u64,

    /// Seed of random weights and ids
    #[arg(long, default_value_t = 0)]
    pub seed: u64,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl Subject {
    /// Loads or draws the model, its matrices in `dtype` (or as they are stored or configured).
    pub fn open(&self, dtype: Option<DType>, dropouts: Dropouts) -> anyhow::Result<Model> {
        let (device, quantize) = (model::device(self.device)?, model::quantize(self.dtype, self.bits)?);
        let options = LoadOptions { device, dtype, dropouts, quantize, ..LoadOptions::default() };
        let file = match (&self.config, &self.model) {
            (Some(file), _) => file,
            (None, Some(reference)) => {
                let (model, report) = load(&model::folder(reference)?, &options)?;
                return Ok(warned(model, &report));
            }
            (None, None) => {
                let help = "give --model with a folder or a hub id, or --config for random weights";
                return Err(usage("no model is named", help));
            }
        };
        let (config, _) = read_config(file)?;
        warn_unknown(&config)?;
        let dtype = Some(dtype.unwrap_or_else(|| named(&config)));
        let (model, report) = fresh_with(&config, self.seed, &LoadOptions { dtype, ..options })?;
        Ok(warned(model, &report))
    }

    /// Random ids of `model`'s vocabulary.
    pub fn ids(&self, model: &Model, count: usize) -> Vec<u32> {
        let mut rng = Rng::new(self.seed).split("ids");
        (0..count).map(|_| rng.below(model.arch.vocab() as u64) as u32).collect()
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.batch as usize
    }
}

/// The model, once what is odd about it is said.
fn warned(model: Model, report: &LoadReport) -> Model {
    report.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    model
}

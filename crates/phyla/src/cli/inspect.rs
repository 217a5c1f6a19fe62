//! `phyla inspect`: what a model is made of and what its files hold, from configuration and headers alone.

mod describe;
mod lineage;
mod summary;
mod tensors;
mod tree;

use std::path::{Path, PathBuf};
use std::time::Instant;

use phyla_models::checkpoint::Checkpoint;
use phyla_models::{read_config, survey};

use super::model;
use summary::Inspected;

/// Show what a model is made of: blocks, shapes, parameters, files
#[derive(clap::Args)]
#[command(after_help = "Examples:
  phyla inspect models/small
  phyla inspect models/small --tensors
  phyla inspect runs/dpo/model --lineage
  phyla inspect config.json
  phyla inspect model.safetensors --json | jq .bytes_by_dtype

Nothing is loaded: configuration and headers are enough, whatever the size. A folder whose weights
do not fit its configuration is shown too, with what is missing, misshapen or unused. Without a
configuration the tensors are listed.

--lineage reads the weights of the model and of its parents, to compare their hashes.")]
pub struct Args {
    /// A folder, a hub id, a `config.json`, a `.safetensors` file or a shard index
    #[arg(value_name = "DIR|HUB_ID|FILE")]
    model: String,

    /// Show which tensor each parameter is
    #[arg(long)]
    tensors: bool,

    /// Show what it came of, parent by parent, and which of them are gone or changed
    #[arg(long, conflicts_with = "tensors")]
    lineage: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let start = Instant::now();
    let path = model::folder(&args.model)?;
    if args.lineage {
        return lineage::show(&args.model, &path, args.json);
    }
    let Some(file) = config_file(&path) else {
        return tensors::list(&Checkpoint::open(&path)?, args.json);
    };
    let (config, _) = read_config(&file)?;
    let checkpoint = path.is_dir().then(|| Checkpoint::open(&path)).transpose().unwrap_or_else(|error| {
        tracing::warn!("{error}");
        None
    });
    let survey = match (survey(&config, checkpoint.as_ref()), &checkpoint) {
        (Ok(survey), _) => survey,
        (Err(error), Some(checkpoint)) => {
            tracing::warn!("only the tensors can be listed: {error}");
            return tensors::list(checkpoint, args.json);
        }
        (Err(error), None) => return Err(error.into()),
    };
    for warning in &survey.warnings {
        tracing::warn!("{warning}");
    }
    let tokenizer = path.is_dir().then(|| summary::tokenizer(&path)).flatten();
    tracing::debug!("read the headers in {:.1?}", start.elapsed());
    Inspected { survey, checkpoint, tokenizer }.show(args.tensors, args.json)
}

/// The configuration that comes with `path`, or that it is.
fn config_file(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        return Some(path.join("config.json")).filter(|file| file.is_file());
    }
    let name = path.file_name()?.to_string_lossy();
    (name.ends_with(".json") && !name.ends_with(".index.json")).then(|| path.to_path_buf())
}

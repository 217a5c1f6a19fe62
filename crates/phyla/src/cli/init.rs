//! `phyla init`: a checkpoint with freshly drawn weights, from a configuration alone.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use phyla_models::checkpoint::{Checkpoint, atomic_write};
use phyla_models::{ConfigError, fresh_as, read_config, registry, save};
use serde_json::{Map, Value, json};

use super::error::usage;
use super::model::{self, Dtype};
use super::output::{self, bytes, count};

/// Make a checkpoint with freshly initialised weights
#[derive(clap::Args)]
#[command(after_help = "Examples:
  phyla init --config config.json --output models/new --seed 7
  phyla init --config models/small --output models/fresh --dtype bf16

The weights depend on the configuration and the seed alone: each is drawn as its family's own
initialisation says, from a random stream named after it.")]
pub struct Args {
    /// A `config.json`, or a folder that holds one
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// The folder to write: config.json, generation_config.json, model.safetensors
    #[arg(long, value_name = "DIR")]
    output: PathBuf,

    /// Seed of the random weights
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Type of the stored weights; auto takes the one that the configuration names, else f32
    #[arg(long, value_enum, default_value = "auto")]
    dtype: Dtype,

    /// Write into a folder that is not empty, replacing its weights
    #[arg(long)]
    force: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    if args.dtype == Dtype::Int8 {
        return Err(usage("int8 is made on loading, and is not stored", "give --dtype f32, bf16 or f16"));
    }
    let (config, _) = read_config(&args.config)?;
    check_folder(&args.output, args.force)?;
    warn_unknown(&config)?;
    let dtype = args.dtype.wanted().unwrap_or_else(|| named(&config));
    let model = fresh_as(&config, args.seed, dtype, &Device::Cpu)?;
    save(&model, &args.output, dtype)?;
    let generation = generation_config(&config);
    let text = serde_json::to_vec_pretty(&generation)?;
    atomic_write(args.output.join("generation_config.json"), &text)?;
    let size = Checkpoint::open(&args.output)?.total_bytes();
    let (folder, parameters, dtype) = (args.output.display(), model.count(), model::name(dtype));
    if args.json {
        return output::json(&json!({
            "output": args.output,
            "model_type": model.family.model_type,
            "parameters": parameters,
            "bytes": size,
            "dtype": dtype,
            "seed": args.seed,
        }));
    }
    output::stdout(|out| writeln!(out, "{folder}: {} parameters in {dtype}, {}", count(parameters as u64), bytes(size)))
}

/// Warns of fields that have no effect, as loading does.
pub fn warn_unknown(config: &Map<String, Value>) -> Result<(), ConfigError> {
    let (family, parsed) = registry::parse(config)?;
    for field in &parsed.unknown {
        tracing::warn!("config.json: {field} is not a field of {} and has no effect", family.model_type);
    }
    Ok(())
}

/// The type that the configuration names.
pub fn named(config: &Map<String, Value>) -> DType {
    match config.get("dtype").or(config.get("torch_dtype")).and_then(Value::as_str) {
        Some("bfloat16") => DType::BF16,
        Some("float16") => DType::F16,
        _ => DType::F32,
    }
}

/// An error unless `folder` is new, empty, or to be overwritten.
fn check_folder(folder: &Path, force: bool) -> anyhow::Result<()> {
    if folder.is_file() {
        return Err(usage(format!("`{}` is a file", folder.display()), "name a folder for --output"));
    }
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    let mut names: Vec<String> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into()).collect();
    if names.is_empty() || force {
        return Ok(());
    }
    names.sort();
    let more = if names.len() > 3 { ", …" } else { "" };
    names.truncate(3);
    Err(usage(
        format!("`{}` is not empty: it holds {}{more}", folder.display(), names.join(", ")),
        "name another folder, or give --force to replace its weights",
    ))
}

/// What transformers derives from a configuration: the tokens that begin, end and fill up.
fn generation_config(config: &Map<String, Value>) -> Value {
    let mut generation = Map::from_iter([("_from_model_config".to_string(), json!(true))]);
    for key in ["bos_token_id", "eos_token_id", "pad_token_id"] {
        if let Some(id) = config.get(key).filter(|id| !id.is_null()) {
            generation.insert(key.into(), id.clone());
        }
    }
    Value::Object(generation)
}

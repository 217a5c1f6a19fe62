//! `phyla detect-watermark`: whether a text was written under a watermark. Needs no weights, only the tokenizer and the size of
//! the vocabulary.

use std::path::Path;

use phyla_data::tokenizer::Tokenizer;
use phyla_generate::{GenerationConfig, WatermarkDetector, WatermarkingConfig};
use phyla_models::read_config;
use serde_json::{Map, Value, json};

use super::error::usage;
use super::{asking, model, output};

/// Tell whether a text carries a watermark
#[derive(clap::Args)]
#[command(after_help = "Examples:
  phyla detect-watermark --model models/small @letter.txt
  phyla detect-watermark --model models/small --watermarking-config '{\"hashing_key\":77}' - < letter.txt
  phyla detect-watermark --model models/small --ids 17,4,99,250,3,81 --json

The settings are those that the text was written with (`phyla generate --watermarking-config`); without them the
model's own generation_config.json decides, or else the defaults of transformers. Give the text without its
prompt. The exit status says nothing about what was found.")]
pub struct Args {
    /// The model that is suspected: a folder or a hub id such as org/name; its weights are not read
    #[arg(long, value_name = "DIR|HUB_ID")]
    model: String,

    /// The text; `@file` reads a file, `-` standard input
    #[arg(value_name = "TEXT|@FILE|-", required_unless_present = "ids")]
    text: Option<String>,

    /// The text as token ids
    #[arg(long, value_name = "1,2,3", value_delimiter = ',', conflicts_with = "text")]
    ids: Option<Vec<u32>>,

    /// greenlist_ratio, bias, hashing_key, seeding_scheme, context_width
    #[arg(long, value_name = "JSON")]
    watermarking_config: Option<String>,

    /// Count what comes again once
    #[arg(long)]
    ignore_repeated_ngrams: bool,

    /// Standard deviations above chance that count as a watermark
    #[arg(long, value_name = "X", default_value_t = 3., allow_negative_numbers = true)]
    z_threshold: f64,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let text = args.text.as_deref().map(asking::read).transpose()?;
    let folder = model::folder(&args.model)?;
    let (config, file) = read_config(&folder)?;
    let Some(vocab) = config.get("vocab_size").and_then(Value::as_u64) else {
        let help = "give the folder of a model that writes";
        return Err(usage(format!("`{}` has no vocab_size", file.display()), help));
    };
    let (own, _) = GenerationConfig::load(&folder, &config)?;
    let watermark = match &args.watermarking_config {
        Some(text) => asked(text)?,
        None => own.watermarking_config.unwrap_or_default(),
    };
    let ids = ids(args, &folder, text.as_deref())?;
    let bos = config.get("bos_token_id").and_then(Value::as_u64).and_then(|id| id.try_into().ok());
    let detector = WatermarkDetector::new(watermark, vocab as usize)?.after(bos);
    let found = detector.counting_once(args.ignore_repeated_ngrams).detect(&ids, args.z_threshold)?;
    if args.json {
        return output::json(&json!({
            "num_tokens_scored": found.scored,
            "num_green_tokens": found.green,
            "green_fraction": found.green_fraction(),
            "z_score": found.z_score,
            "p_value": found.p_value,
            "confidence": found.confidence(),
            "prediction": found.watermarked,
        }));
    }
    output::stdout(|out| {
        writeln!(out, "{}", if found.watermarked { "watermark found" } else { "no watermark found" })?;
        let share = 100. * found.green_fraction();
        writeln!(out, "{} of {} tokens are green ({share:.1} %)", found.green, found.scored)?;
        writeln!(out, "z-score {:.2}, p-value {:.3e}", found.z_score, found.p_value)
    })
}

/// The watermark that the user names.
fn asked(text: &str) -> anyhow::Result<WatermarkingConfig> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| usage(format!("--watermarking-config is no JSON: {error}"), "give {\"hashing_key\":77}"))?;
    let map = Map::from_iter([("watermarking_config".to_owned(), value)]);
    Ok(GenerationConfig::of_user(&map)?.0.watermarking_config.unwrap_or_default())
}

fn ids(args: &Args, folder: &Path, text: Option<&str>) -> anyhow::Result<Vec<u32>> {
    match (&args.ids, text) {
        (Some(ids), _) => Ok(ids.clone()),
        (None, text) => Ok(Tokenizer::load(folder)?.encode(text.unwrap_or_default(), true)?),
    }
}

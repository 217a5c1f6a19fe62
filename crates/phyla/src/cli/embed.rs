//! `phyla embed`: a vector for each text, as sentence-transformers makes it.

use std::path::{Path, PathBuf};

use phyla::task::Runner;
use phyla::task::embed::{Embed, Pooling, Recipe};
use phyla_data::supervised::records::Labelled;
use phyla_models::checkpoint::{Dtype, SafetensorsWriter, TensorSpec, Values};
use rayon::prelude::*;
use serde_json::json;

use super::error::usage;
use super::progress::Progress;
use super::shared::{BatchArgs, ModelArgs, TableArgs};
use super::sink::Sink;
use super::source::Source;

/// Turn texts into vectors
#[derive(clap::Args)]
#[command(after_help = "Examples:
  phyla embed --model models/embedder \"A little fox sat by the river.\"
  phyla embed --model models/embedder --input texts.txt --output vectors.jsonl
  phyla embed --model models/embedder --input texts.txt --output vectors.safetensors

A folder of sentence-transformers (modules.json) says itself how the states of a text's tokens become a
vector; for others it is their mean, at length 1. JSON lines read {\"embedding\": [...]}; a file that ends in
.safetensors holds one tensor `embeddings` [texts, numbers] in f32, which is kept in memory until the end.")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// A text; `-` reads standard input, a text a line
    #[arg(value_name = "TEXT|-", required_unless_present = "input")]
    text: Option<String>,

    /// A file of texts: lines, or a table with a column `text`
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    input: Option<PathBuf>,

    /// Where vectors go [default: standard output, as JSON lines]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// mean, cls, max or last, in place of what the model's files say
    #[arg(long)]
    pooling: Option<Pooling>,

    /// Whether vectors are brought to length 1, in place of what the model's files say
    #[arg(long, value_name = "BOOL")]
    normalize: Option<bool>,

    #[command(flatten)]
    table: TableArgs,

    #[command(flatten)]
    batch: BatchArgs,

    /// Write JSON lines, whatever the output is called
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    let source = match (args.text.as_deref(), &args.input) {
        (Some("-"), _) => Some(Source::open(Path::new("-"), &args.table)?),
        (_, Some(file)) => Some(Source::open(file, &args.table)?),
        (..) => None,
    };
    let session = args.model.session()?;
    let mut recipe = Recipe::read(&session.folder)?;
    recipe.pooling = args.pooling.unwrap_or(recipe.pooling);
    recipe.normalize = args.normalize.unwrap_or(recipe.normalize);
    recipe.max_len = args.batch.max_len.or(recipe.max_len);
    let head = Embed::new(&session, recipe)?;
    tracing::debug!("pooling {}, normalized: {}", recipe.pooling, recipe.normalize);
    let mut records: super::source::Records<Labelled> = match (&source, &args.text) {
        (Some(source), _) => source.records(|text| Ok(Labelled::new(text, "")))?,
        (None, text) => Box::new(std::iter::once(Ok(Labelled::new(text.clone().unwrap_or_default(), "")))),
    };
    let tensor =
        args.output.as_deref().filter(|path| !args.json && path.extension().is_some_and(|end| end == "safetensors"));
    let inputs: Vec<&Path> = args.input.iter().map(PathBuf::as_path).collect();
    let mut sink = if tensor.is_some() { None } else { Some(Sink::open(args.output.as_deref(), &inputs)?) };
    let mut progress = Progress::new("texts", None, quiet || source.is_none());
    let runner = Runner::new(&session.model, session.tokenizer.as_ref(), args.batch.batches());
    let (mut all, mut done, mut cut) = (vec![], 0, 0);
    loop {
        let chunk = records.by_ref().take(args.batch.chunk).collect::<phyla_data::Result<Vec<_>>>()?;
        if chunk.is_empty() {
            break;
        }
        let rows = chunk.par_iter().map(|record| head.row(&record.text)).collect::<phyla_data::Result<Vec<_>>>()?;
        let vectors = head.vectors(&runner, &rows.iter().map(|(row, _)| row).collect::<Vec<_>>())?;
        (done, cut) = (done + rows.len() as u64, cut + rows.iter().filter(|(_, cut)| *cut).count());
        for vector in vectors {
            match &mut sink {
                Some(sink) => sink.json(&json!({ "embedding": vector }))?,
                None => all.extend(vector),
            }
        }
        progress.set(done, None);
    }
    progress.finish();
    if let Some(mut sink) = sink {
        sink.flush()?;
    }
    if let Some(path) = tensor {
        if done == 0 {
            return Err(usage("there are no texts", "a tensor needs at least one row"));
        }
        let spec = TensorSpec { name: "embeddings".into(), dtype: Dtype::F32, shape: vec![done as usize, head.dim()] };
        let mut writer = SafetensorsWriter::create_file(path, &[spec])?;
        writer.write("embeddings", Values::F32(&all))?;
        writer.finish()?;
    }
    if cut > 0 {
        tracing::warn!("{cut} of {done} texts were cut, since the model reads no more");
    }
    let time = progress.elapsed().as_secs_f64();
    tracing::debug!("{done} texts in {time:.2} s, {:.0} texts/s", done as f64 / time);
    Ok(())
}

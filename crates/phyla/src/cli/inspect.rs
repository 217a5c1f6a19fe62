//! `phyla inspect`: what a checkpoint holds, from its headers alone.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use phyla_models::checkpoint::{Checkpoint, Report};

use super::output::{self, bytes, count};

/// Show what a checkpoint holds: tensors, types, sizes
#[derive(clap::Args)]
#[command(after_help = "Examples:
  phyla inspect models/gpt2
  phyla inspect model.safetensors --json | jq .bytes_by_dtype")]
pub struct Args {
    /// A folder with safetensors, a `.safetensors` file, or a shard index
    model: PathBuf,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let start = Instant::now();
    let checkpoint = Checkpoint::open(&args.model)?;
    tracing::debug!("read the headers in {:.1?}", start.elapsed());
    let report = checkpoint.report();
    if args.json {
        let mut value = serde_json::to_value(&report).context("cannot write the report as JSON")?;
        value["metadata"] = serde_json::json!(checkpoint.metadata());
        return output::json(&value);
    }
    output::stdout(|out| table(out, &report, &checkpoint))
}

fn table(out: &mut dyn Write, report: &Report, checkpoint: &Checkpoint) -> std::io::Result<()> {
    let shapes: Vec<String> = report.tensors.iter().map(|tensor| format!("{:?}", tensor.shape)).collect();
    let names = report.tensors.iter().map(|tensor| tensor.name.len()).max().unwrap_or(0);
    let widest = shapes.iter().map(String::len).max().unwrap_or(0);
    for (tensor, shape) in report.tensors.iter().zip(&shapes) {
        let (name, dtype, size) = (&tensor.name, tensor.dtype, bytes(tensor.bytes));
        writeln!(out, "{name:names$}  {dtype:8}  {shape:widest$}  {size:>8}")?;
    }
    let dtypes: Vec<String> =
        report.bytes_by_dtype.iter().map(|(dtype, size)| format!("{dtype} {}", bytes(*size))).collect();
    writeln!(
        out,
        "{} tensors, {} parameters, {} ({})",
        report.tensors.len(),
        count(report.parameters),
        bytes(report.bytes),
        dtypes.join(", ")
    )?;
    for (key, value) in checkpoint.metadata() {
        writeln!(out, "{key} = {value}")?;
    }
    Ok(())
}

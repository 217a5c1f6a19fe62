//! The tensors of a checkpoint, one a line, when there is no configuration to make sense of them.

use std::io::{self, Write};

use anyhow::Context;
use phyla_models::checkpoint::{Checkpoint, Report};

use crate::cli::output::{self, bytes, count};

/// Prints every tensor and the totals.
pub fn list(checkpoint: &Checkpoint, json: bool) -> anyhow::Result<()> {
    let report = checkpoint.report();
    if json {
        let mut value = serde_json::to_value(&report).context("cannot write the report as JSON")?;
        value["metadata"] = serde_json::json!(checkpoint.metadata());
        return output::json(&value);
    }
    output::stdout(|out| table(out, &report, checkpoint))
}

fn table(out: &mut dyn Write, report: &Report, checkpoint: &Checkpoint) -> io::Result<()> {
    let shapes: Vec<String> = report.tensors.iter().map(|tensor| format!("{:?}", tensor.shape)).collect();
    let names = report.tensors.iter().map(|tensor| tensor.name.len()).max().unwrap_or(0);
    let widest = shapes.iter().map(String::len).max().unwrap_or(0);
    for (tensor, shape) in report.tensors.iter().zip(&shapes) {
        let (name, dtype, size) = (&tensor.name, tensor.dtype, bytes(tensor.bytes));
        writeln!(out, "{name:names$}  {dtype:8}  {shape:widest$}  {size:>8}")?;
    }
    let (tensors, parameters) = (report.tensors.len(), count(report.parameters));
    writeln!(out, "{tensors} tensors, {parameters} parameters, {}", sizes(report))?;
    for (key, value) in checkpoint.metadata() {
        writeln!(out, "{key} = {value}")?;
    }
    Ok(())
}

/// All bytes, and how they divide among types: `2.00 GB (BF16 1.99 GB, F32 10.0 MB)`.
pub fn sizes(report: &Report) -> String {
    let dtypes: Vec<String> =
        report.bytes_by_dtype.iter().map(|(dtype, size)| format!("{dtype} {}", bytes(*size))).collect();
    format!("{} ({})", bytes(report.bytes), dtypes.join(", "))
}

//! Results one after the other, to a file or standard output: JSON lines, or cells between tabs.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::Context;
use clap::ValueEnum;
use serde::Serialize;

use super::error::usage;

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// A JSON object a line
    Jsonl,
    /// Cells between tabs, under a header
    Tsv,
}

pub struct Sink {
    out: BufWriter<Box<dyn Write>>,
    name: String,
}

impl Sink {
    /// Opens a file, or standard output; `inputs` are files that it must not replace.
    pub fn open(path: Option<&Path>, inputs: &[&Path]) -> anyhow::Result<Self> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Self { out: BufWriter::new(Box::new(io::stdout())), name: "standard output".into() });
        };
        let same = |input: &&Path| matches!((path.canonicalize(), input.canonicalize()), (Ok(a), Ok(b)) if a == b);
        if inputs.iter().any(same) {
            let message = format!("--output names `{}`, which is also read", path.display());
            return Err(usage(message, "name another file for --output"));
        }
        let file = File::create(path)
            .map_err(|error| usage(format!("cannot write `{}`: {error}", path.display()), "name another file"))?;
        Ok(Self { out: BufWriter::new(Box::new(file)), name: format!("`{}`", path.display()) })
    }

    /// Writes a line of JSON.
    pub fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let written = serde_json::to_writer(&mut self.out, value).map_err(io::Error::from);
        self.wrote(written)?;
        let ended = self.out.write_all(b"\n");
        self.wrote(ended)
    }

    /// Writes a line of text.
    pub fn line(&mut self, text: &str) -> anyhow::Result<()> {
        let written = writeln!(self.out, "{text}");
        self.wrote(written)
    }

    /// Writes a line of cells; what would divide cells or lines becomes a space.
    pub fn cells(&mut self, cells: &[String]) -> anyhow::Result<()> {
        let plain: Vec<String> = cells.iter().map(|cell| one_line(cell)).collect();
        self.line(&plain.join("\t"))
    }

    /// Everything written reaches its reader.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        let flushed = self.out.flush();
        self.wrote(flushed)
    }

    fn wrote(&self, written: io::Result<()>) -> anyhow::Result<()> {
        written.with_context(|| format!("cannot write to {}", self.name))
    }
}

/// A text without anything that ends a line or a cell.
pub fn one_line(text: &str) -> String {
    text.replace(['\t', '\n', '\r'], " ")
}

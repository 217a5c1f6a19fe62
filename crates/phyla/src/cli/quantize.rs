//! `phyla quantize`: a model as a GGUF file, its matrices in fewer bits or in another type of numbers.

use std::path::{Path, PathBuf};

use phyla::evaluate::{self, Evaluation, Options};
use phyla::task::likelihood::Measure;
use phyla::{Session, to_gguf};
use phyla_models::gguf::{Converted, FileType};
use serde_json::json;

use super::error::usage;
use super::model;
use super::output::{self, bytes};
use super::progress::Progress;

/// Write a model as a GGUF file, quantised or not
#[derive(clap::Args)]
#[command(after_help = "Examples:
  phyla quantize models/small small-q4_k_m.gguf --type q4_k_m
  phyla quantize models/small small.gguf --type bf16 --max-ram 512MiB
  phyla quantize small.gguf small-q8_0.gguf --type q8_0 --perplexity wiki.test.txt --json

Types: f32, f16, bf16; q8_0, q6_k, q5_1, q5_0, q4_1, q4_0, iq4_nl, iq4_xs; and llama.cpp's mixtures
q5_k_m, q5_k_s, q4_k_m, q4_k_s, q3_k_l, q3_k_m, q3_k_s, q2_k, which give better kinds to some
matrices: the head gets q6_k, as does the token table where it is the head, too. Vectors, tables of
positions and the choosers of experts stay f32. Rows that are no multiple of a kind's block of 256 go
into blocks of 32, and those that are none of 32 into f16; one line says how many.

The file holds the tokenizer, too, and llama.cpp opens it. It appears whole or not at all. Weights are
read, turned and written a few rows at a time: --max-ram bounds the memory that this takes beyond the
files' own pages, which the system takes back as it needs them.")]
pub struct Args {
    /// A folder, a hub id such as org/name, or a `.gguf` file
    #[arg(value_name = "MODEL")]
    model: String,

    /// The file to write; its name ends in .gguf
    #[arg(value_name = "OUT")]
    out: PathBuf,

    /// What the matrices become
    #[arg(long = "type", value_name = "TYPE")]
    kind: FileType,

    /// Memory for weights on their way, such as 512MiB or 2GiB
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    max_ram: usize,

    /// Measure the perplexity on this text, with the model as it was and as it is written
    #[arg(long, value_name = "FILE")]
    perplexity: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The least that a row of a large model and the buffers around it take.
const LEAST: usize = 1 << 20;

/// A size in bytes, with a unit of 1000 (kB, MB, GB) or 1024 (KiB, MiB, GiB) or none.
fn size(text: &str) -> Result<usize, String> {
    const UNITS: [(&str, u64); 9] = [
        ("kib", 1 << 10),
        ("mib", 1 << 20),
        ("gib", 1 << 30),
        ("tib", 1 << 40),
        ("kb", 1_000),
        ("mb", 1_000_000),
        ("gb", 1_000_000_000),
        ("tb", 1_000_000_000_000),
        ("b", 1),
    ];
    let lower = text.trim().to_lowercase();
    let unit = UNITS.iter().find_map(|(unit, bytes)| Some((lower.strip_suffix(unit)?, *bytes)));
    let (number, unit) = unit.unwrap_or((&lower, 1));
    let bytes = number.trim().parse::<f64>().ok().map(|number| number * unit as f64);
    match bytes.filter(|bytes| bytes.is_finite() && *bytes >= LEAST as f64) {
        Some(bytes) => Ok(bytes as usize),
        None => Err("expected a size of at least 1MiB, such as 512MiB or 2GiB".into()),
    }
}

pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    if args.out.extension().is_none_or(|ending| !ending.eq_ignore_ascii_case("gguf")) {
        let found = format!("`{}` does not end in .gguf", args.out.display());
        return Err(usage(found, "name the file to write, such as model.gguf"));
    }
    // Before the model is converted, which takes longer than a missing file or folder takes to be missed.
    let into = args.out.parent().filter(|into| !into.as_os_str().is_empty());
    if let Some(into) = into.filter(|into| !into.is_dir()) {
        return Err(usage(format!("`{}` is no folder to write into", into.display()), "make it first"));
    }
    let text = args.perplexity.as_deref().map(read).transpose()?;
    let folder = model::folder(&args.model)?;
    let before = text.as_deref().map(|text| perplexity(&args.model, text, quiet)).transpose()?;
    let mut progress = Progress::new("MB", None, quiet);
    let done = to_gguf(&folder, &args.out, args.kind, args.max_ram, &mut |done, all| {
        progress.set(done / 1_000_000, Some(all.div_ceil(1_000_000)));
    });
    progress.finish();
    let (done, seconds) = (done?, progress.elapsed().as_secs_f64());
    for warning in &done.warnings {
        tracing::warn!("{warning}");
    }
    let out = args.out.to_string_lossy();
    let after = text.as_deref().map(|text| perplexity(&out, text, quiet)).transpose()?;
    show(args, &done, seconds, before.zip(after))
}

fn read(file: &Path) -> anyhow::Result<String> {
    let wrong = |what: String| usage(format!("`{}`: {what}", file.display()), "name a file with text");
    let bytes = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
    String::from_utf8(bytes)
        .map_err(|error| wrong(format!("not UTF-8 text: byte {} is not valid", error.utf8_error().valid_up_to())))
}

/// How well a model predicts a text; its memory is free again afterwards.
fn perplexity(reference: &str, text: &str, quiet: bool) -> anyhow::Result<f64> {
    let session = Session::open(reference)?;
    let measure = Measure::new(&session, None, None, phyla::task::likelihood::MASK_EVERY)?;
    let mut progress = Progress::new("windows", None, quiet);
    let done = evaluate::perplexity(
        &session,
        std::iter::once(Ok(text.to_owned())),
        &measure,
        &Options::default(),
        &mut |done, total| progress.set(done, total),
    );
    progress.finish();
    let Evaluation { metrics, .. } = done?;
    Ok(metrics.iter().find(|metric| metric.name == "perplexity").map_or(f64::NAN, |metric| metric.value))
}

fn show(args: &Args, done: &Converted, seconds: f64, perplexity: Option<(f64, f64)>) -> anyhow::Result<()> {
    let Converted { before, after, tensors, warnings } = done;
    if args.json {
        return output::json(&json!({
            "output": args.out,
            "type": args.kind.to_string(),
            "bytes_before": before,
            "bytes_after": after,
            "tensors": tensors,
            "seconds": seconds,
            "perplexity_before": perplexity.map(|(before, _)| before),
            "perplexity_after": perplexity.map(|(_, after)| after),
            "warnings": warnings,
        }));
    }
    let kinds: Vec<String> = tensors.iter().map(|(kind, count)| format!("{count} in {kind}")).collect();
    let share = 100. * *after as f64 / (*before).max(1) as f64;
    output::stdout(|out| {
        writeln!(
            out,
            "{}: {}, {} tensors ({})",
            args.out.display(),
            args.kind,
            tensors.values().sum::<usize>(),
            kinds.join(", ")
        )?;
        writeln!(out, "size        {} before, {} after ({share:.1} %)", bytes(*before), bytes(*after))?;
        writeln!(out, "time        {seconds:.2} s, {}/s", bytes((*before as f64 / seconds.max(1e-9)) as u64))?;
        match perplexity {
            Some((before, after)) => writeln!(out, "perplexity  {before:.4} before, {after:.4} after"),
            None => Ok(()),
        }
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in [("1GiB", 1 << 30), ("512 MiB", 512 << 20), ("2gb", 2_000_000_000), ("1048576", 1 << 20)] {
            assert_eq!(size(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "GiB", "-1GiB", "1", "1000KiB", "nan", "infGB", "1 PiB"] {
            assert!(size(text).unwrap_err().contains("at least 1MiB"), "{text}");
        }
    }
}

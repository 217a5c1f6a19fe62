//! How fast texts become vectors, from the text on.

use std::time::Instant;

use anyhow::Context;
use candle_core::DType;
use phyla::device::Choice;
use phyla::task::Runner;
use phyla::task::embed::{Embed, Recipe};
use phyla_data::supervised::lengths::LengthBatches;
use phyla_kernels::threads::threads;
use rayon::prelude::*;
use serde_json::json;

use super::limit::{self, Work};
use super::machine;
use super::report::{median, peak_rss, roofline_json};
use crate::cli::error::usage;
use crate::cli::{model, output};

/// Texts that are put in the order of their length together, as `phyla embed` does it.
const CHUNK: usize = 1024;

/// What one reading of all texts took.
struct Reading {
    /// In seconds, tokens and all.
    whole: f64,
    /// Of it in the model.
    model: f64,
    /// Tokens of each text.
    lengths: Vec<usize>,
}

pub fn run(args: &super::Embed) -> anyhow::Result<()> {
    let file = args.texts.display();
    let texts = std::fs::read_to_string(&args.texts).with_context(|| format!("cannot read `{file}`"))?;
    let texts: Vec<&str> = texts.lines().filter(|text| !text.trim().is_empty()).collect();
    if texts.is_empty() {
        return Err(usage(format!("`{file}` holds no texts"), "give a file with a text a line"));
    }
    let session = model::session(&args.model, Choice::default(), args.dtype, args.bits)?;
    let head = Embed::new(&session, Recipe::read(&session.folder)?)?;
    let batches = LengthBatches { rows: args.batch as usize, tokens: usize::MAX, ..LengthBatches::default() };
    let runner = Runner::new(&session.model, session.tokenizer.as_ref(), batches);
    let before = machine::measure();
    let mut readings = vec![];
    for _ in 0..=args.steps {
        readings.push(read(&texts, &head, &runner)?);
    }
    readings.remove(0);
    let of = |part: fn(&Reading) -> f64| median(&readings.iter().map(part).collect::<Vec<_>>());
    let dtype = limit::weights(&session.model).map_or(DType::F32.as_str(), |param| param.compute().stored());
    let (whole, model_seconds) = (of(|reading| reading.whole), of(|reading| reading.model));
    let tokens: usize = readings[0].lengths.iter().sum();
    let (peak, limits) = (peak_rss(), machine::higher(before, machine::measure()));
    // What no program could leave out: each text by itself, without the filling of its batch.
    let works = readings[0].lengths.iter().map(|&time| Work::forward(&session.model, 1, time, false));
    let limit = works.map(|work| work.seconds(&limits).0).sum::<f64>();
    if args.json {
        return output::json(&json!({
            "bench": "embed",
            "model_type": session.model.family.model_type,
            "dtype": dtype,
            "threads": threads(),
            "batch": args.batch,
            "texts": texts.len(),
            "tokens": tokens,
            "tokens_per_second": tokens as f64 / whole,
            "texts_per_second": texts.len() as f64 / whole,
            "seconds": whole,
            "seconds_all": readings.iter().map(|reading| reading.whole).collect::<Vec<_>>(),
            "model_seconds": model_seconds,
            "fraction_of_limit": limit / whole,
            "limit_ms": limit * 1e3,
            "peak_rss_mb": peak.map(|peak| peak as f64 * 1e-6),
            "roofline": roofline_json(&limits),
        }));
    }
    output::stdout(|out| {
        writeln!(out, "embed    {} texts, {tokens} tokens, batch {}, {dtype}", texts.len(), args.batch)?;
        let (tokens, texts) = (tokens as f64 / whole, texts.len() as f64 / whole);
        writeln!(out, "speed    {tokens:.0} tokens/s, {texts:.0} texts/s (median of {})", readings.len())?;
        writeln!(out, "time     {whole:.3} s, {model_seconds:.3} of them in the model")?;
        writeln!(out, "limit    {limit:.3} s for the products: {:.1} % reached", 100. * limit / whole)?;
        writeln!(out, "{}", super::report::machine(&limits))
    })
}

/// Reads all texts once.
fn read(texts: &[&str], head: &Embed, runner: &Runner) -> anyhow::Result<Reading> {
    let start = Instant::now();
    let (mut model, mut lengths) = (0., vec![]);
    for texts in texts.chunks(CHUNK) {
        let rows = texts.par_iter().map(|text| Ok(head.row(text)?.0)).collect::<anyhow::Result<Vec<_>>>()?;
        lengths.extend(rows.iter().map(|row| row.ids.len()));
        let begin = Instant::now();
        head.vectors(runner, &rows.iter().collect::<Vec<_>>())?;
        model += begin.elapsed().as_secs_f64();
    }
    Ok(Reading { whole: start.elapsed().as_secs_f64(), model, lengths })
}

//! `phyla translate`: a sentence a line through an encoder-decoder, in and out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use phyla::Session;
use phyla::task::translate::Translate;
use phyla_data::supervised::records::Parallel;
use phyla_generate::{EarlyStopping, GenerationConfig};
use serde_json::json;

use super::error::usage;
use super::progress::Progress;
use super::shared::{BatchArgs, ModelArgs, TableArgs, count};
use super::sink::{Sink, one_line};
use super::source::Source;

/// Translate, or do to texts whatever else an encoder-decoder was trained for
#[derive(clap::Args)]
#[command(after_help = "Examples:
  phyla translate --model models/en-de \"A little fox sat by the river.\"
  phyla translate --model models/en-de --input news.en --output news.de --beams 4
  phyla translate --model models/text-to-text --prefix \"translate English to German: \" - < news.en

A line in, a line out: blank lines stay blank. Without options the model's own generation_config.json
decides. Lines of like length are computed together and given back in their order.")]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// A text; `-` reads standard input, a text a line
    #[arg(value_name = "TEXT|-", required_unless_present = "input")]
    text: Option<String>,

    /// A file of texts: lines, or a table with a column `source`
    #[arg(long, value_name = "FILE", conflicts_with = "text")]
    input: Option<PathBuf>,

    /// Where translations go [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    #[command(flatten)]
    decoding: Decoding,

    #[command(flatten)]
    table: TableArgs,

    #[command(flatten)]
    batch: BatchArgs,

    /// Write a JSON line for each: {"text", "score", "tokens"}
    #[arg(long)]
    json: bool,
}

/// How to decode; what is not given comes from the model's `generation_config.json`.
#[derive(clap::Args)]
pub struct Decoding {
    /// Put before every text (T5: "translate English to German: ")
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub prefix: String,

    /// Continuations that are followed side by side; 1 is greedy
    #[arg(long, value_name = "N", value_parser = count())]
    pub beams: Option<usize>,

    /// Power of the length by which a beam's score is divided: above 0 favours long texts
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub length_penalty: Option<f32>,

    /// When a search ends
    #[arg(long, value_enum)]
    pub early_stopping: Option<Stopping>,

    /// Most new tokens
    #[arg(long, value_name = "N", value_parser = count())]
    pub max_new_tokens: Option<usize>,

    /// No run of so many tokens twice
    #[arg(long, value_name = "N")]
    pub no_repeat_ngram_size: Option<usize>,
}

/// When a search ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stopping {
    /// When no running beam would be among the finished ones, were it to end now
    Likely,
    /// As soon as there are as many finished as beams
    Enough,
    /// When no running beam can get among the finished ones
    Never,
}

impl Decoding {
    /// What the user said, and nothing else.
    pub fn config(&self) -> GenerationConfig {
        GenerationConfig {
            num_beams: self.beams,
            length_penalty: self.length_penalty,
            early_stopping: self.early_stopping.map(|stopping| match stopping {
                Stopping::Likely => EarlyStopping::Likely,
                Stopping::Enough => EarlyStopping::Enough,
                Stopping::Never => EarlyStopping::Never,
            }),
            max_new_tokens: self.max_new_tokens,
            no_repeat_ngram_size: self.no_repeat_ngram_size,
            ..GenerationConfig::default()
        }
    }
}

pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    let source = match (args.text.as_deref(), &args.input) {
        (Some("-"), _) => Some(Source::open(Path::new("-"), &args.table)?),
        (_, Some(file)) => Some(Source::open(file, &args.table)?),
        (..) => None,
    };
    let session = args.model.session()?;
    let mut head = Translate::new(&session, args.batch.max_len)?;
    (head.prefix, head.settings) = (args.decoding.prefix.clone(), args.decoding.config());
    let inputs: Vec<&Path> = args.input.iter().map(PathBuf::as_path).collect();
    let mut sink = Sink::open(args.output.as_deref(), &inputs)?;
    let records: super::source::Records<Parallel> = match (&source, &args.text) {
        (Some(source), _) => source.records(|source| Ok(Parallel { source, target: None }))?,
        (None, text) => {
            let source = text.clone().unwrap_or_default();
            Box::new(std::iter::once(Ok(Parallel { source, target: None })))
        }
    };
    let mut progress = Progress::new("sentences", None, quiet || source.is_none());
    let (mut done, mut tokens, mut cut, mut unfinished, mut faults) = (0, 0, 0, 0, 0);
    let said = head.stream(
        &args.batch.batches(),
        records,
        |pair: &Parallel| pair.source.as_str(),
        |item| {
            done += 1;
            match item {
                Ok((_, made)) => {
                    (tokens, cut) = (tokens + made.tokens, cut + u64::from(made.cut));
                    unfinished += u64::from(made.unfinished);
                    match args.json {
                        true => sink.json(&json!({ "text": made.text, "score": made.score, "tokens": made.tokens }))?,
                        false => sink.line(&one_line(&made.text))?,
                    }
                }
                Err(error) => {
                    faults += 1;
                    progress.warn(&error.to_string());
                    match args.json {
                        true => sink.json(&json!({ "error": error.to_string() }))?,
                        false => sink.line("")?,
                    }
                }
            }
            progress.set(done, None);
            Ok::<_, anyhow::Error>(())
        },
    );
    progress.finish();
    let flushed = sink.flush();
    said.and(flushed)?;
    tell(&session, progress.elapsed(), done, tokens);
    for (count, what) in
        [(cut, "were cut, since the model reads no more"), (unfinished, "ended at the limit of tokens")]
    {
        if count > 0 {
            tracing::warn!("{count} of {done} texts {what}");
        }
    }
    if faults > 0 {
        return Err(usage(format!("{faults} of {done} texts could not be used"), "the others are done; mend these"));
    }
    Ok(())
}

fn tell(session: &Session, time: Duration, done: u64, tokens: usize) {
    let seconds = time.as_secs_f64().max(1e-9);
    let (pace, speed) = (done as f64 / seconds, tokens as f64 / seconds);
    tracing::debug!(
        "{done} sentences in {seconds:.2} s, {pace:.1} sentences/s, {speed:.0} tokens/s; {:.2} s to load",
        session.load.as_secs_f64()
    );
}

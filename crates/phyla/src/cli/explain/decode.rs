//! `phyla explain decode`: answers a prompt as `generate` does, and shows what every step weighed and why it picked it.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use phyla::explain::{self, Limits};

use super::super::asking::Asking;
use super::super::error::usage;
use super::super::{output, outputs};
use super::terminal;

/// Show what every step of decoding weighs, picks and keeps
#[derive(clap::Args)]
#[command(after_help = "Examples:
  phyla explain decode --model runs/quickstart/model --prompt \"One day, a little fox\" --max-new-tokens 20
  phyla explain decode --model models/small --prompt \"One day\" --temperature 0.8 --top-p 0.9 --html decode.html
  phyla explain decode --model models/en-de --prompt \"Good morning.\" --num-beams 4 --html beams.html
  phyla explain decode --model models/small --prompt @code.rs --prompt-lookup-num-tokens 5 --json

The text is the one that `generate` writes with the same options. Each step shows its likeliest tokens before and
after every processor, how open it was (entropy in bits), what was picked and why; a search shows its beams,
speculation which guesses were right, and the cache what it takes up.

--html writes one page that needs nothing beside it and is stepped through with the arrow keys. --json prints an
object: `prompt` and `sequences` (tokens), `steps` (`branch`, `step`, `candidates`, and for each of the `stages` its
`name`, ids `left`, `entropy`, and the candidates' `scores` and `probabilities`; `pick`), `beams`, `guesses`,
`passes` (`ids` read, `positions` and `bytes` of the cache), and how many steps were `left_out`.")]
pub struct Args {
    #[command(flatten)]
    asking: Asking,

    /// Tokens shown of each step: so many of the likeliest before the processors, and so many behind them
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=200))]
    candidates: u16,

    /// Steps that are kept, over all beams or answers
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,

    /// Write a page to step through
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let asked = args.asking.open()?;
    outputs::warn_of_unprinted(&asked.settings);
    let limits = Limits { candidates: args.candidates.into(), steps: args.steps as usize };
    let (model, seed) = (&args.asking.model, args.asking.sampling.seed);
    let decoding = explain::decode(&asked.session, model, &asked.prompt, asked.settings, seed, limits)?;
    args.asking.ngrams.keep(&asked.session)?;
    if let Some(path) = &args.html {
        write(path, &explain::html(&decoding))?;
        tracing::info!("written to {}", path.display());
    }
    if args.json {
        return output::json(&serde_json::to_value(&decoding)?);
    }
    if args.html.is_none() {
        return terminal::print(&decoding, std::io::stdout().is_terminal());
    }
    Ok(())
}

fn write(path: &Path, page: &str) -> anyhow::Result<()> {
    std::fs::write(path, page)
        .map_err(|error| usage(format!("cannot write `{}`: {error}", path.display()), "name another file for --html"))
}

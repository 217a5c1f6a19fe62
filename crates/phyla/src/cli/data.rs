//! `phyla data`: what training data become before a model sees them.

mod inspect;

use clap::Subcommand;

/// Look at training data
#[derive(clap::Args)]
#[command(after_help = "Examples:
  phyla data inspect chats.jsonl --model models/instruct
  phyla data inspect --recipe recipes/sft.toml --html sft.html")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Inspect(Box<inspect::Args>),
}

pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    match &args.what {
        What::Inspect(args) => inspect::run(args, quiet),
    }
}

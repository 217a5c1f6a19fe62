//! `phyla explain`: what happens inside, shown to people: one subcommand for each thing that can be looked into.

mod decode;
mod terminal;

use clap::Subcommand;

/// Show how an answer comes about
#[derive(clap::Args)]
#[command(after_help = "Examples:
  phyla explain decode --model runs/quickstart/model --prompt \"One day, a little fox\" --html decode.html
  phyla explain decode --help")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Decode(decode::Args),
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        What::Decode(args) => decode::run(args),
    }
}

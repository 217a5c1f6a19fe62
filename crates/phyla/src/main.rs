//! The `phyla` program as a table of contents: each subcommand is one file in `cli/`.

mod cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// One toolkit for every branch of the transformer family tree.
///
/// Data goes to standard output, messages to standard error. The exit status is 0 for success, 2 when
/// the arguments or the files given are at fault, 1 for every other failure, and 128 plus the
/// signal's number for a run that Ctrl-C (130) or SIGTERM (143) has ended.
#[derive(Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
struct Phyla {
    #[command(flatten)]
    global: cli::global::Args,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Chat(cli::chat::Args),
    Bench(cli::bench::Args),
    Cot(cli::cot::Args),
    Data(cli::data::Args),
    DetectWatermark(cli::detect_watermark::Args),
    Embed(cli::embed::Args),
    Eval(cli::eval::Args),
    Explain(cli::explain::Args),
    FillMask(cli::fill_mask::Args),
    Forward(cli::forward::Args),
    Generate(cli::generate::Args),
    Init(cli::init::Args),
    Inspect(cli::inspect::Args),
    Merge(cli::merge::Args),
    Plan(cli::plan::Args),
    Predict(cli::predict::Args),
    Quantize(cli::quantize::Args),
    Quickstart(cli::quickstart::Args),
    Tokenize(cli::tokenize::Args),
    Train(cli::train::Args),
    Translate(cli::translate::Args),
}

fn main() -> ExitCode {
    let phyla = Phyla::parse();
    phyla.global.apply();
    phyla_kernels::memory::keep_freed();
    let done = match phyla.command {
        Command::Chat(args) => cli::chat::run(&args),
        Command::Bench(args) => cli::bench::run(&args, phyla.global.quiet),
        Command::Cot(args) => cli::cot::run(&args),
        Command::Data(args) => cli::data::run(&args, phyla.global.quiet),
        Command::DetectWatermark(args) => cli::detect_watermark::run(&args),
        Command::Embed(args) => cli::embed::run(&args, phyla.global.quiet).map_err(cli::shared::as_options),
        Command::Eval(args) => cli::eval::run(&args, phyla.global.quiet).map_err(cli::shared::as_options),
        Command::Explain(args) => cli::explain::run(&args),
        Command::FillMask(args) => cli::fill_mask::run(&args),
        Command::Forward(args) => cli::forward::run(&args),
        Command::Generate(args) => cli::generate::run(&args, phyla.global.quiet),
        Command::Init(args) => cli::init::run(&args),
        Command::Inspect(args) => cli::inspect::run(&args),
        Command::Merge(args) => cli::merge::run(&args),
        Command::Plan(args) => cli::plan::run(&args),
        Command::Predict(args) => cli::predict::run(&args, phyla.global.quiet).map_err(cli::shared::as_options),
        Command::Quantize(args) => cli::quantize::run(&args, phyla.global.quiet),
        Command::Quickstart(args) => cli::quickstart::run(&args, phyla.global.quiet),
        Command::Tokenize(args) => cli::tokenize::run(&args),
        Command::Train(args) => cli::train::run(&args, phyla.global.quiet),
        Command::Translate(args) => cli::translate::run(&args, phyla.global.quiet).map_err(cli::shared::as_options),
    };
    cli::error::finish(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_every_subcommand_shows_an_example() {
        let mut phyla = Phyla::command();
        phyla.build();
        phyla.clone().debug_assert();
        for command in phyla.get_subcommands().filter(|command| command.get_name() != "help") {
            let name = command.get_name();
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(after.contains(&format!("phyla {name} ")), "`{name}` has no example");
            assert!(command.get_about().is_some(), "`{name}` says not what it does");
        }
    }
}

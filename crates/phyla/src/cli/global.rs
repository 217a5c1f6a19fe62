//! Options that every subcommand understands: how much is said, and on how many threads work is done.

use std::num::NonZeroUsize;

use tracing::level_filters::LevelFilter;

const GLOBAL: &str = "Global options";

#[derive(clap::Args)]
pub struct Args {
    /// Say nothing but errors
    #[arg(short, long, global = true, help_heading = GLOBAL, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Say more; twice for everything
    #[arg(short, long, global = true, help_heading = GLOBAL, action = clap::ArgAction::Count)]
    verbose: u8,

    /// CPU threads [default: one per core]
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

impl Args {
    /// Puts the options in force; to be called once, before any work.
    pub fn apply(&self) {
        tracing_subscriber::fmt()
            .with_max_level(self.level())
            .with_writer(std::io::stderr)
            .with_target(false)
            .without_time()
            .init();
        if let Some(threads) = self.threads {
            phyla_kernels::threads::set_threads(threads.get());
        }
    }

    fn level(&self) -> LevelFilter {
        match (self.quiet, self.verbose) {
            (true, _) => LevelFilter::ERROR,
            (_, 0) => LevelFilter::INFO,
            (_, 1) => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        }
    }
}

//! `phyla bench`: how fast a model trains, reads and writes here, and how fast this machine could at most.

mod child;
mod compare;
mod embed;
mod infer;
mod limit;
mod machine;
mod report;
mod serve;
mod startup;
mod subject;
mod train;

use std::path::PathBuf;

use clap::{Subcommand, value_parser};
use phyla_kernels::roofline;
use phyla_kernels::threads::threads;
use serde_json::json;

use super::cache::CacheArgs;
use super::model::{Dtype, QuantizeArgs};
use super::output;
use report::roofline_json;
use subject::Subject;

/// Measure speed, memory and how near the machine's limit they come
#[derive(clap::Args)]
#[command(after_help = "Examples:
  phyla bench decode --model models/small --new-tokens 64
  phyla bench prefill --config config.json --dtype bf16 --prompt-tokens 1024
  phyla bench decode --config config.json --quantize q4_k_m
  phyla bench train --config config.json --batch 8 --seq 256 --json
  phyla bench roofline --threads 1

Times are medians after a warm-up. In the same run the machine's limits are measured: products of
f32, bf16 and int8 in registers, and reading from main memory. `fraction_of_limit` is the time
that a step would take at the limit, over the time it took: for training and prompts the limit is
the operations of the products and of attention at the peak of the weights' type; for decoding it
is the bytes of weights and cache read for each token. Of experts those count that tokens are sent to.
An encoder reads its prompts whole, without a cache, and has nothing to decode. Memory is the highest resident size of the
process (MB of 10^6 bytes), pages of mapped files included.")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Forward, backward and an AdamW step on random ids
    #[command(after_help = "Example:
  phyla bench train --config config.json --batch 2 --seq 256 --dtype bf16

Weights are kept in f32; with --dtype bf16 the products read a bf16 copy of the matrices.")]
    Train(Train),
    /// Reading a prompt of random ids into an empty cache, up to the logits of its last token; of an encoder up to its heads
    #[command(after_help = "Example:
  phyla bench prefill --model models/small --prompt-tokens 512")]
    Prefill(Prefill),
    /// Writing token after token greedily or with beams, with a cache
    #[command(after_help = "Example:
  phyla bench decode --model models/small --prompt-tokens 64 --new-tokens 64 --threads 2
  phyla bench decode --model models/small --new-tokens 10000 --cache-implementation sliding_window
  phyla bench decode --model models/small --new-tokens 200 --beams 4

cache_bytes is what the cache holds in the end, cache_bytes_most what it ever held. A search's step is a token more for
each of its beams, on average over the whole search; its tokens per second are those of the best beam, and copied_bytes is
what beams that took over from one another copied of the cache.")]
    Decode(Decode),
    /// Answering many requests of mixed length, one after the other and many at once
    #[command(after_help = "Example:
  phyla bench serve --model models/small --requests 64 --concurrency 16

Requests are random ids, read and continued greedily: as many as --prompt-tokens and --new-tokens say on average,
from a half to one and a half times that. First they are answered one after the other, then by an engine that
runs --concurrency of them at a time. Tokens are those written; seconds include reading the prompts. Answers are
compared: over quantised weights they may differ unless --deterministic is given.")]
    Serve(Serve),
    /// Turning texts into vectors, from the text on: tokens, states, their mean
    #[command(after_help = "Example:
  phyla bench embed --model models/embedder --texts texts.txt --dtype bf16 --batch 32

Texts are read in the order of their length, --batch at a time, as `phyla embed` does it. Tokens count without
filling; `tokens_per_second` includes cutting the texts into tokens, `model_seconds` does not.")]
    Embed(Embed),
    /// From the start of the process to its first token, with the files in the system's memory
    #[command(after_help = "Example:
  phyla bench startup --model models/small --steps 9

Runs `phyla generate` for one token, once to warm up and then --steps times, and takes the time
until that token is written.")]
    Startup(Startup),
    /// Our benchmarks and those of other programs, in turns
    #[command(after_help = "Examples:
  phyla bench compare decode --model models/small --gguf models/small.gguf
  phyla bench compare train --config config.json --dtype bf16 --batch 8 --seq 512 --only pytorch
  phyla bench compare embed --model models/embedder --texts texts.txt --peer-dtype int8
  phyla bench compare all --model models/small --embedder models/embedder --texts texts.txt

Each side runs as a process of its own, ours first, then the peer, --pairs times after once each
to warm up. Ratios are of neighbouring runs: how many times as fast ours is, as median and range.
`of the limit` is the share, of ours and of the peer, of what the machine could do with our type
of numbers (see `phyla bench --help`). Memory is the highest resident size of either.

The peers' scripts stand in tests/peers of Phyla's repository, their packages in requirements.txt
there. A peer whose package or input is missing is left out, with a line that says so.")]
    Compare(Box<compare::Args>),
    /// The machine's limits alone
    #[command(after_help = "Example:
  phyla bench roofline --json")]
    Roofline(Roofline),
}

#[derive(clap::Args)]
struct Train {
    #[command(flatten)]
    subject: Subject,

    /// Tokens of a row
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = at_least_one())]
    seq: u64,

    /// Steps that are timed
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = at_least_one())]
    steps: u64,

    /// Dropout in place of the configuration's
    #[arg(long, value_name = "P")]
    dropout: Option<f32>,
}

#[derive(clap::Args)]
struct Prefill {
    #[command(flatten)]
    subject: Subject,

    /// Tokens of each prompt
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = at_least_one())]
    prompt_tokens: u64,

    /// Prompts that are timed, one after the other
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = at_least_one())]
    steps: u64,
}

#[derive(clap::Args)]
struct Decode {
    #[command(flatten)]
    subject: Subject,

    /// Tokens of each prompt
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one())]
    prompt_tokens: u64,

    /// Tokens written after each
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least_one())]
    new_tokens: u64,

    #[command(flatten)]
    cache: CacheArgs,

    /// Follow so many continuations of each prompt, and keep the best: above 1 is beam search
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one())]
    beams: u64,

    /// How many times all that is done
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one())]
    steps: u64,
}

#[derive(clap::Args)]
struct Serve {
    #[command(flatten)]
    subject: Subject,

    /// Requests
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one())]
    requests: u64,

    /// Requests that are answered at a time, at most
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one())]
    concurrency: u64,

    /// Tokens of a prompt, on average
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one())]
    prompt_tokens: u64,

    /// Tokens written after each, on average
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one())]
    new_tokens: u64,

    /// Memory for keys and values, in blocks of 64 positions [default: as many as 1 GiB holds]
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    cache_blocks: Option<u64>,

    /// Let no answer depend on what else is answered, over quantised weights too
    #[arg(long)]
    deterministic: bool,

    /// How many times all that is done
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one())]
    steps: u64,
}

#[derive(clap::Args)]
struct Embed {
    /// A folder, or a hub id such as org/name
    #[arg(long, value_name = "DIR|HUB_ID")]
    model: String,

    /// A file with a text a line
    #[arg(long, value_name = "FILE")]
    texts: PathBuf,

    /// Type of the weights in the products; auto is the stored one
    #[arg(long, value_enum, default_value = "auto")]
    dtype: Dtype,

    #[command(flatten)]
    bits: QuantizeArgs,

    /// Texts that are computed together
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least_one())]
    batch: u64,

    /// How many times all texts are read, after once to warm up
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = at_least_one())]
    steps: u64,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Startup {
    /// A folder, a GGUF file, or a hub id such as org/name
    #[arg(long, value_name = "DIR|GGUF|HUB_ID")]
    model: String,

    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u64).range(1..=1 << 12))]
    prompt_tokens: u64,

    /// Runs that are timed
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = at_least_one())]
    steps: u64,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Roofline {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Counts that fit memory many times over; more is a slip of the finger.
fn at_least_one() -> clap::builder::RangedU64ValueParser {
    value_parser!(u64).range(1..=1 << 24)
}

pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    match &args.what {
        What::Train(train) => train::run(train),
        What::Prefill(prefill) => infer::prefill(prefill),
        What::Decode(decode) => infer::decode(decode),
        What::Serve(serve) => serve::run(serve),
        What::Embed(embed) => embed::run(embed),
        What::Startup(args) => startup::run(args),
        What::Compare(args) => compare::run(args, quiet),
        What::Roofline(args) => {
            let limits = roofline::measure();
            if args.json {
                return output::json(&json!({ "roofline": roofline_json(&limits), "threads": threads() }));
            }
            output::stdout(|out| writeln!(out, "{}", report::machine(&limits)))
        }
    }
}

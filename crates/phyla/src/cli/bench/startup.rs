//! From the start of the process to its first token: `phyla generate` as a user runs it, in a process of its own.

use std::process::Command;

use phyla_kernels::threads::threads;
use serde_json::json;

use super::child::Children;
use super::report::median;
use crate::cli::error::usage;
use crate::cli::{model, output};

pub fn run(args: &super::Startup) -> anyhow::Result<()> {
    let children = Children::new()?;
    let folder = model::folder(&args.model)?;
    // Small ids are in every vocabulary, and need no tokenizer; one that is there is opened all the same.
    let ids: Vec<String> = (0..args.prompt_tokens).map(|at| (1 + at % 8).to_string()).collect();
    let mut seconds = vec![];
    for _ in 0..=args.steps {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["generate", "--max-new-tokens", "1", "--temperature", "0", "--ids", &ids.join(",")]);
        command.arg("--model").arg(&folder).args(["--threads", &threads().to_string()]);
        let finished = children.run(command)?;
        let Some(first) = finished.first_byte.filter(|_| finished.status.success()) else {
            let why = finished.stderr.trim();
            let why = why.strip_prefix("error: ").unwrap_or(why);
            let message = format!("`{}` gives no first token: {why}", args.model);
            return Err(usage(message, "try the model with `phyla generate`"));
        };
        seconds.push(first.as_secs_f64());
    }
    // The first one brings the files into memory.
    let cold = seconds.remove(0);
    let (least, most) = (seconds.iter().copied().fold(f64::MAX, f64::min), seconds.iter().copied().fold(0., f64::max));
    if args.json {
        return output::json(&json!({
            "bench": "startup",
            "prompt_tokens": args.prompt_tokens,
            "threads": threads(),
            "first_token_ms": median(&seconds) * 1e3,
            "first_token_ms_all": seconds.iter().map(|second| second * 1e3).collect::<Vec<_>>(),
            "warm_up_ms": cold * 1e3,
        }));
    }
    output::stdout(|out| {
        let (middle, runs) = (median(&seconds), seconds.len());
        writeln!(out, "startup  {} prompt tokens, {} threads", args.prompt_tokens, threads())?;
        writeln!(
            out,
            "first token {middle:.3} s after the start of the process (median of {runs}, {least:.3} to {most:.3})"
        )?;
        writeln!(out, "warm-up  {cold:.3} s")
    })
}

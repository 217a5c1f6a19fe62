//! `phyla train`: runs a recipe.

use std::path::PathBuf;

use phyla::device::Choice;
use phyla_train::recipe::Recipe;
use phyla_train::{Options, Stopped, Summary, train};

use super::error::{Interrupted, usage};
use super::output;

/// Train a model as a recipe says
#[derive(clap::Args)]
#[command(after_help = "Examples:
  phyla train recipes/quickstart.toml
  phyla train recipes/nanogpt-shakespeare.toml --set data.train=input.txt --set optim.lr=5e-4
  phyla train recipes/quickstart.toml --resume

Ctrl-C and SIGTERM save a checkpoint and end with status 130 and 143; --resume goes on from the newest one,
bit for bit as if never stopped.")]
pub struct Args {
    /// The recipe
    recipe: PathBuf,

    /// Override a key of the recipe; repeatable, the last one wins
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,

    /// Continue the run in the recipe's output folder
    #[arg(long)]
    resume: bool,

    /// Where to compute, in place of the recipe's: auto, cpu, cuda:N, metal
    #[arg(long)]
    device: Option<Choice>,

    /// Seed of every random choice, in place of the recipe's
    #[arg(long)]
    seed: Option<u64>,

    /// Print how the run ended as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    let mut overrides = args.overrides.clone();
    overrides.extend(args.seed.map(|seed| format!("seed={seed}")));
    let recipe = Recipe::read(&args.recipe, &overrides)?;
    let summary = run_recipe(&recipe, args.device, args.resume, quiet)?;
    if args.json {
        output::json(&serde_json::to_value(&summary)?)?;
    } else {
        output::stdout(|out| tell(out, &summary, &recipe))?;
    }
    status(&summary)
}

/// The status of a run that a signal has ended is not that of success: what was to follow it has no model.
pub fn status(summary: &Summary) -> anyhow::Result<()> {
    summary.signal.map_or(Ok(()), |signal| Err(Interrupted(signal).into()))
}

/// Runs a checked recipe with its own settings of device and threads.
pub fn run_recipe(recipe: &Recipe, device: Option<Choice>, resume: bool, quiet: bool) -> anyhow::Result<Summary> {
    let device = match device {
        Some(device) => device,
        None => recipe.device.parse().map_err(|reason: String| {
            usage(format!("recipe: device: {reason}"), "set it to auto, cpu, cuda:N or metal")
        })?,
    };
    if let Some(threads) = recipe.threads {
        phyla_kernels::threads::set_threads(threads);
    }
    Ok(train(recipe, &Options { resume, quiet, device: device.open()? })?)
}

fn tell(out: &mut dyn std::io::Write, summary: &Summary, recipe: &Recipe) -> std::io::Result<()> {
    let Summary { steps, tokens, seconds, loss, .. } = summary;
    writeln!(out, "{steps} steps, {tokens} tokens, {seconds:.1} s; training loss {loss:.4}")?;
    if let (Some(loss), Some(perplexity)) = (summary.eval_loss, summary.perplexity) {
        writeln!(out, "validation loss {loss:.4}, perplexity {perplexity:.2}")?;
    }
    match summary.stopped {
        Some(Stopped::Interrupted) => writeln!(out, "stopped and saved; go on with --resume")?,
        Some(Stopped::Early) => writeln!(out, "stopped early: the validation loss no longer falls")?,
        None => {}
    }
    if let Some(model) = &summary.model {
        writeln!(out, "model   {}", model.display())?;
    }
    writeln!(out, "report  {}", summary.report.display())?;
    writeln!(out, "run     {}", recipe.output.display())
}

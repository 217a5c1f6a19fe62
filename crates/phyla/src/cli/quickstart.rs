//! `phyla quickstart`: from nothing to a model that tells stories, in three minutes and without network.

use std::io::Write;
use std::path::{Path, PathBuf};

use phyla_data::stories;
use phyla_data::tokenizer::Tokenizer;
use phyla_generate::{Event, GenerationConfig, Generator};
use phyla_models::{LoadOptions, Model, load};
use phyla_train::Summary;
use phyla_train::recipe::Recipe;

use super::{output, train};

/// Write stories, train a tokenizer and a small model on them, and let it tell three of its own
#[derive(clap::Args)]
#[command(after_help = "Examples:
  phyla quickstart
  phyla quickstart --output runs/again --seed 7 --minutes 5

Everything is made here: the corpus by a grammar, the tokenizer and the model from that corpus.")]
pub struct Args {
    /// Where everything goes
    #[arg(long, default_value = "runs/quickstart")]
    output: PathBuf,

    /// Seed of the stories, the weights and the order of training
    #[arg(long)]
    seed: Option<u64>,

    /// Time for training
    #[arg(long)]
    minutes: Option<f64>,

    /// Print how it ended as JSON
    #[arg(long)]
    json: bool,
}

const RECIPE: &str = include_str!("../../../../recipes/quickstart.toml");

pub fn run(args: &Args, quiet: bool) -> anyhow::Result<()> {
    let mut overrides = vec![format!("output={:?}", args.output)];
    if let Some(seed) = args.seed {
        overrides.extend([format!("seed={seed}"), format!("data.seed={seed}")]);
    }
    overrides.extend(args.minutes.map(|minutes| format!("train.minutes={minutes}")));
    let recipe = Recipe::parse("quickstart.toml", RECIPE, &overrides)?;
    let resume = args.output.join("checkpoints").exists();
    if !quiet {
        eprintln!(
            "writing stories, training a tokenizer and a model on them; everything goes to {}",
            args.output.display()
        );
        if resume {
            eprintln!("a run is there already and goes on; remove the folder to start afresh");
        }
    }
    let summary = train::run_recipe(&recipe, None, resume, quiet)?;
    if args.json {
        output::json(&serde_json::to_value(&summary)?)?;
        return train::status(&summary);
    }
    let Some(folder) = &summary.model else {
        output::stdout(|out| writeln!(out, "stopped and saved; run `phyla quickstart` again to go on"))?;
        return train::status(&summary);
    };
    tell(&summary)?;
    let (model, tokenizer) = (load(folder, &LoadOptions::default())?.0, Tokenizer::load(folder)?);
    for (number, prompt) in stories::prompts().iter().take(STORIES).enumerate() {
        story(&model, &tokenizer, prompt, recipe.seed + number as u64)?;
    }
    next(folder, &summary)
}

const STORIES: usize = 3;

fn tell(summary: &Summary) -> anyhow::Result<()> {
    let (loss, perplexity) = (summary.eval_loss.unwrap_or(f64::NAN), summary.perplexity.unwrap_or(f64::NAN));
    output::stdout(|out| {
        writeln!(
            out,
            "\n{} parameters, {} steps over {} tokens in {:.0} s",
            output::count(summary.parameters as u64),
            summary.steps,
            output::count(summary.tokens),
            summary.seconds
        )?;
        writeln!(out, "held-out loss {loss:.4}, held-out perplexity {perplexity:.3}\n")
    })
}

/// Streams one story.
fn story(model: &Model, tokenizer: &Tokenizer, prompt: &str, seed: u64) -> anyhow::Result<()> {
    let config = GenerationConfig {
        max_new_tokens: Some(230),
        do_sample: Some(true),
        temperature: Some(0.7),
        top_k: Some(0),
        top_p: Some(0.95),
        eos_token_id: tokenizer.eos().map(|eos| vec![eos]),
        ..GenerationConfig::default()
    };
    let ids = tokenizer.encode(prompt, false)?;
    let mut failed = None;
    let mut write = |text: &str| {
        let mut out = std::io::stdout().lock();
        if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            failed.get_or_insert(error);
        }
    };
    write(prompt);
    Generator::new(model, Some(tokenizer)).generate(&[ids], &config, seed, &mut |event| match event {
        Event::Token { text, .. } | Event::Finished { text, .. } => write(text),
    })?;
    write("\n\n");
    failed.map_or(Ok(()), |error| Err(error.into()))
}

fn next(folder: &Path, summary: &Summary) -> anyhow::Result<()> {
    let folder = folder.display();
    output::stdout(|out| {
        writeln!(out, "The report, with the curves: {}", summary.report.display())?;
        writeln!(out, "Try next:")?;
        writeln!(out, "  phyla generate --model {folder} --prompt \"One day, a little fox\" --temperature 0.8")?;
        writeln!(out, "  phyla inspect {folder}")?;
        writeln!(out, "  phyla bench decode --model {folder}")?;
        writeln!(out, "  phyla train recipes/quickstart.toml --set output=runs/mine --set model.hidden_size=256")
    })
}

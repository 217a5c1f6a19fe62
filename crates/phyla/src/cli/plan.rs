//! `phyla plan`: how much memory a run, or a model that answers, will take, before anything is loaded.

use std::io::{self, Write};
use std::path::PathBuf;

use phyla_kernels::page::{Kept, NAMES};
use phyla_models::{Towers, hollow, read_config};
use phyla_train::plan::{KnownRows, Plan, Serving, plan, serve};
use phyla_train::recipe::Recipe;

use super::error::usage;
use super::model::{self, Dtype, QuantizeArgs};
use super::output;

/// Say how much memory training or answering takes
#[derive(clap::Args)]
#[command(after_help = "Examples:
  phyla plan recipes/sft.toml
  phyla plan recipes/quickstart.toml --set dtype=bf16 --set train.activation_checkpointing=true
  phyla plan --model models/small --method lora --batch 1 --length 512
  phyla plan --model models/small --method lora --quantize q4_k_m --set 'method.targets=[\"**.{q,k,v,o}\"]'
  phyla plan --model models/small --serve --context 8192 --sequences 4 --cache-dtype q8_0

Nothing is loaded or computed: sizes are added up, and a step is run on sizes alone. docs/handbook/memory.md
has the formulas.")]
pub struct Args {
    /// A recipe of `phyla train`
    #[arg(value_name = "RECIPE", required_unless_present = "model", conflicts_with = "model")]
    recipe: Option<PathBuf>,

    /// Override a key of the recipe; repeatable, the last one wins
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,

    /// A model in place of a recipe: its folder, hub id, config.json or GGUF file
    #[arg(long, value_name = "DIR|HUB_ID|FILE")]
    model: Option<String>,

    /// How --model is trained: full, bitfit, layer_norm, lora, adalora, vera, ia3 or bottleneck
    #[arg(long, value_name = "KIND", default_value = "full", requires = "model")]
    method: String,

    /// The update rule: adamw, sgd, lion or adafactor
    #[arg(long, value_name = "KIND", default_value = "adamw", requires = "model")]
    optimizer: String,

    /// Examples of a batch
    #[arg(long, value_name = "N")]
    batch: Option<usize>,

    /// Tokens of a row
    #[arg(long, value_name = "N")]
    length: Option<usize>,

    /// Tokens of a row that an encoder reads for a decoder
    #[arg(long, value_name = "N")]
    source_length: Option<usize>,

    /// Compute layers again in the backward pass
    #[arg(long, requires = "model")]
    checkpointing: bool,

    /// The type of numbers; auto is f32 for training, and what is stored for --serve
    #[arg(long, value_enum, default_value_t = Dtype::Auto, requires = "model")]
    dtype: Dtype,

    #[command(flatten)]
    bits: QuantizeArgs,

    /// Count what answering takes, not what training does
    #[arg(long, requires = "model", conflicts_with_all = ["batch", "length", "checkpointing", "overrides"])]
    serve: bool,

    /// With --serve: positions of a sequence, prompt and answer together; the model's own unless given
    #[arg(long, value_name = "N", requires = "serve")]
    context: Option<usize>,

    /// With --serve: sequences at once
    #[arg(long, value_name = "N", default_value_t = 1, requires = "serve")]
    sequences: usize,

    /// With --serve: what keys and values are kept as: f32, bf16, f16, q8_0, q4_0 or another kind of blocks of 32
    #[arg(long, value_name = "KIND", requires = "serve")]
    cache_dtype: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let made = match (&args.recipe, &args.model) {
        (Some(recipe), _) => plan(&Recipe::read(recipe, &args.overrides)?, args.known())?,
        (None, Some(model)) if args.serve => args.serving(model)?,
        (None, Some(model)) => plan(&args.recipe_for(model)?, args.known())?,
        (None, None) => return Err(usage("nothing to plan for", "give a recipe, or a model with --model")),
    };
    if args.json {
        return output::json(&serde_json::to_value(&made)?);
    }
    output::stdout(|out| table(out, &made))
}

impl Args {
    fn known(&self) -> KnownRows {
        KnownRows { batch: self.batch, length: self.length, source: self.source_length }
    }

    /// What a recipe that trains the model would say.
    fn recipe_for(&self, name: &str) -> anyhow::Result<Recipe> {
        let path = model::folder(name)?;
        let (arch, _) = hollow(&read_config(&path)?.0, None, None)?;
        let objective = match arch.arch.towers {
            Towers::Decoder(_) => "lm",
            Towers::Encoder(_) => "mlm",
            Towers::Both { .. } => "t5_span",
        };
        let dtype = match self.dtype {
            Dtype::F16 | Dtype::Int8 => return Err(usage("training is in f32 or bf16", "give --dtype f32 or bf16")),
            Dtype::Bf16 => "bf16",
            Dtype::F32 | Dtype::Auto => "f32",
        };
        let named = serde_json::to_string(&path.display().to_string())?;
        let quantize = self.bits.quantize.map(|kind| format!("quantize = \"{kind}\"\n")).unwrap_or_default();
        let text = format!(
            "model = {named}\ndtype = \"{dtype}\"\n{quantize}[data]\nkind = \"stories\"\n[objective]\nkind = \
             \"{objective}\"\n[method]\nkind = \"{}\"\n[optim]\nkind = \"{}\"\nlr = 1e-4\n[train]\nsteps = 1\nbatch = \
             {}\nactivation_checkpointing = {}\n",
            self.method,
            self.optimizer,
            self.batch.unwrap_or(1),
            self.checkpointing
        );
        Ok(Recipe::parse("plan", &text, &self.overrides)?)
    }

    fn serving(&self, name: &str) -> anyhow::Result<Plan> {
        let cache = match &self.cache_dtype {
            Some(kind) => Some(Kept::from_name(kind).ok_or_else(|| {
                usage(
                    format!("--cache-dtype: a cache keeps nothing as {kind}"),
                    format!("give one of {}", NAMES.join(", ")),
                )
            })?),
            None => None,
        };
        let quantize = model::quantize(self.dtype, self.bits)?;
        let (context, sequences) = (self.context, self.sequences);
        let serving = Serving { dtype: self.dtype.wanted(), quantize, context, sequences, cache };
        Ok(serve(&model::folder(name)?, &serving)?)
    }
}

fn table(out: &mut dyn Write, plan: &Plan) -> io::Result<()> {
    let size = |bytes: usize| output::bytes(bytes as u64);
    let [all, learned] = plan.parameters.map(|count| output::count(count as u64));
    match plan.rows {
        Some(rows) => {
            let source = rows.source.map(|source| format!(" for {source} of the encoder")).unwrap_or_default();
            writeln!(out, "{all} parameters, {learned} learn; {} rows of {} tokens{source}", rows.batch, rows.length)?;
        }
        None => writeln!(out, "{all} parameters")?,
    }
    writeln!(out)?;
    for item in &plan.items {
        writeln!(out, "  {:<16} {:>9}   {}", item.name, size(item.bytes), item.note)?;
    }
    if let Some(worse) = &plan.worse {
        let sum: usize = plan.items.iter().map(|item| item.bytes).sum();
        writeln!(out, "  {:<16} {:>9}", "together", size(sum))?;
        writeln!(out, "  {:<16} {:>9}   {}", worse.name, size(worse.bytes), worse.note)?;
    }
    writeln!(out, "  {:<16} {:>9}", "peak", size(plan.peak))?;
    if let Some(machine) = plan.machine {
        let verdict = if plan.peak <= machine { "fits into" } else { "is more than" };
        writeln!(out, "\nThat {verdict} this machine's {}.", size(machine))?;
    }
    plan.notes.iter().try_for_each(|note| writeln!(out, "Note: {note}."))
}

//! `phyla merge`: an adapter written into the weights of its model, with what that changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use candle_core::DType;
use clap::ValueEnum;
use phyla_data::tokenizer::Tokenizer;
use phyla_models::adapter::{Adapter, Combine, Majority, combine, is_adapter, merge};
use phyla_models::checkpoint::AtomicDir;
use phyla_models::lineage::{Lineage, Parent};
use phyla_models::{Input, LoadOptions, Model, Quantize, load, save};
use serde_json::json;

use super::error::usage;
use super::{model, output};

/// Write a model with an adapter's changes in its weights
#[derive(clap::Args)]
#[command(after_help = "Examples:
  phyla merge --model models/small --adapter runs/lora/model --output models/small-tuned
  phyla merge --model models/small --adapter runs/qlora/model --output merged --dtype bf16 --json
  phyla merge --model models/small --adapter a --adapter b --weights 0.7,0.3 --combine svd --output both
  phyla merge --model models/small --adapter a --adapter b --combine ties --density 0.5 --as-adapter --output ab

The merged folder opens like any other, and nothing is computed beside its weights any more. Prompts
are read by the model with the adapter beside it and by the merged one, and the drift between the two
is printed: the largest difference of a logit, as a share of the largest logit, how often the likeliest
token is the same, and the divergence of the two distributions in nats.

An adapter that was trained beside quantised weights (`quantize` in its recipe) is merged into what
those stand for, since that is what it has learned to correct: pass --quantize to choose another kind,
or none.

Several adapters are added up, one after the other. --weights gives them shares, and --combine a way to
become one, by peft's names: cat (the weighted sum of what they add, exactly; the default beside
--weights), linear (of the matrices), svd (the exact sum brought to a rank), ties, dare_linear,
dare_ties and magnitude_prune, which leave numbers out (--density), and each of these with _svd: of the
products rather than of the matrices. --as-adapter writes the one adapter instead of merging it.

The tokenizer is the adapter's, where its folder has one, with the chat template that it was trained with.

An adapter says which weights it was trained beside, by their hash. Others are refused; --force merges
all the same.")]
pub struct Args {
    /// A folder, or a hub id such as org/name
    #[arg(long, value_name = "DIR|HUB_ID")]
    model: String,

    /// An adapter's folder; repeat it to merge several, one after the other
    #[arg(long, value_name = "DIR", required = true)]
    adapter: Vec<PathBuf>,

    /// The share of each adapter, which may be negative [default: 1 each]
    #[arg(long, value_name = "W,W,…", value_delimiter = ',', allow_hyphen_values = true)]
    weights: Vec<f32>,

    /// How several adapters become one: cat, linear, svd, ties, ties_svd, dare_linear, dare_linear_svd, dare_ties,
    /// dare_ties_svd, magnitude_prune or magnitude_prune_svd
    #[arg(long, value_name = "HOW")]
    combine: Option<Combine>,

    /// The share of an adapter's numbers that stay, above 0 and at most 1 (ties, dare and magnitude_prune)
    #[arg(long, value_name = "SHARE", requires = "combine")]
    density: Option<f64>,

    /// Whose sign counts where adapters disagree (ties): that of the sum, or the more frequent one
    #[arg(long, value_enum, default_value = "total", requires = "combine")]
    majority_sign_method: Sign,

    /// Rank of what comes of …svd [default: the largest of the adapters']
    #[arg(long, value_name = "RANK", requires = "combine")]
    svd_rank: Option<usize>,

    /// Decides which numbers dare keeps
    #[arg(long, default_value_t = 0, requires = "combine")]
    seed: u64,

    /// Write the combined adapter, and no model
    #[arg(long)]
    as_adapter: bool,

    /// The folder to write
    #[arg(long, value_name = "DIR")]
    output: PathBuf,

    /// Type of the written weights; auto is the stored one, or f32 of quantised ones
    #[arg(long, value_enum, default_value = "auto")]
    dtype: Stored,

    /// What the weights were kept as beside the adapter, or none [default: as the adapter says]
    #[arg(long, value_name = "KIND")]
    quantize: Option<String>,

    /// A text on which the two are compared; repeatable [default: a few of our own]
    #[arg(long, value_name = "TEXT")]
    prompt: Vec<String>,

    /// Merge into weights that the adapter was not trained beside
    #[arg(long)]
    force: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Whose sign counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sign {
    Total,
    Frequency,
}

/// A type in which weights are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Stored {
    Auto,
    F32,
    Bf16,
    F16,
}

/// Texts that any tokenizer reads.
const PROMPTS: [&str; 3] =
    ["One day, a little fox came to the river.", "Question: What is 12 plus 30?\nAnswer:", "The weather today is"];

/// Ids for models without a tokenizer.
const IDS: usize = 24;

/// How far the merged model is from the one with adapters beside it.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
struct Drift {
    /// The largest difference of a logit over the largest logit.
    logits: f64,
    /// Positions at which the likeliest token is the same.
    same: usize,
    /// Positions.
    positions: usize,
    /// Mean divergence of the merged distribution, in nats.
    kl: f64,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    for folder in &args.adapter {
        if !is_adapter(folder) {
            return Err(usage(
                format!("`{}` holds no adapter_config.json", folder.display()),
                "name the folder that peft or `phyla train` wrote",
            ));
        }
    }
    let folder = model::folder(&args.model)?;
    let known: Vec<Option<Lineage>> = args.adapter.iter().map(|path| Lineage::read(path)).collect::<Result<_, _>>()?;
    let parent = Parent::of(&args.model, &folder)?;
    check_parent(args, &parent, &known)?;
    let quantize = quantize(args, &known)?;
    let stored = stored(&folder)?;
    let dtype = if quantize.is_some() { None } else { Some(DType::F32) };
    let (model, report) = load(&folder, &LoadOptions { dtype, quantize, ..LoadOptions::default() })?;
    for warning in &report.warnings {
        tracing::warn!("{warning}");
    }
    // What an adapter was trained with, a chat template say, goes before what the model came with.
    let taught = args.adapter.iter().rev().map(PathBuf::as_path).find(|path| fits(path, &model));
    let tokenizer = Tokenizer::load(taught.unwrap_or(&folder)).ok();
    let mut adapters = vec![];
    for path in &args.adapter {
        adapters.push(Arc::new(Adapter::load(&model, path)?));
    }
    if let Some(how) = combination(args)? {
        let weights = args.weights.iter().copied().chain(std::iter::repeat(1.));
        let weighted: Vec<(Arc<Adapter>, f32)> = adapters.drain(..).zip(weights).collect();
        adapters.push(Arc::new(combine(&weighted, &how)?));
    }
    if args.as_adapter {
        return write_adapter(args, (&model, &adapters), parent, &known);
    }
    model.use_adapters(&adapters);
    let prompts = prompts(args, &model, tokenizer.as_ref())?;
    let beside = logits(&model, &prompts)?;
    for adapter in &adapters {
        merge(&model, adapter)?;
    }
    let drift = drift(&beside, &logits(&model, &prompts)?);
    let written =
        AtomicDir::create(&args.output).with_context(|| format!("cannot write `{}`", args.output.display()))?;
    save(&model, written.path(), args.dtype.or(stored))?;
    if let Some(tokenizer) = &tokenizer {
        tokenizer.save_into(written.path())?;
    }
    let own = [taught, Some(folder.as_path())].into_iter().flatten().map(|path| path.join("generation_config.json"));
    if let Some(generation) = own.into_iter().find(|path| path.is_file()) {
        std::fs::copy(&generation, written.path().join("generation_config.json"))?;
    }
    lineage(args, "merge", parent, quantize.map(|kind| kind.to_string()))?.write(written.path())?;
    written.commit()?;
    show(args, &drift)
}

/// What is written, and of what.
fn lineage(args: &Args, method: &str, parent: Parent, quantize: Option<String>) -> anyhow::Result<Lineage> {
    let name = |path: &PathBuf| Parent::of(&path.to_string_lossy(), &path.join("adapter_model.safetensors"));
    Ok(Lineage {
        version: env!("CARGO_PKG_VERSION").into(),
        method: method.into(),
        merged: args.adapter.iter().map(name).collect::<Result<_, _>>()?,
        parent: Some(parent),
        quantize,
        ..Lineage::default()
    })
}

/// How the adapters become one, if they are to.
fn combination(args: &Args) -> anyhow::Result<Option<Combine>> {
    let (shares, adapters) = (args.weights.len(), args.adapter.len());
    if shares != 0 && shares != adapters {
        return Err(usage(
            format!("--weights has {shares} numbers for {adapters} adapters"),
            "give one number for each --adapter, in their order",
        ));
    }
    let exact = (shares > 0 || (args.as_adapter && adapters > 1)).then(|| "cat".parse()).transpose();
    let Some(how) = args.combine.map_or(exact, |how| Ok(Some(how))).map_err(|e: String| usage(e, "name another"))?
    else {
        return Ok(None);
    };
    let majority = if args.majority_sign_method == Sign::Total { Majority::Total } else { Majority::Frequency };
    Ok(Some(Combine { density: args.density, rank: args.svd_rank, seed: args.seed, majority, ..how }))
}

/// Writes the one adapter that several became.
fn write_adapter(
    args: &Args,
    (model, adapters): (&Model, &[Arc<Adapter>]),
    parent: Parent,
    known: &[Option<Lineage>],
) -> anyhow::Result<()> {
    let [adapter] = adapters else {
        return Err(usage("--as-adapter writes one adapter, and these are several", "say how with --combine"));
    };
    let written =
        AtomicDir::create(&args.output).with_context(|| format!("cannot write `{}`", args.output.display()))?;
    adapter.save(model, written.path(), Some(&parent.name))?;
    let quantize = known.iter().flatten().find_map(|lineage| lineage.quantize.clone());
    lineage(args, "combine", parent, quantize)?.write(written.path())?;
    written.commit()?;
    if args.json {
        return output::json(&json!({ "output": args.output, "parameters": adapter.count() }));
    }
    output::stdout(|out| {
        writeln!(out, "written to {}: an adapter of {} numbers", args.output.display(), adapter.count())
    })
}

/// Whether a folder has a tokenizer for this model.
fn fits(folder: &Path, model: &Model) -> bool {
    Tokenizer::load(folder).is_ok_and(|tokenizer| tokenizer.vocab_size() <= model.arch.vocab())
}

impl Stored {
    fn or(self, stored: DType) -> DType {
        match self {
            Self::Auto => stored,
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }
}

/// Refuses weights that an adapter was not trained beside.
fn check_parent(args: &Args, parent: &Parent, known: &[Option<Lineage>]) -> anyhow::Result<()> {
    for (path, lineage) in args.adapter.iter().zip(known) {
        let Some(base) = lineage.as_ref().and_then(|lineage| lineage.parent.as_ref()) else {
            tracing::warn!("{} does not say which weights it was trained beside: this is not checked", path.display());
            continue;
        };
        if base.weights == parent.weights {
            continue;
        }
        let found = format!(
            "`{}` was trained beside `{}` with the hash {}, and `{}` has {}",
            path.display(),
            base.name,
            short(&base.weights),
            parent.name,
            short(&parent.weights)
        );
        if !args.force {
            return Err(usage(found, "give the model that it was trained beside, or --force"));
        }
        tracing::warn!("{found}: merged all the same");
    }
    Ok(())
}

fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

/// What the weights are taken as.
fn quantize(args: &Args, known: &[Option<Lineage>]) -> anyhow::Result<Option<Quantize>> {
    let said = known.iter().flatten().find_map(|lineage| lineage.quantize.clone());
    let kind = match args.quantize.clone().or(said) {
        Some(kind) if kind != "none" => kind,
        _ => return Ok(None),
    };
    kind.parse().map(Some).map_err(|error: String| usage(format!("--quantize: {error}"), "name a kind, or none"))
}

/// The type of most of the stored weights, if a folder of transformers can hold it.
fn stored(path: &Path) -> anyhow::Result<DType> {
    use phyla_models::checkpoint::{Checkpoint, Dtype};
    let checkpoint = Checkpoint::open(path)?;
    let mut bytes = [0usize; 2];
    for name in checkpoint.names() {
        let view = checkpoint.get(name)?;
        match view.dtype {
            Dtype::BF16 => bytes[0] += view.bytes().len(),
            Dtype::F16 => bytes[1] += view.bytes().len(),
            _ => {}
        }
    }
    let half = checkpoint.total_bytes() as usize / 2;
    Ok(if bytes[0] > half {
        DType::BF16
    } else if bytes[1] > half {
        DType::F16
    } else {
        DType::F32
    })
}

fn prompts(args: &Args, model: &Model, tokenizer: Option<&Tokenizer>) -> anyhow::Result<Vec<Vec<u32>>> {
    let texts = || args.prompt.iter().map(String::as_str);
    let mut prompts: Vec<Vec<u32>> = match tokenizer {
        Some(tokenizer) if args.prompt.is_empty() => {
            PROMPTS.iter().map(|text| tokenizer.encode(text, true)).collect::<Result<_, _>>()?
        }
        Some(tokenizer) => texts().map(|text| tokenizer.encode(text, true)).collect::<Result<_, _>>()?,
        None => vec![(0..IDS as u32).map(|at| (at * 7 + 1) % model.arch.vocab() as u32).collect()],
    };
    prompts.iter_mut().for_each(|ids| ids.truncate(model.arch.context));
    prompts.retain(|ids| !ids.is_empty());
    Ok(prompts)
}

/// What the model answers at every position: rows of its widest answer.
fn logits(model: &Model, prompts: &[Vec<u32>]) -> anyhow::Result<Vec<Vec<f32>>> {
    let mut rows = vec![];
    for ids in prompts {
        let results = phyla_ops::no_grad(|| model.run(&Input::row(ids), false))?;
        let wanted = |name: &str| results.iter().find(|(known, _)| known == name);
        let Some((_, answer)) = wanted("logits").or_else(|| wanted("last_hidden_state")) else { continue };
        let width = answer.last_dim();
        let values: Vec<f32> = answer.data().to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        rows.extend(values.chunks(width.max(1)).map(<[f32]>::to_vec));
    }
    Ok(rows)
}

fn drift(beside: &[Vec<f32>], merged: &[Vec<f32>]) -> Drift {
    let largest = beside.iter().flatten().fold(0f64, |top, &x| top.max(f64::from(x.abs())));
    let mut drift = Drift { positions: beside.len(), ..Drift::default() };
    for (a, b) in beside.iter().zip(merged) {
        let apart = a.iter().zip(b).map(|(&a, &b)| f64::from((a - b).abs())).fold(0., f64::max);
        drift.logits = drift.logits.max(apart / largest.max(f64::MIN_POSITIVE));
        drift.same += usize::from(likeliest(a) == likeliest(b));
        drift.kl += divergence(a, b) / beside.len() as f64;
    }
    drift
}

fn likeliest(row: &[f32]) -> Option<usize> {
    (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]))
}

/// KL(a ∥ b) of the softmax of two rows.
fn divergence(a: &[f32], b: &[f32]) -> f64 {
    let log_sum = |row: &[f32]| {
        let top = row.iter().fold(f64::NEG_INFINITY, |top, &x| top.max(f64::from(x)));
        top + row.iter().map(|&x| (f64::from(x) - top).exp()).sum::<f64>().ln()
    };
    let (over_a, over_b) = (log_sum(a), log_sum(b));
    let term = |(&a, &b): (&f32, &f32)| {
        let (a, b) = (f64::from(a) - over_a, f64::from(b) - over_b);
        a.exp() * (a - b)
    };
    a.iter().zip(b).map(term).sum::<f64>().max(0.)
}

fn show(args: &Args, drift: &Drift) -> anyhow::Result<()> {
    if args.json {
        return output::json(&json!({ "output": args.output, "drift": drift }));
    }
    output::stdout(|out| {
        writeln!(out, "written to {}", args.output.display())?;
        writeln!(out, "drift of logits      {:.2e} of the largest", drift.logits)?;
        writeln!(out, "likeliest tokens     {} of {} the same", drift.same, drift.positions)?;
        writeln!(out, "divergence           {:.2e} nats", drift.kl)
    })
}

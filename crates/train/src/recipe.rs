//! A training run as one TOML file: this file joins the tables, `recipe/` holds one table per file.
//!
//! Reading is strict, because a misspelt key that is ignored trains the wrong model for hours: every
//! unknown key is an error with its table, its line and the nearest valid key, and every pattern and
//! number is checked before anything is loaded. Paths are relative to the working directory.

mod data;
mod distill;
mod fields;
mod method;
mod model;
mod objective;
mod optim;
mod read;
mod schedule;
mod set;
mod tokenizer;
mod train;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use data::{Columns, Data, Generated, Packing, Source, Stories, Sums, Table, TaskName, Text};
pub use distill::Distill;
pub use method::{Full, Method, Only};
pub use model::Model;
pub use objective::{
    Cpo, CpoLoss, Dpo, DpoLoss, FDivergence, Grpo, GrpoLoss, ImportanceSampling, KlEstimator, Kto, KtoLoss, LengthUnit,
    Lm, MlmNsp, Objective, OnlineDpo, Orpo, Play, Ppo, Qa, Reads, Reference, Reward, RewardFunction, RewardLoss, Rloo,
    Rollout, ScaleRewards, Seq2Seq, Sft, Simpo,
};
pub use optim::{Adafactor, AdamW, Lion, Optim, OptimGroup, ParamSettings, Rule, Sgd};
pub use schedule::{Constant, Cosine, DecayShape, InverseSqrt, Linear, ScheduleTable, Shape, Wsd};
pub use tokenizer::{Bpe, BpePreset, Characters, FromFile, TokenizerTable};
pub use train::{Dropout, Length, Sample, Train};

use read::{Reader, kinded_to_table, to_table};

/// Why a recipe could not be used; the message is complete and meant for its author.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The file could not be read.
    #[error("cannot read recipe {path}: {source}")]
    Read {
        /// The recipe file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is not TOML.
    #[error("{at}: not valid TOML: {message}")]
    Syntax {
        /// File, line and column.
        at: String,
        /// What the parser expected and found.
        message: String,
    },
    /// A key is unknown, missing, or of the wrong type.
    #[error("{at}: {message}")]
    Key {
        /// File, line and column, or the override that set the key.
        at: String,
        /// Key, table, what was expected, nearest valid key.
        message: String,
    },
    /// An override on the command line could not be applied.
    #[error("--set {assignment}: {message}")]
    Set {
        /// The override as it was given.
        assignment: String,
        /// What is wrong with it.
        message: String,
    },
    /// Every key is well-formed but values contradict each other or are out of range.
    #[error("{name}: {}", .problems.join("; "))]
    Invalid {
        /// The recipe.
        name: String,
        /// One sentence per problem.
        problems: Vec<String>,
    },
}

/// The precision of the arithmetic; weights of the optimiser are f32 in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dtype {
    /// Everything in f32.
    #[default]
    F32,
    /// Mixed precision: bf16 copies of the weights in products, f32 master weights.
    Bf16,
}

/// A complete, checked recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// What is trained: a folder, a hub id, a `config.json`, or an inline config.
    pub model: Model,
    /// The run folder; `runs/<recipe name>` unless given.
    pub output: PathBuf,
    /// Seed of every random choice of the run.
    pub seed: u64,
    /// `auto`, `cpu`, `cuda:N` or `metal`.
    pub device: String,
    /// Precision of the arithmetic.
    pub dtype: Dtype,
    /// What the weights are kept as beside an adapter: q8_0, q4_k_m, …; as `dtype` says when absent.
    pub quantize: Option<String>,
    /// CPU threads; all cores when absent.
    pub threads: Option<usize>,
    /// `[tokenizer]`: the model folder's own when absent.
    pub tokenizer: Option<TokenizerTable>,
    /// `[data]`.
    pub data: Data,
    /// `[method]`: which weights are trained.
    pub method: Method,
    /// `[objective]`: what is minimised.
    pub objective: Objective,
    /// `[distill]`: the teacher, where there is one.
    pub distill: Option<Distill>,
    /// `[optim]`.
    pub optim: Optim,
    /// `[schedule]`: the learning rate over time.
    pub schedule: ScheduleTable,
    /// `[train]`: how long, how much at once, and what is written when.
    pub train: Train,
}

/// The top level as written; the tables are read one by one so that errors can name them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Top {
    model: toml::Value,
    output: Option<PathBuf>,
    #[serde(default)]
    seed: u64,
    #[serde(default = "auto")]
    device: String,
    #[serde(default)]
    dtype: Dtype,
    quantize: Option<String>,
    threads: Option<usize>,
    tokenizer: Option<toml::Value>,
    data: toml::Table,
    method: Option<toml::Table>,
    objective: Option<toml::Table>,
    distill: Option<toml::Table>,
    optim: toml::Table,
    schedule: Option<toml::Table>,
    train: toml::Table,
}

/// More would exhaust the system's own tables before they did any work.
const MAX_THREADS: usize = 4096;

fn auto() -> String {
    "auto".into()
}

impl Recipe {
    /// Reads a recipe file and applies overrides such as `optim.lr=1e-4`, later ones winning.
    ///
    /// # Errors
    /// See [`RecipeError`].
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, RecipeError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| RecipeError::Read { path: path.to_owned(), source })?;
        Self::parse(&path.display().to_string(), &text, overrides)
    }

    /// Parses the text of a recipe; `name` is its file name, for messages and the default output folder.
    ///
    /// # Errors
    /// See [`RecipeError`].
    pub fn parse(name: &str, text: &str, overrides: &[String]) -> Result<Self, RecipeError> {
        let (reader, values) = Reader::new(name, text, overrides)?;
        let top: Top = reader.plain(&[], values)?;
        let stem = Path::new(name).file_stem().unwrap_or("run".as_ref());
        let recipe = Self {
            model: Model::from_value(top.model).map_err(|message| reader.at(&["model"], message))?,
            output: top.output.unwrap_or_else(|| Path::new("runs").join(stem)),
            seed: top.seed,
            device: top.device,
            dtype: top.dtype,
            quantize: top.quantize,
            threads: top.threads,
            tokenizer: top.tokenizer.map(|value| tokenizer::read(&reader, value)).transpose()?,
            data: reader.kinded("data", top.data)?,
            method: reader.tagged("method", top.method.unwrap_or_default(), Some("full"))?,
            objective: reader.tagged("objective", top.objective.unwrap_or_default(), Some("lm"))?,
            distill: top.distill.map(|table| reader.plain(&["distill"], table)).transpose()?,
            optim: reader.kinded("optim", top.optim)?,
            schedule: reader.kinded("schedule", top.schedule.unwrap_or_default())?,
            train: reader.plain(&["train"], top.train)?,
        };
        let problems = recipe.problems();
        if problems.is_empty() { Ok(recipe) } else { Err(RecipeError::Invalid { name: name.into(), problems }) }
    }

    /// The type of a model's matrices that do not learn: they are kept as they are multiplied.
    #[must_use]
    pub fn frozen_dtype(&self) -> candle_core::DType {
        match self.dtype {
            Dtype::F32 => candle_core::DType::F32,
            Dtype::Bf16 => candle_core::DType::BF16,
        }
    }

    /// The complete recipe as TOML, defaults filled in; parsing it gives the same recipe again.
    ///
    /// # Errors
    /// When a value has no TOML form, such as a path that is not UTF-8.
    pub fn resolved(&self) -> Result<String, RecipeError> {
        let unwritable = |error: toml::ser::Error| RecipeError::Invalid {
            name: "resolved recipe".into(),
            problems: vec![format!("a value has no TOML form: {error}")],
        };
        let top = Top {
            model: self.model.to_value().map_err(unwritable)?,
            output: Some(self.output.clone()),
            seed: self.seed,
            device: self.device.clone(),
            dtype: self.dtype,
            quantize: self.quantize.clone(),
            threads: self.threads,
            tokenizer: self
                .tokenizer
                .as_ref()
                .map(read::tagged_to_table)
                .transpose()
                .map_err(unwritable)?
                .map(Into::into),
            data: kinded_to_table(&self.data).map_err(unwritable)?,
            method: Some(read::tagged_to_table(&self.method).map_err(unwritable)?),
            objective: Some(read::tagged_to_table(&self.objective).map_err(unwritable)?),
            distill: self.distill.as_ref().map(to_table).transpose().map_err(unwritable)?,
            optim: kinded_to_table(&self.optim).map_err(unwritable)?,
            schedule: Some(kinded_to_table(&self.schedule).map_err(unwritable)?),
            train: to_table(&self.train).map_err(unwritable)?,
        };
        // Tables must follow plain values in TOML; `model` may be either.
        let (tables, plain): (Vec<_>, Vec<_>) =
            to_table(&top).map_err(unwritable)?.into_iter().partition(|(_, value)| value.is_table());
        let ordered: toml::Table = plain.into_iter().chain(tables).collect();
        toml::to_string(&ordered).map_err(unwritable)
    }

    /// What differs between this recipe and a later one, as `optim.lr: 0.001 -> 0.002`, for a run that
    /// is resumed with another recipe. `output` is left out: folders may move.
    ///
    /// # Errors
    /// As [`Recipe::resolved`].
    pub fn differences(&self, later: &Self) -> Result<Vec<String>, RecipeError> {
        let (mut before, mut after) = (Vec::new(), Vec::new());
        for (recipe, leaves) in [(self, &mut before), (later, &mut after)] {
            let mut top: toml::Table = toml::from_str(&recipe.resolved()?).unwrap_or_default();
            top.remove("output");
            collect_leaves("", &toml::Value::Table(top), leaves);
        }
        let find = |leaves: &[(String, String)], key: &str| {
            leaves.iter().find(|(found, _)| found == key).map_or("(absent)".to_owned(), |(_, value)| value.clone())
        };
        let mut keys: Vec<&String> = before.iter().map(|(key, _)| key).collect();
        keys.extend(after.iter().map(|(key, _)| key).filter(|key| !before.iter().any(|(found, _)| found == *key)));
        let changes = keys.into_iter().map(|key| (key, find(&before, key), find(&after, key)));
        Ok(changes.filter(|(_, old, new)| old != new).map(|(key, old, new)| format!("{key}: {old} -> {new}")).collect())
    }

    /// What an adapter needs, and what needs one.
    fn check_adapter(&self, problems: &mut Vec<String>) {
        let adapts = self.method.adapter().is_some();
        match self.quantize.as_deref().map(str::parse::<phyla_models::Quantize>) {
            Some(Err(error)) => problems.push(format!("`quantize`: {error}")),
            Some(Ok(phyla_models::Quantize::Int8)) => {
                problems.push("`quantize` is \"int8\", through which there is no gradient; take q8_0".into());
            }
            Some(Ok(_)) if !adapts => problems.push(format!(
                "`quantize` is for weights that stay as they are, and [method] kind = \"{}\" trains them: take lora, \
                 adalora, vera, ia3 or bottleneck",
                self.method.name()
            )),
            _ => {}
        }
        if let Method::AdaLora(adalora) = &self.method {
            match adalora.total_step.or(self.train.steps) {
                Some(total) => adalora.check_steps(total, problems),
                None => problems.push(
                    "`method.total_step` is not given, nor is `train.steps`: AdaLoRA takes directions away by a plan of so \
                     many steps"
                        .into(),
                ),
            }
        }
        if adapts && !matches!(self.model, Model::Named(_)) {
            problems.push("an adapter needs a `model` that has learned already: a folder or a hub id".into());
        }
        if self.method.adapter().is_some_and(|adapter| adapter.is_prompt()) {
            let packed = match &self.objective {
                Objective::Lm(_) => (self.data.packing == Packing::Packed).then_some("`data.packing` = \"padded\""),
                Objective::Sft(sft) => sft.packing.then_some("`objective.packing` = false"),
                _ => None,
            };
            if let Some(instead) = packed {
                problems
                    .push(format!("a prompt or prefix stands before one text, and rows hold several: set {instead}"));
            }
        }
        if self.method.reads_first() && self.objective.play().is_some() {
            problems.push(format!(
                "`method.init` \"eva\" begins with what training data are like, and \"{}\" has none before it has written: \
                 take another init",
                self.objective.name()
            ));
        }
        if !adapts && matches!(self.objective.reference(), Some((Reference::AdapterOff, _))) {
            problems.push(format!(
                "`objective.reference` \"adapter_off\" is the model without its adapter, and [method] kind = \"{}\" trains \
                 the model itself: take precompute, or a method with an adapter",
                self.method.name()
            ));
        }
    }

    /// One sentence per contradiction or value out of range.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let device = self.device.as_str();
        let cuda = device.strip_prefix("cuda:").is_some_and(|n| n.parse::<u16>().is_ok());
        if !matches!(device, "auto" | "cpu" | "metal") && !cuda {
            problems.push(format!("`device` is \"{device}\"; expected auto, cpu, cuda:N or metal"));
        }
        match self.threads {
            Some(0) => problems.push("`threads` is 0; leave it out to use every core".into()),
            Some(threads) if threads > MAX_THREADS => {
                problems.push(format!("`threads` is {threads}; expected at most {MAX_THREADS}"));
            }
            _ => {}
        }
        if self.model.is_inline() && self.tokenizer.is_none() {
            problems.push("an inline [model] starts from scratch and needs a [tokenizer]: a path, or a kind (bpe, wordpiece, unigram, characters)".into());
        }
        self.data.check(&mut problems);
        self.data.check_fits(&self.objective, &mut problems);
        self.objective.check(&mut problems);
        if let Some(distill) = &self.distill {
            distill.check(&self.objective, &mut problems);
        }
        self.method.check(&mut problems);
        self.check_adapter(&mut problems);
        self.optim.check(&mut problems);
        self.schedule.check(&mut problems);
        self.train.check(&mut problems);
        if let Some(tokenizer) = &self.tokenizer {
            tokenizer.check(&mut problems);
            tokenizer.check_fits(&self.objective, &mut problems);
        }
        self.train.check_fits(&self.objective, self.data.has_validation(), &mut problems);
        if let (Some(min_lr), _) = self.schedule.minimum()
            && min_lr > self.optim.lr
        {
            problems.push(format!("`schedule.min_lr` is {min_lr}, above the peak `optim.lr` of {}", self.optim.lr));
        }
        if self.train.early_stop_patience.is_some() && !self.data.has_validation() {
            problems.push("`train.early_stop_patience` needs `data.validation` or `data.validation_fraction`".into());
        }
        problems
    }
}

/// Every value below `value` with its dotted key.
fn collect_leaves(key: &str, value: &toml::Value, leaves: &mut Vec<(String, String)>) {
    match value {
        toml::Value::Table(table) => {
            for (name, inner) in table {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                collect_leaves(&key, inner, leaves);
            }
        }
        other => leaves.push((key.to_owned(), other.to_string())),
    }
}

/// Adds the sentence when the value is not a finite number within the bounds, both included.
fn check_range(problems: &mut Vec<String>, key: &str, value: f64, low: f64, high: f64) {
    if !(low..=high).contains(&value) {
        let expected = if high == f64::MAX { format!("at least {low}") } else { format!("between {low} and {high}") };
        problems.push(format!("`{key}` is {value}; expected a number {expected}"));
    }
}

/// Adds the sentence when a count that must be positive is zero.
fn check_positive(problems: &mut Vec<String>, key: &str, value: usize) {
    if value == 0 {
        problems.push(format!("`{key}` is 0; expected at least 1"));
    }
}

#[cfg(test)]
mod tests;

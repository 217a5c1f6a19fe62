//! Everything that a run needs before its first step: data, tokenizer, model, batches.

use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device};
use phyla_data::batch::{Batch, Batches};
use phyla_data::tokenizer::Tokenizer;
use phyla_generate::GenerationConfig;
use phyla_models::adapter::Adapter;
use phyla_models::hub::Hub;
use phyla_models::lineage::{Lineage, Parent};
use phyla_models::{Dropouts, LoadOptions, Model, NewHead, fresh_with, load, read_config};
use phyla_ops::Param;
use serde_json::{Map, Value, json};

use crate::TrainError;
use crate::adapt::{adapt, lower_all};
use crate::allocator::Allocator;
use crate::beside::Beside;
use crate::critic::Critic;
use crate::judge::Judge;
use crate::recipe::{self, Length, Objective, Play, Recipe};
use crate::reference;
use crate::rollout::{Reference, Rollouts};
use crate::supply::{Material, Shown, Supply};
use crate::teacher::Teacher;
use crate::thresholds::Thresholds;

/// A run, ready to begin.
#[derive(Debug)]
pub struct Setup {
    /// The model, its trained parameters marked.
    pub model: Model,
    /// What is trained beside it, if not the model itself.
    pub adapter: Option<Arc<Adapter>>,
    /// What was begun with; none for a model from scratch.
    pub parent: Option<Parent>,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Training batches.
    pub train: Box<dyn Batches>,
    /// Validation batches.
    pub validation: Option<Box<dyn Batches>>,
    /// What is measured on them besides the loss.
    pub judge: Judge,
    /// Held-out items to show.
    pub shown: Vec<Shown>,
    /// `generation_config.json` of what comes of the run.
    pub generation: Map<String, Value>,
    /// Sentences that the user should see, also in the report.
    pub warnings: Vec<String>,
    /// Where the model learns from what it writes itself.
    pub rollouts: Option<Rollouts>,
    /// Where it learns of another one.
    pub teacher: Option<Teacher>,
    /// Where it learns grades: what lies between them.
    pub thresholds: Option<Thresholds>,
    /// Where directions of the adapter are taken away.
    pub allocator: Option<Allocator>,
}

/// Where the weights come from.
pub enum Start {
    /// A checkpoint.
    Folder(std::path::PathBuf),
    /// A configuration.
    Scratch(Map<String, Value>),
}

impl Start {
    /// What the model is.
    pub fn config(&self) -> Result<Map<String, Value>, TrainError> {
        Ok(match self {
            Self::Folder(path) => read_config(path)?.0,
            Self::Scratch(config) => config.clone(),
        })
    }

    /// How the checkpoint's authors generate with it; what is no JSON is no reason not to train.
    fn generation(&self) -> Map<String, Value> {
        let Self::Folder(path) = self else { return Map::new() };
        let text = std::fs::read_to_string(path.join("generation_config.json"));
        text.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }
}

impl Setup {
    /// Prepares a run in `folder`; `checkpoint` is where a resumed run takes model and tokenizer from.
    pub fn new(
        recipe: &Recipe,
        folder: &Path,
        checkpoint: Option<&Path>,
        device: &Device,
        note: &mut dyn FnMut(&str),
    ) -> Result<Self, TrainError> {
        let material = Material::open(recipe, &folder.join("data"))?;
        let start = match checkpoint {
            Some(path) if recipe.method.adapter().is_none() => Start::Folder(path.to_owned()),
            // An adapter's checkpoint holds the adapter alone.
            _ => start(recipe)?,
        };
        let tokenizer = match (checkpoint, &start) {
            (Some(path), _) => Tokenizer::load(path)?,
            (None, start) => match (material.tokenizer(recipe, note)?, start) {
                (Some(tokenizer), _) => tokenizer,
                (None, Start::Folder(path)) => Tokenizer::load(path)?,
                (None, Start::Scratch(_)) => named_tokenizer(recipe)?,
            },
        };
        // A checkpoint's tokenizer has the template already.
        let tokenizer = match checkpoint {
            None => with_template(tokenizer, recipe.objective.chat_template())?,
            Some(_) => tokenizer,
        };
        let tokenizer = Arc::new(tokenizer);
        let supply = material.supply(recipe, &tokenizer, &start.config()?, note)?;
        let mut warnings = vec![];
        if let (None, Start::Folder(_), Some(table)) = (checkpoint, &start, &recipe.tokenizer)
            && !matches!(table, recipe::TokenizerTable::Path(_))
        {
            warnings.push(
                "[tokenizer] makes a new vocabulary, and the checkpoint has learned with another: its knowledge of tokens \
                 is lost; leave [tokenizer] out to take the checkpoint's own"
                    .into(),
            );
        }
        let parent = parent(recipe, &start, checkpoint)?;
        // Thresholds go on from where the weights do; of an adapter from where that does.
        let earlier = match (&start, checkpoint) {
            (_, Some(path)) => Some(path.to_owned()),
            (Start::Folder(path), None) => Some(path.clone()),
            (Start::Scratch(_), None) => None,
        };
        let mut generation = start.generation();
        let head = supply.as_ref().map(|supply| &supply.head);
        let model = model(
            recipe,
            start,
            &tokenizer,
            device,
            (head, checkpoint.is_some() && recipe.method.adapter().is_none()),
            &mut warnings,
        )?;
        for warning in &warnings {
            note(&format!("warning: {warning}"));
        }
        let mut supply = match (supply, &material) {
            (Some(supply), _) => supply,
            (None, Material::Texts(texts)) => {
                let time = recipe.data.max_len.unwrap_or(model.arch.context);
                let (train, validation) = texts.batches(recipe, &tokenizer, time, note)?;
                let validation = validation.map(|validation| Box::new(validation) as Box<dyn Batches>);
                Supply::new(Box::new(train), validation, (time, time))
            }
            (None, Material::Records(_)) => {
                return Err(TrainError::Settings("next-token prediction learns from text".into()));
            }
        };
        supply.notes.iter().for_each(|text| note(text));
        fits(recipe, &model, supply.longest)?;
        let teacher = match &recipe.distill {
            Some(distill) => {
                let known = (&model, &*tokenizer, recipe.objective.task().map(|_| &supply.head));
                let teacher = Teacher::load(recipe, distill, &resolve(&distill.teacher)?, known, device)?;
                fits(recipe, &teacher.model, supply.longest)?;
                Some(teacher)
            }
            None => None,
        };
        let adapter = adapt(recipe, &model, checkpoint, &mut *supply.train, &tokenizer)?;
        reference::switched_off(&recipe.objective, adapter.as_ref())?;
        let another = |other: Option<&Path>| {
            let start = match other {
                Some(path) => Start::Folder(resolve(&path.display().to_string())?),
                None => self::start(recipe)?,
            };
            let other = self::model(recipe, start, &tokenizer, device, (None, false), &mut vec![])?;
            lower_all(recipe, &other)?;
            Ok(other)
        };
        let own = (&model, checkpoint.is_some());
        let reference = || another(recipe.objective.reference().and_then(|(_, other)| other));
        reference::supply(recipe, &folder.join("data"), own, &supply.preferences, reference, note)?;
        let tokens =
            [("bos_token_id", tokenizer.bos()), ("eos_token_id", tokenizer.eos()), ("pad_token_id", tokenizer.pad())];
        let tokens = tokens.into_iter().filter_map(|(key, id)| Some((key.to_owned(), json!(id?))));
        // What this run teaches to end with goes before what the checkpoint's authors ended with.
        if let Some(ends) = supply.head.get("eos_token_id").and_then(Value::as_array) {
            let all = joined(ends, generation.get("eos_token_id"));
            generation.insert("eos_token_id".into(), all);
        }
        let head = supply.head.get("decoder_start_token_id").cloned();
        for (key, id) in tokens.chain(head.map(|id| ("decoder_start_token_id".to_owned(), id))) {
            generation.entry(key).or_insert(id);
        }
        let thresholds = supply.grades.map(|(scale, counts)| {
            let made = Thresholds::new(&scale, &counts, device)?;
            earlier.map(|folder| made.load(&folder)).transpose()?;
            Ok::<_, TrainError>(made)
        });
        let thresholds = thresholds.transpose()?;
        let Supply { train, validation, judge, shown, prompts, .. } = supply;
        let rollouts = match (recipe.objective.play(), prompts) {
            (Some(_), Some(_)) if model.arch.source().is_some() => {
                let what =
                    "learns from continuations, and this model has an encoder: take a model that is a decoder alone";
                return Err(TrainError::Settings(format!("`objective.kind` \"{}\" {what}", recipe.objective.name())));
            }
            (Some(play), Some(prompts)) => {
                let reference = frozen(&play, adapter.as_ref(), another)?;
                // As it will generate, once it is trained.
                let ends = GenerationConfig::from_map(&generation)?.0.eos_token_id.unwrap_or_default();
                let tokenizer = (tokenizer.clone(), ends);
                let mut made = Rollouts::new(recipe, &play, &model, tokenizer, prompts, reference)?;
                checkpoint.map(|path| made.load(path)).transpose()?;
                Some(made)
            }
            _ => None,
        };
        let steps = match recipe.train.length() {
            Length::Steps(steps) => Some(steps),
            Length::Epochs(_) | Length::Minutes(_) => None,
        };
        let allocator = match &adapter {
            Some(adapter) => Allocator::new(adapter, steps)?,
            None => None,
        };
        if let (Some(allocator), Some(path)) = (&allocator, checkpoint) {
            allocator.load(path)?;
        }
        Ok(Self {
            model,
            adapter,
            parent,
            tokenizer,
            train,
            validation,
            judge,
            shown,
            generation,
            warnings,
            rollouts,
            teacher,
            thresholds,
            allocator,
        })
    }
}

impl Setup {
    /// What stands beside the model.
    pub fn beside(&self) -> Beside<'_> {
        Beside {
            critic: self.critic(),
            teacher: self.teacher.as_ref(),
            thresholds: self.thresholds.as_ref(),
            allocator: self.allocator.as_ref(),
        }
    }

    /// The value head, where one learns.
    pub fn critic(&self) -> Option<&Critic> {
        self.rollouts.as_ref().and_then(Rollouts::critic)
    }

    /// A batch with what the model says of it without its adapter, where that is the objective's reference.
    pub fn referred(&self, recipe: &Recipe, batch: Batch) -> Result<Batch, TrainError> {
        match reference::switched_off(&recipe.objective, self.adapter.as_ref())? {
            Some(adapter) => reference::asked(&recipe.objective, &self.model, &adapter, batch),
            None => Ok(batch),
        }
    }

    /// Every parameter of the run, the adapter's, the value head's and the thresholds' included.
    pub fn params(&self) -> Vec<Arc<Param>> {
        let beside = self.adapter.iter().flat_map(|adapter| adapter.params());
        let critic = self.critic().into_iter().flat_map(Critic::params);
        let thresholds = self.thresholds.iter().map(Thresholds::param);
        self.model.params().iter().chain(beside).chain(critic).chain(thresholds).cloned().collect()
    }
}

/// What roll-outs are held to: the model that the run begins with, which an adapter leaves as it is, or another one.
fn frozen(
    play: &Play,
    adapter: Option<&Arc<Adapter>>,
    another: impl FnOnce(Option<&Path>) -> Result<Model, TrainError>,
) -> Result<Reference, TrainError> {
    Ok(match (play.reference, adapter) {
        (None, _) => Reference::None,
        (Some(None), Some(adapter)) if adapter.saved().is_empty() => Reference::Without(adapter.clone()),
        (Some(other), _) => Reference::Model(Box::new(another(other)?)),
    })
}

/// The tokenizer of the model that a recipe begins with.
pub fn named_tokenizer(recipe: &Recipe) -> Result<Tokenizer, TrainError> {
    match start(recipe)? {
        Start::Folder(path) => Ok(Tokenizer::load(path)?),
        Start::Scratch(_) => Err(TrainError::Settings(
            "a model from scratch needs a [tokenizer]: a path, or a kind (bpe, wordpiece, unigram, characters)".into(),
        )),
    }
}

/// The ids at which generation ends: these, and the one or several that a configuration names already; each once.
fn joined(ends: &[Value], earlier: Option<&Value>) -> Value {
    let earlier = match earlier {
        Some(Value::Array(earlier)) => earlier.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    let mut all: Vec<Value> = vec![];
    for id in ends.iter().chain(earlier).filter(|id| id.is_number()) {
        if !all.contains(id) {
            all.push(id.clone());
        }
    }
    if let [one] = all.as_slice() { one.clone() } else { all.into() }
}

/// The tokenizer with the recipe's chat template, if that names one.
pub fn with_template(tokenizer: Tokenizer, name: Option<&str>) -> Result<Tokenizer, TrainError> {
    let Some(name) = name else { return Ok(tokenizer) };
    let source = tokenizer.templates().find(name)?;
    Ok(tokenizer.with_chat_template(&source))
}

/// Refuses rows longer than a table of learned positions.
fn fits(recipe: &Recipe, model: &Model, longest: (usize, usize)) -> Result<(), TrainError> {
    let (longest, context) = (longest.0.max(longest.1), model.arch.context);
    if longest <= context || !model.arch.context_is_hard {
        return Ok(());
    }
    let key = match &recipe.objective {
        Objective::Lm(_) => "data.max_len",
        Objective::Seq2Seq(_) => "objective.max_source_len and objective.max_target_len",
        Objective::T5Span(_) => "objective.inputs_length",
        objective if objective.play().is_some() => {
            "objective.rollout.max_prompt_length and objective.rollout.max_completion_length (both count)"
        }
        _ => "objective.max_len",
    };
    Err(TrainError::Settings(format!(
        "the longest row has {longest} tokens, and the model has learned positions for {context} only: set {key} to at \
         most that"
    )))
}

/// What the run began with: as its checkpoint says, or else what the recipe names.
fn parent(recipe: &Recipe, start: &Start, checkpoint: Option<&Path>) -> Result<Option<Parent>, TrainError> {
    if let Some(known) = checkpoint.map(Lineage::read).transpose()?.flatten() {
        return Ok(known.parent);
    }
    Ok(match (&recipe.model, start) {
        (recipe::Model::Named(name), Start::Folder(path)) => Some(Parent::of(name, path)?),
        _ => None,
    })
}

/// What a recipe's model begins as.
pub fn start(recipe: &Recipe) -> Result<Start, TrainError> {
    Ok(match &recipe.model {
        recipe::Model::Config(config) => Start::Scratch(config.clone()),
        recipe::Model::Named(name) if name.ends_with(".json") => Start::Scratch(read_config(Path::new(name))?.0),
        recipe::Model::Named(name) => Start::Folder(resolve(name)?),
    })
}

/// A folder, or the files of a hub id.
pub(crate) fn resolve(name: &str) -> Result<std::path::PathBuf, TrainError> {
    Hub::from_env().resolve(name).map_err(|e| TrainError::Settings(e.to_string()))
}

/// The model with the head that the objective needs. `head` are fields for its configuration; a resumed run's
/// checkpoint has every weight.
fn model(
    recipe: &Recipe,
    start: Start,
    tokenizer: &Tokenizer,
    device: &Device,
    (head, resumed): (Option<&Map<String, Value>>, bool),
    warnings: &mut Vec<String>,
) -> Result<Model, TrainError> {
    let given = recipe.train.dropout.clone();
    let as_f32 = |p: Option<f64>| p.map(|p| p as f32);
    let dropouts = Dropouts {
        attention: as_f32(given.attention),
        residual: as_f32(given.residual),
        embedding: as_f32(given.embedding),
    };
    let head = head.zip(recipe.objective.task()).map(|(head, task)| NewHead {
        task,
        config: head.clone(),
        seed: (!resumed).then_some(recipe.seed),
    });
    // Beside an adapter there are no masters: the weights are kept as they are multiplied.
    let dtype = Some(if recipe.method.adapter().is_some() { recipe.frozen_dtype() } else { DType::F32 });
    let quantize = recipe.quantize.as_deref().map(str::parse).transpose().map_err(TrainError::Settings)?;
    let options = LoadOptions { device: device.clone(), dtype, dropouts, head, quantize };
    let model = match start {
        Start::Folder(path) => {
            let (model, report) = load(&path, &options)?;
            warnings.extend(report.warnings);
            model
        }
        Start::Scratch(mut config) => {
            let ids = [("bos_token_id", tokenizer.bos()), ("eos_token_id", tokenizer.eos())];
            // A decoder's padding is never read, and a table that marks its row draws other weights.
            let pad = options.head.is_some().then(|| ("pad_token_id", tokenizer.pad()));
            for (key, id) in ids.into_iter().chain(pad) {
                config.entry(key).or_insert(json!(id));
            }
            config.entry("vocab_size").or_insert(json!(tokenizer.vocab_size()));
            fresh_with(&config, recipe.seed, &options)?.0
        }
    };
    let size = tokenizer.vocab_size();
    // An encoder and a decoder may have tables of their own.
    let tables =
        [("encoder", model.arch.source().map(|_| model.arch.tokens.rows)), ("model", Some(model.arch.vocab()))];
    for (tower, rows) in tables.into_iter().filter_map(|(tower, rows)| Some((tower, rows?))) {
        if size > rows {
            return Err(TrainError::Settings(format!(
                "the tokenizer has {size} tokens and the {tower} {rows}: set vocab_size to at least that"
            )));
        }
    }
    Ok(model)
}

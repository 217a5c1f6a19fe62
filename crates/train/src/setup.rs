//! Everything that a run needs before its first step: text, tokenizer, model, batches.

use std::path::Path;

use candle_core::{DType, Device};
use phyla_data::batch::Batches;
use phyla_data::tokenizer::Tokenizer;
use phyla_models::hub::Hub;
use phyla_models::{Dropouts, LoadOptions, Model, fresh_with, load, read_config};
use serde_json::{Map, Value, json};

use crate::TrainError;
use crate::corpus::Texts;
use crate::recipe::{self, Dtype, Method, Recipe};

/// A run, ready to begin.
#[derive(Debug)]
pub struct Setup {
    /// The model, its trained parameters marked.
    pub model: Model,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Training batches.
    pub train: Box<dyn Batches>,
    /// Validation batches.
    pub validation: Option<Box<dyn Batches>>,
    /// Sentences that the user should see, also in the report.
    pub warnings: Vec<String>,
}

/// Where the weights come from.
enum Start {
    Folder(std::path::PathBuf),
    Scratch(Map<String, Value>),
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
        let texts = Texts::open(recipe, &folder.join("data"))?;
        let start = match checkpoint {
            Some(path) => Start::Folder(path.to_owned()),
            None => start(recipe)?,
        };
        let tokenizer = match (checkpoint, &recipe.tokenizer, &start) {
            (Some(path), ..) => Tokenizer::load(path)?,
            (None, Some(table), _) => texts.tokenizer(table, note)?,
            (None, None, Start::Folder(path)) => Tokenizer::load(path)?,
            (None, None, Start::Scratch(_)) => {
                return Err(TrainError::Settings(
                    "a model from scratch needs a [tokenizer]: kind = \"bpe\", \"characters\" or a path".into(),
                ));
            }
        };
        let mut warnings = vec![];
        let model = model(recipe, start, &tokenizer, device, &mut warnings)?;
        for warning in &warnings {
            note(&format!("warning: {warning}"));
        }
        let time = recipe.data.max_len.unwrap_or(model.arch.context);
        if time > model.arch.context && model.arch.context_is_hard {
            return Err(TrainError::Settings(format!(
                "data.max_len is {time}, and the model has learned positions for {} tokens only",
                model.arch.context
            )));
        }
        let (train, validation) = texts.batches(recipe, &tokenizer, time, note)?;
        mark(recipe, &model)?;
        let validation = validation.map(|validation| Box::new(validation) as Box<dyn Batches>);
        Ok(Self { model, tokenizer, train: Box::new(train), validation, warnings })
    }
}

fn start(recipe: &Recipe) -> Result<Start, TrainError> {
    Ok(match &recipe.model {
        recipe::Model::Config(config) => Start::Scratch(config.clone()),
        recipe::Model::Named(name) if name.ends_with(".json") => Start::Scratch(read_config(Path::new(name))?.0),
        recipe::Model::Named(name) => {
            Start::Folder(Hub::from_env().resolve(name).map_err(|e| TrainError::Settings(e.to_string()))?)
        }
    })
}

fn model(
    recipe: &Recipe,
    start: Start,
    tokenizer: &Tokenizer,
    device: &Device,
    warnings: &mut Vec<String>,
) -> Result<Model, TrainError> {
    let given = recipe.train.dropout.clone();
    let as_f32 = |p: Option<f64>| p.map(|p| p as f32);
    let dropouts = Dropouts {
        attention: as_f32(given.attention),
        residual: as_f32(given.residual),
        embedding: as_f32(given.embedding),
    };
    let options = LoadOptions { device: device.clone(), dtype: Some(DType::F32), dropouts, ..LoadOptions::default() };
    let model = match start {
        Start::Folder(path) => {
            let (model, report) = load(&path, &options)?;
            warnings.extend(report.warnings);
            model
        }
        Start::Scratch(mut config) => {
            let ids = [("bos_token_id", tokenizer.bos()), ("eos_token_id", tokenizer.eos())];
            for (key, id) in ids {
                config.entry(key).or_insert(json!(id));
            }
            config.entry("vocab_size").or_insert(json!(tokenizer.vocab_size()));
            fresh_with(&config, recipe.seed, &options)?
        }
    };
    if tokenizer.vocab_size() > model.arch.vocab() {
        return Err(TrainError::Settings(format!(
            "the tokenizer has {} tokens and the model {}: set vocab_size to at least that",
            tokenizer.vocab_size(),
            model.arch.vocab()
        )));
    }
    Ok(model)
}

/// Marks the parameters that learn and gives them their compute type.
fn mark(recipe: &Recipe, model: &Model) -> Result<(), TrainError> {
    let Method::Full(full) = &recipe.method;
    let paths: Vec<&str> = model.params().iter().map(|param| param.path()).collect();
    full.check_paths(&paths)?;
    for param in model.params() {
        param.set_trainable(!full.is_frozen(param.path()) && !model.is_fixed(param))?;
        // Matrices alone: norms and biases are cheap and need their digits.
        let low = recipe.dtype == Dtype::Bf16 && param.dims().len() >= 2;
        param.set_compute_dtype(low.then_some(DType::BF16))?;
    }
    Ok(())
}

//! Which parameters of a run learn: the model's own, or an adapter's beside them.

use std::path::Path;
use std::sync::Arc;

use candle_core::DType;
use phyla_data::batch::{Batch, Batches, IGNORE};
use phyla_data::tokenizer::Tokenizer;
use phyla_models::Model;
use phyla_models::adapter::{Adapter, AdapterSpec, Eva, LoraInit};
use phyla_nn::pattern::Pattern;
use phyla_ops::Param;

use crate::TrainError;
use crate::beside::Beside;
use crate::recipe::{Dtype, Method, Recipe};

/// Marks the parameters that learn and gives them their compute type; makes the method's adapter, or reads that of
/// `checkpoint`, and puts it to use.
///
/// `batches` are training data, from which EVA begins; they stand where they did afterwards.
pub fn adapt(
    recipe: &Recipe,
    model: &Model,
    checkpoint: Option<&Path>,
    batches: &mut dyn Batches,
    tokenizer: &Tokenizer,
) -> Result<Option<Arc<Adapter>>, TrainError> {
    let Some(spec) = recipe.method.adapter() else {
        mark(recipe, model)?;
        return Ok(None);
    };
    let adapter = match checkpoint {
        Some(path) => Adapter::load(model, path)?.with_spec(spec)?,
        None => {
            let fresh = Adapter::fresh(model, &with_new_head(spec, recipe, model), recipe.seed)?;
            if let Some(text) = recipe.method.first_text() {
                fresh.begin_with(model, &tokenizer.encode(text, true)?)?;
            }
            if recipe.method.reads_first() { fitted(recipe, model, fresh, batches)? } else { fresh }
        }
    };
    put_to_use(recipe, model, adapter).map(Some)
}

/// As [`adapt`] for a model without numbers: parameters of the sizes that they would have, begun anyhow.
pub fn adapt_sizes(recipe: &Recipe, model: &Model) -> Result<Option<Arc<Adapter>>, TrainError> {
    let Some(mut spec) = recipe.method.adapter() else {
        mark(recipe, model)?;
        return Ok(None);
    };
    if let AdapterSpec::Lora(lora) = &mut spec {
        lora.init = LoraInit::Default;
    }
    let fresh = Adapter::fresh(model, &with_new_head(spec, recipe, model), recipe.seed)?;
    put_to_use(recipe, model, fresh).map(Some)
}

/// Marks what learns beside a model, gives it its compute type, and lets it change the model.
fn put_to_use(recipe: &Recipe, model: &Model, adapter: Adapter) -> Result<Arc<Adapter>, TrainError> {
    for param in model.params() {
        let whole = adapter.saved().iter().any(|saved| Arc::ptr_eq(saved, param));
        param.set_trainable(whole && !model.is_fixed(param))?;
    }
    for param in adapter.params() {
        param.set_trainable(adapter.learns(param))?;
        lower(recipe, param)?;
    }
    let adapter = Arc::new(adapter);
    model.use_adapters(std::slice::from_ref(&adapter));
    Ok(adapter)
}

/// An adapter that begins with what the training data is like: batches are read until its directions stay as they are, or
/// all have been read.
fn fitted(recipe: &Recipe, model: &Model, fresh: Adapter, batches: &mut dyn Batches) -> Result<Adapter, TrainError> {
    let state = batches.state();
    let mut eva = Eva::new(fresh)?;
    for _ in 0..batches.batches_per_epoch().max(2) {
        let batch = batches.next_batch()?;
        recipe.objective.examine(model, &batch, Beside::default())?;
        if eva.read(|path, rows| counted(&batch, path, rows))? {
            break;
        }
    }
    batches.restore(state)?;
    Ok(eva.finish(model)?)
}

/// Which rows of a map's input count: those that something is learned at; of an encoder's, or where only rows have labels,
/// all that are not filling.
fn counted(batch: &Batch, path: &str, rows: usize) -> Option<Vec<bool>> {
    let read = |lengths: &[usize], time: usize| {
        lengths.iter().flat_map(|&length| (0..time).map(move |at| at < length)).collect::<Vec<_>>()
    };
    let of_source = path.starts_with("encoder.") || path.ends_with(".cross.k") || path.ends_with(".cross.v");
    let counts = match &batch.source {
        Some(source) if of_source => read(&source.lengths, source.time),
        _ if batch.targets.is_empty() => read(&batch.lengths, batch.time),
        _ => batch.targets.iter().map(|&target| target != IGNORE).collect(),
    };
    (counts.len() == rows).then_some(counts)
}

/// A head that the checkpoint may lack has to be learned, whatever else is adapted.
fn with_new_head(mut spec: AdapterSpec, recipe: &Recipe, model: &Model) -> AdapterSpec {
    let save = spec.save_mut();
    if recipe.objective.task().is_some() && save.is_empty() {
        let heads = model.arch.heads.iter().filter(|head| !head.is_lm());
        save.extend(heads.filter_map(|head| Pattern::parse(head.name).ok()));
    }
    spec
}

/// Marks the model's own parameters that learn.
fn mark(recipe: &Recipe, model: &Model) -> Result<(), TrainError> {
    let paths: Vec<&str> = model.params().iter().map(|param| param.path()).collect();
    let name = |path: &str| path.rsplit('.').next().unwrap_or_default().to_string();
    let in_norm = |path: &str| path.rsplit('.').nth(1).is_some_and(|module| module.contains("norm"));
    match &recipe.method {
        Method::Full(full) => full.check_paths(&paths)?,
        Method::Bitfit(only) | Method::LayerNorm(only) => only.check_paths(&paths)?,
        _ => {}
    }
    let learns = |path: &str| match &recipe.method {
        Method::Full(full) => !full.is_frozen(path),
        Method::Bitfit(only) => name(path).ends_with("bias") || only.covers(path),
        Method::LayerNorm(only) => in_norm(path) || only.covers(path),
        _ => false,
    };
    if !paths.iter().any(|path| learns(path)) {
        return Err(TrainError::Settings(format!(
            "[method] kind = \"{}\" trains nothing: this model has no such parameters",
            recipe.method.name()
        )));
    }
    for param in model.params() {
        param.set_trainable(learns(param.path()) && !model.is_fixed(param))?;
        lower(recipe, param)?;
    }
    Ok(())
}

/// Gives a model that does not learn the compute type of the run.
pub fn lower_all(recipe: &Recipe, model: &Model) -> Result<(), TrainError> {
    // Beside an adapter the weights are kept as they are multiplied.
    let masters = recipe.method.adapter().is_none();
    model.params().iter().filter(|_| masters).try_for_each(|param| lower(recipe, param))
}

/// Matrices alone are multiplied in few digits: norms and biases are cheap and need theirs.
fn lower(recipe: &Recipe, param: &Param) -> Result<(), TrainError> {
    let low = recipe.dtype == Dtype::Bf16 && param.dims().len() >= 2;
    Ok(param.set_compute_dtype(low.then_some(DType::BF16))?)
}

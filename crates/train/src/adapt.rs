//! Which parameters of a run learn: the model's own, or an adapter's beside them.

use std::path::Path;
use std::sync::Arc;

use candle_core::DType;
use phyla_models::Model;
use phyla_models::adapter::{Adapter, AdapterSpec};
use phyla_nn::pattern::Pattern;
use phyla_ops::Param;

use crate::TrainError;
use crate::recipe::{Dtype, Method, Recipe};

/// Marks the parameters that learn and gives them their compute type; makes the method's adapter, or reads that of
/// `checkpoint`, and puts it to use.
pub fn adapt(recipe: &Recipe, model: &Model, checkpoint: Option<&Path>) -> Result<Option<Arc<Adapter>>, TrainError> {
    let Some(spec) = recipe.method.adapter() else {
        mark(recipe, model)?;
        return Ok(None);
    };
    let adapter = match checkpoint {
        Some(path) => Adapter::load(model, path)?.with_spec(spec),
        None => Adapter::fresh(model, &with_new_head(spec, recipe, model), recipe.seed)?,
    };
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
    Ok(Some(adapter))
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

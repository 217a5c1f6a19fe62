//! Which module of transformers each linear map of ours is, so that adapters keep the names that peft gives them.

use std::collections::HashSet;
use std::sync::Arc;

use phyla_nn::adapter::Slot;

use crate::names::{Place, place};
use crate::{LoadError, Model};

/// A linear map of ours, and the module that it is, or is a part of.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub slot: Arc<Slot>,
    /// Such as `model.layers.0.self_attn.q_proj`.
    pub module: String,
    /// Our rows among those of the module's weight; never transposed, whatever the checkpoint's weight is.
    pub place: Place,
    /// Whether the module's weight is stored as `[input, output]`.
    pub transposed: bool,
}

/// The linear maps of a model in the order of its blocks; those that are no module of their own in transformers come
/// with the reason.
pub(super) fn sites(model: &Model) -> Vec<Result<Site, LoadError>> {
    let paths = paths(model);
    model.slots().iter().map(|slot| site(model, slot, &paths)).collect()
}

fn site(model: &Model, slot: &Arc<Slot>, paths: &HashSet<&str>) -> Result<Site, LoadError> {
    let path = format!("{}.weight", slot.path());
    let lost = |why: &str| LoadError::Adapter(format!("{} cannot be adapted: {why}", slot.path()));
    let (tied, names) = (!paths.contains(path.as_str()), model.family.names);
    if tied {
        return Err(lost("it has no weight of its own, it reads the table of tokens"));
    }
    let Some(mut place) = place(names, &path, |path| paths.contains(path)) else {
        return Err(lost("the family's table has no name for it"));
    };
    if place.slice.is_some() || place.folded.is_some() {
        return Err(lost("transformers keeps it in a stack of several, which is no linear map that peft could name"));
    }
    place.tensor = model.family.named(model.arch.task, place.tensor);
    let transposed = std::mem::replace(&mut place.transposed, false);
    let Some(module) = place.tensor.strip_suffix(".weight").map(str::to_string) else {
        return Err(lost("transformers keeps it as a parameter that is no module's"));
    };
    Ok(Site { slot: slot.clone(), module, place, transposed })
}

/// Every parameter's path.
pub(super) fn paths(model: &Model) -> HashSet<&str> {
    model.params().iter().map(|param| param.path()).collect()
}

/// The tensor that a parameter is, if it is one of its own in transformers and stored as we hold it.
pub(super) fn tensor_of(model: &Model, paths: &HashSet<&str>, path: &str) -> Option<String> {
    let place = place(model.family.names, path, |path| paths.contains(path))?;
    let alone = place.part.1 == 1 && !place.transposed && place.slice.is_none() && place.folded.is_none() && !place.row;
    alone.then(|| model.family.named(model.arch.task, place.tensor))
}

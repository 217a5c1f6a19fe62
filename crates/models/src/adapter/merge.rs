//! An adapter written into the weights, after which nothing is computed beside them.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::Device;
use phyla_ops::{Data, INT8, Param, Weight};

use super::Adapter;
use crate::{LoadError, Model};

/// Writes what `adapter` changes into the weights of `model`, and takes every adapter out of use. Changed weights come out in
/// f32, also those that were quantised: they are what the adapter was trained beside, and to round the sum to the few
/// numbers of a block again would lose most of what was learned.
///
/// # Errors
/// An adapter that is no linear change; weights in int8.
pub fn merge(model: &Model, adapter: &Adapter) -> Result<(), LoadError> {
    if adapter.is_prompt() {
        return Err(LoadError::Adapter(format!(
            "{} stands before a text and changes no weight: load it beside the model",
            adapter.spec.name()
        )));
    }
    let params: HashMap<&str, &Arc<Param>> = model.params().iter().map(|param| (param.path(), param)).collect();
    let find = |path: String| params.get(path.as_str()).copied();
    for part in &adapter.parts {
        let path = part.site.slot.path();
        let Some(weight) = find(format!("{path}.weight")) else { continue };
        if let Weight::Bytes(_) = weight.weight() {
            return Err(LoadError::Adapter(format!(
                "{} is in {INT8}, which is made on loading alone: merge into the stored weights",
                weight.path()
            )));
        }
        let bias = find(format!("{path}.bias"));
        let mut numbers = weight.numbers()?;
        let mut shift = bias.map(|bias| bias.numbers()).transpose()?;
        part.change.merge(&mut numbers, shift.as_deref_mut())?;
        replace(weight, numbers)?;
        if let (Some(bias), Some(shift)) = (bias, shift) {
            replace(bias, shift)?;
        }
    }
    model.use_adapters(&[]);
    Ok(())
}

fn replace(param: &Arc<Param>, values: Vec<f32>) -> Result<(), LoadError> {
    let data = Data::from_vec(values, param.dims(), &Device::Cpu)?.to_device(&param.weight().device())?;
    Ok(param.set_weight(Weight::Dense(data))?)
}

//! From a model to a folder that transformers opens: the table of names read backwards.

use std::collections::HashSet;
use std::path::Path;

use candle_core::{DType, Device};
use phyla_ops::{INT8, MatRef, Weight};
use serde_json::{Map, Value, json};

use crate::checkpoint::{Dtype, MAX_SHARD_BYTES, SafetensorsWriter, TensorSpec, Values, atomic_write};
use crate::cut::Cut;
use crate::names::{Place, place};
use crate::{Arch, LoadError, Model, registry};

/// Writes `config.json` and the weights (in `dtype`) into `folder`.
///
/// Each file appears whole or not at all. Tokenizer and generation files are the caller's.
pub fn save(model: &Model, folder: &Path, dtype: DType) -> Result<(), LoadError> {
    let stored = match dtype {
        DType::F32 => Dtype::F32,
        DType::BF16 => Dtype::BF16,
        DType::F16 => Dtype::F16,
        other => return Err(LoadError::Weights(format!("weights are saved as f32, bf16 or f16, not {other:?}"))),
    };
    let groups = groups(model)?;
    let specs: Vec<TensorSpec> = (groups.iter())
        .map(|group| TensorSpec { name: group.tensor.clone(), dtype: stored, shape: group.shape.clone() })
        .collect();
    let mut writer = SafetensorsWriter::create(folder, &specs, MAX_SHARD_BYTES)?;
    for group in &groups {
        group.write(model, &mut writer)?;
    }
    writer.finish()?;
    let mut config = model.config.clone();
    config.insert("model_type".into(), json!(model.family.model_type));
    if let Some(name) = model.family.architecture(model.arch.task) {
        config.insert("architectures".into(), json!([name]));
    }
    config.remove("torch_dtype");
    config.insert(
        "dtype".into(),
        json!(match dtype {
            DType::BF16 => "bfloat16",
            DType::F16 => "float16",
            _ => "float32",
        }),
    );
    config = with_head_as_it_is(config, model);
    let text = serde_json::to_vec_pretty(&Value::Object(config))
        .map_err(|e| LoadError::Weights(format!("config.json: {e}")))?;
    atomic_write(folder.join("config.json"), &text)?;
    Ok(())
}

/// A head that the file made its own stays so, unless the field says more than that: T5 scales by it.
fn with_head_as_it_is(config: Map<String, Value>, model: &Model) -> Map<String, Value> {
    let (tied, task) = (model.arch.tied(), Some(model.arch.task));
    if model.arch.lm_head().is_none() || tied && !config.contains_key("tie_word_embeddings") {
        return config;
    }
    let mut changed = config.clone();
    changed.insert("tie_word_embeddings".into(), json!(tied));
    let scale = |arch: &Arch| arch.lm_head().map(|head| head.scale);
    match registry::parse_as(&changed, task) {
        Ok((_, parsed)) if scale(&parsed.arch) == scale(&model.arch) => changed,
        _ => config,
    }
}

/// A stored tensor and the parameters that are its parts, in order.
struct Group {
    tensor: String,
    shape: Vec<usize>,
    parts: Vec<(usize, Place)>,
}

fn groups(model: &Model) -> Result<Vec<Group>, LoadError> {
    let mut groups: Vec<Group> = vec![];
    let paths: HashSet<&str> = model.params().iter().map(|param| param.path()).collect();
    for (index, param) in model.params().iter().enumerate() {
        let Some(mut place) = place(model.family.names, param.path(), |path| paths.contains(path)) else {
            return Err(LoadError::Weights(format!(
                "{}: no name for {} in the family's table",
                model.family.model_type,
                param.path()
            )));
        };
        place.tensor = model.family.named(model.arch.task, place.tensor);
        match groups.iter_mut().rev().take(8).find(|group| group.tensor == place.tensor) {
            Some(group) => group.parts.push((index, place)),
            None => {
                let shape = place.stored_shape(param.dims());
                groups.push(Group { tensor: place.tensor.clone(), shape, parts: vec![(index, place)] });
            }
        }
    }
    match groups.iter().find(|group| group.parts.len() != group.parts[0].1.part.1) {
        Some(group) => Err(LoadError::Weights(format!(
            "{}: {} of {} parts are there",
            group.tensor,
            group.parts.len(),
            group.parts[0].1.part.1
        ))),
        None => Ok(groups),
    }
}

impl Group {
    fn write(&self, model: &Model, writer: &mut SafetensorsWriter) -> Result<(), LoadError> {
        let values = |index: usize| -> Result<Vec<f32>, LoadError> {
            let data = model.params()[index].weight().to_f32()?.to_device(&Device::Cpu)?;
            Ok(data.flatten_all()?.to_vec1::<f32>()?)
        };
        if let [(index, place)] = self.parts.as_slice()
            && !(place.transposed && self.shape.len() == 2)
        {
            // As it is stored: no copy in f32 of what goes to the disk in its own type.
            return as_stored(model.params()[*index].weight(), |values| Ok(writer.write(&self.tensor, values)?));
        }
        let mut whole = vec![0f32; self.shape.iter().product()];
        for (index, place) in &self.parts {
            let (dims, ours) = (model.params()[*index].dims(), values(*index)?);
            let cut = Cut::new(dims, place, model.arch.heads_apart());
            let columns: usize = dims.iter().skip(1).product();
            for (i, value) in ours.into_iter().enumerate() {
                whole[cut.index(i / columns, i % columns)] = value;
            }
        }
        writer.write(&self.tensor, Values::F32(&whole))?;
        Ok(())
    }
}

/// Lends a weight's numbers to `write` in the type that they have.
fn as_stored(weight: Weight, write: impl FnOnce(Values) -> Result<(), LoadError>) -> Result<(), LoadError> {
    let weight = match weight {
        Weight::Dense(data) => Weight::Dense(data.to_device(&Device::Cpu)?.contiguous()?),
        mapped => mapped,
    };
    weight.with(|mat| {
        Ok(match mat {
            MatRef::F32(values) => write(Values::F32(values)),
            MatRef::Bf16(values) => write(Values::Bf16(values)),
            MatRef::F16(values) => write(Values::F16(values)),
            MatRef::Bytes(_) => Err(LoadError::Weights(format!(
                "a model with weights in {INT8} is not saved: they are rounded when it is loaded; save it from the stored ones"
            ))),
            MatRef::Blocks(_) => {
                let mut values = vec![0f32; mat.len()];
                phyla_kernels::embed::widen(&mut values, mat);
                write(Values::F32(&values))
            }
        })
    })?
}

//! Writes peft's folders: parts of ours that are one module there become one tensor again.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use phyla_nn::adapter::Change;
use phyla_ops::Param;
use serde_json::Value;

use super::modules::{paths, sites, tensor_of};
use super::peft::{CONFIG, PREFIX, WEIGHTS, config};
use super::spec::scale;
use super::{Adapter, Part, prompt};
use crate::checkpoint::{Dtype, SafetensorsWriter, TensorSpec, Values, atomic_write};
use crate::cut::Cut;
use crate::{LoadError, Model};

/// Tensors by name, in the order in which they are written.
pub(super) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub(super) fn save(adapter: &Adapter, model: &Model, folder: &Path, base: Option<&str>) -> Result<(), LoadError> {
    std::fs::create_dir_all(folder)
        .map_err(|error| LoadError::Adapter(format!("{} cannot be made: {error}", folder.display())))?;
    let mut tensors = Tensors::new();
    for part in &adapter.parts {
        part.write(model, &mut tensors)?;
    }
    let known = paths(model);
    for param in &adapter.saved {
        let Some(name) = tensor_of(model, &known, param.path()) else {
            return Err(LoadError::Adapter(format!(
                "{} is a part of a tensor of transformers and cannot be saved beside an adapter",
                param.path()
            )));
        };
        let prefix = if adapter.is_prompt() { prompt::BESIDE } else { PREFIX };
        tensors.insert(format!("{prefix}{name}"), (param.dims().to_vec(), param.numbers()?));
    }
    match &adapter.prompt {
        Some(prompt) => prompt::save(prompt, tensors, folder)?,
        None => write_all(&folder.join(WEIGHTS), &tensors)?,
    }
    let all = sites(model);
    let all: HashSet<&str> = all.iter().flatten().map(|site| site.module.as_str()).collect();
    let all: Vec<&str> = all.into_iter().collect();
    let mut modules: Vec<&str> = adapter.parts.iter().map(|part| part.site.module.as_str()).collect();
    modules.dedup();
    let fields = config(adapter, model, base, &modules, &all);
    let text = serde_json::to_vec_pretty(&Value::Object(fields))
        .map_err(|error| LoadError::Adapter(format!("{CONFIG}: {error}")))?;
    Ok(atomic_write(folder.join(CONFIG), &text)?)
}

/// Writes tensors that are all there.
pub(super) fn write_all(path: &Path, tensors: &Tensors) -> Result<(), LoadError> {
    write(path, tensors.iter().map(|(name, (shape, values))| (name.as_str(), &shape[..], &values[..])))
}

/// Writes tensors: their names, shapes and numbers.
pub(super) fn write<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (&'a str, &'a [usize], &'a [f32])> + Clone,
) -> Result<(), LoadError> {
    let specs: Vec<TensorSpec> = (tensors.clone())
        .map(|(name, shape, _)| TensorSpec { name: name.into(), dtype: Dtype::F32, shape: shape.to_vec() })
        .collect();
    let mut writer = SafetensorsWriter::create_file(path, &specs)?;
    for (name, _, values) in tensors {
        writer.write(name, Values::F32(values))?;
    }
    writer.finish()?;
    Ok(())
}

impl Part {
    /// Rank and alpha of a low-rank change.
    pub(super) fn rank_and_alpha(&self, rslora: bool) -> Option<(usize, f64)> {
        let Change::LowRank(change) = &*self.change else { return None };
        let rank = change.a.dims()[0] + change.origin.as_ref().map_or(0, |[a, _]| a.dims()[0]);
        let of = rank as f64;
        let alpha = change.scale as f64 * if rslora { of.sqrt() } else { of };
        // The scale is an f32: as many digits as it has, so that 7 comes back as 7, and no fewer.
        let round = (alpha * 1e6).round() / 1e6;
        Some((rank, if scale(round, rank, rslora) == change.scale { round } else { alpha }))
    }

    fn write(&self, model: &Model, tensors: &mut Tensors) -> Result<(), LoadError> {
        let module = &self.site.module;
        match &*self.change {
            Change::LowRank(change) => {
                let [a, b] = change.joined()?;
                let bare = if change.importance.is_some() { "" } else { ".weight" };
                self.common(tensors, &format!("{module}.lora_A{bare}"), &a)?;
                self.rows(model, tensors, &format!("{module}.lora_B{bare}"), &b)?;
                if let Some(importance) = &change.importance {
                    self.common(tensors, &format!("{module}.lora_E"), importance)?;
                }
                if let Some(magnitude) = &change.magnitude {
                    self.rows(model, tensors, &format!("{module}.lora_magnitude_vector"), &magnitude.lengths)?;
                }
            }
            Change::Shared(change) => {
                let name = format!("{PREFIX}{module}.vera_lambda_d");
                tensors.insert(name, (vec![change.inner.count()], change.inner.numbers()?));
                self.rows(model, tensors, &format!("{module}.vera_lambda_b"), &change.outer)?;
                self.projection(tensors, "base_model.vera_A", &change.a)?;
                self.projection(tensors, "base_model.vera_B", &change.b)?;
            }
            Change::Rescale(change) => match change.input {
                true => self.common(tensors, &format!("{module}.ia3_l"), &change.factors)?,
                false => self.rows(model, tensors, &format!("{module}.ia3_l"), &change.factors)?,
            },
            Change::Probe(_) => {}
            Change::Bottleneck(change) => {
                for (name, [weight, bias]) in [("down", &change.down), ("up", &change.up)] {
                    self.common(tensors, &format!("{module}.adapter_{name}.weight"), weight)?;
                    self.common(tensors, &format!("{module}.adapter_{name}.bias"), bias)?;
                }
            }
        }
        Ok(())
    }

    /// A tensor that all parts of a module have in common.
    fn common(&self, tensors: &mut Tensors, name: &str, param: &Arc<Param>) -> Result<(), LoadError> {
        tensors.insert(format!("{PREFIX}{name}"), (param.dims().to_vec(), param.numbers()?));
        Ok(())
    }

    /// Our rows of a tensor; rows of parts that are not adapted stay 0 (of factors, 1).
    fn rows(&self, model: &Model, tensors: &mut Tensors, name: &str, param: &Arc<Param>) -> Result<(), LoadError> {
        let mut shape = param.dims().to_vec();
        shape[0] *= self.site.place.part.1;
        let columns: usize = param.dims().iter().skip(1).product();
        let nothing = if matches!(&*self.change, Change::Rescale(_)) { 1. } else { 0. };
        let (_, whole) = tensors
            .entry(format!("{PREFIX}{name}"))
            .or_insert_with(|| (shape.clone(), vec![nothing; shape.iter().product()]));
        let cut = Cut::new(&[param.dims()[0], columns], &self.site.place, model.arch.heads_apart());
        for (at, value) in param.numbers()?.into_iter().enumerate() {
            whole[cut.index(at / columns.max(1), at % columns.max(1))] = value;
        }
        Ok(())
    }

    /// One of VeRA's shared matrices: as much of it as the largest map takes.
    fn projection(&self, tensors: &mut Tensors, name: &str, slice: &Arc<Param>) -> Result<(), LoadError> {
        let numbers = slice.numbers()?;
        let (is_a, [rows, columns]) = (name.ends_with('A'), [slice.dims()[0], slice.dims()[1]]);
        let first = if is_a { 0 } else { self.site.place.part.0 * rows };
        let known = tensors.get(name).map_or([0, 0], |(shape, _)| [shape[0], shape[1]]);
        let needed = [known[0].max(first + rows), known[1].max(columns)];
        let mut whole = vec![0.; needed[0] * needed[1]];
        if let Some((_, known_numbers)) = tensors.get(name) {
            for (row, numbers) in known_numbers.chunks_exact(known[1].max(1)).enumerate() {
                whole[row * needed[1]..][..known[1]].copy_from_slice(numbers);
            }
        }
        for (row, numbers) in numbers.chunks_exact(columns.max(1)).enumerate() {
            whole[(first + row) * needed[1]..][..columns].copy_from_slice(numbers);
        }
        tensors.insert(name.to_string(), (needed.to_vec(), whole));
        Ok(())
    }
}

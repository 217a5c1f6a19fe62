//! Freshly initialised models: each parameter draws from a stream of its own path, so that a model's weights
//! depend on the seed alone, not on the order of its blocks.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{Device, Result};
use phyla_kernels::rng::Rng;
use phyla_nn::{Init, Source};
use phyla_ops::{Param, Weight, cpu};
use serde_json::{Map, Value};

use crate::{LoadError, Model, registry};

/// A model of this configuration with fresh f32 weights.
pub fn fresh(config: &Map<String, Value>, seed: u64, device: &Device) -> std::result::Result<Model, LoadError> {
    let (family, parsed) = registry::parse(config)?;
    let mut source =
        Fresh { rng: Rng::new(seed).split("weights"), device: device.clone(), params: HashMap::new(), bytes: 0 };
    Ok(Model::build(parsed.arch, family, config.clone(), &mut source)?)
}

struct Fresh {
    rng: Rng,
    device: Device,
    params: HashMap<String, Arc<Param>>,
    bytes: usize,
}

/// More than any machine this runs on holds; a configuration that asks for it is a mistake.
const LARGEST: usize = 1 << 42;

impl Source for Fresh {
    fn param(&mut self, path: &str, shape: &[usize], init: Init) -> Result<Arc<Param>> {
        if let Some(param) = self.params.get(path) {
            return Ok(param.clone());
        }
        let count = shape.iter().try_fold(1usize, |all, &n| all.checked_mul(n)).filter(|&n| n < LARGEST / 4);
        let Some(count) = count else { candle_core::bail!("{path}: shape {shape:?} is too large") };
        self.bytes += 4 * count;
        let mut values: Vec<f32> = Vec::new();
        if self.bytes > LARGEST || values.try_reserve_exact(count).is_err() {
            candle_core::bail!("{path}: no memory for a weight of shape {shape:?}");
        }
        values.resize(count, if init == Init::Ones { 1. } else { 0. });
        if let Init::Normal { std, zero_row } = init {
            self.rng.split(path).fill_normal(&mut values, 0., std);
            let width = count / shape.first().copied().unwrap_or(1).max(1);
            if let Some(row) = zero_row {
                values[row as usize * width..][..width].fill(0.);
            }
        }
        let weight = Weight::Dense(cpu::tensor(values, shape)?.to_device(&self.device)?);
        let param = Arc::new(Param::new(path, weight));
        self.params.insert(path.to_string(), param.clone());
        Ok(param)
    }
}

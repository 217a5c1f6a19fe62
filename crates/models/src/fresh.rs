//! Freshly initialised models: each parameter draws from a stream of its own path, so that a model's weights
//! depend on the seed alone, not on the order of its blocks.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device, Result, WithDType};
use half::{bf16, f16};
use phyla_kernels::memory::{self, Number};
use phyla_kernels::rng::Rng;
use phyla_nn::{Init, Source};
use phyla_ops::{Data, Param, Weight, cpu};
use serde_json::{Map, Value};

use crate::quantize::{Made, Quantizer};
use crate::{LoadError, LoadOptions, LoadReport, Model, registry};

/// A model of this configuration with fresh f32 weights.
pub fn fresh(config: &Map<String, Value>, seed: u64, device: &Device) -> std::result::Result<Model, LoadError> {
    fresh_as(config, seed, DType::F32, device)
}

/// A model of this configuration with fresh weights: matrices in `dtype` (f32, bf16 or f16), drawn in f32 a piece at a
/// time and rounded, so that there is never a second copy; vectors in f32 on the CPU, as loading has them.
pub fn fresh_as(
    config: &Map<String, Value>,
    seed: u64,
    dtype: DType,
    device: &Device,
) -> std::result::Result<Model, LoadError> {
    let options = LoadOptions { device: device.clone(), dtype: Some(dtype), ..LoadOptions::default() };
    Ok(fresh_with(config, seed, &options)?.0)
}

/// As [`fresh_as`], with everything that loading lets one choose.
pub fn fresh_with(
    config: &Map<String, Value>,
    seed: u64,
    options: &LoadOptions,
) -> std::result::Result<(Model, LoadReport), LoadError> {
    let mut config = config.clone();
    if let Some(head) = &options.head {
        config.extend(head.config.clone());
    }
    let (family, mut parsed) = registry::parse_as(&config, options.head.as_ref().map(|head| head.task))?;
    if options.head.is_some()
        && let Some(name) = family.architecture(parsed.arch.task)
    {
        config.insert("architectures".into(), serde_json::json!([name]));
    }
    parsed.arch.set_dropouts(options.dropouts);
    let mut source = Fresh { quantizer: Quantizer::asked(options, &parsed.arch, family)?, ..Fresh::new(seed, options) };
    if options.device.is_cpu() {
        room(&config, options.dtype.unwrap_or(DType::F32).size_in_bytes(), source.quantizer.as_ref(), memory::total())?;
    }
    let model = Model::build(parsed.arch, family, config, &mut source);
    let model = model.map_err(|error| source.failure.take().unwrap_or(error.into()))?;
    let warnings = source.quantizer.as_ref().and_then(Quantizer::sentence).into_iter().collect();
    Ok((model, LoadReport { warnings, ..LoadReport::default() }))
}

/// An error if the weights take more than `memory` bytes: before the first is drawn, since a system that promises
/// more memory than it has ends the process on the way.
fn room(
    config: &Map<String, Value>,
    size: usize,
    quantizer: Option<&Quantizer>,
    memory: Option<usize>,
) -> std::result::Result<(), LoadError> {
    let survey = crate::survey(config, None)?;
    let count = survey.count();
    let bytes = survey.slots.iter().fold(0usize, |all, slot| {
        let quantised = quantizer.and_then(|quantizer| quantizer.bytes(&slot.path, &slot.shape));
        all.saturating_add(quantised.unwrap_or_else(|| slot.count().saturating_mul(size)))
    });
    let Some(memory) = memory.filter(|&memory| bytes > memory) else { return Ok(()) };
    let gb = |bytes: usize| bytes as f64 / 1e9;
    Err(LoadError::Weights(format!(
        "config.json: a model of {count} weights takes {:.1} GB, and this machine has {:.1} GB of memory: make it smaller \
         (layers, hidden size, vocabulary), or take bf16 or quantised weights",
        gb(bytes),
        gb(memory)
    )))
}

/// Draws parameters.
pub(crate) struct Fresh {
    rng: Rng,
    dtype: DType,
    device: Device,
    params: HashMap<String, Arc<Param>>,
    bytes: usize,
    quantizer: Option<Quantizer>,
    /// The error in full; candle's own type carries only text.
    failure: Option<LoadError>,
}

impl Fresh {
    pub fn new(seed: u64, options: &LoadOptions) -> Self {
        Self {
            rng: Rng::new(seed).split("weights"),
            dtype: options.dtype.unwrap_or(DType::F32),
            device: options.device.clone(),
            params: HashMap::new(),
            bytes: 0,
            quantizer: None,
            failure: None,
        }
    }

    /// A weight in fewer bits, drawn in f32 a piece at a time; `None` if it is to be drawn as usual.
    fn quantised(&mut self, rng: &Rng, path: &str, shape: &[usize], init: Init) -> Result<Option<Weight>> {
        let (Some(quantizer), Init::Normal { .. } | Init::Uniform { .. }) = (&mut self.quantizer, init) else {
            return Ok(None);
        };
        let (mut rng, columns) = (rng.clone(), shape.iter().skip(1).product::<usize>());
        let rows = |range: Range<usize>| {
            let mut values = vec![0f32; range.len() * columns];
            match init {
                Init::Normal { std, zero_row } => {
                    rng.fill_normal(&mut values, 0., std);
                    if let Some(row) = zero_row.map(|row| row as usize).filter(|row| range.contains(row)) {
                        values[(row - range.start) * columns..][..columns].fill(0.);
                    }
                }
                Init::Uniform { bound } => rng.fill_uniform(&mut values, -bound, bound),
                _ => {}
            }
            Ok(values)
        };
        match quantizer.weight(path, shape, None, || Ok(rows)) {
            Ok(Made::Weight(weight)) => Ok(Some(weight)),
            Ok(_) => Ok(None),
            Err(error) => {
                let text = error.to_string();
                self.failure = Some(error);
                candle_core::bail!("{text}")
            }
        }
    }
}

/// More than any machine this runs on holds; a configuration that asks for it is a mistake.
const LARGEST: usize = 1 << 42;
/// Values drawn at a time, a multiple of the generator's four, so that the pieces join to one sequence.
const PIECE: usize = 1 << 18;

impl Source for Fresh {
    fn param(&mut self, path: &str, shape: &[usize], init: Init) -> Result<Arc<Param>> {
        if let Some(param) = self.params.get(path) {
            return Ok(param.clone());
        }
        let dtype = if shape.len() < 2 && self.device.is_cpu() { DType::F32 } else { self.dtype };
        let count = shape.iter().try_fold(1usize, |all, &n| all.checked_mul(n)).filter(|&n| n < LARGEST / 4);
        let Some(count) = count else { candle_core::bail!("{path}: shape {shape:?} is too large") };
        let quantised = self.quantizer.as_ref().and_then(|quantizer| quantizer.bytes(path, shape));
        self.bytes += quantised.unwrap_or(dtype.size_in_bytes() * count);
        if self.bytes > LARGEST {
            candle_core::bail!("{path}: no memory for a weight of shape {shape:?}");
        }
        let rng = self.rng.split(path);
        if let Some(weight) = self.quantised(&rng, path, shape, init)? {
            let param = Arc::new(Param::new(path, weight));
            self.params.insert(path.to_string(), param.clone());
            return Ok(param);
        }
        let data = match dtype {
            DType::F32 => draw(rng, path, shape, init, |x| x),
            DType::BF16 => draw(rng, path, shape, init, bf16::from_f32),
            DType::F16 => draw(rng, path, shape, init, f16::from_f32),
            other => candle_core::bail!("weights are f32, bf16 or f16, not {other:?}"),
        }?;
        let param = Arc::new(Param::new(path, Weight::Dense(data.to_device(&self.device)?)));
        self.params.insert(path.to_string(), param.clone());
        Ok(param)
    }
}

/// One weight, each value made by `of` from an f32.
fn draw<T: WithDType + Number>(
    mut rng: Rng,
    path: &str,
    shape: &[usize],
    init: Init,
    of: impl Fn(f32) -> T,
) -> Result<Data> {
    let count: usize = shape.iter().product();
    let Some(mut values) = memory::room::<T>(count) else {
        candle_core::bail!("{path}: no memory for a weight of shape {shape:?}");
    };
    let fill = |values: &mut Vec<T>, numbers: &mut dyn FnMut(&mut [f32])| {
        let mut piece = vec![0f32; count.min(PIECE)];
        while values.len() < count {
            let piece = &mut piece[..(count - values.len()).min(PIECE)];
            numbers(piece);
            values.extend(piece.iter().map(|&x| of(x)));
        }
    };
    match init {
        Init::Zeros | Init::Fixed => values.resize(count, of(0.)),
        Init::Ones => values.resize(count, of(1.)),
        Init::Sinusoids(order) => {
            let (rows, dim) = (shape.first().copied().unwrap_or(0), shape.iter().skip(1).product());
            for row in 0..rows as u32 {
                values.extend(order.row(row, dim).map(&of));
            }
        }
        Init::Normal { std, zero_row } => {
            fill(&mut values, &mut |piece| rng.fill_normal(piece, 0., std));
            let width = count / shape.first().copied().unwrap_or(1).max(1);
            if let Some(row) = zero_row {
                values[row as usize * width..][..width].fill(of(0.));
            }
        }
        Init::Uniform { bound } => fill(&mut values, &mut |piece| rng.fill_uniform(piece, -bound, bound)),
    }
    cpu::tensor(values, shape)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_model_beyond_all_memory_is_refused_before_the_first_weight() {
        let config = serde_json::json!({"model_type": "llama", "num_hidden_layers": 10_000, "vocab_size": 1 << 26,
            "hidden_size": 1 << 20, "intermediate_size": 1 << 22, "num_attention_heads": 1 << 10});
        let start = std::time::Instant::now();
        let message = fresh(config.as_object().unwrap(), 0, &Device::Cpu).unwrap_err().to_string();
        assert!(message.starts_with("config.json: a model of ") && message.contains("bf16"), "{message}");
        // Counting 90,003 parameters, not drawing them.
        assert!(start.elapsed().as_secs() < 5);
    }

    #[test]
    fn stored_sines_are_sines_and_stay() {
        let config = serde_json::json!({"model_type": "distilbert", "sinusoidal_pos_embds": true, "dim": 6,
            "hidden_dim": 5, "n_heads": 2, "n_layers": 1, "vocab_size": 7, "max_position_embeddings": 4});
        let model = fresh(config.as_object().unwrap(), 0, &Device::Cpu).unwrap();
        let table = model.params().iter().find(|param| param.path() == "encoder.positions.weight").unwrap();
        let rows = table.weight().to_f32().unwrap().to_vec2::<f32>().unwrap();
        let slow = 3f64 / 10000f64.powf(4. / 6.);
        let expected = [3f64.sin(), 3f64.cos(), slow.sin(), slow.cos()].map(|x| x as f32);
        assert_eq!(rows[0], [0., 1., 0., 1., 0., 1.]);
        assert_eq!([rows[3][0], rows[3][1], rows[3][4], rows[3][5]], expected);
        assert_eq!(model.params().iter().filter(|param| model.is_fixed(param)).count(), 1);
    }

    #[test]
    fn a_lower_type_holds_the_same_draws_rounded_and_pieces_join() {
        let shape = [3, PIECE / 2 + 5];
        let init = Init::Normal { std: 0.5, zero_row: Some(1) };
        let rng = || Rng::new(3).split("w");
        let mut expected = vec![0f32; 3 * shape[1]];
        rng().fill_normal(&mut expected, 0., 0.5);
        expected[shape[1]..2 * shape[1]].fill(0.);
        let full = draw(rng(), "w", &shape, init, |x| x).unwrap();
        assert_eq!(full.flatten_all().unwrap().to_vec1::<f32>().unwrap(), expected);
        let low = draw(rng(), "w", &shape, init, bf16::from_f32).unwrap();
        let rounded: Vec<bf16> = expected.iter().map(|&x| bf16::from_f32(x)).collect();
        assert_eq!(low.flatten_all().unwrap().to_vec1::<bf16>().unwrap(), rounded);
    }
}

//! The value head of PPO: what reward a policy is to expect from each token on, one linear map over its last hidden states.
//!
//! It stands beside the model, not in it: the policy that comes of a run is a model like any other. Its file and names are
//! those of trl's `AutoModelForCausalLMWithValueHead`.

use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Result};
use phyla_models::Model;
use phyla_models::checkpoint::{Checkpoint, Dtype, MAX_SHARD_BYTES, SafetensorsWriter, TensorSpec, Values};
use phyla_nn::{Init, Linear, LinearSpec, Scope, Source};
use phyla_ops::{Data, Param, Tensor, Weight};

use crate::TrainError;

/// A value head.
#[derive(Debug)]
pub struct Critic {
    map: Linear,
    params: Vec<Arc<Param>>,
}

/// Name of its file in a checkpoint, without the ending.
const FILE: &str = "value_head";
/// Its place among paths.
const PATH: &str = "v_head.summary";

/// Parameters that begin at 0, which expects nothing of any text: advantages are then rewards to come.
#[derive(Default)]
struct Zeros(Vec<Arc<Param>>);

impl Source for Zeros {
    fn param(&mut self, path: &str, shape: &[usize], _: Init) -> Result<Arc<Param>> {
        let data = Data::zeros(shape, candle_core::DType::F32, &Device::Cpu)?;
        let param = Arc::new(Param::new(path, Weight::Dense(data)));
        param.set_trainable(true)?;
        self.0.push(param.clone());
        Ok(param)
    }
}

impl Critic {
    /// One for the hidden states of a model.
    pub fn new(model: &Model) -> Result<Self> {
        let mut zeros = Zeros::default();
        let spec = LinearSpec { input: model.arch.hidden(), output: 1, bias: true, std: 0. };
        let map = Linear::new(spec, &mut Scope::root(&mut zeros).at(PATH))?;
        Ok(Self { map, params: zeros.0 })
    }

    /// Its parameters.
    pub fn params(&self) -> &[Arc<Param>] {
        &self.params
    }

    /// The values of those rows of `hidden[.., hidden]` that have a target, `[counted, 1]`.
    pub fn values(&self, hidden: &Tensor, targets: &[i32]) -> Result<Tensor> {
        let rows: Vec<u32> = (0u32..).zip(targets).filter(|(_, target)| **target >= 0).map(|(row, _)| row).collect();
        self.map.forward(&phyla_ops::gather_rows(hidden, &rows)?)
    }

    /// Writes it into a checkpoint.
    pub fn save(&self, folder: &Path) -> std::result::Result<(), TrainError> {
        let spec = |param: &Arc<Param>| TensorSpec {
            name: param.path().into(),
            dtype: Dtype::F32,
            shape: param.dims().to_vec(),
        };
        let specs: Vec<TensorSpec> = self.params.iter().map(spec).collect();
        let mut writer = SafetensorsWriter::create(folder.join(FILE), &specs, MAX_SHARD_BYTES)?;
        for param in &self.params {
            writer.write(param.path(), Values::F32(&param.numbers()?))?;
        }
        writer.finish()?;
        Ok(())
    }

    /// Reads what [`Critic::save`] wrote.
    pub fn load(&self, folder: &Path) -> std::result::Result<(), TrainError> {
        let tensors = Checkpoint::open(folder.join(FILE))?;
        for param in &self.params {
            let view = tensors.get(param.path())?;
            let (shape, expected) = (view.shape.to_vec(), param.dims());
            if shape != expected {
                let reason = format!("{} has shape {shape:?}, expected {expected:?}", param.path());
                return Err(TrainError::Resume { path: folder.to_owned(), reason });
            }
            param.set_weight(Weight::Dense(phyla_ops::cpu::tensor(view.to_f32()?, shape)?))?;
        }
        Ok(())
    }
}

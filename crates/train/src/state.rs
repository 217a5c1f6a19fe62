//! What a checkpoint holds besides the model: the optimiser's moments and the place in the run, so that a resumed
//! run goes on bit for bit.

use std::path::Path;

use candle_core::DType;
use phyla_data::batch::BatchState;
use phyla_models::adapter::Adapter;
use phyla_models::checkpoint::{
    Checkpoint, Dtype, MAX_SHARD_BYTES, SafetensorsWriter, TensorSpec, Values, atomic_write,
};
use phyla_models::lineage::Lineage;
use phyla_models::save;
use phyla_ops::cpu;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::TrainError;
use crate::metrics::Means;
use crate::optimizer::Optimizer;
use crate::report::SampleText;
use crate::rundir::{self, RunDir};
use crate::setup::Setup;

/// The place in a run, after `step` updates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Updates made.
    pub step: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Seconds of training.
    pub seconds: f64,
    /// Place in the training text.
    pub batches: BatchState,
    /// Lowest validation loss so far and its step.
    pub best: Option<(f64, u64)>,
    /// Evaluations since then.
    pub stale_evaluations: u64,
    /// Sums since the last row of metrics.
    #[serde(default)]
    pub since: Since,
    /// Which text is trained on.
    #[serde(default)]
    pub text: String,
    /// What the model has written so far.
    #[serde(default)]
    pub samples: Vec<SampleText>,
}

/// What the next row of metrics sums up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Since {
    /// Sum of the steps' losses.
    pub loss: f64,
    /// Steps.
    pub steps: u64,
    /// Their tokens.
    pub tokens: u64,
    /// Their time in seconds.
    pub seconds: f64,
    /// What else they measured.
    #[serde(default)]
    pub means: Means,
}

const STATE: &str = "trainer_state.json";
const OPTIMIZER: &str = "optimizer";

/// Writes a complete checkpoint; until it is complete, it does not count.
pub fn write(
    run: &RunDir,
    state: &State,
    setup: &Setup,
    optimizer: &Optimizer,
    lineage: &Lineage,
) -> Result<(), TrainError> {
    let pending = run.begin_checkpoint(state.step)?;
    let folder = pending.path();
    write_folder(folder, setup, setup.adapter.as_deref(), DType::F32, lineage)?;
    if let Some(allocator) = &setup.allocator {
        allocator.save(folder)?;
    }
    if let Some(rollouts) = &setup.rollouts {
        rollouts.save(folder)?;
    }
    let tensors: Vec<_> = optimizer.state().collect();
    let specs: Vec<TensorSpec> = tensors
        .iter()
        .map(|(name, data)| TensorSpec { name: name.clone(), dtype: Dtype::F32, shape: data.dims().to_vec() })
        .collect();
    let mut writer = SafetensorsWriter::create(folder.join(OPTIMIZER), &specs, MAX_SHARD_BYTES)?;
    for (name, data) in &tensors {
        let data = data.to_device(&candle_core::Device::Cpu)?;
        writer.write(name, Values::F32(&cpu::view::<f32>(&data)?))?;
    }
    writer.finish()?;
    let text = serde_json::to_vec_pretty(state).map_err(|e| TrainError::Settings(format!("{STATE}: {e}")))?;
    atomic_write(folder.join(STATE), &text)?;
    pending.commit()?;
    Ok(())
}

/// Writes a folder that transformers and `phyla generate` open; of an adapter one that peft and `--adapter` do, without the
/// directions that were taken away, which checkpoints keep.
pub fn write_model(folder: &Path, setup: &Setup, dtype: DType, lineage: &Lineage) -> Result<(), TrainError> {
    match (&setup.adapter, &setup.allocator) {
        (Some(adapter), Some(allocator)) => {
            write_folder(folder, setup, Some(&adapter.narrowed(&allocator.kept())?), dtype, lineage)
        }
        (adapter, _) => write_folder(folder, setup, adapter.as_deref(), dtype, lineage),
    }
}

fn write_folder(
    folder: &Path,
    setup: &Setup,
    adapter: Option<&Adapter>,
    dtype: DType,
    lineage: &Lineage,
) -> Result<(), TrainError> {
    match adapter {
        Some(adapter) => {
            adapter.save(&setup.model, folder, setup.parent.as_ref().map(|parent| parent.name.as_str()))?
        }
        None => save(&setup.model, folder, dtype)?,
    }
    if let Some(thresholds) = &setup.thresholds {
        thresholds.save(folder)?;
    }
    lineage.write(folder)?;
    setup.tokenizer.save_into(folder)?;
    let text = serde_json::to_vec_pretty(&Value::Object(setup.generation.clone())).unwrap_or_default();
    atomic_write(folder.join("generation_config.json"), &text)?;
    Ok(())
}

/// Reads the state of a checkpoint, the optimiser's included.
pub fn read(checkpoint: &rundir::Checkpoint, optimizer: &mut Optimizer) -> Result<State, TrainError> {
    let path = &checkpoint.path;
    let error = |reason: String| TrainError::Resume { path: path.clone(), reason };
    let text = std::fs::read_to_string(path.join(STATE)).map_err(|e| error(format!("{STATE}: {e}")))?;
    let state: State = serde_json::from_str(&text).map_err(|e| error(format!("{STATE}: {e}")))?;
    let expected = optimizer.state().count();
    if expected > 0 {
        let tensors = Checkpoint::open(path.join(OPTIMIZER))?;
        if tensors.names().len() != expected {
            let found = tensors.names().len();
            return Err(error(format!(
                "{found} optimiser tensors, where this recipe has {expected}; was [optim] or [method] changed?"
            )));
        }
        optimizer
            .restore(state.step, |name, shape| {
                let view = tensors.get(name).map_err(candle_core::Error::wrap)?;
                if view.shape != shape {
                    candle_core::bail!("{name} has shape {:?}, expected {shape:?}", view.shape);
                }
                cpu::tensor(view.to_f32().map_err(candle_core::Error::wrap)?, shape)
            })
            .map_err(|e| error(e.to_string()))?;
    } else {
        optimizer.restore(state.step, |name, _| candle_core::bail!("no state is called {name}"))?;
    }
    Ok(state)
}

//! The mean of the last checkpoints' weights, as the 2017 paper has it (section 6.1).

use std::sync::Arc;

use phyla_models::adapter::Adapter;
use phyla_models::{LoadOptions, Model, load};
use phyla_ops::{Param, Weight, cpu};

use crate::TrainError;
use crate::rundir::Checkpoint;

/// Puts the mean of the checkpoints' weights into the model; of an adapter's checkpoints, which hold nothing else, into the
/// adapter.
///
/// # Errors
/// A checkpoint that cannot be read or is of another model.
pub fn average(model: &Model, adapter: Option<&Adapter>, checkpoints: &[Checkpoint]) -> Result<(), TrainError> {
    let own: Vec<Arc<Param>> = match adapter {
        None => model.params().to_vec(),
        Some(adapter) => adapter.params().into_iter().chain(adapter.saved()).cloned().collect(),
    };
    let mut sums: Vec<Vec<f32>> = own.iter().map(|param| vec![0.; param.count()]).collect();
    let share = 1. / checkpoints.len().max(1) as f32;
    for checkpoint in checkpoints {
        let saved: Vec<Arc<Param>> = match adapter {
            None => load(&checkpoint.path, &LoadOptions::default())?.0.params().to_vec(),
            Some(adapter) => {
                let saved = Adapter::load(model, &checkpoint.path)?.with_spec(adapter.spec().clone())?;
                // What it trains of the model itself, the loading has put there.
                saved.params().into_iter().chain(saved.saved()).cloned().collect()
            }
        };
        for (param, sum) in own.iter().zip(&mut sums) {
            let Some(found) = saved.iter().find(|found| found.path() == param.path()) else {
                return Err(TrainError::Settings(format!("{} has no {}", checkpoint.path.display(), param.path())));
            };
            for (sum, value) in sum.iter_mut().zip(found.numbers()?) {
                *sum += share * value;
            }
        }
    }
    for (param, sum) in own.iter().zip(sums) {
        let device = param.weight().device();
        let low = param.low().map(|low| low.dtype());
        param.set_weight(Weight::Dense(cpu::tensor(sum, param.dims())?.to_device(&device)?))?;
        param.set_compute_dtype(low)?;
    }
    Ok(())
}

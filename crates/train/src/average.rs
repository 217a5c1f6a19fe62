//! The mean of the last checkpoints' weights, as the 2017 paper has it (section 6.1).

use phyla_models::{LoadOptions, Model, load};
use phyla_ops::{Weight, cpu};

use crate::TrainError;
use crate::rundir::Checkpoint;

/// Puts the mean of the checkpoints' weights into the model.
///
/// # Errors
/// A checkpoint that cannot be read or is of another model.
pub fn average(model: &Model, checkpoints: &[Checkpoint]) -> std::result::Result<(), TrainError> {
    let mut sums: Vec<Vec<f32>> = model.params().iter().map(|param| vec![0.; param.count()]).collect();
    let share = 1. / checkpoints.len().max(1) as f32;
    for checkpoint in checkpoints {
        let (saved, _) = load(&checkpoint.path, &LoadOptions::default())?;
        for (param, sum) in model.params().iter().zip(&mut sums) {
            let Some(found) = saved.params().iter().find(|found| found.path() == param.path()) else {
                return Err(TrainError::Settings(format!("{} has no {}", checkpoint.path.display(), param.path())));
            };
            for (sum, value) in sum.iter_mut().zip(found.numbers()?) {
                *sum += share * value;
            }
        }
    }
    for (param, sum) in model.params().iter().zip(sums) {
        let device = param.weight().device();
        let low = param.low().map(|low| low.dtype());
        param.set_weight(Weight::Dense(cpu::tensor(sum, param.dims())?.to_device(&device)?))?;
        param.set_compute_dtype(low)?;
    }
    Ok(())
}

//! One optimiser step: micro-batches forward and backward, the checks, the clipping, the update.

use std::time::{Duration, Instant};

use phyla_data::batch::Batch;
use phyla_kernels::rng::Rng;
use phyla_models::Model;

use crate::TrainError;
use crate::beside::Beside;
use crate::metrics::Means;
use crate::objective::{Counts, Mode};
use crate::optimizer::{Optimizer, StepArgs};
use crate::recipe::Objective;

/// What a step needs besides its batches.
pub struct Stepper<'a> {
    /// The model, its trained parameters marked.
    pub model: &'a Model,
    /// What is minimised.
    pub objective: &'a Objective,
    /// Largest norm of the whole gradient.
    pub clip: Option<f64>,
    /// Root of the random numbers.
    pub rng: Rng,
    /// Compute activations again in the backward pass.
    pub checkpointing: bool,
    /// What stands beside the model.
    pub beside: Beside<'a>,
}

impl<'a> Stepper<'a> {
    /// Without clipping, checkpointing and anything beside the model.
    pub fn new(model: &'a Model, objective: &'a Objective) -> Self {
        Self { model, objective, clip: None, rng: Rng::new(0), checkpointing: false, beside: Beside::default() }
    }
}

/// What a step found.
#[derive(Clone, Debug, PartialEq)]
pub struct StepResult {
    /// Mean loss over the step's targets and labels, in nats.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Tokens read, filling left out; of an encoder-decoder, the decoder's.
    pub tokens: u64,
    /// What else the objective measures.
    pub means: Means,
    /// Time spent.
    pub time: Duration,
}

/// Takes the adapters' randomness back, also after an error: evaluation has none.
struct Quiet<'a>(&'a Model);

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        self.0.set_adapter_rng(None);
    }
}

impl Stepper<'_> {
    /// Step number `step` (from 1) over `batches`, which weigh by their tokens as if they were one batch.
    ///
    /// # Errors
    /// A loss or gradient that is not finite, and a parameter without gradient; the weights are then untouched.
    pub fn run(
        &self,
        optimizer: &mut Optimizer,
        batches: &[Batch],
        step: u64,
        lr: f64,
    ) -> Result<StepResult, TrainError> {
        let start = Instant::now();
        let counts = batches.iter().map(Counts::of).fold(Counts::default(), Counts::sum);
        if counts.is_empty() {
            return Err(TrainError::EmptyBatch { step });
        }
        optimizer.zero_grad();
        let (mut loss, mut means) = (0f64, Means::default());
        let _quiet = Quiet(self.model);
        for (index, batch) in batches.iter().enumerate().filter(|(_, batch)| !Counts::of(batch).is_empty()) {
            let rng = self.rng.split("dropout").split(step).split(index as u64);
            self.model.set_adapter_rng(Some(&rng.split("adapter")));
            let mode = Mode { rng: Some(rng), checkpointing: self.checkpointing, beside: self.beside };
            let losses = self.objective.losses(self.model, batch, counts, &mode)?;
            means.merge(&losses.means);
            let (value, part) = losses.total()?;
            if !value.is_finite() {
                return Err(TrainError::not_finite("loss", value, step, index, batch, lr));
            }
            part.backward()?;
            loss += value;
        }
        if let Some(allocator) = self.beside.allocator {
            loss += allocator.regularise()?;
        }
        let grad_norm = optimizer.grad_norm()?;
        if !grad_norm.is_finite() {
            return Err(TrainError::not_finite("gradient norm", grad_norm, step, 0, &batches[0], lr));
        }
        // As torch.nn.utils.clip_grad_norm_.
        let grad_scale = self.clip.map_or(1., |clip| (clip / (grad_norm + 1e-6)).min(1.)) as f32;
        optimizer.step(StepArgs { lr, grad_scale })?;
        if let Some(allocator) = self.beside.allocator {
            allocator.allocate(step, grad_scale)?;
        }
        let tokens = batches.iter().map(|batch| batch.lengths.iter().sum::<usize>()).sum::<usize>();
        Ok(StepResult { loss, grad_norm, tokens: tokens as u64, means, time: start.elapsed() })
    }
}

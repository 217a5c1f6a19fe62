//! What training minimises: from a batch to one number, with the gradients on the way.

use candle_core::Result;
use phyla_data::batch::Batch;
use phyla_kernels::rng::Rng;
use phyla_models::{Input, Model};
use phyla_ops::{CrossEntropy, Tensor};

use crate::recipe::Objective;

/// How a batch is run.
#[derive(Clone, Debug, Default)]
pub struct Mode {
    /// Random numbers of dropout; none outside training.
    pub rng: Option<Rng>,
    /// Compute activations again in the backward pass.
    pub checkpointing: bool,
}

impl Objective {
    /// The loss of a batch: `scale` times the sum over its counted targets.
    pub fn loss(&self, model: &Model, batch: &Batch, scale: f64, mode: &Mode) -> Result<Tensor> {
        let Objective::Lm(lm) = self;
        // Validation reports the plain loss, whatever training smooths.
        let label_smoothing = if mode.rng.is_some() { lm.label_smoothing as f32 } else { 0. };
        let hidden = hidden(model, batch, mode)?;
        model.loss(&hidden, &batch.targets, CrossEntropy { label_smoothing, scale: scale as f32 })
    }
}

/// Causal hidden states of a batch, `[batch, time, hidden]`. Filling lies right of the text, where no token looks.
fn hidden(model: &Model, batch: &Batch, mode: &Mode) -> Result<Tensor> {
    let input = Input {
        ids: batch.ids.clone(),
        batch: batch.batch,
        time: batch.time,
        positions: Some(batch.positions.clone()),
        segments: batch.segments.clone(),
        ..Input::default()
    };
    let mut pass = input.pass(&model.arch)?;
    pass.checkpointing = mode.checkpointing;
    if let Some(rng) = &mode.rng {
        pass = pass.training(rng.clone());
    }
    model.forward(&batch.ids, None, &mut pass)
}

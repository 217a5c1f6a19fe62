//! Activation checkpointing (Chen et al. 2016): keep the inputs of a block, compute the block again when its
//! gradient is due.

use candle_core::Result;

use crate::tensor::with_recording;
use crate::{Tensor, no_grad, recording};

/// `f(inputs)`, whose inner activations are not kept.
///
/// Gradients flow to those inputs that are tracked; what `f` captures gets none, so that everything from outside
/// that may need one (a table of relative positions, an encoder's states) has to be an input. `f` must give the
/// same result when called twice: randomness has to come from counters, caches must not move.
pub fn checkpoint(inputs: &[&Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor> + Send + 'static) -> Result<Tensor> {
    let given: Vec<Tensor> = inputs.iter().map(|&x| x.clone()).collect();
    if !recording() {
        return f(&given);
    }
    let y = no_grad(|| f(&given))?;
    // The numbers alone: the history belongs to the tape, which frees it as the backward pass goes by.
    let kept: Vec<_> = given.into_iter().map(|x| (x.tracked(), x.into_data())).collect();
    Ok(Tensor::record(y.into_data(), inputs, true, move |dy| {
        let again: Vec<Tensor> =
            kept.into_iter().map(|(tracked, x)| if tracked { Tensor::leaf(x) } else { x.into() }).collect();
        let y = with_recording(true, || f(&again))?;
        // Nothing is, where the inputs need no gradient and all weights inside are frozen.
        if y.tracked() {
            y.backward_with(dy)?;
        }
        Ok(again.iter().map(Tensor::grad).collect())
    }))
}

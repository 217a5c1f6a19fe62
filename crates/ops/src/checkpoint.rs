//! Activation checkpointing (Chen et al. 2016): keep the inputs of a block, compute the block again when its
//! gradient is due.

use candle_core::Result;

use crate::tensor::with_recording;
use crate::{Tensor, no_grad, recording};

/// `f(x)`, whose inner activations are not kept.
///
/// `f` must give the same result when called twice: randomness has to come from counters, caches must not move.
pub fn checkpoint(x: &Tensor, f: impl Fn(&Tensor) -> Result<Tensor> + Send + 'static) -> Result<Tensor> {
    if !recording() {
        return f(x);
    }
    let y = no_grad(|| f(x))?;
    let (input, tracked) = (x.data().clone(), x.tracked());
    Ok(Tensor::record(y.into_data(), &[x], true, move |dy| {
        let leaf = Tensor::leaf(input);
        let y = with_recording(true, || f(&leaf))?;
        y.backward_with(dy)?;
        Ok(vec![leaf.grad().filter(|_| tracked)])
    }))
}

//! A bidirectional LSTM (Hochreiter and Schmidhuber 1997) over one short text: what P-tuning makes a prompt with. Composed of
//! candle's operations, since a prompt has a few tokens only.

use std::sync::Arc;

use candle_core::Result;

use crate::{Data, Param, Tensor, plain};

/// `x[time, input]` to `[time, 2 · hidden]` through layers of two directions each. `params` are for each layer, forwards and
/// then backwards, PyTorch's `weight_ih [4 · hidden, input]`, `weight_hh [4 · hidden, hidden]`, `bias_ih` and `bias_hh`, their
/// rows in the order of input, forget, cell and output gate.
pub fn lstm(x: &Tensor, params: &[Arc<Param>]) -> Result<Tensor> {
    if params.is_empty() || !params.len().is_multiple_of(8) {
        candle_core::bail!("an LSTM of two directions has eight parameters a layer, found {}", params.len());
    }
    plain::composed(&[x], &params.iter().collect::<Vec<_>>(), |args| {
        let mut x = args[0].clone();
        for layer in args[1..].chunks_exact(8) {
            let (there, back) = layer.split_at(4);
            x = Data::cat(&[&direction(&x, there, false)?, &direction(&x, back, true)?], 1)?;
        }
        x.contiguous()
    })
}

/// The states of one direction, `[time, hidden]`.
fn direction(x: &Data, params: &[Data], backwards: bool) -> Result<Data> {
    let [input, state, input_bias, state_bias] = params else { candle_core::bail!("a direction has four parameters") };
    let (time, hidden) = (x.dim(0)?, state.dim(1)?);
    let gates = x.matmul(&input.t()?.contiguous()?)?.broadcast_add(input_bias)?.broadcast_add(state_bias)?;
    let mut h = Data::zeros((1, hidden), x.dtype(), x.device())?;
    let (mut c, mut states) = (h.clone(), vec![]);
    for step in 0..time {
        let at = if backwards { time - 1 - step } else { step };
        let all = (gates.narrow(0, at, 1)? + h.matmul(&state.t()?.contiguous()?)?)?;
        let gate = |index: usize| all.narrow(1, index * hidden, hidden);
        c = ((sigmoid(&gate(1)?)? * &c)? + (sigmoid(&gate(0)?)? * gate(2)?.tanh()?)?)?;
        h = (sigmoid(&gate(3)?)? * c.tanh()?)?;
        states.push(h.clone());
    }
    if backwards {
        states.reverse();
    }
    Data::cat(&states, 0)
}

fn sigmoid(x: &Data) -> Result<Data> {
    (x.neg()?.exp()? + 1.)?.recip()
}

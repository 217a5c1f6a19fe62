//! Activation functions, alone and as a gate: `act(gate) · up` (Shazeer 2020).

use candle_core::Result;
use phyla_kernels::activation as kernels;
pub use phyla_kernels::activation::Act;
use phyla_kernels::elementwise::alloc;

use crate::{Data, Tensor, cpu, plain};

/// `act(x)`, element by element.
pub fn activate(x: &Tensor, act: Act) -> Result<Tensor> {
    if !plain::fast(x) {
        return plain::composed(&[x], &[], move |args| reference(&args[0], act));
    }
    let input = x.data().contiguous()?;
    let n = input.elem_count();
    let mut y = alloc(n);
    kernels::activate(&mut y, &cpu::view(&input)?, act);
    Ok(Tensor::record(cpu::tensor(y, input.shape().clone())?, &[x], false, move |dy| {
        let dy = dy.contiguous()?;
        let mut dx = alloc(n);
        kernels::activate_backward(&mut dx, &cpu::view(&dy)?, &cpu::view(&input)?, act);
        Ok(vec![Some(cpu::tensor(dx, input.shape().clone())?)])
    }))
}

/// `act(gate) · up`, both of one shape.
pub fn gated(gate: &Tensor, up: &Tensor, act: Act) -> Result<Tensor> {
    if gate.dims() != up.dims() {
        candle_core::bail!("a gate of {:?} does not fit {:?}", gate.dims(), up.dims());
    }
    if !plain::fast(gate) {
        return plain::composed(&[gate, up], &[], move |args| reference(&args[0], act)? * &args[1]);
    }
    let (g, u) = (gate.data().contiguous()?, up.data().contiguous()?);
    let n = g.elem_count();
    let mut y = alloc(n);
    kernels::gated(&mut y, &cpu::view(&g)?, &cpu::view(&u)?, act);
    Ok(Tensor::record(cpu::tensor(y, g.shape().clone())?, &[gate, up], false, move |dy| {
        let dy = dy.contiguous()?;
        let (mut dg, mut du) = (alloc(n), alloc(n));
        kernels::gated_backward(&mut dg, &mut du, &cpu::view(&dy)?, &cpu::view(&g)?, &cpu::view(&u)?, act);
        Ok(vec![Some(cpu::tensor(dg, g.shape().clone())?), Some(cpu::tensor(du, g.shape().clone())?)])
    }))
}

fn sigmoid(x: &Data) -> Result<Data> {
    ((x.neg()?.exp()? + 1.)?).recip()
}

fn reference(x: &Data, act: Act) -> Result<Data> {
    match act {
        Act::Identity => Ok(x.clone()),
        Act::Silu => x * sigmoid(x)?,
        Act::Gelu => ((x / 2f64.sqrt())?.erf()? + 1.)? * (x * 0.5)?,
        Act::GeluTanh => {
            let inner = ((x + (x.powf(3.)? * 0.044715)?)? * (2. / std::f64::consts::PI).sqrt())?;
            (inner.tanh()? + 1.)? * (x * 0.5)?
        }
        Act::QuickGelu => x * sigmoid(&(x * 1.702)?)?,
        Act::Relu => x.relu(),
        Act::Relu2 => x.relu()?.sqr(),
        Act::Sigmoid => sigmoid(x),
        Act::Tanh => x.tanh(),
        Act::Mish => x * (x.exp()? + 1.)?.log()?.tanh()?,
        other => candle_core::bail!("activation {other:?} has no plain reference"),
    }
}

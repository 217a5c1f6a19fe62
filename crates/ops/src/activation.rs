//! Activation functions, alone and as a gate: `act(gate) · up` (Shazeer 2020).

use candle_core::Result;
use phyla_kernels::activation as kernels;
pub use phyla_kernels::activation::Act;
use phyla_kernels::memory::alloc;

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

/// By tanh, since `1 / (1 + e^-x)` has a gradient of 0 · ∞ where `e^-x` overflows.
fn sigmoid(x: &Data) -> Result<Data> {
    ((x * 0.5)?.tanh()? + 1.)? * 0.5
}

/// 1 above 0, else 0, and no gradient: candle's own `relu` and `clamp` pass some gradient at the kink itself,
/// where the kernels, as PyTorch, pass none.
fn step(x: &Data) -> Result<Data> {
    x.gt(&x.zeros_like()?)?.to_dtype(x.dtype())
}

/// `min(x, top)`.
fn below(x: &Data, top: f64) -> Result<Data> {
    let low = step(&x.affine(-1., top)?)?;
    (x * &low)? + low.affine(-top, top)?
}

fn gelu(x: &Data) -> Result<Data> {
    ((x / 2f64.sqrt())?.erf()? + 1.)? * (x * 0.5)?
}

/// `scale (x above 0, alpha (e^x - 1) below)`; at 0 itself the slope is that of below, as PyTorch has it.
fn elu(x: &Data, scale: f64, alpha: f64) -> Result<Data> {
    let high = step(x)?;
    let low = (x * high.affine(-1., 1.)?)?;
    ((x * high)? + ((low.exp()? - 1.)? * alpha)?)? * scale
}

fn reference(x: &Data, act: Act) -> Result<Data> {
    match act {
        Act::Identity => Ok(x.clone()),
        Act::Silu => x * sigmoid(x)?,
        Act::Gelu => gelu(x),
        // Never below -0.17, so that only the upper bound counts.
        Act::ClippedGelu => below(&gelu(x)?, 10.),
        Act::GeluTanh => {
            let inner = ((x + (x.powf(3.)? * 0.044715)?)? * (2. / std::f64::consts::PI).sqrt())?;
            (inner.tanh()? + 1.)? * (x * 0.5)?
        }
        Act::QuickGelu => x * sigmoid(&(x * 1.702)?)?,
        Act::Relu => x * step(x)?,
        Act::Relu2 => (x * step(x)?)?.sqr(),
        Act::Relu6 => below(&(x * step(x)?)?, 6.),
        Act::LeakyRelu => x * step(x)?.affine(0.99, 0.01)?,
        Act::Sigmoid => sigmoid(x),
        Act::Tanh => x.tanh(),
        Act::Mish => {
            // ln(1 + e^x) without overflow; at 0 the slopes 1 of `relu` and -1/2 of the rest make 1/2.
            let softplus = (x.relu()? + (x.abs()?.neg()?.exp()? + 1.)?.log()?)?;
            x * softplus.tanh()?
        }
        Act::Laplace => {
            let turned = ((x - 0.5f64.sqrt())? * (2. * std::f64::consts::PI).sqrt())?;
            (turned.erf()? + 1.)? * 0.5
        }
        Act::Elu => elu(x, 1., 1.),
        Act::Selu => elu(x, 1.0507009873554805, 1.6732632423543772),
    }
}

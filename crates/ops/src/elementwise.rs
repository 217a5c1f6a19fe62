//! Sums, factors and dropout, element by element.

use candle_core::{Device, Result};
use phyla_kernels::elementwise as kernels;
use phyla_kernels::memory::alloc;
use phyla_kernels::rng::Rng;

use crate::{Data, Tensor, cpu, plain};

/// `a + b` of one shape.
pub fn add(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.dims() != b.dims() {
        candle_core::bail!("a sum needs equal shapes, found {:?} and {:?}", a.dims(), b.dims());
    }
    if !plain::fast(a) {
        return plain::composed(&[a, b], &[], |args| &args[0] + &args[1]);
    }
    let (x, y) = (a.data().contiguous()?, b.data().contiguous()?);
    let mut out = alloc(x.elem_count());
    kernels::add(&mut out, &cpu::view(&x)?, &cpu::view(&y)?);
    let out = cpu::tensor(out, x.shape().clone())?;
    Ok(Tensor::record(out, &[a, b], false, |dy| Ok(vec![Some(dy.clone()), Some(dy)])))
}

/// `x · factor`.
pub fn scale(x: &Tensor, factor: f64) -> Result<Tensor> {
    let y = (x.data() * factor)?;
    Ok(Tensor::record(y, &[x], false, move |dy| Ok(vec![Some((dy * factor)?)])))
}

/// `x` with every element multiplied by a number drawn evenly from `1 - noise.p` to `1 + noise.p`.
pub fn jitter(x: &Tensor, noise: &Dropout) -> Result<Tensor> {
    let mut rng = noise.rng.clone();
    let mut factors = alloc(x.data().elem_count());
    rng.fill_uniform(&mut factors, 1. - noise.p, 1. + noise.p);
    let factors = Data::from_vec(factors, x.data().shape().clone(), x.device())?.to_dtype(x.data().dtype())?;
    let y = (x.data() * &factors)?;
    Ok(Tensor::record(y, &[x], false, move |dy| Ok(vec![Some((dy * factors)?)])))
}

/// `x` with a number added to every element, drawn evenly from `-noise.p` to `noise.p`.
pub fn disturb(x: &Tensor, noise: &Dropout) -> Result<Tensor> {
    let mut rng = noise.rng.clone();
    let mut terms = alloc(x.data().elem_count());
    rng.fill_uniform(&mut terms, -noise.p, noise.p);
    let terms = Data::from_vec(terms, x.data().shape().clone(), x.device())?.to_dtype(x.data().dtype())?;
    let y = (x.data() + terms)?;
    Ok(Tensor::record(y, &[x], false, move |dy| Ok(vec![Some(dy)])))
}

/// `y` itself, with `loss` hung on it: in the backward pass the loss gets the gradient 1, wherever `y` is in a larger
/// computation. For losses of single layers.
pub fn attach(y: &Tensor, loss: &Tensor) -> Result<Tensor> {
    if loss.data().elem_count() != 1 {
        candle_core::bail!("a loss is one number, found shape {:?}", loss.dims());
    }
    let one = loss.data().ones_like()?;
    Ok(Tensor::record(y.data().clone(), &[y, loss], false, move |dy| Ok(vec![Some(dy), Some(one)])))
}

/// A number made of `x` with its gradient, `[elements of x]`, known beforehand: for losses of few numbers, whose formulas
/// stand above the operations.
pub fn reduced(x: &Tensor, value: f64, gradient: Vec<f32>) -> Result<Tensor> {
    let (count, shape) = (x.data().elem_count(), x.data().shape().clone());
    if gradient.len() != count {
        candle_core::bail!(
            "{count} numbers in {:?} need as many in their gradient, found {}",
            x.dims(),
            gradient.len()
        );
    }
    let gradient = Data::from_vec(gradient, shape, x.device())?;
    let value = Data::new(value as f32, x.device())?;
    Ok(Tensor::record(value, &[x], false, move |up| Ok(vec![Some(gradient.broadcast_mul(&up)?)])))
}

/// Where one dropout draws its random numbers: the same place gives the same mask, also when a forward pass
/// is computed again in the backward pass.
#[derive(Clone, Debug)]
pub struct Dropout {
    /// Probability that an element is dropped.
    pub p: f32,
    /// Stream of this dropout.
    pub rng: Rng,
    /// First index in the stream.
    pub offset: u64,
}

impl Dropout {
    /// 0 where dropped, `1 / (1 - p)` elsewhere.
    pub(crate) fn mask(&self, dims: &[usize], device: &Device) -> Result<Data> {
        let n = dims.iter().product();
        let (ones, mut mask) = (vec![1f32; n], vec![0f32; n]);
        kernels::dropout(&mut mask, &ones, self.p, &self.rng, self.offset);
        Data::from_vec(mask, dims, device)
    }
}

/// Drops elements with probability `p` and scales the rest by `1 / (1 - p)` (Srivastava et al. 2014).
pub fn dropout(x: &Tensor, dropout: &Dropout) -> Result<Tensor> {
    if dropout.p == 0. {
        return Ok(x.clone());
    }
    let dropout = dropout.clone();
    if !plain::fast(x) {
        return plain::composed(&[x], &[], move |args| {
            &args[0] * dropout.mask(args[0].dims(), args[0].device())?.to_dtype(args[0].dtype())?
        });
    }
    let run = move |data: &Data| -> Result<Data> {
        let data = data.contiguous()?;
        let mut y = alloc(data.elem_count());
        kernels::dropout(&mut y, &cpu::view(&data)?, dropout.p, &dropout.rng, dropout.offset);
        cpu::tensor(y, data.shape().clone())
    };
    let y = run(x.data())?;
    Ok(Tensor::record(y, &[x], false, move |dy| Ok(vec![Some(run(&dy)?)])))
}

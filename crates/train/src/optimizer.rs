//! From gradients to new weights: one pass over each parameter, its optimiser state and its bf16 copy.
//!
//! The arithmetic stands in `phyla_kernels::optim`; `plain` says the same in tensor operations, for other
//! devices and for the tests.

mod plain;

use std::sync::Arc;

use candle_core::{DType, Device, Result};
use half::bf16;
use phyla_kernels::optim as kernels;
use phyla_ops::{Data, Param, Weight, cpu};

use crate::recipe::{Optim, ParamSettings, Rule};

/// An update rule with its state for every trained parameter.
#[derive(Debug)]
pub struct Optimizer {
    rule: Rule,
    items: Vec<Item>,
    step: u64,
}

#[derive(Debug)]
struct Item {
    param: Arc<Param>,
    settings: ParamSettings,
    /// f32, named by [`names`].
    state: Vec<Data>,
}

/// What one step is done with.
#[derive(Clone, Copy, Debug)]
pub struct StepArgs {
    /// Learning rate before any parameter's own factor.
    pub lr: f64,
    /// Factor on every gradient: clipping.
    pub grad_scale: f32,
}

/// What the state tensors of a parameter are called in a checkpoint; PyTorch's names where it has them.
fn names(rule: &Rule, dims: usize) -> &'static [&'static str] {
    match rule {
        Rule::Adamw(_) => &["exp_avg", "exp_avg_sq"],
        Rule::Sgd(sgd) if sgd.momentum == 0. => &[],
        Rule::Sgd(_) => &["momentum_buffer"],
        Rule::Lion(_) => &["exp_avg"],
        Rule::Adafactor(rule) => match (dims >= 2, rule.beta1.is_some()) {
            (true, true) => &["exp_avg_sq_row", "exp_avg_sq_col", "exp_avg"],
            (true, false) => &["exp_avg_sq_row", "exp_avg_sq_col"],
            (false, true) => &["exp_avg_sq", "exp_avg"],
            (false, false) => &["exp_avg_sq"],
        },
    }
}

/// Shape of a state tensor.
fn shape(name: &str, param: &Param) -> Vec<usize> {
    let rows = param.dims()[..param.dims().len().saturating_sub(1)].iter().product();
    match name {
        "exp_avg_sq_row" => vec![rows],
        "exp_avg_sq_col" => vec![param.dims().last().copied().unwrap_or(1)],
        _ => param.dims().to_vec(),
    }
}

/// Bytes of a parameter's state.
pub(crate) fn state_bytes(rule: &Rule, param: &Param) -> usize {
    names(rule, param.dims().len()).iter().map(|name| 4 * shape(name, param).iter().product::<usize>()).sum()
}

/// What the state of a rule is, for people.
pub(crate) fn describe(rule: &Rule) -> String {
    format!("f32: {}", names(rule, 2).join(", "))
}

fn zeros(shape: Vec<usize>, device: &Device) -> Result<Data> {
    match device {
        Device::Cpu => cpu::tensor(phyla_kernels::memory::zeros::<f32>(shape.iter().product()), shape),
        device => Data::zeros(shape, DType::F32, device),
    }
}

impl Optimizer {
    /// Fresh state for those of `params` that are trainable.
    ///
    /// `lr_scale` is a factor on the learning rate of the parameter at a path, besides those of the recipe's groups.
    ///
    /// # Errors
    /// A pattern of the recipe that matches no parameter.
    pub fn new(optim: &Optim, params: &[Arc<Param>], lr_scale: impl Fn(&str) -> f64) -> Result<Self> {
        let trained: Vec<&Arc<Param>> = params.iter().filter(|param| param.trainable()).collect();
        let paths: Vec<&str> = trained.iter().map(|param| param.path()).collect();
        optim.check_paths(&paths).map_err(candle_core::Error::wrap)?;
        let items = trained
            .into_iter()
            .map(|param| {
                let device = param.weight().device();
                let state = names(&optim.rule, param.dims().len())
                    .iter()
                    .map(|name| zeros(shape(name, param), &device))
                    .collect::<Result<_>>()?;
                let mut settings = optim.settings(param.path(), param.dims().len());
                settings.lr_scale *= lr_scale(param.path());
                param.make_room()?;
                Ok(Item { param: param.clone(), settings, state })
            })
            .collect::<Result<_>>()?;
        Ok(Self { rule: optim.rule.clone(), items, step: 0 })
    }

    /// Steps made.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// The parameters that learn.
    pub fn params(&self) -> impl Iterator<Item = &Arc<Param>> {
        self.items.iter().map(|item| &item.param)
    }

    /// Euclidean norm of all gradients as one vector; an error names the first parameter without gradient.
    pub fn grad_norm(&self) -> Result<f64> {
        let mut squares = 0f64;
        for param in self.params() {
            let Some(grad) = param.grad() else {
                candle_core::bail!(
                    "{} is trained and got no gradient: no operation of the loss has used it",
                    param.path()
                );
            };
            squares += if grad.device().is_cpu() {
                phyla_kernels::elementwise::sum_squares(&cpu::view::<f32>(&grad)?)
            } else {
                grad.sqr()?.sum_all()?.to_scalar::<f32>()? as f64
            };
        }
        Ok(squares.sqrt())
    }

    /// Moves every weight by its gradient.
    pub fn step(&mut self, args: StepArgs) -> Result<()> {
        self.step += 1;
        for item in &self.items {
            let Some(grad) = item.param.grad() else { continue };
            let call = Call { rule: &self.rule, settings: item.settings, args, step: self.step };
            if grad.device().is_cpu() {
                call.fused(item, &grad)?
            } else {
                call.plain(item, &grad)?
            }
            item.param.touch();
        }
        Ok(())
    }

    /// Forgets all gradients.
    pub fn zero_grad(&self) {
        for param in self.params() {
            param.zero_grad();
        }
    }

    /// Every state tensor with its name, `<path>.<state>`.
    pub fn state(&self) -> impl Iterator<Item = (String, &Data)> {
        self.items.iter().flat_map(|item| {
            let names = names(&self.rule, item.param.dims().len());
            names.iter().zip(&item.state).map(|(name, data)| (format!("{}.{name}", item.param.path()), data))
        })
    }

    /// Takes over the state that [`Optimizer::state`] gave, after `steps` steps. `read` finds a tensor by name.
    pub fn restore(&mut self, steps: u64, mut read: impl FnMut(&str, &[usize]) -> Result<Data>) -> Result<()> {
        self.step = steps;
        for item in &mut self.items {
            let names = names(&self.rule, item.param.dims().len());
            for (name, data) in names.iter().zip(&mut item.state) {
                let device = data.device().clone();
                *data = read(&format!("{}.{name}", item.param.path()), data.dims())?.to_device(&device)?;
            }
        }
        Ok(())
    }
}

/// One parameter's update.
struct Call<'a> {
    rule: &'a Rule,
    settings: ParamSettings,
    args: StepArgs,
    step: u64,
}

impl Call<'_> {
    fn lr(&self) -> f64 {
        self.args.lr * self.settings.lr_scale
    }

    /// Lends weight, gradient, states and bf16 copy to a kernel, all at once.
    fn fused(&self, item: &Item, grad: &Data) -> Result<()> {
        let Weight::Dense(weight) = item.param.weight() else {
            candle_core::bail!("{} is mapped from a file and cannot be trained in place", item.param.path());
        };
        let grad = cpu::view::<f32>(grad)?;
        let low = item.param.low();
        cpu::mutate(&weight, |p: &mut [f32]| match &low {
            Some(low) => cpu::mutate(low, |low: &mut [bf16]| self.with_states(item, p, &grad, Some(low))),
            None => self.with_states(item, p, &grad, None),
        })
    }

    fn with_states(&self, item: &Item, p: &mut [f32], g: &[f32], low: Option<&mut [bf16]>) -> Result<()> {
        let dims = item.param.dims().len();
        match item.state.as_slice() {
            [] => self.run(dims, p, g, &mut [], low),
            [a] => cpu::mutate(a, |a: &mut [f32]| self.run(dims, p, g, &mut [a], low)),
            [a, b] => {
                cpu::mutate(a, |a: &mut [f32]| cpu::mutate(b, |b: &mut [f32]| self.run(dims, p, g, &mut [a, b], low)))
            }
            [a, b, c] => cpu::mutate(a, |a: &mut [f32]| {
                cpu::mutate(b, |b: &mut [f32]| {
                    cpu::mutate(c, |c: &mut [f32]| self.run(dims, p, g, &mut [a, b, c], low))
                })
            }),
            more => candle_core::bail!("an optimiser with {} states", more.len()),
        }
    }

    fn run(
        &self,
        dims: usize,
        p: &mut [f32],
        g: &[f32],
        states: &mut [&mut [f32]],
        low: Option<&mut [bf16]>,
    ) -> Result<()> {
        let (lr, grad_scale) = (self.lr() as f32, self.args.grad_scale);
        let (weight_decay, step) = (self.settings.weight_decay as f32, self.step);
        match (self.rule, states) {
            (Rule::Adamw(rule), [m, v]) => {
                let [beta1, beta2] = rule.betas.map(|b| b as f32);
                let args = kernels::AdamW { lr, beta1, beta2, eps: rule.eps as f32, weight_decay, step, grad_scale };
                kernels::adamw(p, g, m, v, &args, low);
            }
            (Rule::Sgd(rule), states) => {
                // Decoupled decay, as in every rule here: PyTorch's SGD adds it to the gradient instead, which is the
                // same without momentum.
                phyla_kernels::elementwise::scale(p, 1. - lr * weight_decay);
                let (momentum, nesterov) = (rule.momentum as f32, rule.nesterov);
                let args = kernels::Sgd { lr, momentum, dampening: 0., nesterov, weight_decay: 0., step, grad_scale };
                kernels::sgd(p, g, states.first_mut().map(|v| &mut **v), &args, low);
            }
            (Rule::Lion(rule), [m]) => {
                let [beta1, beta2] = rule.betas.map(|b| b as f32);
                kernels::lion(p, g, m, &kernels::Lion { lr, beta1, beta2, weight_decay, grad_scale }, low);
            }
            (Rule::Adafactor(rule), states) => {
                let args = kernels::Adafactor {
                    lr,
                    eps1: rule.eps[0] as f32,
                    eps2: rule.eps[1] as f32,
                    clip_threshold: rule.clip_threshold as f32,
                    decay_rate: -rule.decay as f32,
                    beta1: rule.beta1.unwrap_or(0.) as f32,
                    weight_decay,
                    scale_parameter: rule.scale_by_parameter,
                    relative_step: false,
                    warmup_init: false,
                    step,
                    grad_scale,
                };
                let (second, m) = match (dims >= 2, states) {
                    (true, [row, column, rest @ ..]) => (kernels::Second::Factored { row, column }, rest.first_mut()),
                    (false, [full, rest @ ..]) => (kernels::Second::Full(full), rest.first_mut()),
                    (_, states) => candle_core::bail!("adafactor with {} states", states.len()),
                };
                kernels::adafactor(p, g, m.map(|m| &mut **m), second, &args, low);
            }
            (_, states) => candle_core::bail!("an update rule with {} states", states.len()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! The linear map: every product with a weight passes through here, so adapters, quantisation and sharding
//! change this file alone.

use std::sync::Arc;

use candle_core::Result;
use phyla_ops::{CrossEntropy, Distillation, Param, Tensor, Told};

use crate::adapter::Slot;
use crate::{Act, Init, Scope};

/// Shape and initialisation of a linear map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearSpec {
    /// Size of the last dimension going in.
    pub input: usize,
    /// Size of the last dimension coming out.
    pub output: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// Standard deviation of a fresh weight.
    pub std: f32,
}

/// `y[.., output] = x[.., input] wᵀ + b`.
#[derive(Debug)]
pub struct Linear {
    weight: Arc<Param>,
    bias: Option<Arc<Param>>,
    slot: Arc<Slot>,
}

impl Linear {
    /// Takes `weight` and, if asked for, `bias` from the scope.
    pub fn new(spec: LinearSpec, scope: &mut Scope) -> Result<Self> {
        let weight = scope.matrix("weight", [spec.output, spec.input], spec.std)?;
        let bias = spec.bias.then(|| scope.param("bias", &[spec.output], Init::Zeros)).transpose()?;
        Ok(Self { weight, bias, slot: scope.slot([spec.output, spec.input]) })
    }

    /// A linear map over a weight that another block owns (a tied head); the scope is the map's own.
    pub fn over(weight: Arc<Param>, bias: Option<Arc<Param>>, scope: &mut Scope) -> Self {
        let sizes = [weight.dims()[0], weight.count() / weight.dims()[0].max(1)];
        Self { weight, bias, slot: scope.slot(sizes) }
    }

    /// The weight, `[output, input]`.
    pub fn weight(&self) -> &Arc<Param> {
        &self.weight
    }

    /// Whether a bias is added.
    pub fn has_bias(&self) -> bool {
        self.bias.is_some()
    }

    /// Whether adapters change it, so that its weight does not say all.
    pub fn is_changed(&self) -> bool {
        !self.slot.is_empty()
    }

    /// Takes part in a pass with no rows: its gradient is 0 rather than missing.
    pub fn rest(&self) -> Result<()> {
        self.slot.rest()?;
        let params = std::iter::once(&self.weight).chain(&self.bias);
        params.filter(|param| param.wants_grad()).try_for_each(|param| param.accumulate(|_| Ok(())))
    }

    /// `x wᵀ + b`, as adapters change it.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if self.is_changed() { self.slot.forward(x, self) } else { self.plain(x) }
    }

    /// `x wᵀ + b` without adapters.
    pub(crate) fn plain(&self, x: &Tensor) -> Result<Tensor> {
        phyla_ops::linear(x, &self.weight, self.bias.as_ref())
    }

    /// `act(x wᵀ + b)`, as adapters change it.
    pub fn forward_act(&self, x: &Tensor, act: Act) -> Result<Tensor> {
        if self.is_changed() {
            return phyla_ops::activate(&self.slot.forward(x, self)?, act);
        }
        phyla_ops::linear_act(x, &self.weight, self.bias.as_ref(), act)
    }

    /// For a map onto heads of so many rows each: `x[n, heads, rows] w_h`, `[n, heads, input]`, where `w_h` are rows
    /// `offset..offset + rows` of head `h`'s part of the weight. Folds a map of keys into the queries.
    /// Adapters take no part: ask [`Linear::is_changed`] first.
    pub fn per_head_up(&self, x: &Tensor, offset: usize) -> Result<Tensor> {
        phyla_ops::per_head_up(x, &self.weight, offset)
    }

    /// As [`Linear::per_head_up`] the other way: `x[n, heads, input] w_hᵀ`, `[n, heads, rows]`.
    pub fn per_head_down(&self, x: &Tensor, offset: usize, rows: usize) -> Result<Tensor> {
        phyla_ops::per_head_down(x, &self.weight, offset, rows)
    }

    /// Cross-entropy of `x wᵀ + b` against `targets`, one for each row, without keeping the logits.
    pub fn cross_entropy(&self, x: &Tensor, targets: &[i32], args: CrossEntropy) -> Result<Tensor> {
        if self.is_changed() {
            return phyla_ops::cross_entropy(&self.slot.forward(x, self)?, targets, args);
        }
        phyla_ops::linear_cross_entropy(x, &self.weight, self.bias.as_ref(), targets, args)
    }

    /// Cross-entropy of `x wᵀ + b` against `targets` and divergence from what a teacher's map makes of its own `x`; see
    /// [`phyla_ops::linear_distillation`]. The teacher's map learns nothing.
    pub fn distillation(
        &self,
        x: &Tensor,
        (teacher, theirs): (&Self, &Tensor),
        targets: &[i32],
        args: Distillation,
    ) -> Result<(Tensor, Told)> {
        if self.is_changed() || teacher.is_changed() {
            let teacher = phyla_ops::no_grad(|| teacher.forward(theirs))?;
            return phyla_ops::distillation(&self.forward(x)?, teacher.data(), targets, args);
        }
        let biases = [self.bias.as_ref(), teacher.bias.as_ref()];
        phyla_ops::linear_distillation([x, theirs], [&self.weight, &teacher.weight], biases, targets, args)
    }

    /// Log-probabilities of `targets` under `(x wᵀ + b) / temperature` with the entropies of the rows, `[rows, 2]`, without
    /// keeping the logits.
    pub fn choices(&self, x: &Tensor, targets: &[u32], temperature: f32) -> Result<Tensor> {
        if self.is_changed() {
            return phyla_ops::choices(&self.slot.forward(x, self)?, targets, temperature);
        }
        phyla_ops::linear_choices(x, &self.weight, self.bias.as_ref(), targets, temperature)
    }
}

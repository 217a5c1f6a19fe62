//! The position-wise feed-forward block, plain (Vaswani et al. 2017, eq. 2) or gated (Shazeer 2020).

use candle_core::Result;
use phyla_ops::Tensor;

use crate::{Act, Linear, LinearSpec, Pass, Scope};

/// What shapes a feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MlpSpec {
    /// Size of the residual stream.
    pub hidden: usize,
    /// Size in between.
    pub inner: usize,
    /// The activation.
    pub act: Act,
    /// Whether the activation gates a second map.
    pub gated: bool,
    /// Whether the linear maps have biases.
    pub bias: bool,
    /// Dropout on what lies in between.
    pub dropout: f32,
    /// Standard deviation of fresh weights going up.
    pub std: f32,
    /// Standard deviation of the fresh weight back to the residual stream.
    pub down_std: f32,
}

impl MlpSpec {
    /// `down(act(up(x)))`.
    pub fn plain(hidden: usize, inner: usize, act: Act, std: f32) -> Self {
        Self { hidden, inner, act, gated: false, bias: true, dropout: 0., std, down_std: std }
    }

    /// `down(act(gate(x)) · up(x))`, without biases.
    pub fn gated(hidden: usize, inner: usize, act: Act, std: f32) -> Self {
        Self { gated: true, bias: false, ..Self::plain(hidden, inner, act, std) }
    }
}

/// The block.
#[derive(Debug)]
pub struct Mlp {
    act: Act,
    dropout: f32,
    gate: Option<Linear>,
    up: Linear,
    down: Linear,
}

impl Mlp {
    /// Takes `gate` (if gated), `up` and `down` from the scope.
    pub fn new(spec: &MlpSpec, scope: &mut Scope) -> Result<Self> {
        let up = LinearSpec { input: spec.hidden, output: spec.inner, bias: spec.bias, std: spec.std };
        let down = LinearSpec { input: spec.inner, output: spec.hidden, bias: spec.bias, std: spec.down_std };
        let gate = spec.gated.then(|| Linear::new(up, &mut scope.at("gate"))).transpose()?;
        Ok(Self {
            act: spec.act,
            dropout: spec.dropout,
            gate,
            up: Linear::new(up, &mut scope.at("up"))?,
            down: Linear::new(down, &mut scope.at("down"))?,
        })
    }

    /// Takes part in a pass with no rows; see [`Linear::rest`].
    pub fn rest(&self) -> Result<()> {
        self.gate.iter().chain([&self.up, &self.down]).try_for_each(Linear::rest)
    }

    /// `x[batch, time, hidden]` to the same shape.
    pub fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        // [batch, time, inner]
        let inner = match &self.gate {
            Some(gate) => phyla_ops::gated(&gate.forward(x)?, &self.up.forward(x)?, self.act)?,
            None => self.up.forward_act(x, self.act)?,
        };
        self.down.forward(&pass.drop(inner, self.dropout)?)
    }
}

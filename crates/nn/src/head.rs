//! A head: from hidden states to what a task asks for.

use std::sync::Arc;

use candle_core::Result;
use phyla_ops::{CrossEntropy, Distillation, Param, Tensor, Told};

use crate::{Act, Init, Linear, LinearSpec, Norm, NormSpec, Pass, Scope};

/// Which hidden states a head reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Every token's.
    Tokens,
    /// The first token's.
    First,
    /// That of the last token that is not padding.
    Last {
        /// Its id; without one it is the row's last token.
        pad: Option<u32>,
    },
    /// That of the last end-of-sequence token (BART, T5).
    End {
        /// Its id.
        eos: u32,
    },
    /// The pooler's.
    Pooled,
}

/// What shapes a head.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadSpec {
    /// Path of its parameters.
    pub name: &'static str,
    /// What it reads.
    pub reads: Reads,
    /// A map before the last one.
    pub transform: Option<TransformSpec>,
    /// Dropout before the last map.
    pub dropout: f32,
    /// Factor on what the last map reads (T5's tied head).
    pub scale: f32,
    /// The last map.
    pub output: Output,
    /// How the result is called.
    pub emits: Emits,
}

/// `norm(act(dense(dropout(x))))`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TransformSpec {
    /// Dropout before the map.
    pub dropout: f32,
    /// The linear map.
    pub dense: LinearSpec,
    /// The activation.
    pub act: Act,
    /// A norm after it.
    pub norm: Option<NormSpec>,
}

impl HeadSpec {
    /// Whether it answers with tokens. Of families with two such heads of one shape the second is called `mlm`.
    pub fn is_lm(&self) -> bool {
        matches!(self.name, "head" | "mlm")
    }
}

/// The last map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Output {
    /// The token table.
    Tied {
        /// What is added.
        bias: TiedBias,
    },
    /// A map of its own.
    Own(LinearSpec),
    /// A map of its own, whose bias is a buffer, never trained (BART untied).
    Buffered(LinearSpec),
}

/// The bias of a head that is the token table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TiedBias {
    /// None.
    None,
    /// A parameter.
    Trained,
    /// A buffer, never trained (BART).
    Fixed,
}

/// How transformers calls a head's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emits {
    /// One tensor.
    One(&'static str),
    /// Its two columns, each a tensor.
    Pair(&'static str, &'static str),
}

/// A map with its activation: the pooler of BERT, or what stands before a head's last map.
#[derive(Debug)]
pub struct Transform {
    spec: TransformSpec,
    dense: Linear,
    norm: Option<Norm>,
}

impl Transform {
    /// Takes `dense` and, if asked for, `norm` from the scope.
    pub fn new(spec: TransformSpec, scope: &mut Scope) -> Result<Self> {
        let dense = Linear::new(spec.dense, &mut scope.at("dense"))?;
        let norm = spec.norm.map(|norm| Norm::new(norm, spec.dense.output, &mut scope.at("norm"))).transpose()?;
        Ok(Self { spec, dense, norm })
    }

    /// `x[.., input]` to `[.., output]`.
    pub fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let x = pass.drop(x.clone(), self.spec.dropout)?;
        let x = phyla_ops::activate(&self.dense.forward(&x)?, self.spec.act)?;
        match &self.norm {
            Some(norm) => norm.forward(&x),
            None => Ok(x),
        }
    }
}

/// The block.
#[derive(Debug)]
pub struct Head {
    /// What it was built from.
    pub spec: HeadSpec,
    transform: Option<Transform>,
    output: Linear,
}

impl Head {
    /// Takes `<name>` and `<name>.transform` from the scope, of a tied head only `<name>.tied_bias`, which is also where
    /// a buffer stands; `tokens` is the table that it reads.
    pub fn new(spec: &HeadSpec, tokens: &Arc<Param>, scope: &mut Scope) -> Result<Self> {
        let mut scope = scope.at(spec.name);
        let transform = spec.transform.map(|spec| Transform::new(spec, &mut scope.at("transform"))).transpose()?;
        let output = match spec.output {
            Output::Tied { bias } => {
                let rows = tokens.dims().first().copied().unwrap_or(0);
                let mut take = |init| scope.param("tied_bias", &[rows], init).map(Some);
                let bias = match bias {
                    TiedBias::None => None,
                    TiedBias::Trained => take(Init::Zeros)?,
                    TiedBias::Fixed => take(Init::Fixed)?,
                };
                Linear::over(tokens.clone(), bias, &mut scope)
            }
            Output::Own(linear) => Linear::new(linear, &mut scope)?,
            Output::Buffered(linear) => {
                let weight = scope.matrix("weight", [linear.output, linear.input], linear.std)?;
                let bias = scope.param("tied_bias", &[linear.output], Init::Fixed)?;
                Linear::over(weight, Some(bias), &mut scope)
            }
        };
        Ok(Self { spec: spec.clone(), transform, output })
    }

    /// What the last map reads.
    fn features(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let x = match &self.transform {
            Some(transform) => transform.forward(x, pass)?,
            None => x.clone(),
        };
        let x = pass.drop(x, self.spec.dropout)?;
        if self.spec.scale != 1. { phyla_ops::scale(&x, self.spec.scale as f64) } else { Ok(x) }
    }

    /// `x[.., hidden]`, of the tokens that this head reads, to `[.., outputs]`.
    pub fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        self.output.forward(&self.features(x, pass)?)
    }

    /// Log-probabilities of those `targets` that are not ignored with the entropies where they stand, `[counted, 2]`, at a
    /// temperature; see [`phyla_ops::linear_choices`].
    pub fn choices(&self, x: &Tensor, targets: &[i32], temperature: f32, pass: &mut Pass) -> Result<Tensor> {
        let counted = (0u32..).zip(targets).filter_map(|(row, &target)| Some((row, u32::try_from(target).ok()?)));
        let (rows, targets): (Vec<u32>, Vec<u32>) = counted.unzip();
        let x = phyla_ops::gather_rows(x, &rows)?;
        self.output.choices(&self.features(&x, pass)?, &targets, temperature)
    }

    /// Cross-entropy of those rows of `x[.., hidden]` whose target is not ignored, and their divergence from what a teacher's
    /// head makes of its own; see [`phyla_ops::linear_distillation`].
    pub fn distillation(
        &self,
        x: &Tensor,
        (teacher, theirs): (&Self, &Tensor),
        targets: &[i32],
        args: Distillation,
        pass: &mut Pass,
    ) -> Result<(Tensor, Told)> {
        let counted: Vec<u32> = (0u32..).zip(targets).filter(|(_, t)| **t >= 0).map(|(row, _)| row).collect();
        let targets: Vec<i32> = targets.iter().copied().filter(|&t| t >= 0).collect();
        let x = self.features(&phyla_ops::gather_rows(x, &counted)?, pass)?;
        let theirs =
            phyla_ops::no_grad(|| teacher.features(&phyla_ops::gather_rows(theirs, &counted)?, &mut Pass::idle()))?;
        self.output.distillation(&x, (&teacher.output, &theirs), &targets, args)
    }

    /// Cross-entropy of `x[.., hidden]` against `targets`, one for each row, without keeping the outputs; see
    /// [`phyla_ops::linear_cross_entropy`].
    pub fn cross_entropy(&self, x: &Tensor, targets: &[i32], args: CrossEntropy, pass: &mut Pass) -> Result<Tensor> {
        // Where few rows count (masked language models), the others need not pass through the head.
        let counted: Vec<u32> = (0u32..).zip(targets).filter(|(_, t)| **t >= 0).map(|(row, _)| row).collect();
        if 2 * counted.len() < targets.len() {
            let targets: Vec<i32> = targets.iter().copied().filter(|&t| t >= 0).collect();
            let x = phyla_ops::gather_rows(x, &counted)?;
            return self.output.cross_entropy(&self.features(&x, pass)?, &targets, args);
        }
        self.output.cross_entropy(&self.features(x, pass)?, targets, args)
    }
}

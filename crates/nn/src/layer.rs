//! A layer: sublayers around a residual stream. The residual rule stands here, once.

use candle_core::Result;
use phyla_ops::Tensor;

use crate::{
    Attention, AttentionSpec, Disentangled, DisentangledSpec, Mla, MlaSpec, Mlp, MlpSpec, Moe, MoeSpec, Norm, NormSpec,
    Pass, Scope,
};

/// Where the norm stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residual {
    /// `x + f(norm(x))` (Xiong et al. 2020).
    PreNorm,
    /// `norm(x + f(x))` (Vaswani et al. 2017).
    PostNorm,
}

/// One step of a layer.
#[derive(Clone, Debug, PartialEq)]
pub enum SublayerSpec {
    /// Self-attention, named `attn`.
    Attention(AttentionSpec),
    /// Attention to the encoder's states, named `cross`.
    Cross(AttentionSpec),
    /// Latent self-attention, named `attn`.
    Mla(MlaSpec),
    /// Self-attention of contents and positions, named `attn`.
    Disentangled(DisentangledSpec),
    /// Feed-forward, named `mlp`.
    Mlp(MlpSpec),
    /// A mixture of experts, named `mlp` as the block in whose place it stands.
    Moe(MoeSpec),
}

impl From<MlaSpec> for SublayerSpec {
    fn from(spec: MlaSpec) -> Self {
        Self::Mla(spec)
    }
}

impl From<DisentangledSpec> for SublayerSpec {
    fn from(spec: DisentangledSpec) -> Self {
        Self::Disentangled(spec)
    }
}

impl From<MoeSpec> for SublayerSpec {
    fn from(spec: MoeSpec) -> Self {
        Self::Moe(spec)
    }
}

impl From<AttentionSpec> for SublayerSpec {
    fn from(spec: AttentionSpec) -> Self {
        Self::Attention(spec)
    }
}

impl From<MlpSpec> for SublayerSpec {
    fn from(spec: MlpSpec) -> Self {
        Self::Mlp(spec)
    }
}

/// What shapes a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerSpec {
    /// Size of the residual stream.
    pub hidden: usize,
    /// The residual rule.
    pub residual: Residual,
    /// The norm of every sublayer.
    pub norm: NormSpec,
    /// The steps, in order.
    pub sublayers: Vec<SublayerSpec>,
    /// Dropout on each sublayer's result.
    pub dropout: f32,
    /// Name of a sublayer whose result is kept whole (DistilBERT's attention).
    pub undropped: Option<&'static str>,
}

impl LayerSpec {
    /// Norm before each sublayer, no dropout.
    pub fn pre_norm(hidden: usize, norm: NormSpec, sublayers: impl Into<Vec<SublayerSpec>>) -> Self {
        Self { hidden, residual: Residual::PreNorm, norm, sublayers: sublayers.into(), dropout: 0., undropped: None }
    }

    /// Norm after each sublayer, no dropout.
    pub fn post_norm(hidden: usize, norm: NormSpec, sublayers: impl Into<Vec<SublayerSpec>>) -> Self {
        Self { residual: Residual::PostNorm, ..Self::pre_norm(hidden, norm, sublayers) }
    }
}

/// What a sublayer computes.
#[derive(Debug)]
pub enum Sublayer {
    /// Self-attention.
    Attention(Box<Attention>),
    /// Attention to the encoder's states.
    Cross(Box<Attention>),
    /// Latent self-attention.
    Mla(Box<Mla>),
    /// Self-attention of contents and positions.
    Disentangled(Box<Disentangled>),
    /// Feed-forward.
    Mlp(Mlp),
    /// A mixture of experts.
    Moe(Box<Moe>),
}

impl Sublayer {
    fn new(spec: &SublayerSpec, scope: &mut Scope) -> Result<Self> {
        Ok(match spec {
            SublayerSpec::Attention(spec) => Self::Attention(Box::new(Attention::new(spec, scope)?)),
            SublayerSpec::Cross(spec) => Self::Cross(Box::new(Attention::new(spec, scope)?)),
            SublayerSpec::Mla(spec) => Self::Mla(Box::new(Mla::new(spec, scope)?)),
            SublayerSpec::Disentangled(spec) => Self::Disentangled(Box::new(Disentangled::new(spec, scope)?)),
            SublayerSpec::Mlp(spec) => Self::Mlp(Mlp::new(spec, scope)?),
            SublayerSpec::Moe(spec) => Self::Moe(Box::new(Moe::new(spec, scope)?)),
        })
    }

    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        match self {
            Self::Attention(attention) => attention.forward(x, pass),
            Self::Cross(attention) => attention.forward_cross(x, pass),
            Self::Mla(attention) => attention.forward(x, pass),
            Self::Disentangled(attention) => attention.forward(x, pass),
            Self::Mlp(mlp) => mlp.forward(x, pass),
            Self::Moe(moe) => moe.forward(x, pass),
        }
    }
}

impl SublayerSpec {
    /// Keys that a token after `past` others sees, if it attends to them.
    pub fn keys_seen(&self, past: usize) -> usize {
        match self {
            Self::Attention(attention) => (past + 1).min(attention.window.unwrap_or(usize::MAX)),
            Self::Mla(_) | Self::Disentangled(_) => past + 1,
            Self::Cross(_) | Self::Mlp(_) | Self::Moe(_) => 0,
        }
    }

    /// Multiplications and additions of scoring a key and adding its value, over all heads.
    pub fn score_operations(&self) -> usize {
        match self {
            Self::Attention(attention) => 4 * attention.heads * attention.head_dim,
            Self::Mla(mla) => 2 * mla.heads * (mla.nope + mla.rotary + mla.v_dim),
            Self::Disentangled(attention) => attention.score_operations(),
            Self::Cross(_) | Self::Mlp(_) | Self::Moe(_) => 0,
        }
    }

    /// Numbers that a cache keeps for each token.
    pub fn cache_numbers(&self) -> usize {
        match self {
            Self::Attention(attention) => 2 * attention.kv_heads * attention.head_dim,
            Self::Mla(mla) => mla.kv_rank + mla.rotary,
            // An encoder's alone: never in a cache.
            Self::Disentangled(_) | Self::Cross(_) | Self::Mlp(_) | Self::Moe(_) => 0,
        }
    }

    /// The name under which the sublayer's parameters stand; its norm is `<name>_norm`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Attention(_) | Self::Mla(_) | Self::Disentangled(_) => "attn",
            Self::Cross(_) => "cross",
            Self::Mlp(_) | Self::Moe(_) => "mlp",
        }
    }
}

/// The layer.
#[derive(Debug)]
pub struct Layer {
    residual: Residual,
    steps: Vec<(Norm, Sublayer, f32)>,
}

impl Layer {
    /// Takes `<name>_norm` and `<name>` for each sublayer from the scope.
    pub fn new(spec: &LayerSpec, scope: &mut Scope) -> Result<Self> {
        let steps = spec
            .sublayers
            .iter()
            .map(|sublayer| {
                let name = sublayer.name();
                let norm = Norm::new(spec.norm, spec.hidden, &mut scope.at(format!("{name}_norm")))?;
                let dropout = if spec.undropped == Some(name) { 0. } else { spec.dropout };
                Ok((norm, Sublayer::new(sublayer, &mut scope.at(name))?, dropout))
            })
            .collect::<Result<_>>()?;
        Ok(Self { residual: spec.residual, steps })
    }

    /// `x[batch, time, hidden]` to the same shape.
    pub fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let mut x = x.clone();
        for (norm, sublayer, dropout) in &self.steps {
            x = match self.residual {
                Residual::PreNorm => {
                    let y = sublayer.forward(&norm.forward(&x)?, pass)?;
                    phyla_ops::add(&x, &pass.drop(y, *dropout)?)?
                }
                Residual::PostNorm => {
                    let y = sublayer.forward(&x, pass)?;
                    norm.forward(&phyla_ops::add(&x, &pass.drop(y, *dropout)?)?)?
                }
            };
        }
        Ok(x)
    }
}

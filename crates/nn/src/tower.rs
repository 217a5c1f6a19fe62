//! A tower: embeddings, layers, final norm. A model is one tower, or an encoder and a decoder.

use std::sync::Arc;

use candle_core::Result;
use phyla_ops::{Param, Tensor};

use crate::{
    ConvSpec, Embed, EmbedSpec, Embedding, LayerSpec, Norm, NormSpec, Pass, Relative, RelativeSpec, Scope, Stack,
};

/// What shapes a tower.
#[derive(Clone, Debug, PartialEq)]
pub struct TowerSpec {
    /// Size of the residual stream.
    pub hidden: usize,
    /// What enters the first layer.
    pub embed: EmbedSpec,
    /// Relative positions that all layers share.
    pub relative: Option<RelativeSpec>,
    /// The layers, first to last.
    pub layers: Vec<LayerSpec>,
    /// A convolution beside the first layer.
    pub conv: Option<ConvSpec>,
    /// The norm after the last layer.
    pub final_norm: Option<NormSpec>,
    /// Dropout after it.
    pub final_dropout: f32,
    /// Whether a token sees only what came before it.
    pub causal: bool,
}

impl TowerSpec {
    /// Token vectors, no layers yet, no final norm.
    pub fn new(hidden: usize, causal: bool) -> Self {
        Self {
            hidden,
            embed: EmbedSpec::default(),
            relative: None,
            layers: vec![],
            conv: None,
            final_norm: None,
            final_dropout: 0.,
            causal,
        }
    }
}

/// The tower.
#[derive(Debug)]
pub struct Tower {
    embed: Embed,
    relative: Option<Relative>,
    stack: Stack,
    norm: Option<Norm>,
    final_dropout: f32,
}

impl Tower {
    /// Takes the embeddings, `relative`, `layers.N`, `conv` and `norm` from the scope.
    pub fn new(spec: &TowerSpec, shared: Option<&Arc<Embedding>>, scope: &mut Scope) -> Result<Self> {
        let embed = Embed::new(&spec.embed, spec.hidden, shared, scope)?;
        let relative = spec.relative.as_ref().map(|spec| Relative::new(spec, &mut scope.at("relative"))).transpose()?;
        let stack = Stack::new(&spec.layers, spec.conv.as_ref(), scope)?;
        let norm = spec.final_norm.map(|norm| Norm::new(norm, spec.hidden, &mut scope.at("norm"))).transpose()?;
        Ok(Self { embed, relative, stack, norm, final_dropout: spec.final_dropout })
    }

    /// The table of token vectors, `[vocab, dim]`.
    pub fn table(&self) -> &Arc<Param> {
        self.embed.table()
    }

    /// `ids[batch · time]` to the last hidden state, `[batch, time, hidden]`.
    ///
    /// With a cache in the pass, `ids` are the new tokens only.
    pub fn forward(&self, ids: &[u32], types: Option<&[u32]>, pass: &mut Pass) -> Result<Tensor> {
        let mut x = self.embed.forward(ids, types, pass)?;
        if let Some(relative) = &self.relative {
            pass.relative = Some(relative.forward(pass)?);
            pass.index = relative.index(pass)?;
        }
        x = self.stack.forward(x, pass)?;
        if let Some(norm) = &self.norm {
            x = norm.forward(&x)?;
        }
        x = pass.drop(x, self.final_dropout)?;
        if let Some(states) = &mut pass.hidden_states {
            states.push(x.clone());
        }
        pass.finish();
        Ok(x)
    }
}

//! A model: an architecture with its parameters.

use std::collections::HashSet;
use std::sync::Arc;

use candle_core::Result;
use phyla_nn::{Embedding, Linear, Norm, Pass, Scope, Source, Stack};
use phyla_ops::{CrossEntropy, Param, Tensor};
use serde_json::{Map, Value};

use crate::arch::TokenTypes;
use crate::family::Entry;
use crate::{Arch, Head};

/// A model that can run.
#[derive(Debug)]
pub struct Model {
    /// What it was built from.
    pub arch: Arch,
    /// Its family.
    pub family: &'static Entry,
    /// Its `config.json`, unknown fields included.
    pub config: Map<String, Value>,
    tokens: Embedding,
    positions: Option<Embedding>,
    stack: Stack,
    norm: Option<Norm>,
    head: Linear,
    params: Vec<Arc<Param>>,
}

/// Hands through the parameters of a source and remembers them in order.
struct Remember<'a> {
    source: &'a mut dyn Source,
    params: Vec<Arc<Param>>,
    known: HashSet<*const Param>,
}

impl Source for Remember<'_> {
    fn param(&mut self, path: &str, shape: &[usize], init: phyla_nn::Init) -> Result<Arc<Param>> {
        let param = self.source.param(path, shape, init)?;
        // By address: a search through the list would take minutes for ten thousand layers.
        if self.known.insert(Arc::as_ptr(&param)) {
            self.params.push(param.clone());
        }
        Ok(param)
    }
}

impl Model {
    /// Builds the blocks of `arch` over the parameters of `source`.
    pub fn build(
        arch: Arch,
        family: &'static Entry,
        config: Map<String, Value>,
        source: &mut dyn Source,
    ) -> Result<Self> {
        let mut source = Remember { source, params: vec![], known: HashSet::new() };
        let mut root = Scope::root(&mut source);
        let tokens = Embedding::new(arch.tokens, &mut root.at("tokens"))?;
        let positions = arch.positions.map(|spec| Embedding::new(spec, &mut root.at("positions"))).transpose()?;
        let stack = Stack::new(&arch.layers, &mut root.at("decoder"))?;
        let norm =
            arch.final_norm.map(|norm| Norm::new(norm, arch.hidden(), &mut root.at("decoder.norm"))).transpose()?;
        let head = match arch.head {
            Head::Tied => Linear::tied(tokens.weight().clone()),
            Head::Own { std } => {
                let spec = phyla_nn::LinearSpec { input: arch.hidden(), output: arch.vocab(), bias: false, std };
                Linear::new(spec, &mut root.at("head"))?
            }
        };
        let params = source.params;
        Ok(Self { arch, family, config, tokens, positions, stack, norm, head, params })
    }

    /// The parameters, each once, in the order of the blocks.
    pub fn params(&self) -> &[Arc<Param>] {
        &self.params
    }

    /// Number of weights.
    pub fn count(&self) -> usize {
        self.params.iter().map(|param| param.count()).sum()
    }

    /// `ids[batch · time]` to the last hidden state, `[batch, time, hidden]`.
    ///
    /// With a cache in the pass, `ids` are the new tokens only.
    pub fn forward(&self, ids: &[u32], token_types: Option<&[u32]>, pass: &mut Pass) -> Result<Tensor> {
        let shape = [pass.batch(), pass.time()];
        self.check(ids, pass)?;
        let mut x = self.tokens.forward(ids, &shape)?; // [batch, time, hidden]
        if let Some(positions) = &self.positions {
            x = phyla_ops::add(&x, &positions.forward(pass.positions(), &shape)?)?;
        }
        match (token_types, self.arch.token_types) {
            (None, _) => {}
            (Some(types), Some(TokenTypes::TokenTable)) => {
                x = phyla_ops::add(&x, &self.tokens.forward(types, &shape)?)?
            }
            (Some(_), None) => candle_core::bail!("token_type_ids were given, and {} has none", self.family.model_type),
        }
        x = pass.drop(x, self.arch.dropout)?;
        x = self.stack.forward(x, pass)?;
        if let Some(norm) = &self.norm {
            x = norm.forward(&x)?;
        }
        if let Some(states) = &mut pass.hidden_states {
            states.push(x.clone());
        }
        pass.finish();
        Ok(x)
    }

    /// Hidden states `[.., hidden]` to logits `[.., vocab]`.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.head.forward(hidden)
    }

    /// The language-model loss of `hidden[.., hidden]` against `targets`, one for each row; see
    /// [`phyla_ops::linear_cross_entropy`].
    pub fn loss(&self, hidden: &Tensor, targets: &[i32], args: CrossEntropy) -> Result<Tensor> {
        self.head.cross_entropy(hidden, targets, args)
    }

    /// What [`Model::forward`] checks first: the number of ids, the vocabulary, the learned positions.
    ///
    /// # Errors
    /// Names the id or position that does not fit.
    pub fn check(&self, ids: &[u32], pass: &Pass) -> Result<()> {
        let (expected, vocab) = (pass.batch() * pass.time(), self.arch.vocab());
        if ids.len() != expected {
            candle_core::bail!(
                "expected {expected} token ids ({} x {}), found {}",
                pass.batch(),
                pass.time(),
                ids.len()
            );
        }
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab) {
            candle_core::bail!(
                "token id {id} is outside the vocabulary of {vocab}; is this the model's own tokenizer?"
            );
        }
        let limit = self.arch.context;
        match pass.positions().iter().find(|&&p| self.arch.context_is_hard && p as usize >= limit) {
            Some(p) => candle_core::bail!("position {p} is beyond the {limit} that this model has learned"),
            None => Ok(()),
        }
    }
}

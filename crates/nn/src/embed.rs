//! What enters the first layer: token vectors, and what is added to them.

use std::sync::Arc;

use candle_core::Result;
use phyla_ops::{Data, Param, Tensor};

use crate::{Embedding, EmbeddingSpec, Init, Linear, LinearSpec, Norm, NormSpec, Pass, Scope};

/// What shapes the sum of vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbedSpec {
    /// Token vectors.
    pub tokens: TokenTable,
    /// Factor on them: the 2017 paper's `sqrt(hidden)`.
    pub scale: f32,
    /// Vectors of positions.
    pub positions: Positions,
    /// Vectors of token types.
    pub token_types: TokenTypes,
    /// From the vectors to the residual stream, where their sizes differ.
    pub project: Option<LinearSpec>,
    /// A norm over the sum.
    pub norm: Option<NormSpec>,
    /// Whether hidden tokens become 0.
    pub hide_padding: bool,
    /// Dropout on the sum.
    pub dropout: f32,
}

/// Where token vectors come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TokenTable {
    /// The model's one table.
    Shared,
    /// A table of this tower.
    Own(EmbeddingSpec),
}

/// Position vectors added to the token vectors; rotary and relative positions live in the attention.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Positions {
    /// None.
    None,
    /// A learned table.
    Learned {
        /// The table.
        table: EmbeddingSpec,
        /// Rows before that of position 0.
        offset: usize,
    },
    /// [`Positions::Sinusoids`] as a table that checkpoints hold and training leaves alone (DistilBERT).
    Stored {
        /// The table.
        table: EmbeddingSpec,
        /// How sines and cosines lie in a fresh one.
        order: Sinusoids,
    },
    /// Sines and cosines of geometrically falling frequency (Vaswani et al. 2017, section 3.5).
    Sinusoids {
        /// Size of a vector.
        dim: usize,
        /// How sines and cosines lie in it.
        order: Sinusoids,
    },
}

/// How sines and cosines lie in a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sinusoids {
    /// Sine, cosine, sine, cosine, …: the paper.
    Interleaved,
    /// All sines, then all cosines: tensor2tensor, fairseq, Marian.
    Halves,
}

/// Vectors of token types.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TokenTypes {
    /// There are none.
    None,
    /// A table; type 0 if none is given.
    Own(EmbeddingSpec),
    /// They are token ids themselves (GPT-2); nothing is added if none is given.
    TokenTable,
}

impl Default for EmbedSpec {
    /// Token vectors as they are.
    fn default() -> Self {
        Self {
            tokens: TokenTable::Shared,
            scale: 1.,
            positions: Positions::None,
            token_types: TokenTypes::None,
            project: None,
            norm: None,
            hide_padding: false,
            dropout: 0.,
        }
    }
}

/// The block.
#[derive(Debug)]
pub struct Embed {
    spec: EmbedSpec,
    tokens: Arc<Embedding>,
    positions: Option<Embedding>,
    token_types: Option<Embedding>,
    project: Option<Linear>,
    norm: Option<Norm>,
}

impl Embed {
    /// Takes `tokens` (if its own), `positions`, `token_types`, `project` and `embed_norm` from the scope.
    pub fn new(spec: &EmbedSpec, hidden: usize, shared: Option<&Arc<Embedding>>, scope: &mut Scope) -> Result<Self> {
        let tokens = match (spec.tokens, shared) {
            (TokenTable::Shared, Some(shared)) => shared.clone(),
            (TokenTable::Shared, None) => candle_core::bail!("a tower shares a token table that the model lacks"),
            (TokenTable::Own(table), _) => Arc::new(Embedding::new(table, &mut scope.at("tokens"))?),
        };
        let positions = match spec.positions {
            Positions::Learned { table, .. } => Some(Embedding::new(table, &mut scope.at("positions"))?),
            Positions::Stored { table, order } => {
                Some(Embedding::begun(table, Init::Sinusoids(order), &mut scope.at("positions"))?)
            }
            _ => None,
        };
        let token_types = match spec.token_types {
            TokenTypes::Own(table) => Some(Embedding::new(table, &mut scope.at("token_types"))?),
            _ => None,
        };
        let project = spec.project.map(|linear| Linear::new(linear, &mut scope.at("project"))).transpose()?;
        let norm = spec.norm.map(|norm| Norm::new(norm, hidden, &mut scope.at("embed_norm"))).transpose()?;
        Ok(Self { spec: spec.clone(), tokens, positions, token_types, project, norm })
    }

    /// The token table, `[vocab, dim]`.
    pub fn table(&self) -> &Arc<Param> {
        self.tokens.weight()
    }

    /// `ids[batch · time]` to `[batch, time, hidden]`.
    pub fn forward(&self, ids: &[u32], types: Option<&[u32]>, pass: &mut Pass) -> Result<Tensor> {
        let shape = [pass.batch(), pass.time()];
        let led = pass.lead().map_or(0, |lead| lead.count);
        let mut x = pass.noisy(self.tokens.forward(ids, &[shape[0], shape[1] - led])?)?;
        if self.spec.scale != 1. {
            x = phyla_ops::scale(&x, self.spec.scale as f64)?;
        }
        if let Some(lead) = pass.lead() {
            x = lead.before(&x)?;
        }
        let led = types.filter(|_| led > 0).map(|types| {
            let rows = types.chunks((shape[1] - led).max(1));
            rows.flat_map(|row| std::iter::repeat_n(0, led).chain(row.iter().copied())).collect::<Vec<u32>>()
        });
        if let Some(types) = self.types(led.as_deref().or(types), &shape)? {
            x = phyla_ops::add(&x, &types)?;
        }
        if let Some(positions) = self.positions(pass, &shape)? {
            x = phyla_ops::add(&x, &positions)?;
        }
        if let Some(project) = &self.project {
            x = project.forward(&x)?;
        }
        if let Some(norm) = &self.norm {
            x = norm.forward(&x)?;
        }
        if let Some(valid) = pass.valid().filter(|_| self.spec.hide_padding) {
            x = phyla_ops::keep_rows(&x, valid)?;
        }
        pass.drop(x, self.spec.dropout)
    }

    fn types(&self, types: Option<&[u32]>, shape: &[usize]) -> Result<Option<Tensor>> {
        match (self.spec.token_types, types, &self.token_types) {
            (TokenTypes::TokenTable, Some(types), _) => Ok(Some(self.tokens.forward(types, shape)?)),
            (_, Some(types), Some(table)) => Ok(Some(table.forward(types, shape)?)),
            (_, None, Some(table)) => Ok(Some(table.forward(&vec![0; shape.iter().product()], shape)?)),
            (_, None, None) => Ok(None),
            (_, Some(_), None) => candle_core::bail!("token_type_ids were given, and this model has none"),
        }
    }

    fn positions(&self, pass: &Pass, shape: &[usize]) -> Result<Option<Tensor>> {
        match (self.spec.positions, &self.positions) {
            (Positions::Learned { offset, .. }, Some(table)) => {
                let rows: Vec<u32> = pass.positions().iter().map(|&p| p + offset as u32).collect();
                Ok(Some(table.forward(&rows, shape)?))
            }
            (Positions::Stored { .. }, Some(table)) => Ok(Some(table.forward(pass.positions(), shape)?)),
            (Positions::Sinusoids { dim, order }, _) => Ok(Some(order.rows(pass.positions(), shape, dim)?.into())),
            _ => Ok(None),
        }
    }
}

impl Sinusoids {
    /// The vectors of `positions`, `[shape.., dim]`: `sin(p / 10000^(2i/dim))` and the cosine of the same.
    pub fn rows(self, positions: &[u32], shape: &[usize], dim: usize) -> Result<Data> {
        let mut values = Vec::with_capacity(positions.len() * dim);
        for &position in positions {
            values.extend(self.row(position, dim));
        }
        let shape: Vec<usize> = shape.iter().copied().chain([dim]).collect();
        phyla_ops::cpu::tensor(values, shape)
    }

    /// The vector of one position.
    pub fn row(self, position: u32, dim: usize) -> impl Iterator<Item = f32> {
        let angle = move |pair: usize| f64::from(position) / 10000f64.powf((2 * pair) as f64 / dim as f64);
        (0..dim).map(move |i| match self {
            Self::Interleaved if i % 2 == 0 => angle(i / 2).sin() as f32,
            Self::Interleaved => angle(i / 2).cos() as f32,
            // An odd size has one sine more.
            Self::Halves if i < dim.div_ceil(2) => angle(i).sin() as f32,
            Self::Halves => angle(i - dim.div_ceil(2)).cos() as f32,
        })
    }
}

//! Relative positions that all layers of a tower share: a bias on the scores, or a table of vectors.

use std::sync::Arc;

use candle_core::Result;
use phyla_ops::{Param, RelativeBuckets, Tensor};

use crate::{Embedding, EmbeddingSpec, Init, Norm, NormSpec, Pass, Scope};

/// Which kind.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RelativeSpec {
    /// A learned bias for each head and bucket of distances (Raffel et al. 2020, section 2.1).
    Buckets {
        /// How distances fall into buckets.
        rule: RelativeBuckets,
        /// Heads.
        heads: usize,
        /// Standard deviation of a fresh table.
        std: f32,
    },
    /// A vector for each distance (He et al. 2021), perhaps normalised.
    Table {
        /// The vectors.
        table: EmbeddingSpec,
        /// Norm over each.
        norm: Option<NormSpec>,
    },
}

/// Where a self-attention's bias on the scores comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RelativeBias {
    /// From the tower: one for all its layers (T5).
    Shared,
    /// From a table of this layer (UMT5).
    Own(RelativeSpec),
}

/// The block.
#[derive(Debug)]
pub enum Relative {
    /// See [`RelativeSpec::Buckets`].
    Buckets {
        /// `[buckets, heads]`.
        table: Arc<Param>,
        /// How distances fall into buckets.
        rule: RelativeBuckets,
    },
    /// See [`RelativeSpec::Table`].
    Table {
        /// The vectors.
        table: Embedding,
        /// Norm over each.
        norm: Option<Norm>,
    },
}

impl Relative {
    /// Takes `weight`, and `norm` if asked for, from the scope.
    pub fn new(spec: &RelativeSpec, scope: &mut Scope) -> Result<Self> {
        Ok(match *spec {
            RelativeSpec::Buckets { rule, heads, std } => {
                Self::Buckets { table: scope.param("weight", &[rule.buckets, heads], Init::normal(std))?, rule }
            }
            RelativeSpec::Table { table: vectors, norm } => Self::Table {
                table: Embedding::new(vectors, scope)?,
                norm: norm.map(|norm| Norm::new(norm, vectors.dim, &mut scope.at("norm"))).transpose()?,
            },
        })
    }

    /// The bias, `[1 or batch, heads, queries, keys]`, or the vectors, `[rows, dim]`.
    pub fn forward(&self, pass: &Pass) -> Result<Tensor> {
        match self {
            Self::Buckets { table, rule } => {
                let past = pass.past();
                let keys = past.iter().max().copied().unwrap_or(0) as usize + pass.time();
                phyla_ops::relative_bias(table, *rule, &past, pass.time(), keys)
            }
            Self::Table { table, norm } => {
                let rows: Vec<u32> = (0..table.weight().dims()[0] as u32).collect();
                let vectors = table.forward(&rows, &[rows.len()])?;
                norm.as_ref().map_or(Ok(vectors.clone()), |norm| norm.forward(&vectors))
            }
        }
    }
}

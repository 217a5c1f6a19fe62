//! Relative positions that all layers of a tower share: a bias on the scores, or a table of vectors.

use std::sync::Arc;

use candle_core::Result;
use phyla_ops::{Param, RelativeBuckets, RelativeIndex, Tensor};

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
        /// Which vector a distance has.
        distances: Distances,
    },
}

/// Which of a table's vectors belong to which distances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distances {
    /// One for each in `-span .. span`; those beyond share the first or the last.
    Linear {
        /// Half the vectors.
        span: usize,
    },
    /// As [`RelativeIndex::log_buckets`] has it.
    LogBuckets {
        /// Half the vectors.
        buckets: usize,
        /// The distance after the last that has its own bucket.
        max_distance: usize,
    },
}

impl Distances {
    /// Vectors of the table.
    pub fn rows(self) -> usize {
        2 * self.span()
    }

    fn span(self) -> usize {
        match self {
            Self::Linear { span } | Self::LogBuckets { buckets: span, .. } => span,
        }
    }

    /// Half the vectors that rows of `time` tokens need, which lie in the middle of the table.
    fn reach(self, time: usize) -> usize {
        // Up to half of the buckets, and no further, each holds one distance.
        let apart = match self {
            Self::Linear { span } => span,
            Self::LogBuckets { buckets, .. } => buckets / 2 + 1,
        };
        if time <= apart { time.max(1) } else { self.span() }
    }

    /// The vectors' numbers for rows of `time` tokens, among those that they need.
    fn index(self, time: usize) -> Result<RelativeIndex> {
        match (self, self.reach(time)) {
            (Self::LogBuckets { buckets, max_distance }, reach) if reach == buckets => {
                RelativeIndex::log_buckets(buckets, max_distance, time, time)
            }
            (_, reach) => RelativeIndex::linear(reach, time, time),
        }
    }
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
        /// Which vector a distance has.
        distances: Distances,
    },
}

impl Relative {
    /// Takes `weight`, and `norm` if asked for, from the scope.
    pub fn new(spec: &RelativeSpec, scope: &mut Scope) -> Result<Self> {
        Ok(match *spec {
            RelativeSpec::Buckets { rule, heads, std } => {
                Self::Buckets { table: scope.param("weight", &[rule.buckets, heads], Init::normal(std))?, rule }
            }
            RelativeSpec::Table { table: vectors, norm, distances } => Self::Table {
                table: Embedding::new(vectors, scope)?,
                norm: norm.map(|norm| Norm::new(norm, vectors.dim, &mut scope.at("norm"))).transpose()?,
                distances,
            },
        })
    }

    /// The bias, `[1 or batch, heads, queries, keys]`, or the vectors of the distances that occur, `[rows, dim]`.
    pub fn forward(&self, pass: &Pass) -> Result<Tensor> {
        match self {
            Self::Buckets { table, rule } => {
                let past = pass.past();
                let keys = past.iter().max().copied().unwrap_or(0) as usize + pass.time();
                phyla_ops::relative_bias(table, *rule, &past, pass.time(), keys)
            }
            Self::Table { table, norm, distances } => {
                let (middle, reach) = (distances.span(), distances.reach(pass.time()));
                let rows: Vec<u32> = (middle - reach..middle + reach).map(|row| row as u32).collect();
                let vectors = table.forward(&rows, &[rows.len()])?;
                norm.as_ref().map_or(Ok(vectors.clone()), |norm| norm.forward(&vectors))
            }
        }
    }

    /// Which of the vectors belongs to which pair of tokens.
    pub fn index(&self, pass: &Pass) -> Result<Option<RelativeIndex>> {
        match self {
            Self::Buckets { .. } => Ok(None),
            Self::Table { distances, .. } => distances.index(pass.time()).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_middle_of_a_table_serves_short_rows_as_the_whole_does() {
        let rules = [Distances::Linear { span: 6 }, Distances::LogBuckets { buckets: 9, max_distance: 20 }];
        for (rule, cut) in rules.into_iter().zip([6, 5]) {
            for time in 1..30 {
                let whole = match rule {
                    Distances::Linear { span } => RelativeIndex::linear(span, time, time),
                    Distances::LogBuckets { buckets, max_distance } => {
                        RelativeIndex::log_buckets(buckets, max_distance, time, time)
                    }
                };
                let (whole, index, reach) = (whole.unwrap(), rule.index(time).unwrap(), rule.reach(time));
                assert_eq!(reach, if time <= cut { time } else { rule.span() }, "{rule:?} {time}");
                for (i, j) in (0..time).flat_map(|i| (0..time).map(move |j| (i, j))) {
                    assert_eq!(index.row(i, j) + rule.span() - reach, whole.row(i, j), "{rule:?} {time}: {i} {j}");
                }
            }
        }
    }
}

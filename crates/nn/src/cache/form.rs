//! What the pages of a layer are like: how exactly they keep what they are given, and which positions are kept at all.

use candle_core::Result;
use phyla_kernels::page::{Kept, POSITIONS};

use super::{CacheSpec, Seen};

/// Positions that a row can always be taken back by, besides those that its next token sees: speculation reads a few tokens
/// and forgets most of them.
const SLACK: usize = POSITIONS;

/// Tokens of a pass that a cache of fixed size is made for, where only the last positions are kept.
const PASS: usize = 512;

/// What pages are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub heads: usize,
    pub dim: usize,
    /// As what older positions are kept.
    pub kept: Kept,
    /// As what the newest are.
    pub exact: Kept,
    /// How many are the newest, at least.
    pub residual: usize,
    /// Which positions are kept; all without it.
    pub span: Option<Span>,
}

/// The first positions and the last ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub first: usize,
    /// The next token included.
    pub last: usize,
}

impl Form {
    /// Of `heads` of `dim` numbers, in a cache that is to be so, for a layer that looks at it so.
    pub fn new([heads, dim]: [usize; 2], spec: &CacheSpec, seen: Seen) -> Self {
        let kept = spec.kept.unwrap_or(seen.exactly);
        let residual = if kept == seen.exactly { 0 } else { spec.residual };
        let window = seen.window.filter(|_| !spec.whole).map(|window| Span { first: 0, last: window });
        let span = spec.sink.map(|sink| Span { first: sink.first, last: sink.window - sink.first }).or(window);
        Self { heads, dim, kept, exact: seen.exactly, residual, span }
    }

    /// Numbers of a position.
    pub fn numbers(&self) -> usize {
        self.heads * self.dim
    }

    /// As what new positions are kept.
    pub fn newest(&self) -> Kept {
        if self.residual > 0 { self.exact } else { self.kept }
    }

    pub fn check(&self) -> Result<()> {
        let (kept, dim) = (self.kept, self.dim);
        if !dim.is_multiple_of(kept.block()) {
            candle_core::bail!(
                "a cache keeps {} in blocks of {}, and heads of {dim} numbers are not whole blocks; f16 fits any",
                kept.name(),
                kept.block()
            );
        }
        Ok(())
    }

    /// Pages of each kind that a row of so many positions needs.
    pub fn reserve(&self, positions: usize) -> Vec<(Kept, usize)> {
        let held = self.span.map_or(positions, |span| {
            positions.min(span.first.next_multiple_of(POSITIONS) + span.last + SLACK + PASS + 2 * POSITIONS)
        });
        let all = held.div_ceil(POSITIONS);
        if self.residual == 0 {
            return vec![(self.kept, all)];
        }
        let exact = all.min((self.residual + PASS).div_ceil(POSITIONS) + 2);
        vec![(self.kept, all), (self.exact, exact)]
    }
}

impl Span {
    /// The page before which no token behind `length` positions sees any, nor one that is taken back a little.
    pub fn unseen(&self, length: usize) -> usize {
        (length + 1).saturating_sub(self.last + SLACK) / POSITIONS
    }

    /// The page of the oldest of the last positions that the token behind `length` positions sees.
    pub fn oldest(&self, length: usize) -> usize {
        (length + 1).saturating_sub(self.last) / POSITIONS
    }
}

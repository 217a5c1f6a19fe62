//! Rows of a cache repeated, removed, and taken over from one another.

use candle_core::Result;

use super::whole::Whole;
use super::{Cache, Layer};

/// A row that goes on where another stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Takeover {
    /// The row that is copied.
    pub from: usize,
    /// The row that is overwritten.
    pub to: usize,
    /// So many tokens at the beginning are the same in both, and need not be copied.
    pub shared: usize,
}

impl Cache {
    /// Lets the rows be copies of the given ones: repetition, removal and reordering.
    ///
    /// # Errors
    /// Out of memory.
    pub fn select(&mut self, rows: &[usize]) -> Result<()> {
        for layer in self.layers.iter_mut().flatten() {
            match layer {
                Layer::Paged(parts) => {
                    parts.iter_mut().try_for_each(|part| part.select(rows, self.spec.positions))?;
                }
                Layer::Whole(parts) => {
                    parts.iter_mut().try_for_each(|part| part.select(rows))?;
                    self.copied += parts.iter().map(Whole::bytes).sum::<usize>();
                }
            }
        }
        self.lengths = rows.iter().map(|&r| self.lengths[r]).collect();
        if let Some(memory) = &mut self.memory {
            *memory = memory.select(rows)?;
        }
        Ok(())
    }

    /// Lets rows take over what others of the same encoder's row hold. No row may be both copied and overwritten.
    ///
    /// # Errors
    /// When one is.
    pub fn take_over(&mut self, moves: &[Takeover]) -> Result<()> {
        let mut overwritten = vec![false; self.lengths.len()];
        moves.iter().for_each(|m| overwritten[m.to] = true);
        if let Some(m) = moves.iter().find(|m| overwritten[m.from]) {
            candle_core::bail!("row {} of a cache is to be copied and overwritten at once", m.from);
        }
        for layer in self.layers.iter_mut().flatten() {
            match layer {
                Layer::Paged(parts) => parts.iter_mut().for_each(|part| part.take_over(moves)),
                Layer::Whole(parts) => {
                    for part in parts {
                        self.copied += part.take_over(moves, &self.lengths)?;
                    }
                }
            }
        }
        for m in moves {
            self.lengths[m.to] = self.lengths[m.from];
            if let Some(memory) = &mut self.memory {
                memory.rows[m.to] = memory.rows[m.from];
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

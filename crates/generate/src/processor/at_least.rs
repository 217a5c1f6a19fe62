//! So many ids remain whatever a processor rules out: beams whose likeliest id is the end need another to go on with.

use super::{History, Processor};

/// Puts back the likeliest ids that `inner` has ruled out.
pub struct AtLeast<P> {
    /// How many.
    pub ids: usize,
    /// What rules out.
    pub inner: P,
}

impl<P: Processor> Processor for AtLeast<P> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn apply(&self, row: &mut [f32], history: &History) {
        let mut most: Vec<(usize, f32)> = Vec::with_capacity(self.ids + 1);
        for (id, &x) in row.iter().enumerate() {
            if most.len() < self.ids || most.last().is_some_and(|&(_, least)| x > least) {
                let at = most.partition_point(|&(_, other)| other >= x);
                most.insert(at, (id, x));
                most.truncate(self.ids);
            }
        }
        self.inner.apply(row, history);
        for (id, x) in most {
            row[id] = x;
        }
    }
}

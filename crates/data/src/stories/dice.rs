//! Fair choices from the seeded generator, with a count of the bits they were worth.

use phyla_kernels::rng::Rng;

use super::Outcome;

/// A seeded source of choices.
pub(super) struct Dice {
    rng: Rng,
    bits: f32,
    /// How the story ends, whatever is thrown for it.
    pub(super) ending: Option<Outcome>,
}

impl Dice {
    pub(super) fn new(rng: Rng) -> Self {
        Self { rng, bits: 0.0, ending: None }
    }

    /// A number under `n`; 0 when there is nothing to choose.
    pub(super) fn below(&mut self, n: usize) -> usize {
        if n < 2 {
            return 0;
        }
        self.bits += (n as f32).log2();
        self.rng.below(n as u64) as usize
    }

    /// One of `items`, which must not be empty.
    pub(super) fn pick<'t, T>(&mut self, items: &'t [T]) -> &'t T {
        &items[self.below(items.len())]
    }

    /// True in one case of `n`.
    pub(super) fn one_in(&mut self, n: u32) -> bool {
        let hit = self.rng.below(u64::from(n)) == 0;
        let share = if hit { 1 } else { n - 1 };
        self.bits += (n as f32 / share as f32).log2();
        hit
    }

    /// The bits of every choice since the last call.
    pub(super) fn take_bits(&mut self) -> f32 {
        std::mem::take(&mut self.bits)
    }
}

//! `[data] kind = "sums"`: sums as text for next-token prediction, with their steps or without.

use phyla_data::dataset::Portion;
use phyla_data::tasks::sums::{MOST_DIGITS, Sum, sums};
use serde::{Deserialize, Serialize};

/// Generated sums; `validation_fraction` says how many more are held out, none of which is among the training sums.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sums {
    /// Sums to train on.
    pub items: usize,
    /// Digits of the numbers at most.
    pub digits: u32,
    /// Whether the steps stand between a question and its answer (Nye et al. 2021).
    pub steps: bool,
    /// Seed of the generator.
    pub seed: u64,
}

/// Generated text is held in memory on its way to the file.
const LARGEST: usize = 20_000_000;

impl Default for Sums {
    fn default() -> Self {
        Self { items: 200_000, digits: 6, steps: false, seed: 0 }
    }
}

impl Sums {
    /// Texts of one portion, without end.
    pub fn texts(&self, portion: Portion) -> impl Iterator<Item = String> + use<> {
        let text = if self.steps { Sum::worked } else { Sum::direct };
        sums(self.seed, portion, self.digits).map(text)
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        if !(1..=LARGEST).contains(&self.items) {
            problems.push(format!("`data.items` is {}; expected 1 to {LARGEST}", self.items));
        }
        if !(1..=MOST_DIGITS).contains(&self.digits) {
            problems.push(format!("`data.digits` is {}; expected 1 to {MOST_DIGITS}", self.digits));
        }
    }
}

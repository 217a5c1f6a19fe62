//! `[objective] kind = "sft"`: what an assistant is to write, given what came before; masks, cutting and packing.

use phyla_data::supervised::dialogue::LossOn;
use phyla_data::supervised::sft::{SftSettings, Truncate};
use serde::{Deserialize, Serialize};

use super::check_length;

/// Cross-entropy of the learned tokens of dialogues.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sft {
    /// Tokens of a row at most.
    pub max_len: usize,
    /// Which tokens are learned: `completion`, `assistant` or `all`. Without it each kind of example has its usual ones:
    /// completions, the assistant's turns, texts as a whole.
    pub loss_on: Option<LossOn>,
    /// What is cut of longer examples: their `end` or `start`, or `drop` to leave them out.
    pub truncate: Truncate,
    /// Several examples to a row, each of which sees itself alone.
    pub packing: bool,
    /// A file, or the name of a template: of the tokenizer's own, or `chatml` or `alpaca`. Without it the tokenizer's
    /// default. It is saved with the model's tokenizer.
    pub chat_template: Option<String>,
    /// Noise on the embeddings in training (Jain et al. 2023, "NEFTune"; theirs: 5).
    pub neftune_noise_alpha: Option<f64>,
}

impl Default for Sft {
    fn default() -> Self {
        let SftSettings { max_len, loss_on, truncate, packing } = SftSettings::default();
        Self { max_len, loss_on, truncate, packing, chat_template: None, neftune_noise_alpha: None }
    }
}

impl Sft {
    /// What the maker of rows is asked for.
    #[must_use]
    pub fn settings(&self) -> SftSettings {
        let Self { max_len, loss_on, truncate, packing, .. } = *self;
        SftSettings { max_len, loss_on, truncate, packing }
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        check_length(problems, "max_len", self.max_len, 2);
        if let Some(alpha) = self.neftune_noise_alpha {
            super::check_range(problems, "objective.neftune_noise_alpha", alpha, 0., 1e3);
        }
    }
}

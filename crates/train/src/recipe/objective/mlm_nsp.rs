//! `[objective] kind = "mlm_nsp"`: BERT's two tasks over pairs of texts, and where sentences end.

use phyla_data::pretrain::{MaskSettings, NspSettings, SentenceSplit};
use serde::{Deserialize, Serialize};

use super::{check_length, check_mask};
use crate::recipe::check_range;

/// Hidden tokens and next sentences (Devlin et al. 2019, appendix A.2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MlmNsp {
    /// Longest row, in tokens, with the three special ones.
    pub max_len: usize,
    /// Share of documents whose pairs are made for shorter rows.
    pub short_seq_prob: f64,
    /// Share of pairs whose second text comes from another document.
    pub random_next: f64,
    /// How documents divide into sentences.
    pub sentences: SentenceSplit,
    /// What is hidden.
    pub mask: MaskSettings,
}

impl Default for MlmNsp {
    fn default() -> Self {
        let NspSettings { max_len, short_seq_prob, random_next, mask } = NspSettings::default();
        Self { max_len, short_seq_prob, random_next, sentences: SentenceSplit::default(), mask }
    }
}

impl MlmNsp {
    /// What the maker of pairs is asked for.
    #[must_use]
    pub fn settings(&self) -> NspSettings {
        let Self { max_len, short_seq_prob, random_next, .. } = *self;
        NspSettings { max_len, short_seq_prob, random_next, mask: self.mask.clone() }
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        check_length(problems, "max_len", self.max_len, 5);
        check_range(problems, "objective.short_seq_prob", self.short_seq_prob, 0., 1.);
        check_range(problems, "objective.random_next", self.random_next, 0., 1.);
        check_mask(problems, &self.mask);
    }
}

//! XLM-RoBERTa: RoBERTa over a hundred languages (Conneau et al. 2020); the names of its classes differ.

use serde::{Deserialize, Serialize};

use crate::bert;
use crate::config::ConfigError;
use crate::family::Family;
use crate::names::Rule;
use crate::roberta::{self, pad_token_id};
use crate::{Arch, Task, Wanted};

/// `config.json`, field for field: RoBERTa's, its vocabulary BERT's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    #[serde(default = "pad_token_id")]
    pad_token_id: Option<i64>,
    #[serde(flatten)]
    base: bert::Config,
}

impl Family for Config {
    const MODEL_TYPE: &'static str = "xlm-roberta";
    const ARCHITECTURES: &'static [(Task, &'static str)] = &[
        (Task::Base, "XLMRobertaModel"),
        (Task::MaskedLm, "XLMRobertaForMaskedLM"),
        (Task::CausalLm, "XLMRobertaForCausalLM"),
        (Task::SequenceClassification, "XLMRobertaForSequenceClassification"),
        (Task::TokenClassification, "XLMRobertaForTokenClassification"),
        (Task::QuestionAnswering, "XLMRobertaForQuestionAnswering"),
        (Task::MultipleChoice, "XLMRobertaForMultipleChoice"),
    ];
    const NAMES: &'static [Rule] = roberta::NAMES;
    const PREFIX: &'static str = "roberta.";
    const BUFFERS: &'static [&'static str] = roberta::Config::BUFFERS;

    fn arch(&self, wanted: &Wanted) -> Result<Arch, ConfigError> {
        let Self { pad_token_id, base } = self.clone();
        roberta::Config { vocab_size: base.vocab_size, pad_token_id, base }.arch(wanted)
    }
}

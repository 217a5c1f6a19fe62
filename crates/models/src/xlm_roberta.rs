//! XLM-RoBERTa: RoBERTa over a hundred languages (Conneau et al. 2020); the names of its classes differ.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::ConfigError;
use crate::family::Family;
use crate::names::Rule;
use crate::roberta;
use crate::{Arch, Task, Wanted};

/// `config.json`, field for field: RoBERTa's, its vocabulary BERT's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    #[serde(flatten)]
    base: roberta::Config,
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

    fn defaults() -> Value {
        json!({"pad_token_id": 1})
    }

    fn arch(&self, wanted: &Wanted) -> Result<Arch, ConfigError> {
        self.base.arch(wanted)
    }
}

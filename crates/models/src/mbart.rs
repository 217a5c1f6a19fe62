//! mBART: BART over many languages, pre-norm, whose decoder begins with the name of a language (Liu et al. 2020).

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::arch::Shift;
use crate::bart::{self, ALIASES, BUFFERS, IGNORED, NAMES, Variant};
use crate::config::{self, ConfigError};
use crate::family::Family;
use crate::names::Rule;
use crate::{Arch, Task, Wanted};

/// `config.json`, field for field: BART's.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Config(bart::Config);

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        config::over(deserializer, json!({"decoder_start_token_id": Value::Null})).map(Self)
    }
}

impl Family for Config {
    const MODEL_TYPE: &'static str = "mbart";
    const ARCHITECTURES: &'static [(Task, &'static str)] = &[
        (Task::Seq2SeqLm, "MBartForConditionalGeneration"),
        (Task::Base, "MBartModel"),
        (Task::SequenceClassification, "MBartForSequenceClassification"),
        (Task::QuestionAnswering, "MBartForQuestionAnswering"),
    ];
    const NAMES: &'static [Rule] = NAMES;
    const PREFIX: &'static str = "model.";
    const BUFFERS: &'static [&'static str] = BUFFERS;
    const ALIASES: &'static [(&'static str, &'static str)] = ALIASES;
    const IGNORED: &'static [&'static str] = IGNORED;

    fn arch(&self, wanted: &Wanted) -> Result<Arch, ConfigError> {
        let mut arch = self.0.build(wanted, Variant::MBart, self.0.vocab_size)?;
        arch.shift = arch.tokens.padding.map(|pad| Shift::Last { pad });
        Ok(arch)
    }
}

//! mT5: T5 1.1 over a hundred languages (Xue et al. 2021): other sizes, and a head that is never scaled.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

use crate::config::{self, ConfigError};
use crate::family::Family;
use crate::names::Rule;
use crate::t5::{self, ALIASES, BARE, BUFFERS, IGNORED, NAMES, PREFIX, Variant};
use crate::{Arch, Task, Wanted};

/// `config.json`, field for field: T5's.
#[derive(Clone, Debug, Serialize)]
#[serde(transparent)]
pub struct Config(t5::Config);

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let defaults = json!({"vocab_size": 250_112, "d_ff": 1024, "num_layers": 8, "num_heads": 6,
            "feed_forward_proj": "gated-gelu", "decoder_start_token_id": 0});
        config::over(deserializer, defaults).map(Self)
    }
}

impl Family for Config {
    const MODEL_TYPE: &'static str = "mt5";
    const ARCHITECTURES: &'static [(Task, &'static str)] = &[
        (Task::Seq2SeqLm, "MT5ForConditionalGeneration"),
        (Task::Base, "MT5Model"),
        (Task::Encoder, "MT5EncoderModel"),
        (Task::SequenceClassification, "MT5ForSequenceClassification"),
        (Task::TokenClassification, "MT5ForTokenClassification"),
        (Task::QuestionAnswering, "MT5ForQuestionAnswering"),
    ];
    const NAMES: &'static [Rule] = NAMES;
    const PREFIX: &'static str = PREFIX;
    const BARE: &'static [Task] = BARE;
    const BUFFERS: &'static [&'static str] = BUFFERS;
    const ALIASES: &'static [(&'static str, &'static str)] = ALIASES;
    const IGNORED: &'static [&'static str] = IGNORED;

    fn arch(&self, wanted: &Wanted) -> Result<Arch, ConfigError> {
        self.0.build(wanted, Variant { scaled: false, bias_each: false })
    }
}

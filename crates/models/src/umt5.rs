//! UMT5: mT5 whose layers each have a bias by distance of their own (Chung et al. 2023).

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
    const MODEL_TYPE: &'static str = "umt5";
    const ARCHITECTURES: &'static [(Task, &'static str)] = &[
        (Task::Seq2SeqLm, "UMT5ForConditionalGeneration"),
        (Task::Base, "UMT5Model"),
        (Task::Encoder, "UMT5EncoderModel"),
        (Task::SequenceClassification, "UMT5ForSequenceClassification"),
        (Task::TokenClassification, "UMT5ForTokenClassification"),
        (Task::QuestionAnswering, "UMT5ForQuestionAnswering"),
    ];
    const NAMES: &'static [Rule] = NAMES;
    const PREFIX: &'static str = PREFIX;
    const BARE: &'static [Task] = BARE;
    const BUFFERS: &'static [&'static str] = BUFFERS;
    const ALIASES: &'static [(&'static str, &'static str)] = ALIASES;
    const IGNORED: &'static [&'static str] = IGNORED;

    fn arch(&self, wanted: &Wanted) -> Result<Arch, ConfigError> {
        // A file that unties the head was trained without the scale; transformers 5 scales all the same.
        self.0.build(wanted, Variant { scaled: !self.0.untied(), bias_each: true })
    }
}

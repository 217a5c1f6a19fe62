//! Qwen3: Qwen2 with a norm over each head of q and k in place of their biases (Yang et al. 2025).

use serde::{Deserialize, Serialize};

use crate::config::ConfigError;
use crate::family::Family;
use crate::gguf::table::{self, Field, Table};
use crate::llama::{Decoder, GGUF_NAMES, NAMES};
use crate::names::Rule;
use crate::qwen2;
use crate::{Arch, Task, Wanted};

/// `config.json`, field for field: Qwen2's and one more.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Config {
    #[serde(flatten)]
    base: qwen2::Config,
    #[serde(default)]
    attention_bias: bool,
}

/// Size of a head where the file states none: not `hidden_size / num_attention_heads`.
const HEAD_DIM: usize = 128;

impl Family for Config {
    const MODEL_TYPE: &'static str = "qwen3";
    const ARCHITECTURES: &'static [(Task, &'static str)] = &[
        (Task::CausalLm, "Qwen3ForCausalLM"),
        (Task::SequenceClassification, "Qwen3ForSequenceClassification"),
        (Task::TokenClassification, "Qwen3ForTokenClassification"),
        (Task::Base, "Qwen3Model"),
    ];
    const NAMES: &'static [Rule] = NAMES;
    const PREFIX: &'static str = "model.";
    const BUFFERS: &'static [&'static str] = &[".rotary_emb.inv_freq"];
    const IGNORED: &'static [&'static str] = &["mlp_bias"];

    const GGUF: Option<Table> = Some(Table {
        arch: "qwen3",
        marked_by: None,
        fields: &[
            table::COMMON,
            table::DECODER,
            table::GROUPED,
            table::DENSE,
            &[Field::Present("attention_bias", "blk.0.attn_q.bias")],
        ],
        names: GGUF_NAMES,
    });

    fn arch(&self, wanted: &Wanted) -> Result<Arch, ConfigError> {
        let head_dim = self.base.stated_head_dim().unwrap_or(HEAD_DIM);
        let base = self.base.decoder(head_dim)?;
        Decoder { qkv_bias: self.attention_bias, o_bias: self.attention_bias, qk_norm: true, ..base }.arch(wanted)
    }
}

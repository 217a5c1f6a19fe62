//! Mistral: Llama with a sliding window on every layer (Jiang et al. 2023).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use phyla_nn::Act;

use crate::config::{self, ConfigError, RopeFields, count, invalid, refused};
use crate::family::Family;
use crate::gguf::Table;
use crate::llama::{self, Decoder, NAMES};
use crate::names::Rule;
use crate::{Arch, Task, Wanted};

/// `config.json`, field for field.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    vocab_size: usize,
    hidden_size: usize,
    pub(crate) intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: Option<usize>,
    hidden_act: String,
    max_position_embeddings: usize,
    initializer_range: f64,
    rms_norm_eps: f64,
    #[serde(flatten)]
    rope: RopeFields,
    sliding_window: Option<usize>,
    attention_dropout: f64,
    tie_word_embeddings: bool,
    pad_token_id: Option<i64>,
    is_causal: bool,
    /// Another architecture altogether; refused.
    #[serde(skip_serializing)]
    layer_types: Value,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 32_000,
            hidden_size: 4096,
            intermediate_size: 14_336,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: 8,
            head_dim: None,
            hidden_act: "silu".into(),
            max_position_embeddings: 131_072,
            initializer_range: 0.02,
            rms_norm_eps: 1e-6,
            rope: RopeFields::default(),
            sliding_window: Some(4096),
            attention_dropout: 0.,
            tie_word_embeddings: false,
            pad_token_id: None,
            is_causal: true,
            layer_types: Value::Null,
        }
    }
}

impl Config {
    /// The activation of the feed-forward blocks.
    pub(crate) fn act(&self) -> Result<Act, ConfigError> {
        config::activation("hidden_act", &self.hidden_act)
    }
}

impl Family for Config {
    const MODEL_TYPE: &'static str = "mistral";
    const ARCHITECTURES: &'static [(Task, &'static str)] = &[
        (Task::CausalLm, "MistralForCausalLM"),
        (Task::SequenceClassification, "MistralForSequenceClassification"),
        (Task::TokenClassification, "MistralForTokenClassification"),
        (Task::Base, "MistralModel"),
    ];
    const NAMES: &'static [Rule] = NAMES;
    const PREFIX: &'static str = "model.";
    const BUFFERS: &'static [&'static str] = &[".rotary_emb.inv_freq"];
    const IGNORED: &'static [&'static str] = &["attention_bias", "mlp_bias"];
    /// Written as what it is called there; what is read is the same without windows.
    const GGUF: Option<Table> = llama::GGUF;

    fn arch(&self, wanted: &Wanted) -> Result<Arch, ConfigError> {
        if !self.layer_types.is_null() {
            return Err(refused("layer_types", "with it the file describes ministral, another architecture"));
        }
        let head_dim = match self.head_dim {
            Some(head_dim) => head_dim,
            None if self.num_attention_heads > 0 => self.hidden_size / self.num_attention_heads,
            None => return Err(invalid("num_attention_heads", "expected at least 1, found 0")),
        };
        Decoder {
            vocab: self.vocab_size,
            hidden: self.hidden_size,
            inner: self.intermediate_size,
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads,
            head_dim,
            act: &self.hidden_act,
            eps: self.rms_norm_eps,
            rope: self.rope.build(head_dim, self.max_position_embeddings)?,
            qkv_bias: false,
            o_bias: false,
            mlp_bias: false,
            qk_norm: false,
            windows: vec![self.sliding_window; count("num_hidden_layers", self.num_hidden_layers, "layers")?],
            dropout: self.attention_dropout,
            tied: self.tie_word_embeddings,
            std: self.initializer_range,
            padding: self.pad_token_id,
            context: self.max_position_embeddings,
            causal: self.is_causal,
        }
        .arch(wanted)
    }
}

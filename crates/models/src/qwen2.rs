//! Qwen2: Llama with biases on q, k and v, and sliding windows on the upper layers (Yang et al. 2024).

use serde::{Deserialize, Serialize};

use phyla_nn::Act;

use crate::config::{self, ConfigError, RopeFields, count, invalid};
use crate::family::Family;
use crate::gguf::table::{self, Table};
use crate::llama::{Decoder, GGUF_NAMES, NAMES};
use crate::names::Rule;
use crate::windows;
use crate::{Arch, Task, Wanted};

/// `config.json`, field for field.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    hidden_act: String,
    max_position_embeddings: usize,
    initializer_range: f64,
    rms_norm_eps: f64,
    #[serde(flatten)]
    rope: RopeFields,
    use_sliding_window: bool,
    sliding_window: Option<usize>,
    max_window_layers: usize,
    layer_types: Option<Vec<String>>,
    attention_dropout: f64,
    tie_word_embeddings: bool,
    pad_token_id: Option<i64>,
    is_causal: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 151_936,
            hidden_size: 4096,
            intermediate_size: 22_016,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: Some(32),
            head_dim: None,
            hidden_act: "silu".into(),
            max_position_embeddings: 32_768,
            initializer_range: 0.02,
            rms_norm_eps: 1e-6,
            rope: RopeFields::default(),
            use_sliding_window: false,
            sliding_window: Some(4096),
            max_window_layers: 28,
            layer_types: None,
            attention_dropout: 0.,
            tie_word_embeddings: false,
            pad_token_id: None,
            is_causal: true,
        }
    }
}

impl Config {
    /// Qwen3 is this with other options.
    pub(crate) fn decoder(&self, head_dim: usize) -> Result<Decoder<'_>, ConfigError> {
        let layers = count("num_hidden_layers", self.num_hidden_layers, "layers")?;
        let window = self.sliding_window.filter(|_| self.use_sliding_window);
        Ok(Decoder {
            vocab: self.vocab_size,
            hidden: self.hidden_size,
            inner: self.intermediate_size,
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
            head_dim,
            act: &self.hidden_act,
            eps: self.rms_norm_eps,
            rope: self.rope.build(head_dim, self.max_position_embeddings)?,
            qkv_bias: true,
            o_bias: false,
            mlp_bias: false,
            qk_norm: false,
            windows: windows::by_layer(layers, self.layer_types.as_deref(), window, self.max_window_layers)?,
            dropout: self.attention_dropout,
            tied: self.tie_word_embeddings,
            std: self.initializer_range,
            padding: self.pad_token_id,
            context: self.max_position_embeddings,
            causal: self.is_causal,
        })
    }

    /// The size of a head: as stated, or a share of the residual stream.
    pub(crate) fn head_dim(&self) -> Result<usize, ConfigError> {
        match (self.head_dim, self.num_attention_heads) {
            (Some(stated), _) => Ok(stated),
            (None, 0) => Err(invalid("num_attention_heads", "expected at least 1, found 0")),
            (None, heads) => Ok(self.hidden_size / heads),
        }
    }

    /// One window for all layers, if they have one.
    pub(crate) fn equal_windows(&self) -> Vec<Option<usize>> {
        vec![self.sliding_window.filter(|_| self.use_sliding_window); self.num_hidden_layers]
    }

    /// The windows by the rule of the mixtures.
    pub(crate) fn alternating_windows(&self) -> Result<Vec<Option<usize>>, ConfigError> {
        let window = self.sliding_window.filter(|_| self.use_sliding_window);
        windows::alternating(self.num_hidden_layers, self.layer_types.as_deref(), window, self.max_window_layers)
    }

    /// The activation of the feed-forward blocks.
    pub(crate) fn act(&self) -> Result<Act, ConfigError> {
        config::activation("hidden_act", &self.hidden_act)
    }

    /// The size of a head where the file states one.
    pub(crate) fn stated_head_dim(&self) -> Option<usize> {
        self.head_dim
    }
}

impl Family for Config {
    const MODEL_TYPE: &'static str = "qwen2";
    const ARCHITECTURES: &'static [(Task, &'static str)] = &[
        (Task::CausalLm, "Qwen2ForCausalLM"),
        (Task::SequenceClassification, "Qwen2ForSequenceClassification"),
        (Task::TokenClassification, "Qwen2ForTokenClassification"),
        (Task::Base, "Qwen2Model"),
    ];
    const NAMES: &'static [Rule] = NAMES;
    const PREFIX: &'static str = "model.";
    const BUFFERS: &'static [&'static str] = &[".rotary_emb.inv_freq"];
    const IGNORED: &'static [&'static str] = &["attention_bias", "mlp_bias"];

    const GGUF: Option<Table> = Some(Table {
        arch: "qwen2",
        marked_by: None,
        fields: &[table::COMMON, table::DECODER, table::GROUPED, table::DENSE],
        names: GGUF_NAMES,
    });

    fn arch(&self, wanted: &Wanted) -> Result<Arch, ConfigError> {
        self.decoder(self.head_dim()?)?.arch(wanted)
    }
}

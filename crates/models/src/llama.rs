//! Llama: pre-norm decoder with RMS norm, rotary positions, grouped queries and a gated MLP
//! (Touvron et al. 2023). Mistral and Qwen are this with other options.

use std::sync::Arc;

use phyla_nn::{AttentionSpec, LayerSpec, MlpSpec, NormSpec, RopeSpec};
use serde::{Deserialize, Serialize};

use crate::arch::decoder_heads;
use crate::config::{self, ConfigError, RopeFields, count, invalid};
use crate::family::Family;
use crate::gguf::table::{self, Field, Table};
use crate::names::{Rule, join, paired, whole};
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
    attention_bias: bool,
    attention_dropout: f64,
    mlp_bias: bool,
    tie_word_embeddings: bool,
    pad_token_id: Option<i64>,
    is_causal: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 32_000,
            hidden_size: 4096,
            intermediate_size: 11_008,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: None,
            head_dim: None,
            hidden_act: "silu".into(),
            max_position_embeddings: 2048,
            initializer_range: 0.02,
            rms_norm_eps: 1e-6,
            rope: RopeFields::default(),
            attention_bias: false,
            attention_dropout: 0.,
            mlp_bias: false,
            tie_word_embeddings: false,
            pad_token_id: None,
            is_causal: true,
        }
    }
}

/// Ours, theirs.
pub(crate) const NAMES: &[Rule] = &[
    whole("tokens", "model.embed_tokens"),
    whole("decoder.layers.{}.attn_norm", "model.layers.{}.input_layernorm"),
    whole("decoder.layers.{}.attn.q", "model.layers.{}.self_attn.q_proj"),
    whole("decoder.layers.{}.attn.k", "model.layers.{}.self_attn.k_proj"),
    whole("decoder.layers.{}.attn.v", "model.layers.{}.self_attn.v_proj"),
    whole("decoder.layers.{}.attn.o", "model.layers.{}.self_attn.o_proj"),
    whole("decoder.layers.{}.attn.q_norm", "model.layers.{}.self_attn.q_norm"),
    whole("decoder.layers.{}.attn.k_norm", "model.layers.{}.self_attn.k_norm"),
    whole("decoder.layers.{}.mlp_norm", "model.layers.{}.post_attention_layernorm"),
    whole("decoder.layers.{}.mlp.gate", "model.layers.{}.mlp.gate_proj"),
    whole("decoder.layers.{}.mlp.up", "model.layers.{}.mlp.up_proj"),
    whole("decoder.layers.{}.mlp.down", "model.layers.{}.mlp.down_proj"),
    whole("decoder.norm", "model.norm"),
    whole("head", "lm_head"),
    whole("score", "score"),
    whole("tags", "score"),
];

/// Ours, theirs in GGUF files.
pub(crate) const GGUF_NAMES: &[Rule] = &[
    whole("tokens", "token_embd"),
    whole("decoder.layers.{}.attn_norm", "blk.{}.attn_norm"),
    whole("decoder.layers.{}.attn.q", "blk.{}.attn_q"),
    whole("decoder.layers.{}.attn.k", "blk.{}.attn_k"),
    whole("decoder.layers.{}.attn.v", "blk.{}.attn_v"),
    whole("decoder.layers.{}.attn.o", "blk.{}.attn_output"),
    whole("decoder.layers.{}.attn.q_norm", "blk.{}.attn_q_norm"),
    whole("decoder.layers.{}.attn.k_norm", "blk.{}.attn_k_norm"),
    whole("decoder.layers.{}.mlp_norm", "blk.{}.ffn_norm"),
    whole("decoder.layers.{}.mlp.gate", "blk.{}.ffn_gate"),
    whole("decoder.layers.{}.mlp.up", "blk.{}.ffn_up"),
    whole("decoder.layers.{}.mlp.down", "blk.{}.ffn_down"),
    whole("decoder.norm", "output_norm"),
    whole("head", "output"),
];

/// Which maps have a bias.
const GGUF_BIASES: &[Field] =
    &[Field::Present("attention_bias", "blk.0.attn_q.bias"), Field::Present("mlp_bias", "blk.0.ffn_up.bias")];

/// Llama's own: llama.cpp turns neighbouring rows of queries and keys, and stores them so.
const GGUF_PAIRS: &[Rule] =
    &[paired("decoder.layers.{}.attn.q", "blk.{}.attn_q"), paired("decoder.layers.{}.attn.k", "blk.{}.attn_k")];

/// In GGUF files.
pub(crate) const GGUF: Option<Table> = Some(Table {
    arch: "llama",
    marked_by: None,
    fields: &[table::COMMON, table::DECODER, table::GROUPED, table::DENSE, GGUF_BIASES],
    names: &join::<{ GGUF_PAIRS.len() + GGUF_NAMES.len() }>(GGUF_PAIRS, GGUF_NAMES),
});

impl Family for Config {
    const MODEL_TYPE: &'static str = "llama";
    const ARCHITECTURES: &'static [(Task, &'static str)] = &[
        (Task::CausalLm, "LlamaForCausalLM"),
        (Task::SequenceClassification, "LlamaForSequenceClassification"),
        (Task::TokenClassification, "LlamaForTokenClassification"),
        (Task::Base, "LlamaModel"),
    ];
    const NAMES: &'static [Rule] = NAMES;
    const PREFIX: &'static str = "model.";
    const BUFFERS: &'static [&'static str] = &[".rotary_emb.inv_freq"];
    const IGNORED: &'static [&'static str] =
        &["sliding_window", "layer_types", "use_sliding_window", "max_window_layers", "rope_interleaved"];

    const GGUF: Option<Table> = GGUF;

    fn arch(&self, wanted: &Wanted) -> Result<Arch, ConfigError> {
        if self.num_attention_heads == 0 || !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return Err(invalid(
                "hidden_size",
                format!("{} is not a multiple of {} heads", self.hidden_size, self.num_attention_heads),
            ));
        }
        let head_dim = self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads);
        Decoder {
            vocab: self.vocab_size,
            hidden: self.hidden_size,
            inner: self.intermediate_size,
            heads: self.num_attention_heads,
            kv_heads: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
            head_dim,
            act: &self.hidden_act,
            eps: self.rms_norm_eps,
            rope: self.rope.build(head_dim, self.max_position_embeddings)?,
            qkv_bias: self.attention_bias,
            o_bias: self.attention_bias,
            mlp_bias: self.mlp_bias,
            qk_norm: false,
            windows: vec![None; count("num_hidden_layers", self.num_hidden_layers, "layers")?],
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

/// What the families of this shape decide.
pub(crate) struct Decoder<'a> {
    pub vocab: usize,
    pub hidden: usize,
    pub inner: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub act: &'a str,
    pub eps: f64,
    pub rope: Arc<RopeSpec>,
    pub qkv_bias: bool,
    pub o_bias: bool,
    pub mlp_bias: bool,
    pub qk_norm: bool,
    pub windows: Vec<Option<usize>>,
    pub dropout: f64,
    pub tied: bool,
    pub std: f64,
    pub padding: Option<i64>,
    pub context: usize,
    pub causal: bool,
}

impl Decoder<'_> {
    /// The architecture, once the numbers make sense.
    pub fn arch(self, wanted: &Wanted) -> Result<Arch, ConfigError> {
        self.check()?;
        let (std, norm) = (config::std(self.std)?, NormSpec::Rms { eps: self.eps });
        let attention = AttentionSpec {
            rope: Some(self.rope.clone()),
            qkv_bias: self.qkv_bias,
            o_bias: self.o_bias,
            qk_norm: self.qk_norm.then_some(norm),
            dropout: config::probability("attention_dropout", self.dropout)?,
            ..AttentionSpec::grouped(self.hidden, self.heads, self.kv_heads, self.head_dim, std)
        };
        let act = config::activation("hidden_act", self.act)?;
        let mlp = MlpSpec { bias: self.mlp_bias, ..MlpSpec::gated(self.hidden, self.inner, act, std) };
        let layer = |&window: &Option<usize>| {
            let attention = AttentionSpec { window, ..attention.clone() };
            LayerSpec::pre_norm(self.hidden, norm, [attention.into(), mlp.into()])
        };
        let mut arch = Arch::decoder(self.vocab, self.hidden, self.context, std);
        arch.tokens.padding = config::padding(self.padding, self.vocab)?;
        arch.heads = decoder_heads(&arch, wanted, self.tied, arch.tokens.padding);
        let tower = arch.main_mut();
        tower.layers = self.windows.iter().map(layer).collect();
        tower.final_norm = Some(norm);
        tower.causal = self.causal;
        Ok(arch)
    }

    fn check(&self) -> Result<(), ConfigError> {
        count("vocab_size", self.vocab, "vocabulary")?;
        count("hidden_size", self.hidden, "size")?;
        count("intermediate_size", self.inner, "size")?;
        count("num_attention_heads", self.heads, "size")?;
        count("num_key_value_heads", self.kv_heads, "size")?;
        count("head_dim", self.head_dim, "size")?;
        count("num_attention_heads times head_dim", self.heads * self.head_dim, "size")?;
        count("max_position_embeddings", self.context, "positions")?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(invalid(
                "num_key_value_heads",
                format!("{} does not divide {} heads", self.kv_heads, self.heads),
            ));
        }
        if self.windows.iter().flatten().any(|&window| window == 0) {
            return Err(invalid("sliding_window", "expected at least 1, found 0"));
        }
        Ok(())
    }
}

//! GPT-2: pre-norm decoder with learned positions, layer norm and a plain GELU MLP (Radford et al. 2019); its
//! checkpoints store linear maps transposed, and q, k, v as one.

use phyla_nn::{AttentionSpec, EmbeddingSpec, LayerSpec, MlpSpec, NormSpec, Positions, TokenTypes};
use serde::{Deserialize, Serialize};

use crate::arch::decoder_heads;
use crate::config::{self, ConfigError, count, invalid, refused};
use crate::family::Family;
use crate::gguf::table::{self, Field, Fixed, Table};
use crate::names::{Rule, part, part_t, whole, whole_t};
use crate::{Arch, Task, Wanted};

/// `config.json`, field for field.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    vocab_size: usize,
    n_positions: usize,
    n_embd: usize,
    n_layer: usize,
    n_head: usize,
    n_inner: Option<usize>,
    activation_function: String,
    resid_pdrop: f64,
    embd_pdrop: f64,
    attn_pdrop: f64,
    layer_norm_epsilon: f64,
    initializer_range: f64,
    scale_attn_weights: bool,
    scale_attn_by_inverse_layer_idx: bool,
    /// Scores are always in f32 here.
    reorder_and_upcast_attn: bool,
    add_cross_attention: bool,
    tie_word_embeddings: bool,
    pad_token_id: Option<i64>,
    is_causal: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 50_257,
            n_positions: 1024,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            n_inner: None,
            activation_function: "gelu_new".into(),
            resid_pdrop: 0.1,
            embd_pdrop: 0.1,
            attn_pdrop: 0.1,
            layer_norm_epsilon: 1e-5,
            initializer_range: 0.02,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            reorder_and_upcast_attn: false,
            add_cross_attention: false,
            tie_word_embeddings: true,
            pad_token_id: None,
            is_causal: true,
        }
    }
}

/// `config.json` by the keys of GGUF files.
const GGUF_FIELDS: &[Field] = &[
    Field::Need("n_layer", &["block_count"]),
    Field::Need("n_embd", &["embedding_length"]),
    Field::Need("n_inner", &["feed_forward_length"]),
    Field::Need("n_head", &["attention.head_count"]),
    Field::Need("layer_norm_epsilon", &["attention.layer_norm_epsilon"]),
    Field::Rows("n_positions", "position_embd.weight", "tokenizer.ggml.tokens"),
    Field::Always("activation_function", Fixed::Text("gelu_new")),
    Field::Absent("tie_word_embeddings", "output.weight"),
    Field::Unread("context_length"),
];

/// Ours, theirs in GGUF files, where linear maps are as ours.
const GGUF_NAMES: &[Rule] = &[
    whole("tokens", "token_embd"),
    whole("decoder.positions", "position_embd"),
    whole("decoder.layers.{}.attn_norm", "blk.{}.attn_norm"),
    part("decoder.layers.{}.attn.q", "blk.{}.attn_qkv", 0, 3),
    part("decoder.layers.{}.attn.k", "blk.{}.attn_qkv", 1, 3),
    part("decoder.layers.{}.attn.v", "blk.{}.attn_qkv", 2, 3),
    whole("decoder.layers.{}.attn.o", "blk.{}.attn_output"),
    whole("decoder.layers.{}.mlp_norm", "blk.{}.ffn_norm"),
    whole("decoder.layers.{}.mlp.up", "blk.{}.ffn_up"),
    whole("decoder.layers.{}.mlp.down", "blk.{}.ffn_down"),
    whole("decoder.norm", "output_norm"),
    whole("head", "output"),
];

impl Family for Config {
    const MODEL_TYPE: &'static str = "gpt2";
    const ARCHITECTURES: &'static [(Task, &'static str)] = &[
        (Task::CausalLm, "GPT2LMHeadModel"),
        (Task::SequenceClassification, "GPT2ForSequenceClassification"),
        (Task::TokenClassification, "GPT2ForTokenClassification"),
        (Task::QuestionAnswering, "GPT2ForQuestionAnswering"),
        (Task::Base, "GPT2Model"),
    ];
    const NAMES: &'static [Rule] = &[
        whole("tokens", "transformer.wte"),
        whole("decoder.positions", "transformer.wpe"),
        whole("decoder.layers.{}.attn_norm", "transformer.h.{}.ln_1"),
        part_t("decoder.layers.{}.attn.q", "transformer.h.{}.attn.c_attn", 0, 3),
        part_t("decoder.layers.{}.attn.k", "transformer.h.{}.attn.c_attn", 1, 3),
        part_t("decoder.layers.{}.attn.v", "transformer.h.{}.attn.c_attn", 2, 3),
        whole_t("decoder.layers.{}.attn.o", "transformer.h.{}.attn.c_proj"),
        whole("decoder.layers.{}.mlp_norm", "transformer.h.{}.ln_2"),
        whole_t("decoder.layers.{}.mlp.up", "transformer.h.{}.mlp.c_fc"),
        whole_t("decoder.layers.{}.mlp.down", "transformer.h.{}.mlp.c_proj"),
        whole("decoder.norm", "transformer.ln_f"),
        whole("head", "lm_head"),
        whole("score", "score"),
        whole("tags", "classifier"),
        whole("span", "qa_outputs"),
    ];
    const PREFIX: &'static str = "transformer.";
    const BUFFERS: &'static [&'static str] = &[".attn.bias", ".attn.masked_bias"];
    const ALIASES: &'static [(&'static str, &'static str)] = &[
        ("max_position_embeddings", "n_positions"),
        ("hidden_size", "n_embd"),
        ("num_hidden_layers", "n_layer"),
        ("num_attention_heads", "n_head"),
    ];
    const IGNORED: &'static [&'static str] = &[
        "n_ctx",
        "hidden_act",
        "summary_type",
        "summary_use_proj",
        "summary_activation",
        "summary_proj_to_labels",
        "summary_first_dropout",
    ];

    const GGUF: Option<Table> =
        Some(Table { arch: "gpt2", marked_by: None, fields: &[table::COMMON, GGUF_FIELDS], names: GGUF_NAMES });

    fn arch(&self, wanted: &Wanted) -> Result<Arch, ConfigError> {
        self.check()?;
        let (std, hidden, layers) = (config::std(self.initializer_range)?, self.n_embd, self.n_layer);
        // Residual branches start smaller, so that their sum over the layers keeps its size (section 2.3).
        let residual_std = std / (2. * layers as f32).sqrt();
        let norm = NormSpec::Layer { eps: self.layer_norm_epsilon };
        let dropout = config::probability("resid_pdrop", self.resid_pdrop)?;
        let attention = AttentionSpec {
            qkv_bias: true,
            o_bias: true,
            dropout: config::probability("attn_pdrop", self.attn_pdrop)?,
            o_std: residual_std,
            ..AttentionSpec::grouped(hidden, self.n_head, self.n_head, hidden / self.n_head, std)
        };
        let act = config::activation("activation_function", &self.activation_function)?;
        let mlp =
            MlpSpec { down_std: residual_std, ..MlpSpec::plain(hidden, self.n_inner.unwrap_or(4 * hidden), act, std) };
        let layer = |index: usize| {
            let attention = AttentionSpec { scale: self.scale(attention.scale, index), ..attention.clone() };
            LayerSpec { dropout, ..LayerSpec::pre_norm(hidden, norm, [attention.into(), mlp.into()]) }
        };
        let mut arch = Arch::decoder(self.vocab_size, hidden, self.n_positions, std);
        arch.context_is_hard = true;
        // The table has no row without gradient; the id tells a classifier where a text ends.
        let pad = config::padding(self.pad_token_id, self.vocab_size)?;
        arch.heads = decoder_heads(&arch, wanted, self.tie_word_embeddings, pad);
        let tower = arch.main_mut();
        let table = EmbeddingSpec { rows: self.n_positions, dim: hidden, std, padding: None };
        tower.embed.positions = Positions::Learned { table, offset: 0 };
        tower.embed.token_types = TokenTypes::TokenTable;
        tower.embed.dropout = config::probability("embd_pdrop", self.embd_pdrop)?;
        tower.layers = (0..layers).map(layer).collect();
        tower.final_norm = Some(norm);
        tower.causal = self.is_causal;
        Ok(arch)
    }
}

impl Config {
    fn scale(&self, usual: f32, layer: usize) -> f32 {
        let scale = if self.scale_attn_weights { usual } else { 1. };
        if self.scale_attn_by_inverse_layer_idx { scale / (layer + 1) as f32 } else { scale }
    }

    fn check(&self) -> Result<(), ConfigError> {
        count("vocab_size", self.vocab_size, "vocabulary")?;
        count("n_positions", self.n_positions, "vocabulary")?;
        count("n_embd", self.n_embd, "size")?;
        count("n_layer", self.n_layer, "layers")?;
        count("n_head", self.n_head, "size")?;
        count("n_inner", self.n_inner.unwrap_or(1), "size")?;
        if !self.n_embd.is_multiple_of(self.n_head) {
            return Err(invalid("n_embd", format!("{} is not a multiple of {} heads", self.n_embd, self.n_head)));
        }
        if self.add_cross_attention {
            return Err(refused("add_cross_attention", "there is no encoder to attend to"));
        }
        Ok(())
    }
}

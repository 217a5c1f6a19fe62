//! BART: post-norm encoder-decoder with learned positions, a norm over the embeddings and biases everywhere, among them
//! one on the logits (Lewis et al. 2020). mBART and Marian differ in where norms stand and in their positions.

use phyla_nn::{
    Act, AttentionSpec, EmbedSpec, EmbeddingSpec, HeadSpec, LayerSpec, LinearSpec, MlpSpec, NormSpec, Output,
    Positions, Reads, Residual, Sinusoids, SublayerSpec, TiedBias, TokenTable, TowerSpec, TransformSpec,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::arch::{Shift, lm, own, span};
use crate::config::{self, ConfigError, count, invalid, refused};
use crate::family::Family;
use crate::names::{Rule, row, whole};
use crate::{Arch, Task, Towers, Wanted};

/// `config.json`, field for field.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    pub(crate) vocab_size: usize,
    max_position_embeddings: usize,
    encoder_layers: usize,
    encoder_ffn_dim: usize,
    encoder_attention_heads: usize,
    encoder_layerdrop: f64,
    decoder_layers: usize,
    decoder_ffn_dim: usize,
    decoder_attention_heads: usize,
    decoder_layerdrop: f64,
    activation_function: String,
    pub(crate) d_model: usize,
    dropout: f64,
    attention_dropout: f64,
    activation_dropout: f64,
    classifier_dropout: f64,
    init_std: f64,
    scale_embedding: bool,
    pad_token_id: Option<i64>,
    eos_token_id: Value,
    pub(crate) decoder_start_token_id: Option<u32>,
    pub(crate) tie_word_embeddings: bool,
    is_decoder: bool,
    /// What old files say of the family itself; another answer would be another family.
    normalize_before: Option<bool>,
    add_final_layer_norm: Option<bool>,
    normalize_embedding: Option<bool>,
    static_position_embeddings: Option<bool>,
    add_bias_logits: Option<bool>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 50_265,
            max_position_embeddings: 1024,
            encoder_layers: 12,
            encoder_ffn_dim: 4096,
            encoder_attention_heads: 16,
            encoder_layerdrop: 0.,
            decoder_layers: 12,
            decoder_ffn_dim: 4096,
            decoder_attention_heads: 16,
            decoder_layerdrop: 0.,
            activation_function: "gelu".into(),
            d_model: 1024,
            dropout: 0.1,
            attention_dropout: 0.,
            activation_dropout: 0.,
            classifier_dropout: 0.,
            init_std: 0.02,
            scale_embedding: false,
            pad_token_id: Some(1),
            eos_token_id: json!(2),
            decoder_start_token_id: Some(2),
            tie_word_embeddings: true,
            is_decoder: false,
            normalize_before: None,
            add_final_layer_norm: None,
            normalize_embedding: None,
            static_position_embeddings: None,
            add_bias_logits: None,
        }
    }
}

/// In what the members of the family differ.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// Post-norm.
    Bart,
    /// Pre-norm, and a norm at the end of each tower.
    MBart,
    /// Post-norm, sinusoids for positions, no norm over the embeddings.
    Marian,
}

pub(crate) const BUFFERS: &[&str] = &["encoder.version", "decoder.version", "final_logits_bias"];
pub(crate) const ALIASES: &[(&str, &str)] = &[
    ("hidden_size", "d_model"),
    ("num_hidden_layers", "encoder_layers"),
    ("num_attention_heads", "encoder_attention_heads"),
];
pub(crate) const IGNORED: &[&str] =
    &["_num_labels", "classif_dropout", "output_past", "extra_pos_embeddings", "force_bos_token_to_be_generated"];
pub(crate) const NAMES: &[Rule] = &[
    whole("tokens", "model.shared"),
    whole("tokens", "model.encoder.embed_tokens"),
    whole("tokens", "model.decoder.embed_tokens"),
    whole("encoder.tokens", "model.encoder.embed_tokens"),
    // Older files store a table once, also where it is used untied.
    whole("encoder.tokens", "model.shared"),
    whole("encoder.positions", "model.encoder.embed_positions"),
    whole("encoder.embed_norm", "model.encoder.layernorm_embedding"),
    whole("encoder.layers.{}.attn.q", "model.encoder.layers.{}.self_attn.q_proj"),
    whole("encoder.layers.{}.attn.k", "model.encoder.layers.{}.self_attn.k_proj"),
    whole("encoder.layers.{}.attn.v", "model.encoder.layers.{}.self_attn.v_proj"),
    whole("encoder.layers.{}.attn.o", "model.encoder.layers.{}.self_attn.out_proj"),
    whole("encoder.layers.{}.attn_norm", "model.encoder.layers.{}.self_attn_layer_norm"),
    whole("encoder.layers.{}.mlp.up", "model.encoder.layers.{}.fc1"),
    whole("encoder.layers.{}.mlp.down", "model.encoder.layers.{}.fc2"),
    whole("encoder.layers.{}.mlp_norm", "model.encoder.layers.{}.final_layer_norm"),
    whole("encoder.norm", "model.encoder.layer_norm"),
    whole("decoder.tokens", "model.decoder.embed_tokens"),
    whole("decoder.tokens", "model.shared"),
    whole("decoder.positions", "model.decoder.embed_positions"),
    whole("decoder.embed_norm", "model.decoder.layernorm_embedding"),
    whole("decoder.layers.{}.attn.q", "model.decoder.layers.{}.self_attn.q_proj"),
    whole("decoder.layers.{}.attn.k", "model.decoder.layers.{}.self_attn.k_proj"),
    whole("decoder.layers.{}.attn.v", "model.decoder.layers.{}.self_attn.v_proj"),
    whole("decoder.layers.{}.attn.o", "model.decoder.layers.{}.self_attn.out_proj"),
    whole("decoder.layers.{}.attn_norm", "model.decoder.layers.{}.self_attn_layer_norm"),
    whole("decoder.layers.{}.cross.q", "model.decoder.layers.{}.encoder_attn.q_proj"),
    whole("decoder.layers.{}.cross.k", "model.decoder.layers.{}.encoder_attn.k_proj"),
    whole("decoder.layers.{}.cross.v", "model.decoder.layers.{}.encoder_attn.v_proj"),
    whole("decoder.layers.{}.cross.o", "model.decoder.layers.{}.encoder_attn.out_proj"),
    whole("decoder.layers.{}.cross_norm", "model.decoder.layers.{}.encoder_attn_layer_norm"),
    whole("decoder.layers.{}.mlp.up", "model.decoder.layers.{}.fc1"),
    whole("decoder.layers.{}.mlp.down", "model.decoder.layers.{}.fc2"),
    whole("decoder.layers.{}.mlp_norm", "model.decoder.layers.{}.final_layer_norm"),
    whole("decoder.norm", "model.decoder.layer_norm"),
    row("head.tied_bias", "final_logits_bias"),
    whole("head", "lm_head"),
    whole("classification_head.transform.dense", "classification_head.dense"),
    whole("classification_head", "classification_head.out_proj"),
    whole("span", "qa_outputs"),
];

impl Family for Config {
    const MODEL_TYPE: &'static str = "bart";
    const ARCHITECTURES: &'static [(Task, &'static str)] = &[
        (Task::Seq2SeqLm, "BartForConditionalGeneration"),
        (Task::Base, "BartModel"),
        (Task::SequenceClassification, "BartForSequenceClassification"),
        (Task::QuestionAnswering, "BartForQuestionAnswering"),
    ];
    const NAMES: &'static [Rule] = NAMES;
    const PREFIX: &'static str = "model.";
    const LABELS: usize = 3;
    const BUFFERS: &'static [&'static str] = BUFFERS;
    const ALIASES: &'static [(&'static str, &'static str)] = ALIASES;
    const IGNORED: &'static [&'static str] = IGNORED;

    fn arch(&self, wanted: &Wanted) -> Result<Arch, ConfigError> {
        let mut arch = self.build(wanted, Variant::Bart, self.vocab_size)?;
        arch.shift = self.decoder_start_token_id.map(Shift::Start);
        Ok(arch)
    }
}

impl Config {
    /// The architecture of a member of the family that writes `target` different tokens.
    pub(crate) fn build(&self, wanted: &Wanted, variant: Variant, target: usize) -> Result<Arch, ConfigError> {
        self.check(variant)?;
        let (hidden, std) = (self.d_model, config::std(self.init_std)?);
        let mut arch = Arch::both(self.vocab_size, hidden, self.max_position_embeddings, std);
        arch.context_is_hard = variant != Variant::Marian;
        arch.tokens.padding = self.padding(self.vocab_size)?;
        let table = if self.tie_word_embeddings { TokenTable::Shared } else { TokenTable::Own(arch.tokens) };
        arch.towers = Towers::Both {
            encoder: Box::new(self.tower(table, variant, false)?),
            decoder: self.tower(table, variant, true)?,
        };
        arch.heads = self.heads(wanted, target, std)?;
        Ok(arch)
    }

    fn tower(&self, tokens: TokenTable, variant: Variant, decoder: bool) -> Result<TowerSpec, ConfigError> {
        let (hidden, std) = (self.d_model, config::std(self.init_std)?);
        let (layers, heads, inner) = match decoder {
            false => (self.encoder_layers, self.encoder_attention_heads, self.encoder_ffn_dim),
            true => (self.decoder_layers, self.decoder_attention_heads, self.decoder_ffn_dim),
        };
        let norm = NormSpec::Layer { eps: 1e-5 };
        let dropout = config::probability("dropout", self.dropout)?;
        let attention = AttentionSpec {
            qkv_bias: true,
            o_bias: true,
            dropout: config::probability("attention_dropout", self.attention_dropout)?,
            ..AttentionSpec::grouped(hidden, heads, heads, hidden / heads, std)
        };
        let mlp = MlpSpec {
            dropout: config::probability("activation_dropout", self.activation_dropout)?,
            ..MlpSpec::plain(hidden, inner, config::activation("activation_function", &self.activation_function)?, std)
        };
        let mut sublayers = vec![attention.clone().into(), mlp.into()];
        if decoder {
            sublayers.insert(1, SublayerSpec::Cross(attention));
        }
        let residual = if variant == Variant::MBart { Residual::PreNorm } else { Residual::PostNorm };
        let layer = LayerSpec { dropout, residual, ..LayerSpec::pre_norm(hidden, norm, sublayers) };
        // The first two rows of the table have stood for nothing since fairseq counted from the padding's id.
        let table = EmbeddingSpec { rows: self.max_position_embeddings + 2, dim: hidden, std, padding: None };
        let sinusoids = variant == Variant::Marian;
        let embed = EmbedSpec {
            tokens,
            scale: if self.scale_embedding { (hidden as f32).sqrt() } else { 1. },
            positions: match sinusoids {
                true => Positions::Sinusoids { dim: hidden, order: Sinusoids::Halves },
                false => Positions::Learned { table, offset: 2 },
            },
            norm: (!sinusoids).then_some(norm),
            dropout,
            ..EmbedSpec::default()
        };
        Ok(TowerSpec {
            embed,
            layers: vec![layer; layers],
            final_norm: (residual == Residual::PreNorm).then_some(norm),
            ..TowerSpec::new(hidden, decoder)
        })
    }

    fn heads(&self, wanted: &Wanted, target: usize, std: f32) -> Result<Vec<HeadSpec>, ConfigError> {
        let linear = |output, bias| LinearSpec { input: self.d_model, output, bias, std };
        let dropout = config::probability("classifier_dropout", self.classifier_dropout)?;
        Ok(match wanted.task {
            Task::Seq2SeqLm => vec![lm(match self.tie_word_embeddings {
                true => Output::Tied { bias: TiedBias::Fixed },
                false => Output::Buffered(linear(target, false)),
            })],
            Task::SequenceClassification => {
                let eos = config::token("eos_token_id", &self.eos_token_id)?.ok_or_else(|| {
                    invalid("eos_token_id", "a classifier reads the state of this token: expected an id")
                })?;
                let dense = linear(self.d_model, true);
                vec![HeadSpec {
                    reads: Reads::End { eos },
                    transform: Some(TransformSpec { dropout, dense, act: Act::Tanh, norm: None }),
                    dropout,
                    ..own("classification_head", linear(wanted.labels, true))
                }]
            }
            Task::QuestionAnswering => vec![span(linear(2, true))],
            _ => vec![],
        })
    }

    /// The padding's row of a table of `vocab` rows.
    pub(crate) fn padding(&self, vocab: usize) -> Result<Option<u32>, ConfigError> {
        config::padding(self.pad_token_id, vocab)
    }

    fn check(&self, variant: Variant) -> Result<(), ConfigError> {
        count("vocab_size", self.vocab_size, "vocabulary")?;
        count("max_position_embeddings", self.max_position_embeddings, "vocabulary")?;
        count("d_model", self.d_model, "size")?;
        for (field, layers) in [("encoder_layers", self.encoder_layers), ("decoder_layers", self.decoder_layers)] {
            count(field, layers, "layers")?;
        }
        for (field, inner) in [("encoder_ffn_dim", self.encoder_ffn_dim), ("decoder_ffn_dim", self.decoder_ffn_dim)] {
            count(field, inner, "size")?;
        }
        config::divides("encoder_attention_heads", self.encoder_attention_heads, "d_model", self.d_model)?;
        config::divides("decoder_attention_heads", self.decoder_attention_heads, "d_model", self.d_model)?;
        for (field, p) in [("encoder_layerdrop", self.encoder_layerdrop), ("decoder_layerdrop", self.decoder_layerdrop)]
        {
            if p != 0. {
                return Err(refused(
                    field,
                    "no layer is left out in training here; set it to 0, which changes nothing else",
                ));
            }
        }
        if self.is_decoder {
            return Err(refused("is_decoder", "which tower decodes is not a choice here"));
        }
        let (pre_norm, sinusoids) = (variant == Variant::MBart, variant == Variant::Marian);
        for (field, stated, is) in [
            ("normalize_before", self.normalize_before, pre_norm),
            ("add_final_layer_norm", self.add_final_layer_norm, pre_norm),
            ("normalize_embedding", self.normalize_embedding, !sinusoids),
            ("static_position_embeddings", self.static_position_embeddings, sinusoids),
            ("add_bias_logits", self.add_bias_logits, false),
        ] {
            if stated.is_some_and(|stated| stated != is) {
                return Err(refused(
                    field,
                    format!("this family has it {is}, as transformers does whatever the file says"),
                ));
            }
        }
        Ok(())
    }
}

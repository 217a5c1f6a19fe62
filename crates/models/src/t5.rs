//! T5: pre-norm encoder-decoder with RMS norms, no biases, unscaled scores and a learned bias by distance in place of
//! positions (Raffel et al. 2020); its 1.1 gates the MLP. mT5 and UMT5 are this with other defaults.

use phyla_nn::{
    Act, AttentionSpec, EmbedSpec, HeadSpec, LayerSpec, LinearSpec, MlpSpec, NormSpec, Output, Reads, RelativeBias,
    RelativeBuckets, RelativeSpec, SublayerSpec, TiedBias, TowerSpec, TransformSpec,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::arch::{Shift, lm, own, span};
use crate::config::{self, ConfigError, count, invalid, refused};
use crate::family::Family;
use crate::names::{Rule, beside, whole};
use crate::{Arch, Task, Towers, Wanted};

/// `config.json`, field for field.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    vocab_size: usize,
    d_model: usize,
    d_kv: usize,
    d_ff: usize,
    num_layers: usize,
    num_decoder_layers: Option<usize>,
    num_heads: usize,
    relative_attention_num_buckets: usize,
    relative_attention_max_distance: usize,
    dropout_rate: f64,
    classifier_dropout: f64,
    layer_norm_epsilon: f64,
    initializer_factor: f64,
    feed_forward_proj: String,
    /// These two say what `feed_forward_proj` does, and win.
    dense_act_fn: Option<String>,
    is_gated_act: Option<bool>,
    /// Whether the decoder's states are scaled before the head; absent, it follows from the next field.
    scale_decoder_outputs: Option<bool>,
    tie_word_embeddings: Option<bool>,
    is_decoder: bool,
    eos_token_id: Value,
    decoder_start_token_id: Option<u32>,
    /// Length of the texts it was trained on; nothing depends on it.
    n_positions: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 32_128,
            d_model: 512,
            d_kv: 64,
            d_ff: 2048,
            num_layers: 6,
            num_decoder_layers: None,
            num_heads: 8,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            dropout_rate: 0.1,
            classifier_dropout: 0.,
            layer_norm_epsilon: 1e-6,
            initializer_factor: 1.,
            feed_forward_proj: "relu".into(),
            dense_act_fn: None,
            is_gated_act: None,
            scale_decoder_outputs: None,
            tie_word_embeddings: None,
            is_decoder: false,
            eos_token_id: json!(1),
            decoder_start_token_id: None,
            n_positions: 512,
        }
    }
}

/// In what the members of the family differ.
pub(crate) struct Variant {
    /// Whether the decoder's states are scaled before the head.
    pub scaled: bool,
    /// Whether each layer has a bias of its own, and not one for the tower.
    pub bias_each: bool,
}

/// Only classifiers keep the body under a prefix.
pub(crate) const PREFIX: &str = "transformer.";
pub(crate) const BARE: &[Task] = &[Task::Seq2SeqLm, Task::Base, Task::Encoder, Task::QuestionAnswering];
pub(crate) const BUFFERS: &[&str] = &["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"];
pub(crate) const ALIASES: &[(&str, &str)] = &[
    ("hidden_size", "d_model"),
    ("num_attention_heads", "num_heads"),
    ("num_hidden_layers", "num_layers"),
    ("head_dim", "d_kv"),
];
/// Its table has no row without gradient: the padding is for generation and labels.
pub(crate) const IGNORED: &[&str] = &["_num_labels", "output_past", "pad_token_id"];
pub(crate) const NAMES: &[Rule] = &[
    whole("tokens", "transformer.shared"),
    whole("tokens", "transformer.encoder.embed_tokens"),
    whole("tokens", "transformer.decoder.embed_tokens"),
    whole("encoder.relative", "transformer.encoder.block.0.layer.0.SelfAttention.relative_attention_bias"),
    whole(
        "encoder.layers.{}.attn.relative",
        "transformer.encoder.block.{}.layer.0.SelfAttention.relative_attention_bias",
    ),
    whole("encoder.layers.{}.attn.q", "transformer.encoder.block.{}.layer.0.SelfAttention.q"),
    whole("encoder.layers.{}.attn.k", "transformer.encoder.block.{}.layer.0.SelfAttention.k"),
    whole("encoder.layers.{}.attn.v", "transformer.encoder.block.{}.layer.0.SelfAttention.v"),
    whole("encoder.layers.{}.attn.o", "transformer.encoder.block.{}.layer.0.SelfAttention.o"),
    whole("encoder.layers.{}.attn_norm", "transformer.encoder.block.{}.layer.0.layer_norm"),
    whole("encoder.layers.{}.mlp.gate", "transformer.encoder.block.{}.layer.1.DenseReluDense.wi_0"),
    beside(
        "encoder.layers.{}.mlp.gate",
        "encoder.layers.{}.mlp.up",
        "transformer.encoder.block.{}.layer.1.DenseReluDense.wi_1",
    ),
    whole("encoder.layers.{}.mlp.up", "transformer.encoder.block.{}.layer.1.DenseReluDense.wi"),
    whole("encoder.layers.{}.mlp.down", "transformer.encoder.block.{}.layer.1.DenseReluDense.wo"),
    whole("encoder.layers.{}.mlp_norm", "transformer.encoder.block.{}.layer.1.layer_norm"),
    whole("encoder.norm", "transformer.encoder.final_layer_norm"),
    whole("decoder.relative", "transformer.decoder.block.0.layer.0.SelfAttention.relative_attention_bias"),
    whole(
        "decoder.layers.{}.attn.relative",
        "transformer.decoder.block.{}.layer.0.SelfAttention.relative_attention_bias",
    ),
    whole("decoder.layers.{}.attn.q", "transformer.decoder.block.{}.layer.0.SelfAttention.q"),
    whole("decoder.layers.{}.attn.k", "transformer.decoder.block.{}.layer.0.SelfAttention.k"),
    whole("decoder.layers.{}.attn.v", "transformer.decoder.block.{}.layer.0.SelfAttention.v"),
    whole("decoder.layers.{}.attn.o", "transformer.decoder.block.{}.layer.0.SelfAttention.o"),
    whole("decoder.layers.{}.attn_norm", "transformer.decoder.block.{}.layer.0.layer_norm"),
    whole("decoder.layers.{}.cross.q", "transformer.decoder.block.{}.layer.1.EncDecAttention.q"),
    whole("decoder.layers.{}.cross.k", "transformer.decoder.block.{}.layer.1.EncDecAttention.k"),
    whole("decoder.layers.{}.cross.v", "transformer.decoder.block.{}.layer.1.EncDecAttention.v"),
    whole("decoder.layers.{}.cross.o", "transformer.decoder.block.{}.layer.1.EncDecAttention.o"),
    whole("decoder.layers.{}.cross_norm", "transformer.decoder.block.{}.layer.1.layer_norm"),
    whole("decoder.layers.{}.mlp.gate", "transformer.decoder.block.{}.layer.2.DenseReluDense.wi_0"),
    beside(
        "decoder.layers.{}.mlp.gate",
        "decoder.layers.{}.mlp.up",
        "transformer.decoder.block.{}.layer.2.DenseReluDense.wi_1",
    ),
    whole("decoder.layers.{}.mlp.up", "transformer.decoder.block.{}.layer.2.DenseReluDense.wi"),
    whole("decoder.layers.{}.mlp.down", "transformer.decoder.block.{}.layer.2.DenseReluDense.wo"),
    whole("decoder.layers.{}.mlp_norm", "transformer.decoder.block.{}.layer.2.layer_norm"),
    whole("decoder.norm", "transformer.decoder.final_layer_norm"),
    whole("head", "lm_head"),
    // Untied in the configuration, and yet not in the file: it begins as the table.
    whole("head", "transformer.shared"),
    whole("classification_head.transform.dense", "classification_head.dense"),
    whole("classification_head", "classification_head.out_proj"),
    whole("tags", "classifier"),
    whole("span", "qa_outputs"),
];

impl Family for Config {
    const MODEL_TYPE: &'static str = "t5";
    const ARCHITECTURES: &'static [(Task, &'static str)] = &[
        (Task::Seq2SeqLm, "T5ForConditionalGeneration"),
        (Task::Seq2SeqLm, "T5WithLMHeadModel"),
        (Task::Base, "T5Model"),
        (Task::Encoder, "T5EncoderModel"),
        (Task::SequenceClassification, "T5ForSequenceClassification"),
        (Task::TokenClassification, "T5ForTokenClassification"),
        (Task::QuestionAnswering, "T5ForQuestionAnswering"),
    ];
    const NAMES: &'static [Rule] = NAMES;
    const PREFIX: &'static str = PREFIX;
    const BARE: &'static [Task] = BARE;
    const BUFFERS: &'static [&'static str] = BUFFERS;
    const ALIASES: &'static [(&'static str, &'static str)] = ALIASES;
    const IGNORED: &'static [&'static str] = IGNORED;

    fn arch(&self, wanted: &Wanted) -> Result<Arch, ConfigError> {
        let scaled = self.scale_decoder_outputs.unwrap_or(!self.untied());
        self.build(wanted, Variant { scaled, bias_each: false })
    }
}

impl Config {
    /// The architecture of a member of the family.
    pub(crate) fn build(&self, wanted: &Wanted, variant: Variant) -> Result<Arch, ConfigError> {
        self.check()?;
        let layers = self.num_decoder_layers.unwrap_or(self.num_layers);
        count("num_decoder_layers", layers, "layers")?;
        let encoder = self.tower(self.num_layers, false, &variant)?;
        let mut arch = Arch::both(self.vocab_size, self.d_model, self.n_positions, self.std()?);
        arch.towers = match wanted.task {
            Task::Encoder | Task::TokenClassification => Towers::Encoder(encoder),
            _ => Towers::Both { encoder: Box::new(encoder), decoder: self.tower(layers, true, &variant)? },
        };
        // Transformers makes the decoder's input of the encoder's for these two alone.
        if matches!(wanted.task, Task::SequenceClassification | Task::QuestionAnswering) {
            arch.shift = self.decoder_start_token_id.map(Shift::Start);
        }
        arch.heads = self.heads(wanted, &variant)?;
        Ok(arch)
    }

    fn tower(&self, layers: usize, decoder: bool, variant: &Variant) -> Result<TowerSpec, ConfigError> {
        let (hidden, factor) = (self.d_model, self.std()?);
        let dropout = config::probability("dropout_rate", self.dropout_rate)?;
        let std = factor * (hidden as f32).powf(-0.5);
        let rule = RelativeBuckets {
            buckets: self.relative_attention_num_buckets,
            max_distance: self.relative_attention_max_distance,
            both_ways: !decoder,
        };
        let relative = RelativeSpec::Buckets { rule, heads: self.num_heads, std };
        // The scores are not divided by the root of the head's size: q starts smaller instead.
        let cross = AttentionSpec {
            scale: 1.,
            dropout,
            q_std: std * (self.d_kv as f32).powf(-0.5),
            o_std: factor * ((self.num_heads * self.d_kv) as f32).powf(-0.5),
            ..AttentionSpec::grouped(hidden, self.num_heads, self.num_heads, self.d_kv, std)
        };
        let bias = if variant.bias_each { RelativeBias::Own(relative) } else { RelativeBias::Shared };
        let attention = AttentionSpec { relative: Some(bias), ..cross.clone() };
        let (gated, act) = self.activation()?;
        let down_std = factor * (self.d_ff as f32).powf(-0.5);
        let mlp = MlpSpec { gated, dropout, down_std, ..MlpSpec::gated(hidden, self.d_ff, act, std) };
        let mut sublayers = vec![attention.into(), mlp.into()];
        if decoder {
            sublayers.insert(1, SublayerSpec::Cross(cross));
        }
        let norm = NormSpec::Rms { eps: self.layer_norm_epsilon };
        let layer = LayerSpec { dropout, ..LayerSpec::pre_norm(hidden, norm, sublayers) };
        Ok(TowerSpec {
            embed: EmbedSpec { dropout, ..EmbedSpec::default() },
            relative: (!variant.bias_each).then_some(relative),
            layers: vec![layer; layers],
            final_norm: Some(norm),
            final_dropout: dropout,
            ..TowerSpec::new(hidden, decoder)
        })
    }

    fn heads(&self, wanted: &Wanted, variant: &Variant) -> Result<Vec<HeadSpec>, ConfigError> {
        let (factor, small) = (self.std()?, self.std()? * (self.d_model as f32).powf(-0.5));
        let linear = |output, bias, std| LinearSpec { input: self.d_model, output, bias, std };
        let dropout = config::probability("classifier_dropout", self.classifier_dropout)?;
        Ok(match wanted.task {
            Task::Seq2SeqLm => {
                let output = match self.untied() {
                    true => Output::Own(linear(self.vocab_size, false, factor)),
                    false => Output::Tied { bias: TiedBias::None },
                };
                let scale = if variant.scaled { (self.d_model as f32).powf(-0.5) } else { 1. };
                vec![HeadSpec { scale, ..lm(output) }]
            }
            Task::SequenceClassification => {
                let dense = linear(self.d_model, true, small);
                let eos = config::token("eos_token_id", &self.eos_token_id)?.ok_or_else(|| {
                    invalid("eos_token_id", "a classifier reads the state of this token: expected an id")
                })?;
                vec![HeadSpec {
                    reads: Reads::End { eos },
                    transform: Some(TransformSpec { dropout, dense, act: Act::Tanh, norm: None }),
                    dropout,
                    ..own("classification_head", linear(wanted.labels, true, small))
                }]
            }
            Task::TokenClassification => {
                vec![HeadSpec { dropout, ..own("tags", linear(wanted.labels, true, factor)) }]
            }
            Task::QuestionAnswering => vec![span(linear(2, true, small))],
            _ => vec![],
        })
    }

    /// Whether the head is said to be a map of its own.
    pub(crate) fn untied(&self) -> bool {
        self.tie_word_embeddings == Some(false)
    }

    /// Standard deviation of the fresh token table; all others are parts of it.
    fn std(&self) -> Result<f32, ConfigError> {
        Ok(config::positive("initializer_factor", self.initializer_factor)? as f32)
    }

    /// Whether the MLP is gated, and its activation.
    fn activation(&self) -> Result<(bool, Act), ConfigError> {
        let (field, stated) = ("feed_forward_proj", self.feed_forward_proj.as_str());
        let (gated, name) = match stated.split_once('-') {
            None => (false, stated),
            Some(("gated", "gelu")) => (true, "gelu_new"),
            Some(("gated", name)) => (true, name),
            Some(_) => return Err(invalid(field, format!("expected an activation or gated-<one>, found {stated:?}"))),
        };
        let act = match &self.dense_act_fn {
            Some(name) => config::activation("dense_act_fn", name)?,
            None => config::activation(field, name)?,
        };
        Ok((self.is_gated_act.unwrap_or(gated), act))
    }

    fn check(&self) -> Result<(), ConfigError> {
        count("vocab_size", self.vocab_size, "vocabulary")?;
        count("d_model", self.d_model, "size")?;
        count("d_kv", self.d_kv, "size")?;
        count("d_ff", self.d_ff, "size")?;
        count("num_layers", self.num_layers, "layers")?;
        count("num_heads", self.num_heads, "size")?;
        let (buckets, distance) = (self.relative_attention_num_buckets, self.relative_attention_max_distance);
        count("relative_attention_num_buckets", buckets, "size")?;
        if buckets < 4 {
            return Err(invalid("relative_attention_num_buckets", format!("expected at least 4, found {buckets}")));
        }
        // Half of the decoder's buckets hold one distance each; the others share what is left.
        if distance <= buckets / 2 {
            let found = format!("expected more than half of {buckets} buckets, found {distance}");
            return Err(invalid("relative_attention_max_distance", found));
        }
        if self.is_decoder {
            return Err(refused("is_decoder", "which tower decodes is not a choice here"));
        }
        Ok(())
    }
}

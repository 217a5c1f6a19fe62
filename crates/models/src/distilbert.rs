//! DistilBERT: BERT at half the depth, without token types and pooler, under names of its own (Sanh et al. 2019).

use phyla_nn::{Act, HeadSpec, Positions, Reads, Sinusoids};
use serde::{Deserialize, Serialize};

use crate::arch::{own, span};
use crate::config::{self, ConfigError, probability};
use crate::family::Family;
use crate::names::{Rule, exact, whole};
use crate::{Arch, Task, Wanted, bert};

/// `config.json`, field for field.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    vocab_size: usize,
    max_position_embeddings: usize,
    sinusoidal_pos_embds: bool,
    n_layers: usize,
    n_heads: usize,
    dim: usize,
    hidden_dim: usize,
    dropout: f64,
    attention_dropout: f64,
    activation: String,
    initializer_range: f64,
    qa_dropout: f64,
    seq_classif_dropout: f64,
    pad_token_id: Option<i64>,
    tie_word_embeddings: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 30_522,
            max_position_embeddings: 512,
            sinusoidal_pos_embds: false,
            n_layers: 6,
            n_heads: 12,
            dim: 768,
            hidden_dim: 3072,
            dropout: 0.1,
            attention_dropout: 0.1,
            activation: "gelu".into(),
            initializer_range: 0.02,
            qa_dropout: 0.1,
            seq_classif_dropout: 0.2,
            pad_token_id: Some(0),
            tie_word_embeddings: true,
        }
    }
}

impl Family for Config {
    const MODEL_TYPE: &'static str = "distilbert";
    const ARCHITECTURES: &'static [(Task, &'static str)] = &[
        (Task::Base, "DistilBertModel"),
        (Task::MaskedLm, "DistilBertForMaskedLM"),
        (Task::SequenceClassification, "DistilBertForSequenceClassification"),
        (Task::TokenClassification, "DistilBertForTokenClassification"),
        (Task::QuestionAnswering, "DistilBertForQuestionAnswering"),
        (Task::MultipleChoice, "DistilBertForMultipleChoice"),
    ];
    const NAMES: &'static [Rule] = &[
        whole("tokens", "distilbert.embeddings.word_embeddings"),
        whole("encoder.positions", "distilbert.embeddings.position_embeddings"),
        whole("encoder.embed_norm", "distilbert.embeddings.LayerNorm"),
        whole("encoder.layers.{}.attn.q", "distilbert.transformer.layer.{}.attention.q_lin"),
        whole("encoder.layers.{}.attn.k", "distilbert.transformer.layer.{}.attention.k_lin"),
        whole("encoder.layers.{}.attn.v", "distilbert.transformer.layer.{}.attention.v_lin"),
        whole("encoder.layers.{}.attn.o", "distilbert.transformer.layer.{}.attention.out_lin"),
        whole("encoder.layers.{}.attn_norm", "distilbert.transformer.layer.{}.sa_layer_norm"),
        whole("encoder.layers.{}.mlp.up", "distilbert.transformer.layer.{}.ffn.lin1"),
        whole("encoder.layers.{}.mlp.down", "distilbert.transformer.layer.{}.ffn.lin2"),
        whole("encoder.layers.{}.mlp_norm", "distilbert.transformer.layer.{}.output_layer_norm"),
        whole("head.transform.dense", "vocab_transform"),
        whole("head.transform.norm", "vocab_layer_norm"),
        exact("head.tied_bias", "vocab_projector.bias"),
        whole("head", "vocab_projector"),
        whole("classifier.transform.dense", "pre_classifier"),
        whole("classifier", "classifier"),
        whole("choice.transform.dense", "pre_classifier"),
        whole("choice", "classifier"),
        whole("tags", "classifier"),
        whole("span", "qa_outputs"),
    ];
    const PREFIX: &'static str = "distilbert.";
    const BUFFERS: &'static [&'static str] = &["embeddings.position_ids"];
    const ALIASES: &'static [(&'static str, &'static str)] =
        &[("hidden_size", "dim"), ("num_attention_heads", "n_heads"), ("num_hidden_layers", "n_layers")];
    const IGNORED: &'static [&'static str] = &["tie_weights_", "output_past"];

    fn arch(&self, wanted: &Wanted) -> Result<Arch, ConfigError> {
        let base = self.base();
        let mut arch = base.body()?;
        let tower = arch.main_mut();
        if let (Positions::Learned { table, .. }, true) = (tower.embed.positions, self.sinusoidal_pos_embds) {
            tower.embed.positions = Positions::Stored { table, order: Sinusoids::Interleaved };
        }
        for layer in &mut tower.layers {
            layer.undropped = Some("attn");
        }
        let classifier = |name, labels| -> Result<HeadSpec, ConfigError> {
            Ok(HeadSpec {
                reads: Reads::First,
                transform: Some(base.transform(0., Act::Relu)?),
                dropout: probability("seq_classif_dropout", self.seq_classif_dropout)?,
                ..own(name, base.linear(labels)?)
            })
        };
        arch.heads = match wanted.task {
            Task::MaskedLm => vec![base.mlm(config::activation("activation", &self.activation)?)?],
            Task::SequenceClassification => vec![classifier("classifier", wanted.labels)?],
            Task::MultipleChoice => vec![classifier("choice", 1)?],
            Task::TokenClassification => {
                vec![HeadSpec { dropout: base.dropout()?, ..own("tags", base.linear(wanted.labels)?) }]
            }
            Task::QuestionAnswering => {
                vec![HeadSpec { dropout: probability("qa_dropout", self.qa_dropout)?, ..span(base.linear(2)?) }]
            }
            _ => vec![],
        };
        Ok(arch)
    }
}

impl Config {
    /// The same in BERT's words.
    fn base(&self) -> bert::Config {
        bert::Config {
            vocab_size: self.vocab_size,
            hidden_size: self.dim,
            num_hidden_layers: self.n_layers,
            num_attention_heads: self.n_heads,
            intermediate_size: self.hidden_dim,
            hidden_act: self.activation.clone(),
            hidden_dropout_prob: self.dropout,
            attention_probs_dropout_prob: self.attention_dropout,
            max_position_embeddings: self.max_position_embeddings,
            type_vocab_size: 0,
            initializer_range: self.initializer_range,
            layer_norm_eps: 1e-12,
            pad_token_id: self.pad_token_id,
            tie_word_embeddings: self.tie_word_embeddings,
            ..bert::Config::default()
        }
    }
}

//! DeBERTa: BERT's encoder with disentangled attention over relative positions (He et al. 2021). Its checkpoints store q,
//! k and v as one, head by head.

use phyla_nn::{
    Act, DisentangledSpec, Distances, EmbeddingSpec, HeadSpec, LinearSpec, Output, Positional, Positions, Reads,
    RelativeSpec, TokenTypes, TransformSpec,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::arch::{own, span};
use crate::config::{self, ConfigError, count, invalid, probability, refused};
use crate::family::Family;
use crate::names::{Rule, by_head, exact, join, whole};
use crate::{Arch, Task, Wanted, bert};

/// `config.json`, field for field: BERT's and more.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    #[serde(flatten)]
    pub(crate) base: bert::Config,
    #[serde(default)]
    pub(crate) relative_attention: bool,
    #[serde(default)]
    max_relative_positions: i64,
    #[serde(default = "yes")]
    position_biased_input: bool,
    #[serde(default)]
    pos_att_type: Terms,
    #[serde(default)]
    embedding_size: Option<usize>,
    #[serde(default)]
    talking_head: bool,
    #[serde(default)]
    pooler_dropout: f64,
    #[serde(default)]
    pooler_hidden_act: Option<String>,
    #[serde(default)]
    pooler_hidden_size: Option<usize>,
    #[serde(default)]
    cls_dropout: Option<f64>,
    #[serde(default = "yes")]
    legacy: bool,
}

fn yes() -> bool {
    true
}

/// Terms of the scores: `["c2p", "p2c"]` or `"c2p|p2c"`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(untagged)]
enum Terms {
    Text(String),
    List(Vec<String>),
    #[default]
    None,
}

/// Ours, theirs, of both versions.
pub(crate) const NAMES: &[Rule] = &[
    whole("tokens", "deberta.embeddings.word_embeddings"),
    whole("encoder.positions", "deberta.embeddings.position_embeddings"),
    whole("encoder.token_types", "deberta.embeddings.token_type_embeddings"),
    whole("encoder.project", "deberta.embeddings.embed_proj"),
    whole("encoder.embed_norm", "deberta.embeddings.LayerNorm"),
    whole("encoder.relative", "deberta.encoder.rel_embeddings"),
    whole("encoder.layers.{}.attn.o", "deberta.encoder.layer.{}.attention.output.dense"),
    whole("encoder.layers.{}.attn_norm", "deberta.encoder.layer.{}.attention.output.LayerNorm"),
    whole("encoder.layers.{}.mlp.up", "deberta.encoder.layer.{}.intermediate.dense"),
    whole("encoder.layers.{}.mlp.down", "deberta.encoder.layer.{}.output.dense"),
    whole("encoder.layers.{}.mlp_norm", "deberta.encoder.layer.{}.output.LayerNorm"),
    whole("pooler.dense", "pooler.dense"),
    whole("head.transform.dense", "cls.predictions.transform.dense"),
    whole("head.transform.norm", "cls.predictions.transform.LayerNorm"),
    exact("head.tied_bias", "cls.predictions.bias"),
    exact("head.tied_bias", "cls.predictions.decoder.bias"),
    whole("head", "cls.predictions.decoder"),
    exact("head.bias", "cls.predictions.bias"),
    whole("mlm.transform.dense", "lm_predictions.lm_head.dense"),
    whole("mlm.transform.norm", "lm_predictions.lm_head.LayerNorm"),
    exact("mlm.tied_bias", "lm_predictions.lm_head.bias"),
    whole("classifier", "classifier"),
    whole("choice", "classifier"),
    whole("tags", "classifier"),
    whole("span", "qa_outputs"),
];

const OWN: &[Rule] = &[
    exact("encoder.layers.{}.attn.q.bias", "deberta.encoder.layer.{}.attention.self.q_bias"),
    exact("encoder.layers.{}.attn.v.bias", "deberta.encoder.layer.{}.attention.self.v_bias"),
    by_head("encoder.layers.{}.attn.q", "deberta.encoder.layer.{}.attention.self.in_proj", 0, 3),
    by_head("encoder.layers.{}.attn.k", "deberta.encoder.layer.{}.attention.self.in_proj", 1, 3),
    by_head("encoder.layers.{}.attn.v", "deberta.encoder.layer.{}.attention.self.in_proj", 2, 3),
    whole("encoder.layers.{}.attn.pos_k", "deberta.encoder.layer.{}.attention.self.pos_proj"),
    whole("encoder.layers.{}.attn.pos_q", "deberta.encoder.layer.{}.attention.self.pos_q_proj"),
    whole("encoder.layers.{}.attn.logits_mix", "deberta.encoder.layer.{}.attention.self.head_logits_proj"),
    whole("encoder.layers.{}.attn.weights_mix", "deberta.encoder.layer.{}.attention.self.head_weights_proj"),
];

/// Tensors of uploads that transformers, too, leaves alone: a head of the pre-training, and tables that are written
/// whether or not the configuration wants them.
pub(crate) const LEFT_OVER: &[&str] = &[
    "embeddings.position_ids",
    "embeddings.position_embeddings.weight",
    "encoder.rel_embeddings.weight",
    "mask_predictions.dense.weight",
    "mask_predictions.dense.bias",
    "mask_predictions.LayerNorm.weight",
    "mask_predictions.LayerNorm.bias",
    "mask_predictions.classifier.weight",
    "mask_predictions.classifier.bias",
];

impl Family for Config {
    const MODEL_TYPE: &'static str = "deberta";
    const ARCHITECTURES: &'static [(Task, &'static str)] = &[
        (Task::Base, "DebertaModel"),
        (Task::MaskedLm, "DebertaForMaskedLM"),
        (Task::SequenceClassification, "DebertaForSequenceClassification"),
        (Task::TokenClassification, "DebertaForTokenClassification"),
        (Task::QuestionAnswering, "DebertaForQuestionAnswering"),
    ];
    const NAMES: &'static [Rule] = &join::<{ NAMES.len() + OWN.len() }>(OWN, NAMES);
    const PREFIX: &'static str = "deberta.";
    const BUFFERS: &'static [&'static str] = LEFT_OVER;
    const IGNORED: &'static [&'static str] = &["padding_idx"];

    fn defaults() -> Value {
        json!({"vocab_size": 50_265, "type_vocab_size": 0, "layer_norm_eps": 1e-7})
    }

    fn arch(&self, wanted: &Wanted) -> Result<Arch, ConfigError> {
        let map = |name: &str, bias| self.looks(name).then_some(Positional::Own { bias });
        let block = DisentangledSpec {
            k_bias: false,
            pos_k: map("c2p", false),
            pos_q: map("p2c", true),
            talking: self.talking_head,
            ..self.attention(self.terms().len())?
        };
        self.encoder(wanted, block, Distances::Linear { span: self.max_distance() }, false)
    }
}

impl Config {
    /// The architecture around an attention block, and the vectors of positions that it asks for.
    pub(crate) fn encoder(
        &self,
        wanted: &Wanted,
        block: DisentangledSpec,
        distances: Distances,
        norm_distances: bool,
    ) -> Result<Arch, ConfigError> {
        let mut base = self.base.clone();
        // Not fields of this family.
        (base.is_decoder, base.add_cross_attention, base.position_embedding_type) = (false, false, None);
        let (hidden, dim, mut arch) = (base.hidden_size, self.dim(), base.body()?);
        count("embedding_size", dim, "size")?;
        count("max_relative_positions", self.max_distance(), "vocabulary")?;
        arch.context_is_hard = self.position_biased_input;
        arch.tokens.dim = dim;
        let std = arch.tokens.std;
        let tower = arch.main_mut();
        match &mut tower.embed.positions {
            Positions::Learned { table, .. } if self.position_biased_input => table.dim = dim,
            positions => *positions = Positions::None,
        }
        if let TokenTypes::Own(table) = &mut tower.embed.token_types {
            table.dim = dim;
        }
        tower.embed.project = (dim != hidden).then_some(LinearSpec { input: dim, output: hidden, bias: false, std });
        tower.embed.hide_padding = true;
        if block.pos_k.is_some() || block.pos_q.is_some() {
            let table = EmbeddingSpec { rows: distances.rows(), dim: hidden, std, padding: None };
            let norm = tower.embed.norm.filter(|_| norm_distances);
            tower.relative = Some(RelativeSpec::Table { table, norm, distances });
        }
        for layer in &mut tower.layers {
            layer.sublayers[0] = block.into();
        }
        self.heads(wanted, &mut arch)?;
        Ok(arch)
    }

    fn heads(&self, wanted: &Wanted, arch: &mut Arch) -> Result<(), ConfigError> {
        let (base, dropout) = (&self.base, self.base.dropout()?);
        if matches!(wanted.task, Task::SequenceClassification | Task::MultipleChoice) {
            arch.pooler = Some(self.pooler()?);
        }
        let cls_dropout = probability("cls_dropout", self.cls_dropout.unwrap_or(base.hidden_dropout_prob))?;
        let pooled = |name, labels| -> Result<HeadSpec, ConfigError> {
            Ok(HeadSpec { reads: Reads::Pooled, dropout: cls_dropout, ..own(name, base.linear(labels)?) })
        };
        arch.heads = match wanted.task {
            Task::MaskedLm => vec![self.mlm()?],
            Task::SequenceClassification => vec![pooled("classifier", wanted.labels)?],
            Task::MultipleChoice => vec![pooled("choice", 1)?],
            Task::TokenClassification => vec![HeadSpec { dropout, ..own("tags", base.linear(wanted.labels)?) }],
            Task::QuestionAnswering => vec![span(base.linear(2)?)],
            _ => vec![],
        };
        Ok(())
    }

    /// Two heads of the same shape under different names: the older one reads vectors of the embedding's size.
    fn mlm(&self) -> Result<HeadSpec, ConfigError> {
        let (dim, act) = (self.dim(), config::activation("hidden_act", &self.base.hidden_act)?);
        if !self.legacy {
            if dim != self.base.hidden_size {
                let why = format!("{dim}: the head of \"legacy\": false needs that of hidden_size");
                return Err(refused("embedding_size", why));
            }
            let tied = bert::Config { tie_word_embeddings: true, ..self.base.clone() };
            return Ok(HeadSpec { name: "mlm", ..tied.mlm(act)? });
        }
        let mut head = self.base.mlm(act)?;
        if let Some(transform) = &mut head.transform {
            transform.dense.output = dim;
        }
        if let Output::Own(linear) = &mut head.output {
            linear.input = dim;
        }
        Ok(head)
    }

    fn pooler(&self) -> Result<TransformSpec, ConfigError> {
        let (hidden, size) = (self.base.hidden_size, self.pooler_hidden_size.unwrap_or(self.base.hidden_size));
        if size != hidden {
            return Err(invalid("pooler_hidden_size", format!("expected hidden_size, {hidden}; found {size}")));
        }
        let act = match &self.pooler_hidden_act {
            Some(name) => config::activation("pooler_hidden_act", name)?,
            None => Act::Gelu,
        };
        self.base.transform(probability("pooler_dropout", self.pooler_dropout)?, act)
    }

    /// Disentangled attention without positions; its scores are divided as if there were `terms` more of them.
    pub(crate) fn attention(&self, terms: usize) -> Result<DisentangledSpec, ConfigError> {
        let base = &self.base;
        config::divides("num_attention_heads", base.num_attention_heads, "hidden_size", base.hidden_size)?;
        let std = config::std(base.initializer_range)?;
        Ok(DisentangledSpec {
            dropout: probability("attention_probs_dropout_prob", base.attention_probs_dropout_prob)?,
            pos_dropout: base.dropout()?,
            ..DisentangledSpec::new(base.hidden_size, base.num_attention_heads, terms, std)
        })
    }

    /// Whether contents and positions look at each other in this way.
    pub(crate) fn looks(&self, name: &str) -> bool {
        self.relative_attention && self.names(name)
    }

    /// Whether the configuration names a term, be it used or not.
    pub(crate) fn names(&self, name: &str) -> bool {
        self.terms().iter().any(|term| term == name)
    }

    fn terms(&self) -> Vec<String> {
        match &self.pos_att_type {
            Terms::Text(text) => text.to_lowercase().split('|').map(|term| term.trim().to_string()).collect(),
            Terms::List(terms) => terms.clone(),
            Terms::None => vec![],
        }
    }

    /// Distances from here on share a vector.
    pub(crate) fn max_distance(&self) -> usize {
        match usize::try_from(self.max_relative_positions) {
            Ok(0) | Err(_) => self.base.max_position_embeddings,
            Ok(distance) => distance,
        }
    }

    fn dim(&self) -> usize {
        self.embedding_size.unwrap_or(self.base.hidden_size)
    }
}

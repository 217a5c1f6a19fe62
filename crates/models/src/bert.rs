//! BERT: post-norm encoder with learned positions, token types and a pooler (Devlin et al. 2019). RoBERTa is this with
//! other positions and heads.

use phyla_nn::{
    Act, AttentionSpec, EmbeddingSpec, HeadSpec, LayerSpec, LinearSpec, MlpSpec, NormSpec, Output, Positions, Reads,
    TiedBias, TokenTypes, TransformSpec,
};
use serde::{Deserialize, Serialize};

use crate::arch::{lm, own, span};
use crate::config::{self, ConfigError, count, refused};
use crate::family::Family;
use crate::gguf::table::{self, Field, Fixed, Table};
use crate::names::{Rule, exact, whole};
use crate::{Arch, Task, Wanted};

/// `config.json`, field for field.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    pub(crate) vocab_size: usize,
    pub(crate) hidden_size: usize,
    pub(crate) num_hidden_layers: usize,
    pub(crate) num_attention_heads: usize,
    pub(crate) intermediate_size: usize,
    pub(crate) hidden_act: String,
    pub(crate) hidden_dropout_prob: f64,
    pub(crate) attention_probs_dropout_prob: f64,
    pub(crate) max_position_embeddings: usize,
    pub(crate) type_vocab_size: usize,
    pub(crate) initializer_range: f64,
    pub(crate) layer_norm_eps: f64,
    pub(crate) pad_token_id: Option<i64>,
    pub(crate) classifier_dropout: Option<f64>,
    pub(crate) position_embedding_type: Option<String>,
    pub(crate) is_decoder: bool,
    pub(crate) add_cross_attention: bool,
    pub(crate) tie_word_embeddings: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 30_522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".into(),
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            pad_token_id: Some(0),
            classifier_dropout: None,
            position_embedding_type: None,
            is_decoder: false,
            add_cross_attention: false,
            tie_word_embeddings: true,
        }
    }
}

/// `config.json` by the keys of GGUF files.
const GGUF_FIELDS: &[Field] = &[
    Field::Need("num_hidden_layers", &["block_count"]),
    Field::Need("hidden_size", &["embedding_length"]),
    Field::Need("intermediate_size", &["feed_forward_length"]),
    Field::Need("num_attention_heads", &["attention.head_count"]),
    Field::Need("layer_norm_eps", &["attention.layer_norm_epsilon"]),
    Field::Rows("max_position_embeddings", "position_embd.weight", "tokenizer.ggml.tokens"),
    Field::Rows("type_vocab_size", "token_types.weight", "tokenizer.ggml.token_types"),
    Field::Always("hidden_act", Fixed::Text("gelu")),
    Field::Only("attention.causal", Fixed::Flag(false)),
    Field::Unread("context_length"),
];

/// Ours, theirs in GGUF files, which have no heads.
const GGUF_NAMES: &[Rule] = &[
    whole("tokens", "token_embd"),
    whole("encoder.positions", "position_embd"),
    whole("encoder.token_types", "token_types"),
    whole("encoder.embed_norm", "token_embd_norm"),
    whole("encoder.layers.{}.attn.q", "blk.{}.attn_q"),
    whole("encoder.layers.{}.attn.k", "blk.{}.attn_k"),
    whole("encoder.layers.{}.attn.v", "blk.{}.attn_v"),
    whole("encoder.layers.{}.attn.o", "blk.{}.attn_output"),
    whole("encoder.layers.{}.attn_norm", "blk.{}.attn_output_norm"),
    whole("encoder.layers.{}.mlp.up", "blk.{}.ffn_up"),
    whole("encoder.layers.{}.mlp.down", "blk.{}.ffn_down"),
    whole("encoder.layers.{}.mlp_norm", "blk.{}.layer_output_norm"),
];

impl Family for Config {
    const MODEL_TYPE: &'static str = "bert";
    const ARCHITECTURES: &'static [(Task, &'static str)] = &[
        (Task::Base, "BertModel"),
        (Task::MaskedLm, "BertForMaskedLM"),
        (Task::CausalLm, "BertLMHeadModel"),
        (Task::NextSentence, "BertForNextSentencePrediction"),
        (Task::PreTraining, "BertForPreTraining"),
        (Task::SequenceClassification, "BertForSequenceClassification"),
        (Task::TokenClassification, "BertForTokenClassification"),
        (Task::QuestionAnswering, "BertForQuestionAnswering"),
        (Task::MultipleChoice, "BertForMultipleChoice"),
    ];
    const NAMES: &'static [Rule] = &[
        whole("tokens", "bert.embeddings.word_embeddings"),
        whole("encoder.positions", "bert.embeddings.position_embeddings"),
        whole("encoder.token_types", "bert.embeddings.token_type_embeddings"),
        whole("encoder.embed_norm", "bert.embeddings.LayerNorm"),
        whole("encoder.layers.{}.attn.q", "bert.encoder.layer.{}.attention.self.query"),
        whole("encoder.layers.{}.attn.k", "bert.encoder.layer.{}.attention.self.key"),
        whole("encoder.layers.{}.attn.v", "bert.encoder.layer.{}.attention.self.value"),
        whole("encoder.layers.{}.attn.o", "bert.encoder.layer.{}.attention.output.dense"),
        whole("encoder.layers.{}.attn_norm", "bert.encoder.layer.{}.attention.output.LayerNorm"),
        whole("encoder.layers.{}.mlp.up", "bert.encoder.layer.{}.intermediate.dense"),
        whole("encoder.layers.{}.mlp.down", "bert.encoder.layer.{}.output.dense"),
        whole("encoder.layers.{}.mlp_norm", "bert.encoder.layer.{}.output.LayerNorm"),
        whole("pooler.dense", "bert.pooler.dense"),
        whole("head.transform.dense", "cls.predictions.transform.dense"),
        whole("head.transform.norm", "cls.predictions.transform.LayerNorm"),
        exact("head.tied_bias", "cls.predictions.bias"),
        exact("head.tied_bias", "cls.predictions.decoder.bias"),
        whole("head", "cls.predictions.decoder"),
        whole("nsp", "cls.seq_relationship"),
        whole("classifier", "classifier"),
        whole("tags", "classifier"),
        whole("choice", "classifier"),
        whole("span", "qa_outputs"),
    ];
    const PREFIX: &'static str = "bert.";
    const BUFFERS: &'static [&'static str] = &["embeddings.position_ids", "embeddings.token_type_ids"];

    const GGUF: Option<Table> =
        Some(Table { arch: "bert", marked_by: None, fields: &[table::COMMON, GGUF_FIELDS], names: GGUF_NAMES });

    fn arch(&self, wanted: &Wanted) -> Result<Arch, ConfigError> {
        let mut arch = self.body()?;
        let pooled = matches!(
            wanted.task,
            Task::Base | Task::NextSentence | Task::PreTraining | Task::SequenceClassification | Task::MultipleChoice
        );
        arch.pooler = pooled.then(|| self.transform(0., Act::Tanh)).transpose()?;
        let dropout = self.classifier_dropout()?;
        let mlm = || self.mlm(config::activation("hidden_act", &self.hidden_act)?);
        let pooled = |name, labels| -> Result<HeadSpec, ConfigError> {
            Ok(HeadSpec { reads: Reads::Pooled, dropout, ..own(name, self.linear(labels)?) })
        };
        arch.heads = match wanted.task {
            Task::MaskedLm | Task::CausalLm => vec![mlm()?],
            Task::NextSentence => vec![HeadSpec { dropout: 0., ..pooled("nsp", 2)? }],
            Task::PreTraining => vec![
                HeadSpec { emits: phyla_nn::Emits::One("prediction_logits"), ..mlm()? },
                HeadSpec { dropout: 0., emits: phyla_nn::Emits::One("seq_relationship_logits"), ..pooled("nsp", 2)? },
            ],
            Task::SequenceClassification => vec![pooled("classifier", wanted.labels)?],
            Task::MultipleChoice => vec![pooled("choice", 1)?],
            Task::TokenClassification => vec![HeadSpec { dropout, ..own("tags", self.linear(wanted.labels)?) }],
            Task::QuestionAnswering => vec![span(self.linear(2)?)],
            _ => vec![],
        };
        Ok(arch)
    }
}

impl Config {
    /// Everything below the heads.
    pub(crate) fn body(&self) -> Result<Arch, ConfigError> {
        self.check()?;
        let (std, hidden) = (config::std(self.initializer_range)?, self.hidden_size);
        let norm = NormSpec::Layer { eps: self.layer_norm_eps };
        let dropout = self.dropout()?;
        let attention = AttentionSpec {
            qkv_bias: true,
            o_bias: true,
            dropout: config::probability("attention_probs_dropout_prob", self.attention_probs_dropout_prob)?,
            ..AttentionSpec::grouped(
                hidden,
                self.num_attention_heads,
                self.num_attention_heads,
                hidden / self.num_attention_heads,
                std,
            )
        };
        let act = config::activation("hidden_act", &self.hidden_act)?;
        let mlp = MlpSpec::plain(hidden, self.intermediate_size, act, std);
        let layer = LayerSpec { dropout, ..LayerSpec::post_norm(hidden, norm, [attention.into(), mlp.into()]) };
        let mut arch = Arch::encoder(self.vocab_size, hidden, self.max_position_embeddings, std);
        arch.context_is_hard = true;
        arch.tokens.padding = config::padding(self.pad_token_id, self.vocab_size)?;
        let table = |rows| EmbeddingSpec { rows, dim: hidden, std, padding: None };
        let tower = arch.main_mut();
        tower.embed.positions = Positions::Learned { table: table(self.max_position_embeddings), offset: 0 };
        if self.type_vocab_size > 0 {
            tower.embed.token_types = TokenTypes::Own(table(self.type_vocab_size));
        }
        tower.embed.norm = Some(norm);
        tower.embed.dropout = dropout;
        tower.layers = vec![layer; self.num_hidden_layers];
        tower.causal = self.is_decoder;
        Ok(arch)
    }

    /// The head over every token: a map of the same size, then the token table with a bias.
    pub(crate) fn mlm(&self, act: Act) -> Result<HeadSpec, ConfigError> {
        let norm = Some(NormSpec::Layer { eps: self.layer_norm_eps });
        let transform = TransformSpec { norm, ..self.transform(0., act)? };
        let output = match self.tie_word_embeddings {
            true => Output::Tied { bias: TiedBias::Trained },
            false => Output::Own(self.linear(self.vocab_size)?),
        };
        Ok(HeadSpec { transform: Some(transform), ..lm(output) })
    }

    /// A map from the residual stream, with a bias.
    pub(crate) fn linear(&self, output: usize) -> Result<LinearSpec, ConfigError> {
        Ok(LinearSpec { input: self.hidden_size, output, bias: true, std: config::std(self.initializer_range)? })
    }

    /// A map of the same size, after dropout.
    pub(crate) fn transform(&self, dropout: f32, act: Act) -> Result<TransformSpec, ConfigError> {
        Ok(TransformSpec { dropout, dense: self.linear(self.hidden_size)?, act, norm: None })
    }

    pub(crate) fn dropout(&self) -> Result<f32, ConfigError> {
        config::probability("hidden_dropout_prob", self.hidden_dropout_prob)
    }

    pub(crate) fn classifier_dropout(&self) -> Result<f32, ConfigError> {
        config::probability("classifier_dropout", self.classifier_dropout.unwrap_or(self.hidden_dropout_prob))
    }

    fn check(&self) -> Result<(), ConfigError> {
        count("vocab_size", self.vocab_size, "vocabulary")?;
        count("max_position_embeddings", self.max_position_embeddings, "vocabulary")?;
        count("type_vocab_size", self.type_vocab_size + 1, "vocabulary")?;
        count("hidden_size", self.hidden_size, "size")?;
        count("intermediate_size", self.intermediate_size, "size")?;
        count("num_hidden_layers", self.num_hidden_layers, "layers")?;
        count("num_attention_heads", self.num_attention_heads, "size")?;
        config::divides("num_attention_heads", self.num_attention_heads, "hidden_size", self.hidden_size)?;
        if self.add_cross_attention {
            return Err(refused("add_cross_attention", "there is no encoder to attend to"));
        }
        match self.position_embedding_type.as_deref() {
            None | Some("absolute") => Ok(()),
            Some(other) => Err(refused("position_embedding_type", format!("{other:?}; only \"absolute\" is built"))),
        }
    }
}

//! RoBERTa: BERT with positions that begin after the padding's and heads of its own (Liu et al. 2019).

use phyla_nn::{Act, HeadSpec, Positions, Reads};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::arch::{PositionIds, own, span};
use crate::config::{ConfigError, invalid};
use crate::family::Family;
use crate::names::{Rule, exact, whole};
use crate::{Arch, Task, Wanted, bert};

/// `config.json`, field for field: BERT's, with other defaults.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    #[serde(flatten)]
    base: bert::Config,
}

/// Ours, theirs.
pub(crate) const NAMES: &[Rule] = &[
    whole("tokens", "roberta.embeddings.word_embeddings"),
    whole("encoder.positions", "roberta.embeddings.position_embeddings"),
    whole("encoder.token_types", "roberta.embeddings.token_type_embeddings"),
    whole("encoder.embed_norm", "roberta.embeddings.LayerNorm"),
    whole("encoder.layers.{}.attn.q", "roberta.encoder.layer.{}.attention.self.query"),
    whole("encoder.layers.{}.attn.k", "roberta.encoder.layer.{}.attention.self.key"),
    whole("encoder.layers.{}.attn.v", "roberta.encoder.layer.{}.attention.self.value"),
    whole("encoder.layers.{}.attn.o", "roberta.encoder.layer.{}.attention.output.dense"),
    whole("encoder.layers.{}.attn_norm", "roberta.encoder.layer.{}.attention.output.LayerNorm"),
    whole("encoder.layers.{}.mlp.up", "roberta.encoder.layer.{}.intermediate.dense"),
    whole("encoder.layers.{}.mlp.down", "roberta.encoder.layer.{}.output.dense"),
    whole("encoder.layers.{}.mlp_norm", "roberta.encoder.layer.{}.output.LayerNorm"),
    whole("pooler.dense", "roberta.pooler.dense"),
    whole("head.transform.dense", "lm_head.dense"),
    whole("head.transform.norm", "lm_head.layer_norm"),
    exact("head.tied_bias", "lm_head.bias"),
    exact("head.tied_bias", "lm_head.decoder.bias"),
    whole("head", "lm_head.decoder"),
    // Older uploads hold a decoder's weight and no bias beside it.
    exact("head.bias", "lm_head.bias"),
    whole("classifier.transform.dense", "classifier.dense"),
    whole("classifier", "classifier.out_proj"),
    whole("tags", "classifier"),
    whole("choice", "classifier"),
    whole("span", "qa_outputs"),
];

impl Family for Config {
    const MODEL_TYPE: &'static str = "roberta";
    const ARCHITECTURES: &'static [(Task, &'static str)] = &[
        (Task::Base, "RobertaModel"),
        (Task::MaskedLm, "RobertaForMaskedLM"),
        (Task::CausalLm, "RobertaForCausalLM"),
        (Task::SequenceClassification, "RobertaForSequenceClassification"),
        (Task::TokenClassification, "RobertaForTokenClassification"),
        (Task::QuestionAnswering, "RobertaForQuestionAnswering"),
        (Task::MultipleChoice, "RobertaForMultipleChoice"),
    ];
    const NAMES: &'static [Rule] = NAMES;
    const PREFIX: &'static str = "roberta.";
    const BUFFERS: &'static [&'static str] = &["embeddings.position_ids", "embeddings.token_type_ids"];

    fn defaults() -> Value {
        json!({"vocab_size": 50_265, "pad_token_id": 1})
    }

    fn arch(&self, wanted: &Wanted) -> Result<Arch, ConfigError> {
        let base = &self.base;
        let mut arch = base.body()?;
        let Some(pad) = base.pad_token_id.and_then(|id| u32::try_from(id).ok()) else {
            return Err(invalid("pad_token_id", "positions begin after it: expected an id of the vocabulary"));
        };
        let Some(context) = arch.context.checked_sub(pad as usize + 1).filter(|&context| context > 0) else {
            let why = format!("{} leave none after the {pad} of pad_token_id", arch.context);
            return Err(invalid("max_position_embeddings", why));
        };
        arch.context = context;
        arch.position_ids = PositionIds::AfterPadding { pad };
        if let Positions::Learned { table, .. } = &mut arch.main_mut().embed.positions {
            table.padding = Some(pad);
        }
        let dropout = base.classifier_dropout()?;
        if matches!(wanted.task, Task::Base | Task::MultipleChoice) {
            arch.pooler = Some(base.transform(0., Act::Tanh)?);
        }
        arch.heads = match wanted.task {
            // Its activation is no option.
            Task::MaskedLm | Task::CausalLm => vec![base.mlm(Act::Gelu)?],
            Task::SequenceClassification => vec![HeadSpec {
                reads: Reads::First,
                transform: Some(base.transform(dropout, Act::Tanh)?),
                dropout,
                ..own("classifier", base.linear(wanted.labels)?)
            }],
            Task::MultipleChoice => {
                vec![HeadSpec { reads: Reads::Pooled, dropout: base.dropout()?, ..own("choice", base.linear(1)?) }]
            }
            Task::TokenClassification => vec![HeadSpec { dropout, ..own("tags", base.linear(wanted.labels)?) }],
            Task::QuestionAnswering => vec![span(base.linear(2)?)],
            _ => vec![],
        };
        Ok(arch)
    }
}

//! DeBERTa-v2 and v3: distances in logarithmic buckets, positions under the contents' maps, and a convolution after the
//! first layer (He et al. 2021 and 2023).

use phyla_nn::{ConvSpec, DisentangledSpec, Distances, Positional};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::{self, ConfigError, count, divides, invalid};
use crate::deberta::{self, LEFT_OVER, NAMES};
use crate::family::Family;
use crate::names::{Rule, join, whole};
use crate::{Arch, Task, Wanted};

/// `config.json`, field for field: the first version's and more.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    #[serde(flatten)]
    base: deberta::Config,
    #[serde(default)]
    position_buckets: i64,
    #[serde(default)]
    share_att_key: bool,
    #[serde(default)]
    norm_rel_ebd: Option<String>,
    #[serde(default)]
    attention_head_size: Option<usize>,
    #[serde(default)]
    conv_kernel_size: usize,
    #[serde(default)]
    conv_groups: Option<usize>,
    #[serde(default)]
    conv_act: Option<String>,
}

const OWN: &[Rule] = &[
    whole("encoder.layers.{}.attn.q", "deberta.encoder.layer.{}.attention.self.query_proj"),
    whole("encoder.layers.{}.attn.k", "deberta.encoder.layer.{}.attention.self.key_proj"),
    whole("encoder.layers.{}.attn.v", "deberta.encoder.layer.{}.attention.self.value_proj"),
    whole("encoder.layers.{}.attn.pos_k", "deberta.encoder.layer.{}.attention.self.pos_key_proj"),
    whole("encoder.layers.{}.attn.pos_q", "deberta.encoder.layer.{}.attention.self.pos_query_proj"),
    whole("encoder.relative.norm", "deberta.encoder.LayerNorm"),
    whole("encoder.conv", "deberta.encoder.conv.conv"),
    whole("encoder.conv.norm", "deberta.encoder.conv.LayerNorm"),
];

impl Family for Config {
    const MODEL_TYPE: &'static str = "deberta-v2";
    const ARCHITECTURES: &'static [(Task, &'static str)] = &[
        (Task::Base, "DebertaV2Model"),
        (Task::MaskedLm, "DebertaV2ForMaskedLM"),
        (Task::SequenceClassification, "DebertaV2ForSequenceClassification"),
        (Task::TokenClassification, "DebertaV2ForTokenClassification"),
        (Task::QuestionAnswering, "DebertaV2ForQuestionAnswering"),
        (Task::MultipleChoice, "DebertaV2ForMultipleChoice"),
    ];
    const NAMES: &'static [Rule] = &join::<{ NAMES.len() + OWN.len() }>(OWN, NAMES);
    const PREFIX: &'static str = "deberta.";
    const BUFFERS: &'static [&'static str] = LEFT_OVER;
    const IGNORED: &'static [&'static str] = &["padding_idx", "talking_head"];

    fn defaults() -> Value {
        json!({"vocab_size": 128_100, "hidden_size": 1536, "num_hidden_layers": 24, "num_attention_heads": 24,
            "intermediate_size": 6144, "type_vocab_size": 0, "layer_norm_eps": 1e-7})
    }

    fn arch(&self, wanted: &Wanted) -> Result<Arch, ConfigError> {
        let named = ["c2p", "p2c"].iter().filter(|term| self.base.names(term)).count();
        let block = DisentangledSpec { pos_k: self.map("c2p"), pos_q: self.map("p2c"), ..self.base.attention(named)? };
        let head = block.hidden / block.heads;
        if let Some(size) = self.attention_head_size.filter(|&size| size != head) {
            return Err(invalid("attention_head_size", format!("expected {head}, hidden_size by heads; found {size}")));
        }
        let normed = self.norm_rel_ebd.as_deref().unwrap_or("none").to_lowercase();
        let normed = normed.split('|').any(|word| word.trim() == "layer_norm");
        let mut arch = self.base.encoder(wanted, block, self.distances()?, normed)?;
        arch.main_mut().conv = self.conv(&block, &arch)?;
        Ok(arch)
    }
}

impl Config {
    fn map(&self, term: &str) -> Option<Positional> {
        let map = if self.share_att_key { Positional::Shared } else { Positional::Own { bias: true } };
        self.base.looks(term).then_some(map)
    }

    fn distances(&self) -> Result<Distances, ConfigError> {
        let max_distance = self.base.max_distance();
        let Some(buckets) = usize::try_from(self.position_buckets).ok().filter(|&buckets| buckets > 0) else {
            return Ok(Distances::Linear { span: max_distance });
        };
        count("position_buckets", buckets, "vocabulary")?;
        if self.base.relative_attention && (buckets < 2 || max_distance <= buckets / 2 + 1) {
            let why = format!("{buckets}: at least 2, and half of them below max_relative_positions, {max_distance}");
            return Err(invalid("position_buckets", why));
        }
        Ok(Distances::LogBuckets { buckets, max_distance })
    }

    fn conv(&self, block: &DisentangledSpec, arch: &Arch) -> Result<Option<ConvSpec>, ConfigError> {
        let (hidden, width, groups) = (block.hidden, self.conv_kernel_size, self.conv_groups.unwrap_or(1));
        let Some(norm) = arch.main().embed.norm.filter(|_| width > 0) else { return Ok(None) };
        divides("conv_groups", groups, "hidden_size", hidden)?;
        if width.is_multiple_of(2) || width > 1 << 10 {
            return Err(invalid("conv_kernel_size", format!("expected an odd number below 1024, found {width}")));
        }
        let act = config::activation("conv_act", self.conv_act.as_deref().unwrap_or("tanh"))?;
        let (dropout, std) = (block.pos_dropout, block.std);
        Ok(Some(ConvSpec { hidden, width, groups, act, norm, dropout, std }))
    }
}

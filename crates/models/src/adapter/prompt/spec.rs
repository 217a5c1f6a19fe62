//! The settings of what stands before every text.

use phyla_nn::pattern::Pattern;
use serde::{Deserialize, Serialize};

use crate::adapter::AdapterSpec;

/// How many tokens nobody wrote.
pub(super) const TOKENS: usize = 20;

/// Prompt tuning: vectors before those of the text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PromptSpec {
    /// How many.
    #[serde(alias = "num_virtual_tokens")]
    pub tokens: usize,
    /// How they begin.
    #[serde(alias = "prompt_tuning_init")]
    pub init: PromptInit,
    /// The text whose vectors they begin with, over and over where it is shorter.
    #[serde(alias = "prompt_tuning_init_text")]
    pub init_text: Option<String>,
    /// Paths of parameters that are trained whole and saved beside the adapter, such as a new head.
    #[serde(alias = "modules_to_save")]
    pub save: Vec<Pattern>,
}

/// How a prompt begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptInit {
    /// Normal numbers.
    #[default]
    #[serde(alias = "RANDOM")]
    Random,
    /// The vectors of random tokens.
    #[serde(alias = "SAMPLE_VOCAB")]
    SampleVocab,
    /// The vectors of a text.
    #[serde(alias = "TEXT")]
    Text,
}

/// P-tuning: the same, made by a small network while they are trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PTuningSpec {
    /// How many.
    #[serde(alias = "num_virtual_tokens")]
    pub tokens: usize,
    /// The network.
    #[serde(alias = "encoder_reparameterization_type")]
    pub encoder: Network,
    /// Its width; that of the token vectors by default.
    #[serde(alias = "encoder_hidden_size")]
    pub hidden: Option<usize>,
    /// Layers of an LSTM.
    #[serde(alias = "encoder_num_layers")]
    pub layers: usize,
    /// Paths of parameters that are trained whole and saved beside the adapter.
    #[serde(alias = "modules_to_save")]
    pub save: Vec<Pattern>,
}

/// What makes a prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Three linear maps.
    #[default]
    #[serde(alias = "MLP")]
    Mlp,
    /// An LSTM of two directions, and two linear maps.
    #[serde(alias = "LSTM")]
    Lstm,
}

/// Prefix tuning: keys and values of every layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrefixSpec {
    /// How many.
    #[serde(alias = "num_virtual_tokens")]
    pub tokens: usize,
    /// Whether two linear maps make them while they are trained (Li and Liang 2021, section 4.3).
    #[serde(alias = "prefix_projection")]
    pub projection: bool,
    /// Their width; that of a layer's keys by default.
    #[serde(alias = "encoder_hidden_size")]
    pub hidden: Option<usize>,
    /// Paths of parameters that are trained whole and saved beside the adapter.
    #[serde(alias = "modules_to_save")]
    pub save: Vec<Pattern>,
}

impl Default for PromptSpec {
    fn default() -> Self {
        Self { tokens: TOKENS, init: PromptInit::Random, init_text: None, save: vec![] }
    }
}

impl Default for PTuningSpec {
    fn default() -> Self {
        Self { tokens: TOKENS, encoder: Network::Mlp, hidden: None, layers: 2, save: vec![] }
    }
}

impl Default for PrefixSpec {
    fn default() -> Self {
        Self { tokens: TOKENS, projection: false, hidden: None, save: vec![] }
    }
}

/// The settings that no prompt could be made with.
pub(in crate::adapter) fn check(spec: &AdapterSpec, problems: &mut Vec<String>) {
    let mut size = |key: &str, size: usize| {
        if !(1..=1 << 16).contains(&size) {
            problems.push(format!("`method.{key}` is {size}; expected 1 to 65536"));
        }
    };
    match spec {
        AdapterSpec::Prompt(spec) => {
            size("tokens", spec.tokens);
            match (spec.init, &spec.init_text) {
                (PromptInit::Text, None) => {
                    problems.push("`method.init` is \"text\": say which with `init_text`".into())
                }
                (PromptInit::Text, _) | (_, None) => {}
                (_, Some(_)) => problems.push("`method.init_text` needs `init = \"text\"`".into()),
            }
        }
        AdapterSpec::PTuning(spec) => {
            size("tokens", spec.tokens);
            size("layers", spec.layers);
            spec.hidden.into_iter().for_each(|hidden| size("hidden", hidden));
        }
        AdapterSpec::Prefix(spec) => {
            size("tokens", spec.tokens);
            spec.hidden.into_iter().for_each(|hidden| size("hidden", hidden));
        }
        _ => {}
    }
}

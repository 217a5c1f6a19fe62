//! `[method]`: which weights are trained, and how.

mod full;

use phyla_models::adapter::{
    AdaLoraSpec, AdapterSpec, BottleneckSpec, Ia3Spec, LoraInit, LoraSpec, PTuningSpec, PrefixSpec, PromptSpec,
    VeraSpec,
};
use serde::{Deserialize, Serialize};

pub use full::{Full, Only};

use super::check_range;

/// The way of adapting the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Train the weights themselves.
    Full(Full),
    /// Train the biases alone (BitFit, Ben Zaken et al. 2022).
    Bitfit(Only),
    /// Train the norms alone (Zhao et al. 2023).
    LayerNorm(Only),
    /// Train a narrow product beside each weight: LoRA, and with its switches rsLoRA, DoRA, LoRA-FA and LoRA+.
    Lora(LoraSpec),
    /// Train a product of directions beside each weight, and take those away that matter least (Zhang et al. 2023).
    #[serde(rename = "adalora")]
    AdaLora(AdaLoraSpec),
    /// Train two vectors beside each weight, around random matrices that all share.
    Vera(VeraSpec),
    /// Train factors of keys, values and activations.
    Ia3(Ia3Spec),
    /// Train small blocks behind the sublayers (Houlsby et al. 2019, Pfeiffer et al. 2021).
    Bottleneck(BottleneckSpec),
    /// Train vectors that stand before every text (Lester et al. 2021).
    Prompt(PromptSpec),
    /// The same, made by a small network (Liu et al. 2021).
    PTuning(PTuningSpec),
    /// Train keys and values that every layer begins with (Li and Liang 2021; P-tuning v2).
    Prefix(PrefixSpec),
}

impl Method {
    /// Its `kind`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Full(_) => "full",
            Self::Bitfit(_) => "bitfit",
            Self::LayerNorm(_) => "layer_norm",
            Self::Lora(_) => "lora",
            Self::AdaLora(_) => "adalora",
            Self::Vera(_) => "vera",
            Self::Ia3(_) => "ia3",
            Self::Bottleneck(_) => "bottleneck",
            Self::Prompt(_) => "prompt",
            Self::PTuning(_) => "p_tuning",
            Self::Prefix(_) => "prefix",
        }
    }

    /// The adapter that it trains, if it is one: the model itself stays as it is then.
    #[must_use]
    pub fn adapter(&self) -> Option<AdapterSpec> {
        Some(match self {
            Self::Full(_) | Self::Bitfit(_) | Self::LayerNorm(_) => return None,
            Self::Lora(lora) => AdapterSpec::Lora(lora.clone()),
            Self::AdaLora(adalora) => AdapterSpec::AdaLora(adalora.clone()),
            Self::Vera(vera) => AdapterSpec::Vera(vera.clone()),
            Self::Ia3(ia3) => AdapterSpec::Ia3(ia3.clone()),
            Self::Bottleneck(bottleneck) => AdapterSpec::Bottleneck(bottleneck.clone()),
            Self::Prompt(prompt) => AdapterSpec::Prompt(prompt.clone()),
            Self::PTuning(prompt) => AdapterSpec::PTuning(prompt.clone()),
            Self::Prefix(prefix) => AdapterSpec::Prefix(prefix.clone()),
        })
    }

    /// Whether its adapter begins with what the training data is like.
    #[must_use]
    pub fn reads_first(&self) -> bool {
        matches!(self, Self::Lora(LoraSpec { init: LoraInit::Eva, .. }))
    }

    /// The text that its prompt begins with.
    #[must_use]
    pub fn first_text(&self) -> Option<&str> {
        match self {
            Self::Prompt(prompt) => prompt.init_text.as_deref(),
            _ => None,
        }
    }

    /// How many times as fast as other parameters the one at this path learns (LoRA+, Hayou et al. 2024).
    #[must_use]
    pub fn lr_scale(&self, path: &str) -> f64 {
        match self {
            Self::Lora(lora) if path.ends_with(".lora_B") => lora.lr_ratio.unwrap_or(1.),
            _ => 1.,
        }
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        if let Some(adapter) = self.adapter() {
            adapter.check(problems);
        }
        if let Self::Lora(LoraSpec { lr_ratio: Some(ratio), .. }) = self {
            check_range(problems, "method.lr_ratio", *ratio, f64::MIN_POSITIVE, f64::MAX);
        }
    }
}

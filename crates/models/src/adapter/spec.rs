//! How an adapter is made: the settings of each method, as a recipe and a library's caller write them.

use std::collections::BTreeMap;

use phyla_nn::pattern::Pattern;
use serde::{Deserialize, Serialize};

use super::adalora::AdaLoraSpec;
use super::prompt::{self, PTuningSpec, PrefixSpec, PromptSpec};
use super::start::LoraInit;

/// Which method, with its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdapterSpec {
    /// LoRA and its nearest relatives.
    Lora(LoraSpec),
    /// AdaLoRA.
    #[serde(rename = "adalora")]
    AdaLora(AdaLoraSpec),
    /// VeRA.
    Vera(VeraSpec),
    /// IA3.
    Ia3(Ia3Spec),
    /// Houlsby's and Pfeiffer's adapters.
    Bottleneck(BottleneckSpec),
    /// Prompt tuning.
    Prompt(PromptSpec),
    /// P-tuning.
    PTuning(PTuningSpec),
    /// Prefix tuning.
    Prefix(PrefixSpec),
}

/// Linear maps that are adapted where nothing is said: queries and values, as in LoRA's paper (section 7.1).
pub(super) fn queries_and_values() -> Vec<Pattern> {
    patterns(&["**.{attn,cross}.{q,v}"])
}

/// Patterns that are known to be well-formed.
fn patterns(sources: &[&str]) -> Vec<Pattern> {
    sources.iter().filter_map(|source| Pattern::parse(source).ok()).collect()
}

/// LoRA (Hu et al. 2021), and with its switches rsLoRA, DoRA and LoRA-FA.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraSpec {
    /// Rank of the added product.
    #[serde(alias = "r")]
    pub rank: usize,
    /// What is added is scaled by `alpha / rank`.
    #[serde(alias = "lora_alpha")]
    pub alpha: f64,
    /// Dropout of what the first of the two matrices reads.
    #[serde(alias = "lora_dropout")]
    pub dropout: f64,
    /// Paths of the linear maps that are adapted.
    #[serde(alias = "target_modules")]
    pub targets: Vec<Pattern>,
    /// Paths that are not, though a target covers them.
    #[serde(alias = "exclude_modules")]
    pub exclude: Vec<Pattern>,
    /// Other ranks for some paths.
    pub rank_pattern: BTreeMap<String, usize>,
    /// Other alphas for some paths.
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Scale by `alpha / √rank` (Kalajdzievski 2023).
    #[serde(alias = "use_rslora")]
    pub rslora: bool,
    /// Learn the lengths of the weight's rows, too (Liu et al. 2024).
    #[serde(alias = "use_dora")]
    pub dora: bool,
    /// Leave the first matrix as it was drawn (LoRA-FA, Zhang et al. 2023).
    pub freeze_a: bool,
    /// How many times as fast as the first the second matrix learns (LoRA+, Hayou et al. 2024).
    #[serde(alias = "loraplus_lr_ratio")]
    pub lr_ratio: Option<f64>,
    /// How the two matrices begin.
    #[serde(alias = "init_lora_weights")]
    pub init: LoraInit,
    /// How many times its rank EVA may give to a map; the ranks of all maps come to the same in sum.
    pub eva_rho: f64,
    /// Paths of parameters that are trained whole and saved beside the adapter, such as a new head.
    #[serde(alias = "modules_to_save")]
    pub save: Vec<Pattern>,
}

impl Default for LoraSpec {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 8.,
            dropout: 0.,
            targets: queries_and_values(),
            exclude: vec![],
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            rslora: false,
            dora: false,
            freeze_a: false,
            lr_ratio: None,
            init: LoraInit::Default,
            eva_rho: 2.,
            save: vec![],
        }
    }
}

/// VeRA (Kopiczko et al. 2024).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VeraSpec {
    /// Rank of the added product.
    #[serde(alias = "r")]
    pub rank: usize,
    /// Where the inner vector begins; the outer begins at 0.
    pub d_initial: f64,
    /// Dropout of what the shared matrices read.
    #[serde(alias = "vera_dropout")]
    pub dropout: f64,
    /// Paths of the linear maps that are adapted.
    #[serde(alias = "target_modules")]
    pub targets: Vec<Pattern>,
    /// Paths that are not, though a target covers them.
    #[serde(alias = "exclude_modules")]
    pub exclude: Vec<Pattern>,
    /// Paths of parameters that are trained whole and saved beside the adapter.
    #[serde(alias = "modules_to_save")]
    pub save: Vec<Pattern>,
}

impl Default for VeraSpec {
    fn default() -> Self {
        Self { rank: 256, d_initial: 0.1, dropout: 0., targets: queries_and_values(), exclude: vec![], save: vec![] }
    }
}

/// IA3 (Liu et al. 2022).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ia3Spec {
    /// Paths of the linear maps whose results get factors: keys and values by default.
    #[serde(alias = "target_modules")]
    pub targets: Vec<Pattern>,
    /// Paths of those whose inputs do: the last maps of feed-forward blocks by default.
    #[serde(alias = "feedforward_modules")]
    pub feedforward: Vec<Pattern>,
    /// Paths that are not adapted, though a target covers them.
    #[serde(alias = "exclude_modules")]
    pub exclude: Vec<Pattern>,
    /// Paths of parameters that are trained whole and saved beside the adapter.
    #[serde(alias = "modules_to_save")]
    pub save: Vec<Pattern>,
}

impl Default for Ia3Spec {
    fn default() -> Self {
        let feedforward = patterns(&["**.mlp.down"]);
        Self { targets: patterns(&["**.{attn,cross}.{k,v}"]), feedforward, exclude: vec![], save: vec![] }
    }
}

/// Small blocks behind sublayers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BottleneckSpec {
    /// Numbers in the middle.
    pub inner: usize,
    /// Paths of the maps behind which they stand; by default the last maps of attention and feed-forward blocks, as
    /// Houlsby et al. have them. Those of Pfeiffer et al. stand behind `**.mlp.down` alone.
    pub targets: Vec<Pattern>,
    /// Paths of parameters that are trained whole and saved beside the adapter.
    pub save: Vec<Pattern>,
}

impl Default for BottleneckSpec {
    fn default() -> Self {
        Self { inner: 64, targets: patterns(&["**.{attn,cross}.o", "**.mlp.down"]), save: vec![] }
    }
}

impl AdapterSpec {
    /// Its `kind` in recipes.
    pub fn name(&self) -> &'static str {
        match self {
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

    /// Patterns of what is adapted.
    pub fn targets(&self) -> Vec<&Pattern> {
        match self {
            Self::Lora(lora) => lora.targets.iter().collect(),
            Self::AdaLora(adalora) => adalora.targets.iter().collect(),
            Self::Vera(vera) => vera.targets.iter().collect(),
            Self::Ia3(ia3) => ia3.targets.iter().chain(&ia3.feedforward).collect(),
            Self::Bottleneck(bottleneck) => bottleneck.targets.iter().collect(),
            Self::Prompt(_) | Self::PTuning(_) | Self::Prefix(_) => vec![],
        }
    }

    /// Patterns of what is not, though a target covers it.
    pub fn exclude(&self) -> &[Pattern] {
        match self {
            Self::Lora(lora) => &lora.exclude,
            Self::AdaLora(adalora) => &adalora.exclude,
            Self::Vera(vera) => &vera.exclude,
            Self::Ia3(ia3) => &ia3.exclude,
            Self::Bottleneck(_) | Self::Prompt(_) | Self::PTuning(_) | Self::Prefix(_) => &[],
        }
    }

    /// Patterns of parameters that are trained whole.
    pub fn save(&self) -> &[Pattern] {
        match self {
            Self::Lora(lora) => &lora.save,
            Self::AdaLora(adalora) => &adalora.save,
            Self::Vera(vera) => &vera.save,
            Self::Ia3(ia3) => &ia3.save,
            Self::Bottleneck(bottleneck) => &bottleneck.save,
            Self::Prompt(prompt) => &prompt.save,
            Self::PTuning(prompt) => &prompt.save,
            Self::Prefix(prefix) => &prefix.save,
        }
    }

    /// The same, to be added to.
    pub fn save_mut(&mut self) -> &mut Vec<Pattern> {
        match self {
            Self::Lora(lora) => &mut lora.save,
            Self::AdaLora(adalora) => &mut adalora.save,
            Self::Vera(vera) => &mut vera.save,
            Self::Ia3(ia3) => &mut ia3.save,
            Self::Bottleneck(bottleneck) => &mut bottleneck.save,
            Self::Prompt(prompt) => &mut prompt.save,
            Self::PTuning(prompt) => &mut prompt.save,
            Self::Prefix(prefix) => &mut prefix.save,
        }
    }

    /// Whether it stands before every text, and changes no linear map.
    pub fn is_prompt(&self) -> bool {
        matches!(self, Self::Prompt(_) | Self::PTuning(_) | Self::Prefix(_))
    }

    /// Adds a sentence for each setting that no model could be adapted with.
    pub fn check(&self, problems: &mut Vec<String>) {
        if self.is_prompt() {
            return prompt::check(self, problems);
        }
        let mut size = |key: &str, size: usize| {
            if !(1..=1 << 16).contains(&size) {
                problems.push(format!("`method.{key}` is {size}; expected 1 to 65536"));
            }
        };
        let dropout = match self {
            Self::Lora(lora) => {
                size("rank", lora.rank);
                lora.rank_pattern.values().for_each(|&rank| size("rank_pattern", rank));
                lora.dropout
            }
            Self::AdaLora(adalora) => {
                size("rank", adalora.rank);
                adalora.dropout
            }
            Self::Vera(vera) => {
                size("rank", vera.rank);
                vera.dropout
            }
            Self::Ia3(_) | Self::Prompt(_) | Self::PTuning(_) | Self::Prefix(_) => 0.,
            Self::Bottleneck(bottleneck) => {
                size("inner", bottleneck.inner);
                0.
            }
        };
        if !(0.0..1.0).contains(&dropout) {
            problems.push(format!("`method.dropout` is {dropout}; expected at least 0 and below 1"));
        }
        let alphas: Vec<f64> = match self {
            Self::Lora(lora) => std::iter::once(lora.alpha).chain(lora.alpha_pattern.values().copied()).collect(),
            Self::AdaLora(adalora) => vec![adalora.alpha],
            _ => vec![],
        };
        for alpha in alphas.into_iter().filter(|alpha| !(alpha.is_finite() && *alpha > 0.)) {
            problems.push(format!("`method.alpha` is {alpha}; expected a number above 0"));
        }
        if let Self::AdaLora(adalora) = self {
            adalora.check(problems);
        }
        if let Self::Lora(lora) = self {
            if !(1.0..=1e3).contains(&lora.eva_rho) {
                problems.push(format!("`method.eva_rho` is {}; expected 1 to 1000", lora.eva_rho));
            }
            for pattern in lora.rank_pattern.keys().chain(lora.alpha_pattern.keys()) {
                problems.extend(Pattern::parse(pattern).err().map(|error| error.to_string()));
            }
        }
        if self.targets().is_empty() {
            problems.push("`method.targets` is empty: nothing would be adapted".into());
        }
    }
}

impl LoraSpec {
    /// Rank and scale at a path.
    pub(super) fn at(&self, path: &str) -> (usize, f32) {
        let rank = special(&self.rank_pattern, path).unwrap_or(self.rank);
        let alpha = special(&self.alpha_pattern, path).unwrap_or(self.alpha);
        (rank, scale(alpha, rank, self.rslora))
    }
}

impl LoraSpec {
    /// The scale at a path that came to have this rank: where EVA gave it another than it was asked for, alpha follows.
    pub(super) fn scale_of(&self, path: &str, rank: usize) -> f32 {
        let asked = special(&self.rank_pattern, path).unwrap_or(self.rank);
        let alpha = special(&self.alpha_pattern, path).unwrap_or(self.alpha);
        scale(alpha * rank as f64 / asked as f64, rank, self.rslora)
    }
}

/// The value of the first pattern that covers a path.
fn special<T: Copy>(values: &BTreeMap<String, T>, path: &str) -> Option<T> {
    values.iter().find(|(pattern, _)| Pattern::parse(pattern).is_ok_and(|p| p.covers(path))).map(|(_, value)| *value)
}

/// `alpha / rank`, or of rsLoRA `alpha / √rank`.
pub(super) fn scale(alpha: f64, rank: usize, rslora: bool) -> f32 {
    let rank = rank.max(1) as f64;
    (if rslora { alpha / rank.sqrt() } else { alpha / rank }) as f32
}

//! `[objective] kind = "dpo"`: pairs of completions against a reference, with the names of trl's `DPOConfig`.

use std::path::PathBuf;

use phyla_data::supervised::preference::Truncation;
use serde::{Deserialize, Deserializer, Serialize};

use super::check_length;
use crate::recipe::check_range;

/// Losses of pairs, alone or together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dpo {
    /// How firmly the policy is held to the reference.
    pub beta: f64,
    /// One loss, or several to be added.
    #[serde(deserialize_with = "one_or_several")]
    pub loss_type: Vec<DpoLoss>,
    /// What each of several counts for; 1 unless given.
    pub loss_weights: Option<Vec<f64>>,
    /// Which divergence from the reference is held small.
    pub f_divergence_type: FDivergence,
    /// α of `alpha_divergence`.
    pub f_alpha_divergence_coef: f64,
    /// Share of labels that are taken to be wrong: `sigmoid` (conservative DPO), `exo_pair`, `robust`, `aot` and
    /// `aot_unpaired`.
    pub label_smoothing: f64,
    /// Temperature of `discopop`'s mixture.
    pub discopop_tau: f64,
    /// What tokens beyond the length of the shorter completion count for, from 0 to 1; 1 unless given.
    pub ld_alpha: Option<f64>,
    /// Each pair counts for what the policy itself would have written it with: for the product of both completions'
    /// probabilities, by the token, against those of its own draws (Zhou et al. 2024, WPO).
    pub use_weighting: bool,
    /// Where log-probabilities of the reference come from.
    pub reference: Reference,
    /// The reference; the model that the run begins with unless given.
    pub reference_model: Option<PathBuf>,
    /// Tokens of a prompt with its completion at most.
    pub max_len: usize,
    /// Which end longer ones keep.
    pub truncation_mode: Truncation,
    /// For conversations: a file with a chat template, or the name of one that comes with the program; the tokenizer's own
    /// unless given.
    pub chat_template: Option<String>,
}

/// Where the reference's log-probabilities come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reference {
    /// Computed once, before the first step, and kept beside the run: no second model stays in memory.
    #[default]
    Precompute,
    /// Computed in each step by the model without the adapter that learns: nothing before the first step, and a forward
    /// pass more in each.
    AdapterOff,
    /// There is none: its log-probabilities count as 0.
    None,
}

impl Reference {
    /// Adds the sentence when there is another model for a reference that needs none.
    pub(super) fn check(self, other: bool, problems: &mut Vec<String>) {
        let name = match self {
            Self::Precompute => return,
            Self::AdapterOff => "adapter_off",
            Self::None => "none",
        };
        if other {
            problems.push(format!(
                "`objective.reference_model` is given and `objective.reference` is \"{name}\"; keep one"
            ));
        }
    }
}

/// Losses by trl's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DpoLoss {
    /// DPO itself.
    Sigmoid,
    /// SLiC's hinge.
    Hinge,
    /// IPO, of means over tokens.
    Ipo,
    /// EXO for pairs.
    ExoPair,
    /// NCA for pairs.
    NcaPair,
    /// DPO that is unbiased under wrong labels.
    Robust,
    /// BCO for pairs.
    BcoPair,
    /// SPPO with probabilities 0 and 1.
    SppoHard,
    /// Quantiles of margins.
    Aot,
    /// Quantiles of chosen against those of rejected completions.
    AotUnpaired,
    /// APO for completions better than the model's own.
    ApoZero,
    /// APO for completions worse than the model's own.
    ApoDown,
    /// The loss that a language model found.
    Discopop,
    /// Likelihood of the chosen completions.
    Sft,
    /// DPO of means over tokens.
    SigmoidNorm,
}

/// Divergences by trl's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FDivergence {
    /// DPO's own.
    #[default]
    ReverseKl,
    /// Turned round.
    ForwardKl,
    /// Jensen-Shannon.
    JsDivergence,
    /// Between them, by α.
    AlphaDivergence,
}

impl Default for Dpo {
    fn default() -> Self {
        Self {
            beta: 0.1,
            loss_type: vec![DpoLoss::Sigmoid],
            loss_weights: None,
            f_divergence_type: FDivergence::default(),
            f_alpha_divergence_coef: 0.5,
            label_smoothing: 0.,
            discopop_tau: 0.05,
            ld_alpha: None,
            use_weighting: false,
            reference: Reference::default(),
            reference_model: None,
            max_len: 1024,
            truncation_mode: Truncation::default(),
            chat_template: None,
        }
    }
}

fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<DpoLoss>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        One(String),
        Several(Vec<String>),
    }
    let names = match Given::deserialize(deserializer)? {
        Given::One(name) => vec![name],
        Given::Several(names) => names,
    };
    let loss = |name: String| DpoLoss::deserialize(serde::de::value::StringDeserializer::<D::Error>::new(name));
    names.into_iter().map(loss).collect()
}

impl Dpo {
    /// The losses with their weights.
    pub fn losses(&self) -> impl Iterator<Item = (DpoLoss, f64)> + '_ {
        let weight = |at: usize| self.loss_weights.as_ref().and_then(|weights| weights.get(at)).copied().unwrap_or(1.);
        self.loss_type.iter().enumerate().map(move |(at, &loss)| (loss, weight(at)))
    }

    /// What the likelihood of the chosen completions counts for.
    #[must_use]
    pub fn weight_of_sft(&self) -> f64 {
        self.losses().filter(|(loss, _)| *loss == DpoLoss::Sft).map(|(_, weight)| weight).sum()
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        check_length(problems, "max_len", self.max_len, 2);
        check_beta(problems, self.beta);
        check_range(problems, "objective.discopop_tau", self.discopop_tau, 1e-6, 1e6);
        check_range(problems, "objective.ld_alpha", self.ld_alpha.unwrap_or(1.), 0., 1.);
        check_range(problems, "objective.f_alpha_divergence_coef", self.f_alpha_divergence_coef, -1e3, 1e3);
        if self.loss_type.is_empty() {
            problems.push("`objective.loss_type` is an empty list; expected at least one loss".into());
        }
        if let Some(weights) = &self.loss_weights
            && (weights.len() != self.loss_type.len() || weights.iter().any(|weight| !weight.is_finite()))
        {
            problems.push(format!(
                "`objective.loss_weights` has {} entries for {} losses; expected a finite number for each",
                weights.len(),
                self.loss_type.len()
            ));
        }
        self.reference.check(self.reference_model.is_some(), problems);
        self.check_weighting(problems);
        self.check_smoothing(problems);
        self.check_divergence(problems);
    }

    /// As in trl: some losses are not of one pair by itself.
    fn check_weighting(&self, problems: &mut Vec<String>) {
        use DpoLoss::{Aot, AotUnpaired, Sft};
        if self.use_weighting && self.loss_type.iter().any(|loss| matches!(loss, Aot | AotUnpaired | Sft)) {
            problems.push(
                "`objective.use_weighting` weighs pairs one by one, and aot, aot_unpaired and sft are not sums over pairs; \
                 leave one of them out"
                    .into(),
            );
        }
    }

    /// Whether each loss knows what to do with smoothed labels.
    fn check_smoothing(&self, problems: &mut Vec<String>) {
        let (smoothing, has) = (self.label_smoothing, |loss| self.loss_type.contains(&loss));
        let smoothed = |loss: &&DpoLoss| {
            use DpoLoss::{Aot, AotUnpaired, ExoPair, Robust, Sigmoid};
            matches!(loss, Sigmoid | ExoPair | Robust | Aot | AotUnpaired)
        };
        if smoothing > 0. && !self.loss_type.iter().any(|loss| smoothed(&loss)) {
            problems.push(
                "`objective.label_smoothing` is for sigmoid, exo_pair, robust, aot and aot_unpaired; none is in \
                 `objective.loss_type`"
                    .into(),
            );
        }
        if smoothing <= 0. && has(DpoLoss::ExoPair) {
            problems.push("`objective.label_smoothing` must be above 0 for exo_pair, which takes its logarithm".into());
        }
        if smoothing >= 0.5 && has(DpoLoss::Robust) {
            let text = format!("`objective.label_smoothing` is {smoothing}; robust needs it below 0.5");
            problems.push(text);
        }
    }

    /// As in trl: some losses are not of scores that a divergence makes.
    fn check_divergence(&self, problems: &mut Vec<String>) {
        use DpoLoss::{Discopop, ExoPair, Hinge, Ipo, Robust, Sft, Sigmoid, SigmoidNorm};
        let fits =
            |loss: &DpoLoss| matches!(loss, Sigmoid | SigmoidNorm | Hinge | Ipo | ExoPair | Robust | Discopop | Sft);
        if self.f_divergence_type != FDivergence::ReverseKl && !self.loss_type.iter().all(fits) {
            problems.push(
                "`objective.f_divergence_type` is for sigmoid, sigmoid_norm, hinge, ipo, exo_pair, robust, discopop and \
                 sft; leave it out for the other losses"
                    .into(),
            );
        }
    }
}

/// Adds the sentence when a factor on rewards is no positive number.
pub(super) fn check_beta(problems: &mut Vec<String>, beta: f64) {
    if !(beta > 0. && beta.is_finite()) {
        problems.push(format!("`objective.beta` is {beta}; expected a number above 0"));
    }
}

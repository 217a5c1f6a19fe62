//! `[distill]`: a teacher whose distributions are learned beside what the objective asks for, or in its place.

use phyla_ops::Divergence;
use serde::{Deserialize, Serialize};

use super::{Objective, Reads, check_range};

/// Knowledge distillation (Hinton et al. 2015): `(1 - alpha) · the objective's loss + alpha · T² · divergence`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distill {
    /// The teacher: a folder or a hub id. It has the student's vocabulary, and the head that the objective needs.
    pub teacher: String,
    /// What the teacher's weights are kept as: int8, q8_0, q4_k_m, …; as the recipe's `dtype` says unless given.
    pub quantize: Option<String>,
    /// `T`: both sides' logits are divided by it. What comes of it is multiplied by its square, so that its gradients stay
    /// as large (section 2.1 there).
    #[serde(default = "two")]
    pub temperature: f64,
    /// Which divergence: 0 is `KL(teacher ‖ student)`, 1 is `KL(student ‖ teacher)`, between them lies the generalised
    /// Jensen-Shannon divergence (Agarwal et al. 2024, eq. 1).
    #[serde(default)]
    pub beta: f64,
    /// Share of the divergence in the loss; 1 leaves the targets out.
    #[serde(default = "half")]
    pub alpha: f64,
    /// What `1 - cos` of both models' last hidden states counts for beside it, a mean over tokens (Sanh et al. 2019,
    /// section 3); both must be of one size.
    #[serde(default)]
    pub hidden_weight: f64,
}

fn two() -> f64 {
    2.
}

fn half() -> f64 {
    0.5
}

impl Distill {
    /// The divergence that `beta` names.
    #[must_use]
    pub fn divergence(&self) -> Divergence {
        match self.beta {
            0. => Divergence::Forward,
            1. => Divergence::Reverse,
            beta => Divergence::Between(beta as f32),
        }
    }

    pub(super) fn check(&self, objective: &Objective, problems: &mut Vec<String>) {
        check_range(problems, "distill.temperature", self.temperature, 0.01, 1000.);
        check_range(problems, "distill.beta", self.beta, 0., 1.);
        check_range(problems, "distill.alpha", self.alpha, 0., 1.);
        check_range(problems, "distill.hidden_weight", self.hidden_weight, 0., f64::MAX);
        if self.alpha == 0. && self.hidden_weight == 0. {
            problems
                .push("`distill.alpha` and `distill.hidden_weight` are 0: nothing is learned of the teacher".into());
        }
        if let Some(Err(error)) = self.quantize.as_deref().map(str::parse::<phyla_models::Quantize>) {
            problems.push(format!("`distill.quantize`: {error}"));
        }
        let fits = matches!(
            objective.reads(),
            Reads::Text | Reads::Pairs | Reads::Labelled | Reads::Tagged | Reads::Choices | Reads::Dialogues
        );
        if !fits {
            problems.push(format!(
                "[distill] goes with objectives over tokens or classes (lm, mlm, mlm_nsp, t5_span, seq2seq, sft, classify, \
                 token_classify, multiple_choice); `objective.kind` is \"{}\"",
                objective.name()
            ));
        }
    }
}

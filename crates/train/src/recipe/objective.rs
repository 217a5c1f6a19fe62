//! `[objective]`: what training minimises, and how examples are made of the data.
//!
//! Most kinds are the settings of the data crate as they stand there, so that a key means the same in a recipe and in the
//! library; those with a setting of their own have a file below.

mod cpo;
mod dpo;
mod grpo;
mod kto;
mod lm;
mod mlm_nsp;
mod online_dpo;
mod play;
mod ppo;
mod qa;
mod reward;
mod rewards;
mod rloo;
mod rollout;
mod seq2seq;
mod sft;

use phyla_data::pretrain::{MaskSettings, MlmSettings, SpanSettings};
use phyla_data::supervised::classify::ClassifySettings;
use phyla_data::supervised::multiple_choice::ChoiceSettings;
use phyla_data::supervised::preference::PreferenceSettings;
use phyla_data::supervised::token_classify::TokenClassifySettings;
use phyla_models::Task;
use serde::{Deserialize, Serialize};

pub use cpo::{Cpo, CpoLoss, Orpo, Simpo};
pub use dpo::{Dpo, DpoLoss, FDivergence, Reference};
pub use grpo::{Grpo, GrpoLoss, ImportanceSampling, ScaleRewards};
pub use kto::{Kto, KtoLoss};
pub use lm::Lm;
pub use mlm_nsp::MlmNsp;
pub use online_dpo::OnlineDpo;
pub use play::Play;
pub use ppo::{KlEstimator, Ppo};
pub use qa::Qa;
pub use reward::{Reward, RewardLoss};
pub use rewards::{LengthUnit, RewardFunction};
pub use rloo::Rloo;
pub use rollout::Rollout;
pub use seq2seq::Seq2Seq;
pub use sft::Sft;

use super::check_range;

/// The quantity that is minimised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// Next-token prediction.
    Lm(Lm),
    /// The tokens under masks (BERT, RoBERTa).
    Mlm(MlmSettings),
    /// The tokens under masks, and whether a text follows another (BERT's own pair of tasks).
    MlmNsp(MlmNsp),
    /// A text for a text: translation, summaries.
    #[serde(rename = "seq2seq")]
    Seq2Seq(Seq2Seq),
    /// The runs of tokens that gave way to sentinels (T5).
    T5Span(SpanSettings),
    /// A class, several, or numbers for a text or a pair.
    Classify(ClassifySettings),
    /// A tag for each word.
    TokenClassify(TokenClassifySettings),
    /// Where in a text the answer to a question begins and ends.
    Qa(Qa),
    /// Which of several choices is right.
    MultipleChoice(ChoiceSettings),
    /// Of two completions the better one, against a reference.
    Dpo(Dpo),
    /// Completions that are good and others that are not, against a reference.
    Kto(Kto),
    /// Of two completions the better one, and its likelihood; by odds.
    Orpo(Orpo),
    /// Of two completions the better one, and its likelihood.
    Cpo(Cpo),
    /// Of two completions the better one by mean log-probability.
    Simpo(Simpo),
    /// A number for a text, the higher the better.
    Reward(Reward),
    /// What an assistant is to write: conversations, completions, instructions, texts.
    Sft(Sft),
    /// The policy's own completions, by their rewards: with a value head.
    Ppo(Ppo),
    /// The policy's own completions, by their rewards: each against its group.
    Grpo(Grpo),
    /// The policy's own completions, by their rewards: each against the others of its prompt.
    Rloo(Rloo),
    /// Of two of the policy's own completions the better one, against a reference.
    OnlineDpo(OnlineDpo),
}

/// What an objective learns from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Documents without labels.
    Text,
    /// Pairs of texts.
    Pairs,
    /// Texts with labels.
    Labelled,
    /// Words with tags.
    Tagged,
    /// Questions on texts.
    Questions,
    /// Questions with choices.
    Choices,
    /// Prompts with two completions, the first of them preferred.
    Preferences,
    /// Prompts with a completion that is good or not.
    Judgements,
    /// Texts, or prompts with completions, with grades.
    Grades,
    /// Conversations, prompts with completions, instructions with answers, or texts.
    Dialogues,
    /// Prompts that the model answers itself.
    Prompts,
}

impl Reads {
    /// Its name in sentences.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Pairs => "pairs of texts",
            Self::Labelled => "texts with labels",
            Self::Tagged => "words with tags",
            Self::Questions => "questions on texts",
            Self::Choices => "questions with choices",
            Self::Preferences => "pairs of completions of which one is preferred",
            Self::Judgements => "completions judged one by one",
            Self::Grades => "texts with grades",
            Self::Dialogues => "dialogues",
            Self::Prompts => "prompts",
        }
    }
}

impl Objective {
    /// Its `kind`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Lm(_) => "lm",
            Self::Mlm(_) => "mlm",
            Self::MlmNsp(_) => "mlm_nsp",
            Self::Seq2Seq(_) => "seq2seq",
            Self::T5Span(_) => "t5_span",
            Self::Classify(_) => "classify",
            Self::TokenClassify(_) => "token_classify",
            Self::Qa(_) => "qa",
            Self::MultipleChoice(_) => "multiple_choice",
            Self::Dpo(_) => "dpo",
            Self::Kto(_) => "kto",
            Self::Orpo(_) => "orpo",
            Self::Cpo(_) => "cpo",
            Self::Simpo(_) => "simpo",
            Self::Reward(_) => "reward",
            Self::Sft(_) => "sft",
            Self::Ppo(_) => "ppo",
            Self::Grpo(_) => "grpo",
            Self::Rloo(_) => "rloo",
            Self::OnlineDpo(_) => "online_dpo",
        }
    }

    /// What it learns from.
    #[must_use]
    pub fn reads(&self) -> Reads {
        match self {
            Self::Lm(_) | Self::Mlm(_) | Self::MlmNsp(_) | Self::T5Span(_) => Reads::Text,
            Self::Seq2Seq(_) => Reads::Pairs,
            Self::Classify(_) => Reads::Labelled,
            Self::TokenClassify(_) => Reads::Tagged,
            Self::Qa(_) => Reads::Questions,
            Self::MultipleChoice(_) => Reads::Choices,
            Self::Reward(reward) if reward.loss_type == RewardLoss::Ordinal => Reads::Grades,
            Self::Dpo(_) | Self::Orpo(_) | Self::Cpo(_) | Self::Simpo(_) | Self::Reward(_) => Reads::Preferences,
            Self::Kto(_) => Reads::Judgements,
            Self::Sft(_) => Reads::Dialogues,
            Self::Ppo(_) | Self::Grpo(_) | Self::Rloo(_) | Self::OnlineDpo(_) => Reads::Prompts,
        }
    }

    /// Whether it learns from preferences, whose losses and measures are its own.
    #[must_use]
    pub fn compares(&self) -> bool {
        matches!(self.reads(), Reads::Preferences | Reads::Judgements)
    }

    /// How prompts and completions become examples.
    #[must_use]
    pub fn completions(&self) -> Option<PreferenceSettings> {
        let (max_len, truncation) = match self {
            Self::Dpo(dpo) => (dpo.max_len, dpo.truncation_mode),
            Self::Kto(kto) => (kto.max_len, kto.truncation_mode),
            Self::Orpo(orpo) => (orpo.max_len, orpo.truncation_mode),
            Self::Cpo(cpo) => (cpo.max_len, cpo.truncation_mode),
            Self::Simpo(simpo) => (simpo.max_len, simpo.truncation_mode),
            Self::Reward(reward) => (reward.max_len, reward.truncation_mode),
            _ => return None,
        };
        Some(PreferenceSettings { max_len, truncation, whole: matches!(self, Self::Orpo(_)) })
    }

    /// The chat template that conversations are rendered with, where it is not the tokenizer's own.
    #[must_use]
    pub fn chat_template(&self) -> Option<&str> {
        match self {
            Self::Sft(sft) => sft.chat_template.as_deref(),
            Self::Dpo(dpo) => dpo.chat_template.as_deref(),
            Self::Kto(kto) => kto.chat_template.as_deref(),
            Self::Orpo(orpo) => orpo.chat_template.as_deref(),
            Self::Cpo(cpo) => cpo.chat_template.as_deref(),
            Self::Simpo(simpo) => simpo.chat_template.as_deref(),
            Self::Reward(reward) => reward.chat_template.as_deref(),
            Self::Ppo(ppo) => ppo.chat_template.as_deref(),
            Self::Grpo(grpo) => grpo.chat_template.as_deref(),
            Self::Rloo(rloo) => rloo.chat_template.as_deref(),
            Self::OnlineDpo(online) => online.chat_template.as_deref(),
            _ => None,
        }
    }

    /// Where the log-probabilities of a reference come from, and which model it is if not the run's first; `None` for
    /// objectives without one.
    #[must_use]
    pub fn reference(&self) -> Option<(Reference, Option<&std::path::Path>)> {
        match self {
            Self::Dpo(dpo) => Some((dpo.reference, dpo.reference_model.as_deref())),
            Self::Kto(kto) => Some((kto.reference, kto.reference_model.as_deref())),
            _ => None,
        }
    }

    /// The head that a model needs for it; next-token prediction, of whatever, takes the model's own.
    #[must_use]
    pub fn task(&self) -> Option<Task> {
        Some(match self {
            Self::Lm(_)
            | Self::Sft(_)
            | Self::Dpo(_)
            | Self::Kto(_)
            | Self::Orpo(_)
            | Self::Cpo(_)
            | Self::Simpo(_)
            | Self::Ppo(_)
            | Self::Grpo(_)
            | Self::Rloo(_)
            | Self::OnlineDpo(_) => return None,
            Self::Mlm(_) => Task::MaskedLm,
            Self::MlmNsp(_) => Task::PreTraining,
            Self::Seq2Seq(_) | Self::T5Span(_) => Task::Seq2SeqLm,
            Self::Classify(_) | Self::Reward(_) => Task::SequenceClassification,
            Self::TokenClassify(_) => Task::TokenClassification,
            Self::Qa(_) => Task::QuestionAnswering,
            Self::MultipleChoice(_) => Task::MultipleChoice,
        })
    }

    /// Whether the loss is over a vocabulary alone, so that its exponential is a perplexity.
    #[must_use]
    pub fn has_perplexity(&self) -> bool {
        matches!(self, Self::Lm(_) | Self::Mlm(_) | Self::Seq2Seq(_) | Self::T5Span(_) | Self::Sft(_))
    }

    /// Probability spread evenly over all classes, in training.
    #[must_use]
    pub fn label_smoothing(&self) -> f64 {
        match self {
            Self::Lm(lm) => lm.label_smoothing,
            Self::Seq2Seq(seq2seq) => seq2seq.label_smoothing,
            Self::Dpo(dpo) => dpo.label_smoothing,
            Self::Cpo(cpo) => cpo.label_smoothing,
            Self::Simpo(simpo) => simpo.label_smoothing,
            _ => 0.,
        }
    }

    /// The noise on embedded tokens, in training.
    #[must_use]
    pub fn neftune(&self) -> Option<f64> {
        match self {
            Self::Sft(sft) => sft.neftune_noise_alpha,
            _ => None,
        }
    }

    pub(super) fn check(&self, problems: &mut Vec<String>) {
        let smoothing = self.label_smoothing();
        if !(0.0..1.0).contains(&smoothing) {
            problems.push(format!("`objective.label_smoothing` is {smoothing}; expected at least 0 and below 1"));
        }
        match self {
            Self::Lm(_) => {}
            Self::Mlm(mlm) => {
                check_length(problems, "max_len", mlm.max_len, 3);
                check_mask(problems, &mlm.mask);
            }
            Self::MlmNsp(nsp) => nsp.check(problems),
            Self::Seq2Seq(seq2seq) => seq2seq.check(problems),
            Self::T5Span(span) => {
                check_length(problems, "inputs_length", span.inputs_length, 4);
                if !(span.noise_density > 0. && span.noise_density < 1.) {
                    let found = span.noise_density;
                    problems.push(format!("`objective.noise_density` is {found}; expected above 0 and below 1"));
                }
                check_range(problems, "objective.mean_span_length", span.mean_span_length, 1., 1e6);
            }
            Self::Classify(classify) => {
                check_length(problems, "max_len", classify.max_len, 3);
                check_labels(problems, classify.labels.as_deref());
            }
            Self::TokenClassify(tags) => {
                check_length(problems, "max_len", tags.max_len, 3);
                check_labels(problems, tags.labels.as_deref());
            }
            Self::Qa(qa) => qa.check(problems),
            Self::Sft(sft) => sft.check(problems),
            Self::MultipleChoice(choice) => check_length(problems, "max_len", choice.max_len, 4),
            Self::Dpo(dpo) => dpo.check(problems),
            Self::Kto(kto) => kto.check(problems),
            Self::Orpo(orpo) => orpo.check(problems),
            Self::Cpo(cpo) => cpo.check(problems),
            Self::Simpo(simpo) => simpo.as_cpo().check(problems),
            Self::Reward(reward) => reward.check(problems),
            Self::Ppo(ppo) => ppo.check(problems),
            Self::Grpo(grpo) => grpo.check(problems),
            Self::Rloo(rloo) => rloo.check(problems),
            Self::OnlineDpo(online) => online.check(problems),
        }
    }
}

/// Rows longer than this are a slip of the pen.
const LONGEST: usize = 1 << 24;

/// Adds the sentence when a length in tokens has no room for what must be in it, or is beyond any machine.
fn check_length(problems: &mut Vec<String>, key: &str, length: usize, least: usize) {
    if !(least..=LONGEST).contains(&length) {
        problems.push(format!("`objective.{key}` is {length}; expected {least} to {LONGEST} tokens"));
    }
}

/// Adds a sentence for each share of a mask that is none.
fn check_mask(problems: &mut Vec<String>, mask: &MaskSettings) {
    for (key, share) in
        [("probability", mask.probability), ("mask_share", mask.mask_share), ("random_share", mask.random_share)]
    {
        check_range(problems, &format!("objective.mask.{key}"), share, 0., 1.);
    }
    if mask.probability == 0. {
        problems.push("`objective.mask.probability` is 0: nothing is hidden, so there is nothing to learn".into());
    }
    if mask.mask_share + mask.random_share > 1. {
        problems.push("`objective.mask.mask_share` and `objective.mask.random_share` make more than 1 together".into());
    }
}

fn check_labels(problems: &mut Vec<String>, labels: Option<&[String]>) {
    if labels.is_some_and(<[String]>::is_empty) {
        problems.push("`objective.labels` is an empty list; leave it out to take the labels of the data".into());
    }
}

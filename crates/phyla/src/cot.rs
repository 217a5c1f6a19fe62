//! Chain of thought: lets a model reason before it answers, by prompts alone, and finds the answer in what it wrote.
//!
//! A [`Reasoner`] asks by one of the [`Method`]s; their prompts are templates (see [`Method::template`]) that may be replaced. What
//! comes of a question is a [`Solved`]: the answer, every chain that led to it, and of several chains the vote.
//!
//! | method | source | passes over the model |
//! |---|---|---|
//! | [`Method::Plain`] | | one |
//! | [`Method::ZeroShot`] | Kojima et al. 2022 (arXiv 2205.11916) | two: reasoning, answer |
//! | [`Method::FewShot`] | Wei et al. 2022 (arXiv 2201.11903) | one, behind exemplars |
//! | [`Method::SelfConsistency`] | Wang et al. 2022 (arXiv 2203.11171) | one of the two before, drawn several times from one reading of the prompt |
//! | [`Method::LeastToMost`] | Zhou et al. 2022 (arXiv 2205.10625) | one to decompose, and one for each simpler question |

mod ask;
mod prompt;
mod shots;
mod solve;
mod vote;

use phyla_generate::{FinishReason, GenerationConfig};
use serde::{Serialize, Serializer};

pub use phyla_metrics::answer::{self, Kind, numbers};
pub(crate) use prompt::lettered;
pub(crate) use shots::plain;
pub use shots::{Shot, Step, built_in, read_shots};
pub use solve::Reasoner;
pub use vote::{Vote, Votes};

/// How a model is led to an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The answer at once.
    Plain,
    /// "Let's think step by step", then the answer.
    #[default]
    ZeroShot,
    /// Behind exemplars that reason.
    FewShot,
    /// Several chains, drawn, and a vote.
    SelfConsistency,
    /// Simpler questions first.
    LeastToMost,
}

impl Method {
    /// All methods.
    pub const ALL: [Self; 5] = [Self::Plain, Self::ZeroShot, Self::FewShot, Self::SelfConsistency, Self::LeastToMost];

    /// Its name in options and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::ZeroShot => "zero-shot",
            Self::FewShot => "few-shot",
            Self::SelfConsistency => "self-consistency",
            Self::LeastToMost => "least-to-most",
        }
    }

    /// The built-in template of its prompts, to be edited. Self-consistency has that of the chains it draws.
    ///
    /// Variables are `question`, `options` (a list, mostly empty), `kind` (of [`Kind::name`]), `chat` (whether the model's chat
    /// template comes around it), `shots`, `stage` (`reason` and `answer`, or `decompose` and `solve`), and what earlier stages
    /// gave: `reasoning`, or `solved` and `subquestion`. `{{ assistant }}` marks where the model's own turn begins.
    pub fn template(self) -> &'static str {
        match self {
            Self::Plain => include_str!("cot/templates/plain.jinja"),
            Self::ZeroShot => include_str!("cot/templates/zero-shot.jinja"),
            Self::FewShot | Self::SelfConsistency => include_str!("cot/templates/few-shot.jinja"),
            Self::LeastToMost => include_str!("cot/templates/least-to-most.jinja"),
        }
    }
}

/// Whether prompts go through the model's chat template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThroughChat {
    /// Where it has one.
    #[default]
    Auto,
    /// Always; without one that is an error.
    Always,
    /// Never: plain text.
    Never,
}

/// What to ask, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The method.
    pub method: Method,
    /// What kind of answer is looked for.
    pub kind: Kind,
    /// Self-consistency: chains for each question.
    pub samples: usize,
    /// Self-consistency: draw chains of [`Method::ZeroShot`] in place of [`Method::FewShot`].
    pub without_shots: bool,
    /// A template in place of the built-in one, with its name for messages.
    pub template: Option<(String, String)>,
    /// Exemplars in place of the built-in ones.
    pub shots: Option<Vec<Shot>>,
    /// Whether prompts go through the model's chat template.
    pub chat: ThroughChat,
    /// How to decode; goes before the model's own settings. Without a word on drawing, single chains are greedy and those of
    /// self-consistency are drawn at temperature 0.7 among 40, as in Wang et al. 2022, section 3.1.
    pub generation: GenerationConfig,
    /// Seed of draws.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            method: Method::default(),
            kind: Kind::default(),
            samples: SAMPLES,
            without_shots: false,
            template: None,
            shots: None,
            chat: ThroughChat::default(),
            generation: GenerationConfig::default(),
            seed: 0,
        }
    }
}

/// Chains of self-consistency, unless told otherwise.
pub const SAMPLES: usize = 5;

/// Something to be answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Question {
    /// Its text.
    pub text: String,
    /// What there is to choose from, each with its letter: `(A) 5 km`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Question {
    /// A question with options, which get their letters here.
    pub fn new(text: &str, options: &[String]) -> Self {
        Self { text: text.trim().to_owned(), options: lettered(options) }
    }
}

impl From<&str> for Question {
    fn from(text: &str) -> Self {
        Self::new(text, &[])
    }
}

/// A question with its answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Solved {
    /// The answer, if one was found.
    pub answer: Option<String>,
    /// Of several chains: how they voted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vote: Option<Vote>,
    /// What the model wrote: one chain, or several.
    pub chains: Vec<Chain>,
}

impl Solved {
    /// Tokens that were written for it.
    pub fn tokens(&self) -> usize {
        self.chains.iter().flat_map(|chain| &chain.passes).map(|pass| pass.tokens).sum()
    }
}

/// A chain of thought.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Chain {
    /// The answer it comes to.
    pub answer: Option<String>,
    /// The passes over the model, in order.
    pub passes: Vec<Pass>,
}

/// A prompt, and what the model wrote behind it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pass {
    /// `reason`, `answer`, `decompose` or `solve`.
    pub stage: Stage,
    /// What the model read, with its chat template around it.
    pub prompt: String,
    /// What it wrote.
    pub text: String,
    /// How many tokens that are.
    pub tokens: usize,
    /// Why it ended.
    #[serde(serialize_with = "by_name")]
    pub finish_reason: FinishReason,
    /// Earlier reasoning was cut, since prompt and answer would not have fitted the model.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

fn by_name<S: Serializer>(reason: &FinishReason, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(reason.as_str())
}

/// What a pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// To reason.
    Reason,
    /// To say the answer.
    Answer,
    /// To find simpler questions.
    Decompose,
    /// To answer one of these.
    Solve,
}

impl Stage {
    /// Its name in templates.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reason => "reason",
            Self::Answer => "answer",
            Self::Decompose => "decompose",
            Self::Solve => "solve",
        }
    }
}

/// What is heard while a single chain is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// A pass begins: the last line of its prompt.
    Begun(&'a str),
    /// More of what the model writes.
    Text(&'a str),
}

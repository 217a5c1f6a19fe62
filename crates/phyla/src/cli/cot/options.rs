//! What `cot` and the evaluation of reasoning ask for alike, by the names of options.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use phyla::cot::{Kind, Method, SAMPLES, Settings, ThroughChat, read_shots};
use phyla_data::supervised::table::Table;
use phyla_generate::GenerationConfig;

use crate::cli::error::usage;
use crate::cli::shared::count;

/// A method by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MethodName {
    Plain,
    #[value(alias = "zero-shot-cot")]
    ZeroShot,
    #[value(alias = "few-shot-cot")]
    FewShot,
    SelfConsistency,
    LeastToMost,
}

impl From<MethodName> for Method {
    fn from(name: MethodName) -> Self {
        match name {
            MethodName::Plain => Self::Plain,
            MethodName::ZeroShot => Self::ZeroShot,
            MethodName::FewShot => Self::FewShot,
            MethodName::SelfConsistency => Self::SelfConsistency,
            MethodName::LeastToMost => Self::LeastToMost,
        }
    }
}

/// A kind of answer by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KindName {
    /// 1,234.50, $18, -3
    Number,
    /// The letter of an option
    Choice,
    /// Yes or no
    YesNo,
    /// Yes or no, or on which side a coin lies
    Coin,
    /// Letters put together
    Letters,
    /// A line of text
    Text,
}

impl From<KindName> for Kind {
    fn from(name: KindName) -> Self {
        match name {
            KindName::Number => Self::Number,
            KindName::Choice => Self::Choice,
            KindName::YesNo => Self::YesNo,
            KindName::Coin => Self::Coin,
            KindName::Letters => Self::Letters,
            KindName::Text => Self::Text,
        }
    }
}

/// Whether prompts go through the model's chat template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ChatName {
    /// Where the model has one
    Auto,
    Always,
    /// Plain text
    Never,
}

#[derive(clap::Args)]
pub struct Reasoning {
    /// Self-consistency: chains for each question
    #[arg(long, value_name = "N", default_value_t = SAMPLES, value_parser = count())]
    pub samples: usize,

    /// Self-consistency: draw chains of zero-shot, not of few-shot
    #[arg(long)]
    pub no_shots: bool,

    /// Exemplars in place of the built-in ones: JSON (lines) with question, reasoning, answer, or a file like GSM8K's
    #[arg(long, value_name = "FILE")]
    pub shots: Option<PathBuf>,

    /// Exemplars that are taken from that file, from its beginning
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = count(), requires = "shots")]
    pub most_shots: usize,

    /// Whether prompts go through the model's chat template
    #[arg(long, value_enum, default_value = "auto")]
    pub chat: ChatName,
}

impl Reasoning {
    /// What all methods share.
    pub fn settings(&self, generation: GenerationConfig, seed: u64) -> anyhow::Result<Settings> {
        let shots = match &self.shots {
            Some(path) => Some(read_shots(&Table::open(path)?, self.most_shots)?),
            None => None,
        };
        let chat = match self.chat {
            ChatName::Auto => ThroughChat::Auto,
            ChatName::Always => ThroughChat::Always,
            ChatName::Never => ThroughChat::Never,
        };
        let (samples, without_shots) = (self.samples, self.no_shots);
        Ok(Settings { samples, without_shots, shots, chat, generation, seed, ..Settings::default() })
    }
}

/// A template of a file, with its name.
pub fn template(path: &Path) -> anyhow::Result<(String, String)> {
    let source = std::fs::read_to_string(path).map_err(|error| {
        let help = "phyla cot --print-template METHOD prints one to begin with";
        usage(format!("cannot read the template `{}`: {error}", path.display()), help)
    })?;
    Ok((path.display().to_string(), source))
}

//! `tokenizer = "path"` or `[tokenizer]`: how text becomes ids when the model does not say.

use std::path::PathBuf;

use phyla_data::tokenizer::{BpeSettings, UnigramSettings, WordPieceSettings};
use serde::{Deserialize, Serialize};
use toml::Value;

use super::read::Reader;
use super::{Objective, RecipeError};

/// A tokenizer trained on the run's own data, or a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenizerTable {
    /// Byte-level BPE trained on the training text.
    Bpe(Bpe),
    /// BERT's kind of vocabulary, with `[CLS]`, `[SEP]` and `[MASK]`.
    Wordpiece(WordPieceSettings),
    /// T5's kind of vocabulary, with sentinels.
    Unigram(UnigramSettings),
    /// One token per character of the training text.
    Characters(Characters),
    /// An existing `tokenizer.json`, or a folder that holds one.
    Path(FromFile),
}

/// Settings of a trained byte-level BPE.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bpe {
    /// Size of the vocabulary, special tokens included.
    pub vocab_size: usize,
    /// Which special tokens there are, and what a text is surrounded with.
    #[serde(default)]
    pub preset: BpePreset,
}

/// The special tokens of a byte-level BPE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BpePreset {
    /// GPT-2's one token, between documents.
    #[default]
    Plain,
    /// `<pad> <s> </s> <unk>`: one vocabulary for both sides of a translation, whose texts end with `</s>`.
    Translation,
    /// ChatML's `<|im_start|>` and `<|im_end|>`, and its chat template.
    Chat,
    /// RoBERTa's `<s> <pad> </s> <unk> <mask>`, texts between `<s>` and `</s>`.
    Masked,
}

impl Bpe {
    /// What the trainer is asked for.
    #[must_use]
    pub fn settings(&self) -> BpeSettings {
        match self.preset {
            BpePreset::Plain => BpeSettings { vocab_size: self.vocab_size, ..BpeSettings::default() },
            BpePreset::Translation => BpeSettings::translation(self.vocab_size),
            BpePreset::Chat => BpeSettings::chat(self.vocab_size),
            BpePreset::Masked => BpeSettings::masked(self.vocab_size),
        }
    }
}

/// A character tokenizer has no settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Characters {}

/// An existing tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FromFile {
    /// `tokenizer.json`, or its folder.
    pub path: PathBuf,
}

pub(super) fn read(reader: &Reader<'_>, value: Value) -> Result<TokenizerTable, RecipeError> {
    match value {
        Value::String(path) => Ok(TokenizerTable::Path(FromFile { path: path.into() })),
        Value::Table(table) => reader.tagged("tokenizer", table, None),
        other => {
            let message = format!("`tokenizer` must be a path or a table, found a {}", other.type_str());
            Err(reader.at(&["tokenizer"], message))
        }
    }
}

impl TokenizerTable {
    pub(super) fn check(&self, problems: &mut Vec<String>) {
        match self {
            Self::Bpe(bpe) => {
                // 256 bytes and the special tokens: below that some text would have no ids.
                let least = 256 + bpe.settings().special_tokens.len();
                if bpe.vocab_size < least {
                    let found = bpe.vocab_size;
                    problems.push(format!("`tokenizer.vocab_size` is {found}; byte-level BPE needs at least {least}"));
                }
            }
            Self::Wordpiece(WordPieceSettings { character_coverage, .. })
            | Self::Unigram(UnigramSettings { character_coverage, .. }) => {
                if !(*character_coverage > 0. && *character_coverage <= 1.) {
                    problems.push(format!(
                        "`tokenizer.character_coverage` is {character_coverage}; expected above 0 and at most 1"
                    ));
                }
                if let Self::Unigram(unigram) = self
                    && unigram.extra_ids >= unigram.vocab_size
                {
                    problems.push("`tokenizer.extra_ids` leaves no room in `tokenizer.vocab_size`".into());
                }
            }
            Self::Characters(_) | Self::Path(_) => {}
        }
    }

    /// Adds the sentence when a tokenizer that is to be trained would lack tokens that the objective needs.
    pub(super) fn check_fits(&self, objective: &Objective, problems: &mut Vec<String>) {
        let name = objective.name();
        let plain =
            matches!(self, Self::Characters(_) | Self::Bpe(Bpe { preset: BpePreset::Plain | BpePreset::Chat, .. }));
        match objective {
            Objective::Mlm(_) | Objective::MlmNsp(_)
                if plain
                    || matches!(self, Self::Unigram(_) | Self::Bpe(Bpe { preset: BpePreset::Translation, .. })) =>
            {
                problems.push(format!(
                    "`objective.kind` \"{name}\" needs a mask token; expected `tokenizer.kind` wordpiece, or bpe with \
                     `preset = \"masked\"`"
                ));
            }
            Objective::T5Span(_) => match self {
                Self::Path(_) => {}
                Self::Unigram(unigram) if unigram.extra_ids > 0 => {}
                _ => problems.push(
                    "`objective.kind` \"t5_span\" needs sentinels; expected `tokenizer.kind` unigram with `extra_ids` \
                     above 0"
                        .into(),
                ),
            },
            Objective::Seq2Seq(_) if matches!(self, Self::Characters(_)) => problems.push(
                "`objective.kind` \"seq2seq\" needs a token that ends a text; expected `tokenizer.kind` bpe (with \
                 `preset = \"translation\"`), unigram or wordpiece"
                    .into(),
            ),
            _ => {}
        }
    }
}

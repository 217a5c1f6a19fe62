//! From the recipe's `[tokenizer]` to a tokenizer: loaded, or trained on the texts that the run learns from.

use std::collections::BTreeSet;

use phyla_data::tokenizer::{Tokenizer, train_bpe, train_unigram, train_wordpiece};

use crate::TrainError;
use crate::recipe::TokenizerTable;

/// The tokenizer of `table`; `train` and `validation` begin a reading of the texts.
pub fn tokenizer<I, S>(
    table: &TokenizerTable,
    train: impl Fn() -> Result<I, TrainError>,
    validation: impl Fn() -> Result<Option<I>, TrainError>,
    note: &mut dyn FnMut(&str),
) -> Result<Tokenizer, TrainError>
where
    I: Iterator<Item = phyla_data::Result<S>>,
    S: AsRef<str>,
{
    let mut begin = |what: &str, size: usize| note(&format!("training a {what} vocabulary of {size} tokens"));
    let (made, asked) = match table {
        TokenizerTable::Path(file) => return Ok(Tokenizer::load(&file.path)?),
        TokenizerTable::Characters(_) => {
            let mut characters = BTreeSet::new();
            for text in train()? {
                characters.extend(text?.as_ref().chars());
            }
            // A character that only the validation text has would have no id.
            for text in validation()?.into_iter().flatten() {
                characters.extend(text?.as_ref().chars());
            }
            return Ok(Tokenizer::from_characters(characters)?);
        }
        TokenizerTable::Bpe(bpe) => {
            begin("byte-level BPE", bpe.vocab_size);
            (train_bpe(train()?, &bpe.settings(), &mut |_| {})?, bpe.vocab_size)
        }
        TokenizerTable::Wordpiece(settings) => {
            begin("WordPiece", settings.vocab_size);
            (train_wordpiece(train()?, settings, &mut |_| {})?, settings.vocab_size)
        }
        TokenizerTable::Unigram(settings) => {
            begin("unigram", settings.vocab_size);
            (train_unigram(train()?, settings, &mut |_| {})?, settings.vocab_size)
        }
    };
    if made.vocab_size() < asked {
        note(&format!("the text gives no more than {} tokens", made.vocab_size()));
    }
    Ok(made)
}

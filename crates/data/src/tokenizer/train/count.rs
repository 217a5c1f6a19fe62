//! Counts the words of many texts on all threads; how a text divides into words is the caller's affair.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use rayon::prelude::*;

use crate::error::{Error, Result};

/// Text counted at once, in bytes.
const CHUNK: usize = 8 << 20;

/// The words of all texts with how often each occurs, in alphabetical order, so that what follows from them depends
/// neither on the order of the texts nor on the number of threads.
///
/// `split` hands every word of a text to its callback; `special` tokens in the texts are never part of a word.
pub(super) fn count<S: AsRef<str>>(
    texts: impl IntoIterator<Item = Result<S>>,
    special: &[String],
    split: impl for<'t> Fn(&'t str, &mut dyn FnMut(Cow<'t, str>)) -> Result<()> + Sync,
) -> Result<BTreeMap<Box<str>, u64>> {
    let mut words = BTreeMap::<Box<str>, u64>::new();
    let mut flush = |pending: &mut Vec<String>| -> Result<()> {
        let counted: Vec<_> = pending
            .par_iter()
            .map(|text| {
                let mut words = HashMap::<Cow<'_, str>, u64>::new();
                for part in between(text, special) {
                    split(part, &mut |word| *words.entry(word).or_default() += 1)?;
                }
                Ok(words)
            })
            .collect::<Result<_>>()?;
        for (word, count) in counted.into_iter().flatten() {
            match words.get_mut(&*word) {
                Some(total) => *total += count,
                None => {
                    words.insert(Box::from(word), count);
                }
            }
        }
        pending.clear();
        Ok(())
    };
    let (mut pending, mut size) = (Vec::new(), 0);
    for text in texts {
        let text = text?;
        size += text.as_ref().len();
        pending.push(text.as_ref().to_owned());
        if size >= CHUNK {
            flush(&mut pending)?;
            size = 0;
        }
    }
    flush(&mut pending)?;
    Ok(words)
}

/// The parts of a text between special tokens, which are never learnt from.
fn between<'a>(text: &'a str, special: &[String]) -> Vec<&'a str> {
    let mut parts = vec![text];
    for token in special {
        parts = parts.into_iter().flat_map(|part| part.split(token.as_str())).collect();
    }
    parts
}

/// The words a normaliser and a pre-tokenizer make of a text: the library's own, so that what is learnt is what will
/// be met.
pub(super) fn divide(
    text: &str,
    normalizer: &impl tokenizers::Normalizer,
    pre_tokenizer: &impl tokenizers::PreTokenizer,
    word: &mut dyn FnMut(&str),
) -> Result<()> {
    let divided = super::super::guarded(|| {
        let mut text = tokenizers::NormalizedString::from(text);
        normalizer.normalize(&mut text)?;
        let mut text = tokenizers::PreTokenizedString::from(text);
        pre_tokenizer.pre_tokenize(&mut text)?;
        Ok(text)
    })
    .map_err(|error| Error::Tokenizer(format!("while learning a vocabulary: {error}")))?;
    let kinds = (tokenizers::OffsetReferential::Normalized, tokenizers::OffsetType::Byte);
    divided.get_splits(kinds.0, kinds.1).into_iter().for_each(|(piece, ..)| word(piece));
    Ok(())
}

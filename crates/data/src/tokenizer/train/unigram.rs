//! A unigram vocabulary, as SentencePiece's and T5's: pieces with probabilities, spaces spelled `▁`, and sentinels.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokenizers::normalizers::{NFKC, NormalizerWrapper, Replace, Sequence, Strip, replace::ReplacePattern};
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};

use super::super::legacy::added_token;
use super::count::{count, divide};
use super::expect::Unigram;
use super::seeds::{SPACE, characters, check_coverage, known_parts, substrings};
use super::{Tokenizer, assemble, template};
use crate::error::{Error, Result};

/// What [`train_unigram`] is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UnigramSettings {
    /// Tokens in all: `<pad>`, `</s>`, `<unk>`, pieces, and sentinels.
    pub vocab_size: usize,
    /// So many sentinels `<extra_id_0>`, `<extra_id_1>`, … for span corruption; the first has the highest id.
    pub extra_ids: usize,
    /// Share of the text that the known characters should make up; a rarer character is unknown.
    pub character_coverage: f64,
    /// Longest piece, in characters.
    pub max_piece_length: usize,
}

impl Default for UnigramSettings {
    fn default() -> Self {
        Self { vocab_size: 8192, extra_ids: 100, character_coverage: 0.9995, max_piece_length: 16 }
    }
}

/// T5's tokens with a role, in the order of their ids.
const SPECIAL: [&str; 3] = ["<pad>", "</s>", "<unk>"];

/// Pieces to begin with, and the share that stays at each pruning; both as in SentencePiece.
const SEEDS: usize = 1_000_000;
const KEPT: f64 = 0.75;

/// Learns a unigram vocabulary (Kudo 2018, arXiv:1804.10959, section 3.2) whose texts end with `</s>`.
///
/// Begins with frequent substrings; fits their probabilities by expectation and maximisation; and drops those that cost
/// the least likelihood until `vocab_size` is reached. The result depends on the texts and the settings alone.
/// `progress` is told the pieces that are left. Small texts give a smaller vocabulary.
///
/// # Errors
/// Errors of the texts; settings that cannot be met.
pub fn train_unigram<S: AsRef<str>>(
    texts: impl IntoIterator<Item = Result<S>>,
    settings: &UnigramSettings,
    progress: &mut dyn FnMut(usize),
) -> Result<Tokenizer> {
    check_coverage(settings.character_coverage)?;
    if !(1..=255).contains(&settings.max_piece_length) {
        return Err(Error::Settings(format!(
            "`max_piece_length` should lie between 1 and 255, found {}",
            settings.max_piece_length
        )));
    }
    if settings.extra_ids >= settings.vocab_size {
        return Err(Error::Settings(format!(
            "a vocabulary of {} tokens has no room for {} `extra_ids`",
            settings.vocab_size, settings.extra_ids
        )));
    }
    // The highest id first: ids of added tokens follow the order in which they are added.
    let sentinels: Vec<String> = (0..settings.extra_ids).rev().map(|index| format!("<extra_id_{index}>")).collect();
    let special: Vec<String> = SPECIAL.iter().map(|token| (*token).to_owned()).chain(sentinels.clone()).collect();
    let normalizer = normalizer()?;
    let metaspace = Metaspace::new(SPACE, PrependScheme::Always, true);
    let words = count(texts, &special, |text, word| {
        // White space of any kind reads as one space, so lines can be taken apart; long texts are slow to normalise.
        text.lines()
            .try_for_each(|line| divide(line, &normalizer, &metaspace, &mut |piece| word(Cow::Owned(piece.to_owned()))))
    })?;
    let mut known = characters(&words, settings.character_coverage);
    // Without it a word could not begin.
    known.entry(SPACE).or_insert(1);
    let least = special.len() + known.len();
    if settings.vocab_size < least {
        return Err(Error::Settings(format!(
            "a vocabulary of {} tokens has no room for {} special tokens and {} characters: it needs {least} or more, \
             fewer `extra_ids`, or a smaller `character_coverage`",
            settings.vocab_size,
            special.len(),
            known.len()
        )));
    }
    let words = known_parts(words, &known);
    let size = settings.vocab_size - special.len();
    let mut seeds: Vec<_> = known.into_iter().map(|(c, count)| (vec![c], count)).collect();
    seeds.extend(substrings(&words, settings.max_piece_length, SEEDS));
    let mut model = Unigram::new(seeds);
    loop {
        for _ in 0..2 {
            let expected = model.expected(&words);
            model = model.maximise(&expected);
        }
        progress(model.pieces.len());
        // A tenth too many: the last ones go by their probability.
        let target = size + size / 10;
        if model.pieces.len() <= target {
            break;
        }
        let smaller = (model.pieces.len() as f64 * KEPT) as usize;
        model = model.prune(&words, smaller.max(target));
    }
    finish(model, size, &sentinels)
}

/// White space of any kind and length becomes one space, none at the ends; compatible characters become one.
fn normalizer() -> Result<Sequence> {
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ")
        .map_err(|error| Error::Tokenizer(error.to_string()))?;
    Ok(Sequence::new(vec![
        NormalizerWrapper::NFKC(NFKC),
        NormalizerWrapper::Replace(spaces),
        NormalizerWrapper::StripNormalizer(Strip::new(true, true)),
    ]))
}

/// The tokenizer of the `size` best pieces.
fn finish(model: Unigram, size: usize, sentinels: &[String]) -> Result<Tokenizer> {
    let mut pieces = model.pieces;
    // Characters first, since every one of them stays; then by score, and by spelling where scores are equal.
    pieces.sort_unstable_by(|a, b| {
        (a.0.len() > 1).cmp(&(b.0.len() > 1)).then(b.1.total_cmp(&a.1)).then_with(|| a.0.cmp(&b.0))
    });
    pieces.truncate(size);
    pieces.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let pieces = pieces.iter().map(|(piece, score)| (piece.iter().collect::<String>(), *score));
    let vocab: Vec<(String, f64)> = SPECIAL.iter().map(|token| ((*token).to_owned(), 0.0)).chain(pieces).collect();
    let special = SPECIAL.map(str::to_owned);
    let added: Vec<Value> = special
        .iter()
        .zip(0..)
        .chain(sentinels.iter().zip(vocab.len() as u64..))
        .map(|(token, id)| added_token(token, Some(id), false))
        .collect();
    let metaspace = json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": true});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added,
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFKC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Strip", "strip_left": true, "strip_right": true},
        ]},
        "pre_tokenizer": metaspace,
        "post_processor": template(&["$A:0", "</s>"], &["$A:0", "</s>", "$B:0", "</s>"], &special),
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 2, "vocab": vocab, "byte_fallback": false},
    });
    let roles = [("pad_token", Some("<pad>")), ("eos_token", Some("</s>")), ("unk_token", Some("<unk>"))];
    let names: Vec<&String> = sentinels.iter().rev().collect();
    assemble(&tokenizer, &roles, (!names.is_empty()).then(|| ("additional_special_tokens", json!(names))))
}

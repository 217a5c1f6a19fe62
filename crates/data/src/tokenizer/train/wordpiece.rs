//! A WordPiece vocabulary, as BERT's: whole words, and pieces inside words marked with `##`.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::{Map, json};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;

use super::super::legacy::added_token;
use super::count::{count, divide};
use super::seeds::{characters, check_coverage};
use super::{Tokenizer, assemble, merge, template};
use crate::error::{Error, Result};

/// What [`train_wordpiece`] is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WordPieceSettings {
    /// Tokens in all: the five special ones, characters, and what is put together from them.
    pub vocab_size: usize,
    /// `Dog` is read as `dog`.
    pub lowercase: bool,
    /// `é` is read as `e`; unless set, as `lowercase` is.
    pub strip_accents: Option<bool>,
    /// Each Chinese character is a word of its own.
    pub chinese_characters: bool,
    /// Pieces whose join occurs less often are not joined.
    pub min_frequency: u64,
    /// Share of the text that the known characters should make up; a word with a rarer one is unknown.
    pub character_coverage: f64,
}

impl Default for WordPieceSettings {
    fn default() -> Self {
        Self {
            vocab_size: 8192,
            lowercase: true,
            strip_accents: None,
            chinese_characters: true,
            min_frequency: 2,
            character_coverage: 0.9995,
        }
    }
}

/// BERT's tokens with a role, in the order of their ids.
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// Marks a piece inside a word.
const INSIDE: &str = "##";

/// Words longer than this are unknown, as in BERT.
const LONGEST: usize = 100;

/// Learns a WordPiece vocabulary whose texts stand as `[CLS] A [SEP]` and pairs as `[CLS] A [SEP] B [SEP]`.
///
/// Pieces are joined by frequency as in byte-pair encoding, which is how the tokenizers library makes such
/// vocabularies too (Google's own trainer was never published); encoding takes the longest piece first. The result
/// depends on the texts and the settings alone. `progress` is told the tokens made so far.
///
/// # Errors
/// Errors of the texts; a `vocab_size` without room for the characters.
pub fn train_wordpiece<S: AsRef<str>>(
    texts: impl IntoIterator<Item = Result<S>>,
    settings: &WordPieceSettings,
    progress: &mut dyn FnMut(usize),
) -> Result<Tokenizer> {
    check_coverage(settings.character_coverage)?;
    let special = SPECIAL.map(str::to_owned);
    let normalizer = BertNormalizer::new(true, settings.chinese_characters, settings.strip_accents, settings.lowercase);
    let words = count(texts, &special, |text, word| {
        // No word crosses a line end, and long texts are slow to normalise.
        text.lines().try_for_each(|line| {
            divide(line, &normalizer, &BertPreTokenizer, &mut |piece| word(Cow::Owned(piece.to_owned())))
        })
    })?;
    let known = characters(&words, settings.character_coverage);
    let known: BTreeMap<char, usize> = known.into_keys().zip(0..).collect();
    let (mut spelled, words) = spell(words, &known);
    let least = SPECIAL.len() + spelled.len();
    if settings.vocab_size < least {
        return Err(Error::Settings(format!(
            "a vocabulary of {} tokens has no room for {} special tokens and {} characters at the beginning and inside \
             of words: it needs {least} or more, or a smaller `character_coverage` than {}",
            settings.vocab_size,
            SPECIAL.len(),
            spelled.len(),
            settings.character_coverage
        )));
    }
    let size = settings.vocab_size - SPECIAL.len();
    merge::learn(words, &mut spelled, size, settings.min_frequency.max(1), INSIDE, progress);
    let mut vocab = Map::new();
    for token in special.iter().chain(&spelled) {
        let id = vocab.len();
        vocab.entry(token.clone()).or_insert_with(|| json!(id));
    }
    let added: Vec<_> = special.iter().zip(0..).map(|(token, id)| added_token(token, Some(id), false)).collect();
    let pair = ["[CLS]:0", "$A:0", "[SEP]:0", "$B:1", "[SEP]:1"];
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true,
            "handle_chinese_chars": settings.chinese_characters, "strip_accents": settings.strip_accents,
            "lowercase": settings.lowercase},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": template(&pair[..3], &pair, &special),
        "decoder": {"type": "WordPiece", "prefix": INSIDE, "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": INSIDE,
            "max_input_chars_per_word": LONGEST, "vocab": vocab},
    });
    let roles = ["pad_token", "unk_token", "cls_token", "sep_token", "mask_token"];
    let roles: Vec<_> = roles.into_iter().zip(SPECIAL.map(Some)).collect();
    // The same switches under the names of BERT's own class, for programs that look there.
    let more = [
        ("do_lower_case", json!(settings.lowercase)),
        ("strip_accents", json!(settings.strip_accents)),
        ("tokenize_chinese_chars", json!(settings.chinese_characters)),
        ("model_input_names", json!(["input_ids", "token_type_ids", "attention_mask"])),
    ];
    assemble(&tokenizer, &roles, more)
}

/// The alphabet as pieces (every character as a word's beginning, and those that occur there, inside of words), and
/// the words as runs of them. Words that will be unknown anyway teach nothing.
fn spell(words: BTreeMap<Box<str>, u64>, known: &BTreeMap<char, usize>) -> (Vec<String>, Vec<(Vec<u32>, u64)>) {
    let mut spelled: Vec<String> = known.keys().map(char::to_string).collect();
    let usable = |word: &str| word.chars().count() <= LONGEST && word.chars().all(|c| known.contains_key(&c));
    let words: Vec<_> = words.into_iter().filter(|(word, _)| usable(word)).collect();
    let mut inside: Vec<char> = words.iter().flat_map(|(word, _)| word.chars().skip(1)).collect();
    inside.sort_unstable();
    inside.dedup();
    let inside: HashMap<char, u32> = inside.into_iter().zip(spelled.len() as u32..).collect();
    let mut marked: Vec<(u32, char)> = inside.iter().map(|(&c, &number)| (number, c)).collect();
    marked.sort_unstable();
    spelled.extend(marked.into_iter().map(|(_, c)| format!("{INSIDE}{c}")));
    let number = |(at, c): (usize, char)| match at {
        0 => known.get(&c).map(|&place| place as u32),
        _ => inside.get(&c).copied(),
    };
    let words =
        words.into_iter().map(|(word, count)| (word.chars().enumerate().filter_map(number).collect(), count)).collect();
    (spelled, words)
}

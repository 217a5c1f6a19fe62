//! Makes tokenizers: byte-level BPE learnt from text, and one token per character.

mod merge;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fancy_regex::Regex;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Tokenizer;
use super::legacy::{added_token, byte_level};
use crate::error::{Error, Result};

/// How text is divided before merges are counted: no token ever crosses such a division.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PreTokenizer {
    /// GPT-2's: English contractions, then words, numbers and punctuation, each with a space before it.
    Gpt2,
    /// Llama 3's: as GPT-2's, but numbers in groups of up to three digits, contractions in any case, and line ends
    /// kept together; better for code and other languages.
    #[default]
    Llama3,
}

impl PreTokenizer {
    /// The pattern, each of whose matches is one piece.
    pub fn pattern(self) -> &'static str {
        match self {
            Self::Gpt2 => r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
            Self::Llama3 => {
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
            }
        }
    }

    fn json(self) -> Value {
        match self {
            Self::Gpt2 => byte_level(),
            Self::Llama3 => json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": self.pattern()}, "behavior": "Isolated", "invert": false},
                {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
            ]}),
        }
    }
}

/// What [`train_bpe`] is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BpeSettings {
    /// Tokens in all: special ones, 256 bytes, and merges.
    pub vocab_size: usize,
    /// Tokens that are never divided and never come from text; they get the first ids.
    pub special_tokens: Vec<String>,
    /// How text is divided.
    pub pre_tokenizer: PreTokenizer,
    /// A pair that occurs less often is not merged.
    pub min_frequency: u64,
    /// Which special token begins a sequence.
    pub bos_token: Option<String>,
    /// Which special token ends a sequence.
    pub eos_token: Option<String>,
    /// Which special token fills up a batch.
    pub pad_token: Option<String>,
    /// A chat template to go with it.
    pub chat_template: Option<String>,
}

impl Default for BpeSettings {
    fn default() -> Self {
        let end = "<|endoftext|>".to_owned();
        Self {
            vocab_size: 8192,
            special_tokens: vec![end.clone()],
            pre_tokenizer: PreTokenizer::default(),
            min_frequency: 2,
            bos_token: None,
            eos_token: Some(end.clone()),
            pad_token: Some(end),
            chat_template: None,
        }
    }
}

/// Text counted at once, in bytes.
const CHUNK: usize = 8 << 20;

/// Learns a byte-level BPE vocabulary (Sennrich, Haddow and Birch 2016, on bytes as in GPT-2).
///
/// The most frequent pair of neighbouring tokens becomes a token, again and again; of equally frequent pairs, the one
/// with the smaller ids. The result depends on the texts and the settings alone. `progress` is told the tokens
/// made so far. Text too small for `vocab_size` gives a smaller vocabulary: compare [`Tokenizer::vocab_size`].
///
/// # Errors
/// Errors of the texts; settings that cannot be met.
pub fn train_bpe<S: AsRef<str>>(
    texts: impl IntoIterator<Item = Result<S>>,
    settings: &BpeSettings,
    progress: &mut dyn FnMut(usize),
) -> Result<Tokenizer> {
    let special: BTreeSet<&str> = settings.special_tokens.iter().map(String::as_str).collect();
    if special.len() != settings.special_tokens.len() || special.contains("") {
        return Err(Error::Settings("special tokens should be different and not empty".to_owned()));
    }
    let least = special.len() + 256;
    if settings.vocab_size < least {
        return Err(Error::Settings(format!(
            "a vocabulary of {} tokens has no room for 256 bytes and {} special tokens: it needs {least} or more",
            settings.vocab_size,
            special.len()
        )));
    }
    for token in [&settings.bos_token, &settings.eos_token, &settings.pad_token].into_iter().flatten() {
        if !special.contains(token.as_str()) {
            return Err(Error::Settings(format!("`{token}` has a role, so it should be among the special tokens")));
        }
    }
    let words = count(texts, settings)?;
    let mut vocab = Map::new();
    for token in &settings.special_tokens {
        vocab.insert(token.clone(), json!(vocab.len()));
    }
    let alphabet = alphabet();
    let first = vocab.len() as u32;
    let mut spelled: Vec<String> = Vec::with_capacity(settings.vocab_size);
    for (_, letter) in &alphabet {
        spelled.push(letter.to_string());
    }
    // Tokens are numbered from the alphabet's first letter on; special tokens come before them.
    let mut number = [0; 256];
    for (index, (byte, _)) in alphabet.iter().enumerate() {
        number[usize::from(*byte)] = index as u32;
    }
    let words = words
        .into_iter()
        .map(|(word, count)| (word.bytes().map(|byte| number[usize::from(byte)]).collect(), count))
        .collect();
    let merges = merge::learn(
        words,
        &mut spelled,
        settings.vocab_size - first as usize,
        settings.min_frequency.max(1),
        progress,
    );
    let merges: Vec<Value> =
        merges.into_iter().map(|(left, right)| json!([spelled[left as usize], spelled[right as usize]])).collect();
    for token in spelled {
        let id = vocab.len();
        vocab.entry(token).or_insert_with(|| json!(id));
    }
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": settings.special_tokens.iter().enumerate()
            .map(|(id, token)| added_token(token, Some(id as u64), false)).collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": settings.pre_tokenizer.json(),
        "post_processor": byte_level(),
        "decoder": byte_level(),
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges},
    });
    assemble(&tokenizer, settings)
}

fn assemble(tokenizer: &Value, settings: &BpeSettings) -> Result<Tokenizer> {
    let mut config = Map::new();
    config.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
    config.insert("clean_up_tokenization_spaces".to_owned(), json!(false));
    let roles = [
        ("bos_token", &settings.bos_token),
        ("eos_token", &settings.eos_token),
        ("pad_token", &settings.pad_token),
        ("chat_template", &settings.chat_template),
    ];
    for (role, value) in roles {
        if let Some(value) = value {
            config.insert(role.to_owned(), json!(value));
        }
    }
    let bytes = |value: &Value| serde_json::to_vec_pretty(value).map_err(|error| Error::Tokenizer(error.to_string()));
    Tokenizer::from_memory(BTreeMap::from([
        ("tokenizer.json".to_owned(), bytes(tokenizer)?),
        ("tokenizer_config.json".to_owned(), bytes(&Value::Object(config))?),
    ]))
}

/// The pieces of all texts with how often each occurs, in alphabetical order.
fn count<S: AsRef<str>>(
    texts: impl IntoIterator<Item = Result<S>>,
    settings: &BpeSettings,
) -> Result<BTreeMap<Box<str>, u64>> {
    let pattern = |error: fancy_regex::Error| Error::Tokenizer(format!("the pre-tokenizer's pattern: {error}"));
    let regex = Regex::new(settings.pre_tokenizer.pattern()).map_err(pattern)?;
    let mut words = BTreeMap::new();
    let mut flush = |pending: &mut Vec<String>| -> Result<()> {
        let counted: Vec<_> = pending
            .par_iter()
            .map(|text| {
                let mut words = HashMap::<&str, u64>::new();
                for part in between(text, &settings.special_tokens) {
                    for word in regex.find_iter(part) {
                        *words.entry(word.map_err(pattern)?.as_str()).or_default() += 1;
                    }
                }
                Ok(words)
            })
            .collect::<Result<_>>()?;
        for (word, count) in counted.into_iter().flatten() {
            match words.get_mut(word) {
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

/// GPT-2's spelling of bytes: printable ones as they are, the others moved up beyond Latin-1; sorted by letter.
fn alphabet() -> Vec<(u8, char)> {
    let plain = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let moved = (0..=u8::MAX).filter(|&byte| !plain(byte)).zip('\u{100}'..);
    let mut letters: Vec<(u8, char)> =
        (0..=u8::MAX).filter(|&byte| plain(byte)).map(|byte| (byte, char::from(byte))).chain(moved).collect();
    letters.sort_by_key(|(_, letter)| *letter);
    letters
}

impl Tokenizer {
    /// One token for each different character of `text`, in the order of their code points, as nanoGPT's
    /// character-level recipe has it. A character that is not among them cannot be encoded, and says so.
    ///
    /// # Errors
    /// When `text` is empty.
    pub fn characters(text: &str) -> Result<Self> {
        Self::from_characters(text.chars())
    }

    /// [`Tokenizer::characters`] over a stream of characters.
    ///
    /// # Errors
    /// When there are none.
    pub fn from_characters(characters: impl IntoIterator<Item = char>) -> Result<Self> {
        let characters: BTreeSet<char> = characters.into_iter().collect();
        if characters.is_empty() {
            return Err(Error::Settings("no characters to make a tokenizer of: the text is empty".to_owned()));
        }
        let vocab: Map<String, Value> =
            characters.iter().enumerate().map(|(id, c)| (c.to_string(), json!(id))).collect();
        let tokenizer = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
            // BPE without merges leaves single characters. The unknown token is named but not there, since with none
            // named the library would drop unknown characters without a word.
            "model": {"type": "BPE", "dropout": null, "unk_token": UNKNOWN, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": vocab, "merges": []},
        });
        let none = BpeSettings { bos_token: None, eos_token: None, pad_token: None, ..BpeSettings::default() };
        assemble(&tokenizer, &none)
    }
}

/// True of the file that [`Tokenizer::characters`] makes.
pub(super) fn is_of_characters(tokenizer: &[u8]) -> bool {
    tokenizer.windows(UNKNOWN.len()).any(|window| window == UNKNOWN.as_bytes())
}

/// Longer than one character, so never one of them.
const UNKNOWN: &str = "<a character that is not in the vocabulary>";

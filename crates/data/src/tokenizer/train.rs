//! Makes tokenizers: byte-level BPE learnt from text, and one token per character; the other kinds lie below.

mod count;
mod expect;
mod merge;
mod seeds;
mod unigram;
mod wordpiece;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use fancy_regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Tokenizer;
use super::legacy::{added_token, byte_level};
use crate::error::{Error, Result};
use count::count;

pub use unigram::{UnigramSettings, train_unigram};
pub use wordpiece::{WordPieceSettings, train_wordpiece};

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
    pub const fn pattern(self) -> &'static str {
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

/// Which special tokens a tokenizer puts around a text when it is asked for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Around {
    /// None, as GPT-2.
    #[default]
    Nothing,
    /// `A </s>` and `A </s> B </s>` with the token in the role of `eos_token`, as T5 and Marian.
    Eos,
    /// `<s> A </s>` and `<s> A </s> </s> B </s>` with `cls_token` and `sep_token`, as RoBERTa.
    ClsSep,
}

impl Around {
    /// The post-processor; `id` finds the id of a special token.
    fn json(self, settings: &BpeSettings) -> Result<Value> {
        let role = |name: &str, token: &Option<String>| {
            token.clone().ok_or_else(|| {
                Error::Settings(format!("`around` puts the token in the role `{name}` around texts: set `{name}`"))
            })
        };
        match self {
            Self::Nothing => Ok(byte_level()),
            Self::Eos => {
                let eos = role("eos_token", &settings.eos_token)?;
                let template = template(&["$A:0", &eos], &["$A:0", &eos, "$B:0", &eos], &settings.special_tokens);
                Ok(json!({"type": "Sequence", "processors": [byte_level(), template]}))
            }
            Self::ClsSep => {
                let (cls, sep) = (role("cls_token", &settings.cls_token)?, role("sep_token", &settings.sep_token)?);
                let single = [cls.as_str(), "$A:0", &sep];
                let template = template(&single, &[&cls, "$A:0", &sep, &sep, "$B:0", &sep], &settings.special_tokens);
                Ok(json!({"type": "Sequence", "processors": [byte_level(), template]}))
            }
        }
    }
}

/// A template post-processor from its pieces: `$A:0` is a text with its token type, `[SEP]:1` a token with its own,
/// and a token without one has type 0. A special token's id is its place among `special`.
fn template(single: &[&str], pair: &[&str], special: &[String]) -> Value {
    let pieces = |pieces: &[&str]| -> Vec<Value> {
        let piece = |piece: &&str| {
            let (name, kind) = match piece.rsplit_once(':') {
                Some((name, kind @ ("0" | "1"))) => (name, u32::from(kind == "1")),
                _ => (*piece, 0),
            };
            match name.strip_prefix('$') {
                Some(text) => json!({"Sequence": {"id": text, "type_id": kind}}),
                None => json!({"SpecialToken": {"id": name, "type_id": kind}}),
            }
        };
        pieces.iter().map(piece).collect()
    };
    let (single, pair) = (pieces(single), pieces(pair));
    let used = |token: &String| pair.iter().any(|piece| piece["SpecialToken"]["id"] == json!(token));
    let tokens: Map<String, Value> = special
        .iter()
        .enumerate()
        .filter(|(_, token)| used(token))
        .map(|(id, token)| (token.clone(), json!({"id": token, "ids": [id], "tokens": [token]})))
        .collect();
    json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens})
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
    /// Which special token stands for what cannot be spelled (with bytes everything can, but some models expect one).
    pub unk_token: Option<String>,
    /// Which special token stands first and is read for classification.
    pub cls_token: Option<String>,
    /// Which special token stands between two texts.
    pub sep_token: Option<String>,
    /// Which special token hides a word to be guessed.
    pub mask_token: Option<String>,
    /// What a text is surrounded with on demand.
    pub around: Around,
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
            unk_token: None,
            cls_token: None,
            sep_token: None,
            mask_token: None,
            around: Around::Nothing,
            chat_template: None,
        }
    }
}

impl BpeSettings {
    /// A vocabulary shared by both sides of a translation model: `<pad> <s> </s> <unk>` first, texts end with `</s>`.
    pub fn translation(vocab_size: usize) -> Self {
        let token = |token: &str| Some(token.to_owned());
        Self {
            vocab_size,
            special_tokens: ["<pad>", "<s>", "</s>", "<unk>"].map(str::to_owned).to_vec(),
            bos_token: token("<s>"),
            eos_token: token("</s>"),
            pad_token: token("<pad>"),
            unk_token: token("<unk>"),
            around: Around::Eos,
            ..Self::default()
        }
    }

    /// RoBERTa's roles: `<s> <pad> </s> <unk> <mask>` first, texts between `<s>` and `</s>`, GPT-2's division.
    pub fn masked(vocab_size: usize) -> Self {
        let token = |token: &str| Some(token.to_owned());
        Self {
            vocab_size,
            special_tokens: ["<s>", "<pad>", "</s>", "<unk>", "<mask>"].map(str::to_owned).to_vec(),
            pre_tokenizer: PreTokenizer::Gpt2,
            bos_token: token("<s>"),
            eos_token: token("</s>"),
            pad_token: token("<pad>"),
            unk_token: token("<unk>"),
            cls_token: token("<s>"),
            sep_token: token("</s>"),
            mask_token: token("<mask>"),
            around: Around::ClsSep,
            ..Self::default()
        }
    }

    /// ChatML's tokens and template: a turn ends with `<|im_end|>`, documents are parted by `<|endoftext|>`.
    pub fn chat(vocab_size: usize) -> Self {
        let template = crate::template::BUILT_IN.iter().find(|(name, _)| *name == "chatml");
        Self {
            vocab_size,
            special_tokens: ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned).to_vec(),
            eos_token: Some("<|im_end|>".to_owned()),
            chat_template: template.map(|(_, source)| (*source).to_owned()),
            ..Self::default()
        }
    }

    /// Role names as in `tokenizer_config.json`, with what fills them.
    fn roles(&self) -> [(&'static str, Option<&str>); 7] {
        [
            ("bos_token", self.bos_token.as_deref()),
            ("eos_token", self.eos_token.as_deref()),
            ("pad_token", self.pad_token.as_deref()),
            ("unk_token", self.unk_token.as_deref()),
            ("cls_token", self.cls_token.as_deref()),
            ("sep_token", self.sep_token.as_deref()),
            ("mask_token", self.mask_token.as_deref()),
        ]
    }
}

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
    for token in settings.roles().into_iter().filter_map(|(_, token)| token) {
        if !special.contains(token) {
            return Err(Error::Settings(format!("`{token}` has a role, so it should be among the special tokens")));
        }
    }
    let post_processor = settings.around.json(settings)?;
    let pattern = |error: fancy_regex::Error| Error::Tokenizer(format!("the pre-tokenizer's pattern: {error}"));
    let regex = Regex::new(settings.pre_tokenizer.pattern()).map_err(pattern)?;
    let words = count(texts, &settings.special_tokens, |text, word| {
        regex.find_iter(text).try_for_each(|found| {
            word(Cow::Borrowed(found.map_err(pattern)?.as_str()));
            Ok(())
        })
    })?;
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
        "",
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
            // A hidden word hides the space before it too, which otherwise would stay as a token of its own.
            .map(|(id, token)| added_token(token, Some(id as u64), settings.mask_token.as_ref() == Some(token)))
            .collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": settings.pre_tokenizer.json(),
        "post_processor": post_processor,
        "decoder": byte_level(),
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": merges},
    });
    let template = settings.chat_template.as_ref().map(|template| ("chat_template", json!(template)));
    assemble(&tokenizer, &settings.roles(), template)
}

/// The files of a tokenizer with these roles, loaded; `more` goes into the configuration as it is.
fn assemble(
    tokenizer: &Value,
    roles: &[(&'static str, Option<&str>)],
    more: impl IntoIterator<Item = (&'static str, Value)>,
) -> Result<Tokenizer> {
    let mut config = Map::new();
    // The class that takes `tokenizer.json` as it stands.
    config.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
    config.insert("clean_up_tokenization_spaces".to_owned(), json!(false));
    let filled = roles.iter().filter_map(|(role, token)| Some((*role, json!((*token)?))));
    config.extend(filled.chain(more).map(|(key, value)| (key.to_owned(), value)));
    let bytes = |value: &Value| serde_json::to_vec_pretty(value).map_err(|error| Error::Tokenizer(error.to_string()));
    Tokenizer::from_memory(BTreeMap::from([
        ("tokenizer.json".to_owned(), bytes(tokenizer)?),
        ("tokenizer_config.json".to_owned(), bytes(&Value::Object(config))?),
    ]))
}

/// GPT-2's spelling of bytes: printable ones as they are, the others moved up beyond Latin-1; sorted by letter.
pub(super) fn alphabet() -> Vec<(u8, char)> {
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
        assemble(&tokenizer, &[], None)
    }
}

/// True of the file that [`Tokenizer::characters`] makes.
pub(super) fn is_of_characters(tokenizer: &[u8]) -> bool {
    tokenizer.windows(UNKNOWN.len()).any(|window| window == UNKNOWN.as_bytes())
}

/// Longer than one character, so never one of them.
const UNKNOWN: &str = "<a character that is not in the vocabulary>";

//! A tokenizer as it lies in a Hugging Face folder: text to ids and back, and its own files kept for saving.

mod bytes;
mod detailed;
mod files;
mod gguf;
mod legacy;
mod special;
mod train;

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokenizers::models::ModelWrapper;

pub use detailed::Detailed;
pub(crate) use detailed::Spelling;
pub(crate) use files::{Files, MORE_TEMPLATES, kind};
pub use special::{SpecialToken, SpecialTokens};
pub use train::{
    Around, BpeSettings, PreTokenizer, UnigramSettings, WordPieceSettings, train_bpe, train_unigram, train_wordpiece,
};

use crate::error::{Error, Result};
use crate::guard::quietly;
use crate::template::Templates;

/// A loaded tokenizer; cheap to share behind an `Arc`, safe to use from many threads.
///
/// Truncation and padding written into `tokenizer.json` are ignored, as transformers ignores them when it is
/// called without asking for either: a text is never shortened behind the caller's back.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    files: Files,
    config: Map<String, Value>,
    special: SpecialTokens,
    templates: Templates,
    vocab_size: usize,
    cleans_up: bool,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size)
            .field("special", &self.special)
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Loads a tokenizer from a checkpoint's folder, or from a `tokenizer.json` alone.
    ///
    /// Reads `tokenizer.json` (or builds one from `vocab.json` + `merges.txt`, or from BERT's `vocab.txt`),
    /// `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`, and chat templates from
    /// `chat_template.jinja`, `additional_chat_templates/*.jinja`, `chat_template.json` or the configuration.
    ///
    /// # Errors
    /// Names the file that is missing or malformed; a SentencePiece or tiktoken `tokenizer.model` without a
    /// `tokenizer.json` is refused with the way to convert it.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_files(Files::read(path.as_ref())?)
    }

    /// Builds a tokenizer from the bytes of its files, by name (`tokenizer.json`, `tokenizer_config.json`, …).
    ///
    /// # Errors
    /// As [`Tokenizer::load`].
    pub fn from_memory(files: BTreeMap<String, Vec<u8>>) -> Result<Self> {
        Self::from_files(Files::in_memory(files))
    }

    fn from_files(mut files: Files) -> Result<Self> {
        let config = files.object("tokenizer_config.json")?.unwrap_or_default();
        if !files.contains("tokenizer.json") {
            let built = legacy::build(&files, &config)?;
            files.insert("tokenizer.json", built);
        }
        let mut inner = parse(&files)?;
        // Both would shorten or lengthen every text silently; the caller asks for them where they are wanted.
        let _ = inner.with_truncation(None);
        inner.with_padding(None);
        let special = special::add(&mut inner, &files, &config)?;
        let vocab_size = vocab_size(&inner, &files)?;
        let is_bpe = matches!(inner.get_model(), ModelWrapper::BPE(_));
        let cleans_up = !is_bpe && config.get("clean_up_tokenization_spaces").and_then(Value::as_bool).unwrap_or(false);
        let templates = Templates::read(&files, &config, &special)?;
        Ok(Self { inner, files, config, special, templates, vocab_size, cleans_up })
    }

    /// Text to ids. With `add_special`, the tokens the tokenizer puts around a text (`[CLS]`, `<s>`) are added.
    ///
    /// Special tokens spelled out in the text (`<|endoftext|>`) become their ids, as in transformers.
    ///
    /// # Errors
    /// When the tokenizer cannot encode the text, for instance for want of an unknown token.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encoding =
            guarded(|| self.inner.encode_fast(text, add_special)).map_err(|error| self.blame(text, error))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Two texts to the ids and segment (token type) ids of a pair, as BERT's `[CLS] a [SEP] b [SEP]`.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_pair(&self, first: &str, second: &str, add_special: bool) -> Result<(Vec<u32>, Vec<u32>)> {
        let encoding = guarded(|| self.inner.encode_fast((first, second), add_special))?;
        Ok((encoding.get_ids().to_vec(), encoding.get_type_ids().to_vec()))
    }

    /// Names the character that a vocabulary of characters lacks; the library names only the unknown token.
    fn blame(&self, text: &str, error: Error) -> Error {
        if self.files.get("tokenizer.json").is_none_or(|bytes| !train::is_of_characters(bytes)) {
            return error;
        }
        let mut characters = text.char_indices();
        match characters.find(|(_, c)| self.inner.token_to_id(c.encode_utf8(&mut [0; 4])).is_none()) {
            Some((at, c)) => Error::Tokenizer(format!(
                "the character {c:?} at byte {at} is not among the {} of this vocabulary",
                self.vocab_size
            )),
            None => error,
        }
    }

    /// Ids to text; with `skip_special`, special tokens leave no trace.
    ///
    /// # Errors
    /// Names an id that the vocabulary does not have.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let text = self.decode_raw(ids, skip_special)?;
        Ok(if self.cleans_up { clean_up(&text) } else { text })
    }

    /// [`Tokenizer::decode`] without the clean-up of spaces, which looks back over tokens already given out.
    pub(crate) fn decode_raw(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        // The library drops unknown ids without a word, which would hide a wrong model and tokenizer pair.
        if let Some(id) = ids.iter().find(|&&id| !self.knows(id)) {
            return Err(Error::Tokenizer(format!(
                "no token has id {id}; ids go up to {}",
                self.vocab_size.saturating_sub(1)
            )));
        }
        guarded(|| self.inner.decode(ids, skip_special))
    }

    fn knows(&self, id: u32) -> bool {
        // Every id below the size is known but in vocabularies with holes, so look only then.
        (id as usize) < self.vocab_size && self.inner.id_to_token(id).is_some()
    }

    /// The highest id plus one: the rows an embedding needs. (A vocabulary may leave ids unused below it.)
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The id of a token spelled as in the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The vocabulary's spelling of an id.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The tokens with a role: beginning, end, padding, unknown, mask, and the rest.
    pub fn special(&self) -> &SpecialTokens {
        &self.special
    }

    /// The id that begins a sequence.
    pub fn bos(&self) -> Option<u32> {
        self.special.bos.as_ref().map(|token| token.id)
    }

    /// The id that ends a sequence.
    pub fn eos(&self) -> Option<u32> {
        self.special.eos.as_ref().map(|token| token.id)
    }

    /// The id that fills up a batch.
    pub fn pad(&self) -> Option<u32> {
        self.special.pad.as_ref().map(|token| token.id)
    }

    /// The id that stands for what the vocabulary cannot spell.
    pub fn unk(&self) -> Option<u32> {
        self.special.unk.as_ref().map(|token| token.id)
    }

    /// The id that stands first and is read for classification.
    pub fn cls(&self) -> Option<u32> {
        self.special.cls.as_ref().map(|token| token.id)
    }

    /// The id that stands between two texts.
    pub fn sep(&self) -> Option<u32> {
        self.special.sep.as_ref().map(|token| token.id)
    }

    /// The id that hides a word to be guessed.
    pub fn mask(&self) -> Option<u32> {
        self.special.mask.as_ref().map(|token| token.id)
    }

    /// True when `skip_special` leaves this id out.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.get_added_vocabulary().get_added_tokens_decoder().get(&id).is_some_and(|token| token.special)
    }

    /// The special tokens as they are spelled in a text.
    pub fn special_texts(&self) -> Vec<String> {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        added.values().filter(|token| token.special).map(|token| token.content.clone()).collect()
    }

    /// Every token spelled as in the vocabulary, with its id, in order of ids.
    pub fn vocabulary(&self) -> Vec<(String, u32)> {
        let mut tokens: Vec<_> = self.inner.get_vocab(true).into_iter().collect();
        tokens.sort_by_key(|(_, id)| *id);
        tokens
    }

    /// `tokenizer_config.json`, empty when there is none.
    pub fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    /// The chat templates that came with the tokenizer.
    pub fn templates(&self) -> &Templates {
        &self.templates
    }

    /// The same tokenizer with this source as its default chat template, which is saved with it.
    #[must_use]
    pub fn with_chat_template(mut self, source: &str) -> Self {
        self.files.insert("chat_template.jinja", source.as_bytes().to_vec());
        self.templates.set_default(source.to_owned());
        self
    }

    /// The longest input the tokenizer's configuration admits, when it says so.
    pub fn model_max_length(&self) -> Option<usize> {
        // transformers writes 1e30 for "none".
        let length = self.config.get("model_max_length")?.as_f64()?;
        (1.0..1e9).contains(&length).then_some(length as usize)
    }

    /// Writes every file the tokenizer came with into `dir`, byte for byte.
    ///
    /// # Errors
    /// Names the file that could not be written.
    pub fn save_into(&self, dir: impl AsRef<Path>) -> Result<()> {
        self.files.write(dir.as_ref())
    }

    /// A digest of everything that decides how text becomes ids.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for (name, bytes) in self.files.iter().filter(|(name, _)| name.ends_with("json")) {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        hash.finalize().into()
    }

    /// True when a text may be cut between `\n` and a letter, and its halves encoded apart, with the same ids.
    ///
    /// Byte-level and WordPiece tokenizers allow it; SentencePiece does not, since it begins every text with a
    /// space. Found by trying, since the pre-tokenizer is a free composition of a dozen parts.
    pub(crate) fn cuts_at_newlines(&self) -> bool {
        const PROBES: [(&str, &str); 6] = [
            ("One\n", "two"),
            ("word 1\n", "2 more words"),
            ("ends.\n", "Begins again\nand on"),
            ("你好。\n", "世界"),
            ("a\n\nb\n", "c  d"),
            ("é\n", "ñandú"),
        ];
        let added = self.inner.get_added_vocabulary();
        let spans_lines = added.get_added_tokens_decoder().values().any(|token| token.content.contains('\n'));
        !spans_lines
            && PROBES.iter().all(|(left, right)| {
                let whole = self.encode(&format!("{left}{right}"), false);
                let halves = self
                    .encode(left, false)
                    .and_then(|mut ids| self.encode(right, false).map(|more| ids.extend(more)).map(|()| ids));
                matches!((whole, halves), (Ok(whole), Ok(halves)) if whole == halves)
            })
    }
}

/// Runs the library, whose errors and panics both become ours.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match quietly(work) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Error::Tokenizer(error.to_string())),
        Err(panic) => Err(Error::Tokenizer(format!("tokenizer.json contradicts itself ({panic})"))),
    }
}

fn parse(files: &Files) -> Result<tokenizers::Tokenizer> {
    let path = files.path("tokenizer.json");
    let bytes = files.get("tokenizer.json").unwrap_or_default();
    match quietly(|| tokenizers::Tokenizer::from_bytes(bytes)) {
        Ok(Ok(tokenizer)) => Ok(tokenizer),
        Ok(Err(error)) => Err(Error::format(&path, format!("not a tokenizer this program can read: {error}"))),
        // Some parts of the file are parsed by code that takes well-formed JSON for granted.
        Err(panic) => Err(Error::format(
            &path,
            match serde_json::from_slice::<Value>(bytes) {
                Err(error) => format!("not valid JSON: {error}"),
                Ok(_) => format!(
                    "the file contradicts itself ({panic}); download it again, or save it anew with transformers"
                ),
            },
        )),
    }
}

/// The highest id plus one, refused when ids are so sparse that an embedding of that size is a lie.
fn vocab_size(inner: &tokenizers::Tokenizer, files: &Files) -> Result<usize> {
    let vocabulary = inner.get_vocab(true);
    let Some((token, &highest)) = vocabulary.iter().max_by_key(|(_, id)| **id) else {
        return Err(Error::format(&files.path("tokenizer.json"), "the vocabulary is empty"));
    };
    if highest as usize > 16 * vocabulary.len() + 100_000 {
        return Err(Error::format(
            &files.path("tokenizer.json"),
            format!("token `{token}` has id {highest} though the vocabulary has only {} tokens", vocabulary.len()),
        ));
    }
    Ok(highest as usize + 1)
}

/// transformers' `clean_up_tokenization_spaces`: English spacing for tokenizers that split off punctuation.
fn clean_up(text: &str) -> String {
    const PAIRS: [(&str, &str); 10] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    PAIRS.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

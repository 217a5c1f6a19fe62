//! Ids together with where each comes from: text, words, first or second of a pair; for tags, answers and masks.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use tokenizers::models::ModelWrapper;
use tokenizers::{EncodeInput, Encoding, InputSequence};

use super::train::alphabet;
use super::{Tokenizer, guarded};
use crate::error::Result;

/// What the tokenizer knows about a text: vectors of equal length, one value for each token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Detailed {
    /// Token ids.
    pub ids: Vec<u32>,
    /// The vocabulary's spelling of each token (`Ġthe`, `##ing`, `▁a`).
    pub pieces: Vec<String>,
    /// The bytes each token covers of the text it comes from (of [`Tokenizer::encode_words`]: of its word); empty
    /// for tokens the tokenizer added itself.
    pub offsets: Vec<Range<usize>>,
    /// Token types: which segment of the model's input a token belongs to.
    pub types: Vec<u32>,
    /// Which word of its text a token is part of: as the pre-tokenizer divides it, or as it was given; none for
    /// tokens the tokenizer added itself.
    pub words: Vec<Option<u32>>,
    /// Which of the texts a token comes from, 0 or 1; none for tokens the tokenizer added itself.
    pub texts: Vec<Option<u8>>,
    /// True of tokens the tokenizer added itself (`[CLS]`, `[SEP]`).
    pub special: Vec<bool>,
}

impl Detailed {
    fn new(encoding: &Encoding) -> Self {
        Self {
            ids: encoding.get_ids().to_vec(),
            pieces: encoding.get_tokens().to_vec(),
            offsets: encoding.get_offsets().iter().map(|offsets| offsets.0..offsets.1).collect(),
            types: encoding.get_type_ids().to_vec(),
            words: encoding.get_word_ids().to_vec(),
            texts: encoding.get_sequence_ids().into_iter().map(|text| text.map(|text| text as u8)).collect(),
            special: encoding.get_special_tokens_mask().iter().map(|&special| special == 1).collect(),
        }
    }

    /// Tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

impl Tokenizer {
    /// Text to ids, with each token's spelling, the bytes of `text` it covers, and its word.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_detailed(&self, text: &str, add_special: bool) -> Result<Detailed> {
        let encoding = guarded(|| self.inner.encode(text, add_special)).map_err(|error| self.blame(text, error))?;
        Ok(Detailed::new(&encoding))
    }

    /// Two texts to the ids of a pair (`[CLS] a [SEP] b [SEP]`), with where each token comes from; offsets and words
    /// count within the text that `texts` names.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_pair_detailed(&self, first: &str, second: &str, add_special: bool) -> Result<Detailed> {
        Ok(Detailed::new(&guarded(|| self.inner.encode((first, second), add_special))?))
    }

    /// Words already divided to ids; `words` of the result are indices into `words` here, and `offsets` are bytes of
    /// each word. The ids are those of the words joined by spaces, where the tokenizer divides at spaces.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_words(&self, words: &[&str], add_special: bool) -> Result<Detailed> {
        // Byte-level vocabularies spell the space before a word as part of it, and have no other way to know of it.
        let spaced = self.spells_spaces();
        let spelled: Vec<Cow<'_, str>> = words
            .iter()
            .enumerate()
            .map(|(at, word)| if spaced && at > 0 { Cow::Owned(format!(" {word}")) } else { Cow::Borrowed(*word) })
            .collect();
        let input = EncodeInput::Single(InputSequence::PreTokenizedCow(Cow::Borrowed(&spelled)));
        let mut detailed = Detailed::new(&guarded(|| self.inner.encode(input, add_special))?);
        if spaced {
            for (offsets, word) in detailed.offsets.iter_mut().zip(&detailed.words) {
                if word.is_some_and(|word| word > 0) {
                    *offsets = offsets.start.saturating_sub(1)..offsets.end.saturating_sub(1);
                }
            }
        }
        Ok(detailed)
    }

    /// True of byte-level vocabularies, where a space before a word is the first byte of its token.
    pub(crate) fn spells_spaces(&self) -> bool {
        let first = |text: &str| {
            let ids = self.encode(text, false).ok()?;
            self.id_to_token(*ids.first()?)
        };
        first(" a").is_some_and(|piece| piece.starts_with('Ġ'))
    }
}

/// How a vocabulary spells what is no text: spaces, bytes, places inside a word.
#[derive(Debug)]
pub(crate) enum Spelling {
    /// WordPiece: tokens inside a word begin with this mark.
    Inside(String),
    /// Byte-level: each letter of a token is one byte.
    Bytes(HashMap<char, u8>),
    /// Text as it is, but for spaces that may be written `▁`.
    Plain,
}

impl Tokenizer {
    /// How this vocabulary spells its tokens.
    pub(crate) fn spelling(&self) -> Spelling {
        match self.inner.get_model() {
            ModelWrapper::WordPiece(model) => Spelling::Inside(model.continuing_subword_prefix.clone()),
            _ if self.spells_spaces() => {
                Spelling::Bytes(alphabet().into_iter().map(|(byte, letter)| (letter, byte)).collect())
            }
            _ => Spelling::Plain,
        }
    }
}

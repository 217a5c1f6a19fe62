//! What each token adds to a text, in bytes: said of the vocabulary, where `detailed` says it of the tokens of one text.

use serde_json::Value;
use tokenizers::{Decoder, DecoderWrapper};

use super::Tokenizer;
use crate::error::{Error, Result};

/// A part of a decoder that turns one token into text, whatever stands beside it.
enum Step {
    /// Characters stand for bytes (GPT-2's table).
    ByteLevel,
    /// A text becomes another one.
    Replace(String, String),
    /// `<0x0A>` is a byte.
    ByteFallback,
}

impl Tokenizer {
    /// The bytes that each id below [`Tokenizer::vocab_size`] adds to a text that something stands before already; empty for
    /// special tokens, which have no text, and for ids without a token.
    ///
    /// A token may end within a character. At the very beginning of a text some tokenizers leave out one space.
    ///
    /// # Errors
    /// Where what a token says depends on its neighbours, or the tokenizer has no decoder: then tokens have no bytes of their own.
    pub fn token_bytes(&self) -> Result<Vec<Vec<u8>>> {
        let mut bytes = vec![vec![]; self.vocab_size()];
        let decoder = self.inner.get_decoder().ok_or_else(|| depends("it has no decoder"))?;
        let steps = steps(decoder)?;
        for (token, id) in self.vocabulary() {
            if self.is_special(id) {
                continue;
            }
            if let Some(slot) = bytes.get_mut(id as usize) {
                *slot = match &steps {
                    Some(steps) => through(steps, token),
                    None => behind(decoder, token)?,
                };
            }
        }
        Ok(bytes)
    }
}

fn depends(why: &str) -> Error {
    Error::Tokenizer(format!("the tokens of this tokenizer have no text of their own: {why}"))
}

/// The steps of a decoder; `None` for one whose tokens differ at the beginning of a text alone.
fn steps(decoder: &DecoderWrapper) -> Result<Option<Vec<Step>>> {
    let decoder = serde_json::to_value(decoder).map_err(|error| Error::Tokenizer(error.to_string()))?;
    let kind = |part: &Value| part["type"].as_str().unwrap_or_default().to_owned();
    if matches!(kind(&decoder).as_str(), "WordPiece" | "Metaspace") {
        return Ok(None);
    }
    let parts = decoder["decoders"].as_array().cloned().unwrap_or_else(|| vec![decoder]);
    let (mut steps, mut fused) = (vec![], false);
    for part in &parts {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        match kind(part).as_str() {
            "ByteLevel" => steps.push(Step::ByteLevel),
            "ByteFallback" => steps.push(Step::ByteFallback),
            "Fuse" => fused = true,
            // Behind the fusion it is about the beginning of the whole text.
            "Strip" if fused && part["stop"] == 0 => {}
            "Replace" if !fused => match (text(&part["pattern"]["String"]), text(&part["content"])) {
                (Some(from), Some(to)) => steps.push(Step::Replace(from, to)),
                _ => return Err(depends("its decoder replaces what an expression matches")),
            },
            other => return Err(depends(&format!("its decoder has a part {other}"))),
        }
    }
    Ok(Some(steps))
}

fn through(steps: &[Step], token: String) -> Vec<u8> {
    let mut text = token;
    for step in steps {
        match step {
            Step::Replace(from, to) => text = text.replace(from, to),
            Step::ByteFallback => {
                let hex = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>')).filter(|hex| hex.len() == 2);
                if let Some(byte) = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                    return vec![byte];
                }
            }
            // A token with any other character is a text of its own, as in the library.
            Step::ByteLevel => {
                return text.chars().map(byte).collect::<Option<_>>().unwrap_or_else(|| text.clone().into_bytes());
            }
        }
    }
    text.into_bytes()
}

/// What a token says behind another one.
fn behind(decoder: &DecoderWrapper, token: String) -> Result<Vec<u8>> {
    let said = super::guarded(|| decoder.decode_chain(vec!["a".to_owned(), token]))?;
    Ok(said.get(1..).unwrap_or_default().concat().into_bytes())
}

/// The byte that a character stands for: printable ones for themselves, the rest in order from U+0100.
fn byte(character: char) -> Option<u8> {
    let plain = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..);
    match u32::from(character) {
        code @ 0..0x100 => Some(code as u8).filter(|&byte| plain(byte)),
        code => (0..=255).filter(|&byte| !plain(byte)).nth(usize::try_from(code - 0x100).ok()?),
    }
}

#[cfg(test)]
mod tests;

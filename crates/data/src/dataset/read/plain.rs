//! Plain text: a file is one document, given out in pieces, or many, divided by a separator line.

use std::io::{BufRead, Read};
use std::path::Path;
use std::sync::Arc;

use super::super::{Document, Part, Position, TextSettings};
use super::{Records, filled, reader};
use crate::error::{Error, Result};

/// Long documents are given out in pieces of about this many bytes. Tokenisers slow down on long texts, whose many small
/// parts no longer fit the cache: 64 KiB was a third faster than 1 MiB, and 16 KiB slower again.
const PIECE: usize = 1 << 16;

pub(super) fn open<'a>(path: &Arc<Path>, settings: &'a TextSettings) -> Result<Records<'a>> {
    match &settings.separator {
        Some(separator) => Ok(Box::new(Separated {
            input: reader(path)?,
            path: path.clone(),
            separator: separator.as_bytes(),
            byte: 0,
            begun: false,
            done: false,
        })),
        None => {
            // Half a document is worse than none, so the whole file is checked before its first piece goes out.
            validate(path)?;
            Ok(Box::new(Whole { input: reader(path)?, path: path.clone(), buffer: Vec::new(), byte: 0, ended: false }))
        }
    }
}

fn invalid(path: &Arc<Path>, byte: u64) -> Error {
    Error::Record {
        position: Position::at(path, Part::Byte, byte),
        message: "invalid UTF-8; convert the file (for instance with iconv), or set `faults = \"skip\"`".to_owned(),
    }
}

/// One pass over the file: UTF-8 throughout, and something besides white space in it.
fn validate(path: &Arc<Path>) -> Result<()> {
    let mut input = reader(path)?;
    let (mut buffer, mut byte, mut blank) = (Vec::with_capacity(PIECE + 4), 0, true);
    loop {
        let read = input.by_ref().take(PIECE as u64).read_to_end(&mut buffer).map_err(Error::io(&**path))?;
        let valid = match std::str::from_utf8(&buffer) {
            Ok(text) => text.len(),
            // A character cut by the end of the buffer is completed by the next reading.
            Err(error) if error.error_len().is_none() && read > 0 => error.valid_up_to(),
            Err(error) => return Err(invalid(path, byte + error.valid_up_to() as u64)),
        };
        blank &= buffer[..valid].trim_ascii().is_empty();
        byte += valid as u64;
        buffer.drain(..valid);
        if read == 0 {
            break;
        }
    }
    if blank {
        return Err(Error::Record { position: Position::whole(path.clone()), message: super::EMPTY.to_owned() });
    }
    Ok(())
}

/// A file as one document.
struct Whole {
    input: Box<dyn BufRead>,
    path: Arc<Path>,
    buffer: Vec<u8>,
    byte: u64,
    ended: bool,
}

impl Whole {
    /// Where the buffered text may be cut: after a line end that has a word on either side.
    ///
    /// There, and not at just any line end, byte-level tokenizers give the same ids to the two pieces as to the
    /// whole: their patterns look ahead over runs of white space.
    fn cut(&self) -> Option<usize> {
        let valid = match std::str::from_utf8(&self.buffer) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&self.buffer[..error.valid_up_to()]).unwrap_or_default(),
        };
        valid.rmatch_indices('\n').map(|(at, _)| at + 1).find(|&at| {
            let before = valid[..at - 1].chars().next_back();
            let after = valid[at..].chars().next();
            before.is_some_and(|c| !c.is_whitespace()) && after.is_some_and(char::is_alphanumeric)
        })
    }

    fn piece(&mut self) -> Result<Option<Document>> {
        let mut wanted = PIECE;
        let cut = loop {
            let missing = wanted.saturating_sub(self.buffer.len()) as u64;
            let read =
                self.input.by_ref().take(missing).read_to_end(&mut self.buffer).map_err(Error::io(&*self.path))?;
            if (read as u64) < missing {
                self.ended = true;
                break self.buffer.len();
            }
            match self.cut() {
                Some(cut) => break cut,
                // One line longer than the buffer: only more of the file can help.
                None => wanted *= 2,
            }
        };
        if cut == 0 {
            return Ok(None);
        }
        let rest = self.buffer.split_off(cut);
        let bytes = std::mem::replace(&mut self.buffer, rest);
        let byte = self.byte;
        self.byte += bytes.len() as u64;
        let mut text = String::from_utf8(bytes)
            .map_err(|error| invalid(&self.path, byte + error.utf8_error().valid_up_to() as u64))?;
        if byte == 0 {
            strip_mark(&mut text);
        }
        Ok(Some(Document { text, position: Position::at(&self.path, Part::Byte, byte), more: !self.ended }))
    }
}

/// Removes the byte order mark some editors put first.
fn strip_mark(text: &mut String) {
    if text.starts_with('\u{FEFF}') {
        text.drain(..'\u{FEFF}'.len_utf8());
    }
}

impl Iterator for Whole {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let piece = self.piece().transpose();
        if !matches!(piece, Some(Ok(_))) {
            self.ended = true;
        }
        piece
    }
}

/// A file divided by lines equal to `separator`; each document fits into memory.
struct Separated<'a> {
    input: Box<dyn BufRead>,
    path: Arc<Path>,
    separator: &'a [u8],
    byte: u64,
    /// A document or a separator has been seen, so nothing between two separators is an empty document.
    begun: bool,
    done: bool,
}

impl Separated<'_> {
    /// The bytes up to the next separator line, and whether there was one.
    fn block(&mut self) -> Result<(Vec<u8>, bool)> {
        let mut block = Vec::new();
        loop {
            let start = block.len();
            let read = self.input.read_until(b'\n', &mut block).map_err(Error::io(&*self.path))?;
            self.byte += read as u64;
            if read == 0 {
                return Ok((block, false));
            }
            let line = block[start..].strip_suffix(b"\n").unwrap_or(&block[start..]);
            if line.strip_suffix(b"\r").unwrap_or(line) == self.separator {
                block.truncate(start);
                return Ok((block, true));
            }
        }
    }
}

impl Iterator for Separated<'_> {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            let byte = self.byte;
            let (mut block, separated) = match self.block() {
                Ok(block) => block,
                Err(error) => {
                    self.done = true;
                    return Some(Err(error));
                }
            };
            self.done = !separated;
            // The line end before a separator belongs to the separator.
            if block.last() == Some(&b'\n') {
                block.pop();
                if block.last() == Some(&b'\r') {
                    block.pop();
                }
            }
            // Nothing before a leading, after a trailing, or between blank separators is no document at all.
            let between = self.begun && separated && !self.separator.is_empty();
            self.begun = true;
            if block.is_empty() && !between {
                continue;
            }
            let position = Position::at(&self.path, Part::Byte, byte);
            return Some(match String::from_utf8(block) {
                Ok(mut text) => {
                    if byte == 0 {
                        strip_mark(&mut text);
                    }
                    filled(Document { text, position, more: false })
                }
                Err(error) => Err(invalid(&self.path, byte + error.utf8_error().valid_up_to() as u64)),
            });
        }
        None
    }
}

//! Makes a token file from a corpus: documents in parallel, order kept, written aside and renamed into place.

use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use phyla_kernels::map::{MappedFile, bytes_of};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::TokenFile;
use super::layout::{HEADER, checksum, gap, header};
use crate::dataset::{Corpus, Document};
use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;

/// Text encoded at once, in bytes: enough to keep all threads busy, little enough to be forgotten in memory.
const CHUNK: usize = 8 << 20;

/// How a document becomes ids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenSettings {
    /// Let the tokenizer add its own special tokens around each document.
    pub add_special: bool,
    /// End each document with the end-of-sequence id, so that a model learns to stop.
    pub append_eos: bool,
}

impl Default for TokenSettings {
    fn default() -> Self {
        Self { add_special: false, append_eos: true }
    }
}

/// Whether a token file was there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    /// Found in the cache and sound.
    Reused,
    /// Made now, for the first time.
    New,
    /// Made anew, because the one in the cache was not usable; the reason is for the user's eyes.
    Rebuilt(String),
}

/// The user's cache folder for token files: `$XDG_CACHE_HOME/phyla/tokens`, or `~/.cache/phyla/tokens`.
///
/// # Errors
/// When neither `XDG_CACHE_HOME` nor `HOME` is set.
pub fn cache_dir() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = set("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| Path::new(&home).join(".cache")))
        .ok_or_else(|| {
            Error::Settings("no place for the token cache: set XDG_CACHE_HOME or HOME, or name a folder".to_owned())
        })?;
    Ok(base.join("phyla").join("tokens"))
}

impl TokenFile {
    /// The token file of `corpus` in the folder `cache`: reused when it is there and sound, else made.
    ///
    /// The name is a digest of the corpus' content, the tokenizer's files and `settings`, so a change of any
    /// makes a new file. `progress` is told the bytes of text encoded so far.
    ///
    /// # Errors
    /// Errors of reading the corpus, encoding it, and writing the file.
    pub fn cached(
        cache: impl AsRef<Path>,
        corpus: &Corpus,
        tokenizer: &Tokenizer,
        settings: &TokenSettings,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(Self, Made)> {
        let cache = cache.as_ref();
        let key = key(corpus, tokenizer, settings)?;
        let name: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = cache.join(format!("{name}.bin"));
        let made = if path.exists() {
            match Self::open_keyed(&path, Some(&key)) {
                Ok(file) => return Ok((file, Made::Reused)),
                Err(error) => Made::Rebuilt(error.to_string()),
            }
        } else {
            Made::New
        };
        std::fs::create_dir_all(cache).map_err(Error::io(cache))?;
        build(&path, &key, corpus.documents()?, tokenizer, settings, progress)?;
        Ok((Self::open_keyed(&path, Some(&key))?, made))
    }
}

/// A digest of everything the ids depend on.
fn key(corpus: &Corpus, tokenizer: &Tokenizer, settings: &TokenSettings) -> Result<[u8; 32]> {
    let mut hash = Sha256::new();
    hash.update(b"phyla tokens 1");
    hash.update(corpus.fingerprint()?);
    hash.update(tokenizer.fingerprint());
    hash.update([u8::from(settings.add_special), u8::from(settings.append_eos)]);
    Ok(hash.finalize().into())
}

fn build(
    path: &Path,
    key: &[u8; 32],
    documents: impl Iterator<Item = Result<Document>>,
    tokenizer: &Tokenizer,
    settings: &TokenSettings,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let io = || Error::io(path);
    // In the same folder, so that the rename is atomic; removed by itself when anything below fails.
    let temporary = tempfile::NamedTempFile::new_in(folder).map_err(Error::io(folder))?;
    let mut writer = Writer {
        out: BufWriter::with_capacity(1 << 20, temporary.as_file()),
        wide: tokenizer.vocab_size() > 1 << 16,
        offsets: vec![0],
        tokens: 0,
    };
    writer.out.write_all(&[0; HEADER]).map_err(io())?;
    let encoder = Encoder::new(tokenizer, settings)?;
    let (mut pending, mut size, mut done) = (Vec::new(), 0, 0);
    for document in documents {
        let document = document?;
        size += document.text.len();
        // A document in pieces must be whole before it is encoded, unless encoding may be cut.
        let whole = encoder.cuts || !document.more;
        encoder.push(&mut pending, document);
        if size >= CHUNK && whole {
            encoder.encode(&pending)?.into_iter().try_for_each(|piece| writer.push(piece)).map_err(io())?;
            done += size as u64;
            progress(done);
            pending.clear();
            size = 0;
        }
    }
    encoder.encode(&pending)?.into_iter().try_for_each(|piece| writer.push(piece)).map_err(io())?;
    progress(done + size as u64);
    let (documents, tokens, wide) = (writer.offsets.len() - 1, writer.tokens, writer.wide);
    writer.finish().map_err(io())?;

    // Read back what was written: the checksum then covers what the next run will see.
    let body = checksum(MappedFile::open(temporary.path()).map_err(io())?.bytes().get(HEADER..).unwrap_or_default());
    let mut file = temporary.as_file();
    file.seek(SeekFrom::Start(0)).map_err(io())?;
    file.write_all(&header(wide, documents, tokens, key, body)).map_err(io())?;
    file.sync_all().map_err(io())?;
    temporary.persist(path).map_err(|error| Error::io(path)(error.error))?;
    Ok(())
}

/// Encodes pieces of documents.
struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    add_special: bool,
    eos: Option<u32>,
    /// Pieces of one document may be encoded apart.
    cuts: bool,
}

impl<'a> Encoder<'a> {
    fn new(tokenizer: &'a Tokenizer, settings: &TokenSettings) -> Result<Self> {
        let eos = match (settings.append_eos, tokenizer.eos()) {
            (false, _) => None,
            (true, Some(id)) => Some(id),
            (true, None) => {
                return Err(Error::Settings(
                    "documents are to end with the end-of-sequence token, but the tokenizer names none: \
                     set `eos_token` in tokenizer_config.json, or `append_eos = false`"
                        .to_owned(),
                ));
            }
        };
        // Tokens around every piece would stand in the middle of a document.
        let adds = settings.add_special && !tokenizer.encode("", true)?.is_empty();
        Ok(Self { tokenizer, add_special: settings.add_special, eos, cuts: !adds && tokenizer.cuts_at_newlines() })
    }

    /// Adds a record to the list, joined to the one before where it belongs to it and cutting is not allowed.
    fn push(&self, pending: &mut Vec<Document>, document: Document) {
        match pending.last_mut() {
            Some(last) if last.more && !self.cuts => {
                last.text.push_str(&document.text);
                last.more = document.more;
            }
            _ => pending.push(document),
        }
    }

    fn encode(&self, pieces: &[Document]) -> Result<Vec<(Vec<u32>, bool)>> {
        pieces
            .par_iter()
            .map(|piece| {
                let mut ids = self
                    .tokenizer
                    .encode(&piece.text, self.add_special)
                    .map_err(|error| Error::Record { position: piece.position.clone(), message: error.to_string() })?;
                if !piece.more {
                    ids.extend(self.eos);
                }
                Ok((ids, piece.more))
            })
            .collect()
    }
}

/// Writes ids in order and remembers where documents end.
struct Writer<'a> {
    out: BufWriter<&'a std::fs::File>,
    wide: bool,
    offsets: Vec<u64>,
    tokens: usize,
}

impl Writer<'_> {
    fn push(&mut self, (ids, more): (Vec<u32>, bool)) -> std::io::Result<()> {
        self.tokens += ids.len();
        if !more {
            self.offsets.push(self.tokens as u64);
        }
        if self.wide {
            self.out.write_all(bytes_of(&ids))
        } else {
            // Below 65,536 by the vocabulary's size.
            let narrow: Vec<u16> = ids.iter().map(|&id| id as u16).collect();
            self.out.write_all(bytes_of(&narrow))
        }
    }

    fn finish(mut self) -> std::io::Result<()> {
        let bytes = self.tokens * if self.wide { 4 } else { 2 };
        self.out.write_all(&[0; 8][..gap(bytes)])?;
        self.out.write_all(bytes_of(&self.offsets))?;
        self.out.flush()
    }
}

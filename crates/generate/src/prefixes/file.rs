//! A text that has been read, in a file: its ids and the pages of the model's cache, which are used where they lie.
//!
//! The file begins with [`MAGIC`], the length of a JSON header as eight bytes, little-endian, and the header; from the next
//! multiple of 64 on the pages follow, layer by layer, each filled up to a multiple of 64. All numbers are little-endian. A
//! file is written whole or not at all; of one that is not as its header says, nothing is used.

use std::io::ErrorKind;
use std::path::Path;

use phyla_kernels::map::{MappedFile, MappedSlice};
use phyla_kernels::page::{Kept, POSITIONS, Page};
use phyla_models::Model;
use phyla_models::checkpoint::atomic_write_parts;
use phyla_nn::{Cache, Pass, Prefix, PrefixLayout};
use serde::{Deserialize, Serialize};

use super::PrefixCache;
use crate::{Error, Result};

/// How such a file begins; the last two letters are its version.
const MAGIC: &[u8; 16] = b"phyla prompt  01";

/// Beginnings of pages.
const ALIGNED: usize = 64;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    /// Of the model that has read it.
    model: String,
    ids: Vec<u32>,
    pages: PrefixLayout,
}

impl PrefixCache {
    /// Takes up the text of a file that [`PrefixCache::save`] wrote; false if there is no such file.
    ///
    /// # Errors
    /// Names the file and what is wrong with it: it is not whole, no such file at all, or of another model.
    pub fn load(&self, path: &Path, model: &Model) -> Result<bool> {
        let wrong = |what: String| {
            Error::Settings(format!("the prompt cache `{}`: {what}; delete it, or name another", path.display()))
        };
        let file = match MappedFile::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::Settings(error.to_string())),
        };
        let (ids, prefix) = read(&file, model).map_err(wrong)?;
        self.state().add(ids, prefix, usize::MAX);
        Ok(true)
    }

    /// Writes the text of last use to a file, whole or not at all; nothing if none is remembered.
    ///
    /// # Errors
    /// Names the file, if it cannot be written.
    pub fn save(&self, path: &Path, model: &Model) -> Result<()> {
        let state = self.state();
        let Some(text) = state.latest() else { return Ok(()) };
        let header =
            Header { model: fingerprint(model)?, ids: text.ids.clone(), pages: PrefixLayout::of(&text.prefix) };
        let header = serde_json::to_vec(&header).map_err(|error| Error::Settings(error.to_string()))?;
        let length = (header.len() as u64).to_le_bytes();
        let zeros = [0; ALIGNED];
        let fill = |len: usize| &zeros[..len.next_multiple_of(ALIGNED) - len];
        let head = [&MAGIC[..], &length, &header, fill(MAGIC.len() + length.len() + header.len())];
        let pages = text.prefix.raw().flat_map(|page| [page, fill(page.len())]);
        atomic_write_parts(path, head.into_iter().chain(pages))
            .map_err(|error| Error::Settings(format!("cannot write the prompt cache: {error}")))
    }
}

/// What is wrong is said in words.
type Read<T> = std::result::Result<T, String>;

/// What an error says, without the calls that led to it.
fn brief(error: &dyn std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

fn read(file: &std::sync::Arc<MappedFile>, model: &Model) -> Read<(Vec<u32>, Prefix)> {
    if cfg!(target_endian = "big") {
        return Err("its numbers are little-endian, and this machine's are not".into());
    }
    let bytes = file.bytes();
    let front = MAGIC.len() + 8;
    match bytes.get(..MAGIC.len()) {
        Some(magic) if magic == MAGIC => {}
        Some(magic) if magic[..14] == MAGIC[..14] => return Err("it is of another version of this program".into()),
        _ => return Err("it is none".into()),
    }
    let cut = || format!("it ends after {} bytes, before its header does", bytes.len());
    let length = bytes.get(MAGIC.len()..front).and_then(|length| length.try_into().ok()).ok_or_else(cut)?;
    let length = usize::try_from(u64::from_le_bytes(length)).map_err(|_| cut())?;
    let end = front.checked_add(length).filter(|&end| end <= bytes.len()).ok_or_else(cut)?;
    let header: Header =
        serde_json::from_slice(&bytes[front..end]).map_err(|error| format!("its header does not parse: {error}"))?;
    if header.model != fingerprint(model).map_err(|error| brief(&error))? {
        return Err("another model has written it, or the same with other weights or in another type".into());
    }
    if header.ids.len() != header.pages.length || header.ids.is_empty() {
        return Err(format!("it says that it holds {} tokens, and names {}", header.pages.length, header.ids.len()));
    }
    if let Some(id) = header.ids.iter().find(|&&id| id as usize >= model.arch.vocab()) {
        return Err(format!("it names token {id}, which is outside the vocabulary"));
    }
    let window = header.pages.sink.map_or(0, |[window, _]| window);
    if window > model.arch.context {
        return Err(format!("it keeps {window} tokens, and the model looks back over {}", model.arch.context));
    }
    if !header.pages.is_like(&like(model, &header).map_err(|error| brief(&error))?) {
        return Err("its pages have other sizes than the model's".into());
    }
    let mut at = end.next_multiple_of(ALIGNED);
    let page = |kept: Kept, row: usize| {
        let size = kept.bytes(POSITIONS * row);
        let slice = MappedSlice::new(file.clone(), at..at.saturating_add(size));
        at = at.saturating_add(size.next_multiple_of(ALIGNED));
        match slice.and_then(|slice| Page::mapped(kept, row, slice)) {
            Some(page) => Ok(page),
            None => candle_core::bail!("it ends after {} bytes, in the middle of its pages", file.bytes().len()),
        }
    };
    let prefix = header.pages.fill(page).map_err(|error| brief(&error))?;
    if at != bytes.len() {
        return Err(format!("it has {} bytes where its header speaks of {at}", bytes.len()));
    }
    Ok((header.ids, prefix))
}

/// What this model's cache of one token looks like, kept as the header says.
fn like(model: &Model, header: &Header) -> Result<PrefixLayout> {
    phyla_ops::no_grad(|| {
        let mut cache = Cache::with(1, header.pages.spec()?);
        model.forward(&header.ids[..1], None, &mut Pass::cached(cache.all(), 1))?;
        match cache.prefix(0) {
            Some(prefix) => Ok(PrefixLayout::of(&prefix)),
            None => Err(Error::Settings("only caches of decoders on the CPU are kept in files".into())),
        }
    })
}

/// Numbers of a weight that are looked at.
const SAMPLE: usize = 16;

/// A number for a model (FNV-1a): of its configuration, and of names, sizes, types and some numbers of its weights. All of
/// them would take as long to read as a prompt.
fn fingerprint(model: &Model) -> Result<String> {
    let mut hash = 0xCBF2_9CE4_8422_2325u64;
    let mut add = |bytes: &[u8]| {
        for &byte in bytes {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
    };
    add(serde_json::to_string(&model.config).unwrap_or_default().as_bytes());
    for param in model.params() {
        let weight = param.compute();
        add(format!("{} {:?} {}", param.path(), param.dims(), weight.stored()).as_bytes());
        add(&weight.sample(SAMPLE)?);
    }
    for change in model.slots().iter().flat_map(|slot| slot.changes()) {
        for param in change.params() {
            add(param.path().as_bytes());
            add(&param.weight().sample(SAMPLE)?);
        }
    }
    Ok(format!("{hash:016x}"))
}

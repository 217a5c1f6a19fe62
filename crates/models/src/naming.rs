//! Which tensor of one particular checkpoint a parameter is. The family's table says what it should be called;
//! here are the liberties that checkpoints take.

use std::collections::BTreeSet;

use crate::Arch;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::family::Entry;
use crate::gguf::table::READ_BY_CONFIG;
use crate::names::{Place, Rule, places};

/// The names of a family as a checkpoint uses them.
pub(crate) struct Naming<'a> {
    checkpoint: &'a Checkpoint,
    /// The family's table for the checkpoint's format.
    names: &'static [Rule],
    /// What stands before every name but the heads'.
    prefix: &'static str,
    /// Ends of names that mean nothing.
    buffers: &'static [&'static str],
    /// Whether the names lack the family's prefix.
    bare: bool,
}

/// A head that the configuration ties to the token table, as transformers reads it: a head of its own in the file
/// wins if its values differ, and a file with only the head lends it as token table.
pub(crate) enum TiedHead {
    /// There is none in the file, or the configuration does not tie it.
    AsConfigured,
    /// It repeats the token table.
    Same { head: String },
    /// It is the token table.
    Lent { head: Place },
    /// It differs from the token table.
    Own { warning: String },
}

impl<'a> Naming<'a> {
    pub fn new(checkpoint: &'a Checkpoint, family: &'static Entry) -> Self {
        let (names, prefix, buffers) = match (checkpoint.gguf(), family.gguf) {
            (Some(_), Some(table)) => (table.names, "", READ_BY_CONFIG),
            _ => (family.names, family.prefix, family.buffers),
        };
        let bare = !checkpoint.names().any(|name| name.starts_with(prefix));
        Self { checkpoint, names, prefix, buffers, bare }
    }

    /// The place of our parameter `path`: of those where checkpoints keep it the first that is there, or the first;
    /// `None` if the family's table lacks it.
    pub fn place(&self, path: &str) -> Option<Place> {
        let mut places = self.places(path).peekable();
        let first = places.peek().cloned();
        places.find(|place| self.checkpoint.contains(&place.tensor)).or(first)
    }

    fn places(&self, path: &str) -> impl Iterator<Item = Place> {
        places(self.names, path).flat_map(|mut place| {
            if self.bare
                && let Some(bare) = place.tensor.strip_prefix(self.prefix)
            {
                place.tensor = bare.to_string();
            }
            // TensorFlow's names of a norm's weights, which the first checkpoints of BERT kept.
            let older = match place.tensor.rsplit_once('.') {
                Some((norm, "weight")) => Some(format!("{norm}.gamma")),
                Some((norm, "bias")) => Some(format!("{norm}.beta")),
                _ => None,
            };
            let older = older.map(|tensor| Place { tensor, ..place.clone() });
            std::iter::once(place).chain(older)
        })
    }

    /// Drops the pooler of a model without heads if the file has none, and says so: many encoders are published
    /// without.
    pub fn settle_pooler(&self, arch: &mut Arch) -> Option<String> {
        if arch.pooler.is_none() || !arch.heads.is_empty() {
            return None;
        }
        let place = self.place("pooler.dense.weight");
        if place.as_ref().is_some_and(|place| self.checkpoint.contains(&place.tensor)) {
            return None;
        }
        arch.pooler = None;
        let tensor = place.map(|place| format!(" ({})", place.tensor)).unwrap_or_default();
        Some(format!("the checkpoint has no pooler{tensor}: there is no pooler_output"))
    }

    /// Whether a tensor repeats the one that a parameter was read from, under another name of the same parameter.
    fn repeats(&self, tensor: &str, read: &[(String, Place)]) -> bool {
        read.iter().any(|(path, place)| {
            self.places(path).any(|other| other.tensor == tensor)
                && match (self.checkpoint.get(tensor), self.checkpoint.get(&place.tensor)) {
                    (Ok(a), Ok(b)) => a.dtype == b.dtype && a.bytes() == b.bytes(),
                    _ => false,
                }
        })
    }

    /// What the file makes of a head that is configured as `tied` or not; `table` is the path of the token table.
    pub fn tied_head(&self, tied: bool, table: &str) -> Result<TiedHead, CheckpointError> {
        let (true, Some(head), Some(tokens)) = (tied, self.place("head.weight"), self.place(table)) else {
            return Ok(TiedHead::AsConfigured);
        };
        if !self.checkpoint.contains(&head.tensor) {
            return Ok(TiedHead::AsConfigured);
        }
        if !self.checkpoint.contains(&tokens.tensor) {
            return Ok(TiedHead::Lent { head });
        }
        let (a, b) = (self.checkpoint.get(&head.tensor)?, self.checkpoint.get(&tokens.tensor)?);
        if a.dtype == b.dtype && a.bytes() == b.bytes() {
            return Ok(TiedHead::Same { head: head.tensor });
        }
        let warning = format!(
            "tie_word_embeddings is true, but {} and {} differ: the head in the file is used, untied",
            head.tensor, tokens.tensor
        );
        Ok(TiedHead::Own { warning })
    }

    /// The tensors that are neither in `used`, nor copies of one that was read, nor known to mean nothing.
    pub fn unused(&self, used: &BTreeSet<String>, read: &[(String, Place)]) -> Vec<String> {
        let buffer = |name: &str| self.buffers.iter().any(|end| name.ends_with(end));
        let unread = (self.checkpoint.names()).filter(|name| !used.contains(*name) && !buffer(name));
        unread.filter(|name| !self.repeats(name, read)).map(str::to_string).collect()
    }
}

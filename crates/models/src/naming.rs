//! Which tensor of one particular checkpoint a parameter is. The family's table says what it should be called;
//! here are the liberties that checkpoints take.

use std::collections::BTreeSet;

use crate::Head;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::family::Entry;
use crate::names::{Place, place};

/// The names of a family as a checkpoint uses them.
pub(crate) struct Naming<'a> {
    checkpoint: &'a Checkpoint,
    family: &'static Entry,
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
        let bare = !checkpoint.names().any(|name| name.starts_with(family.prefix));
        Self { checkpoint, family, bare }
    }

    /// The place of our parameter `path`; `None` if the family's table lacks it.
    pub fn place(&self, path: &str) -> Option<Place> {
        let mut place = place(self.family.names, path)?;
        if self.bare
            && let Some(bare) = place.tensor.strip_prefix(self.family.prefix)
        {
            place.tensor = bare.to_string();
        }
        Some(place)
    }

    /// What the file makes of a head that is configured as `head`.
    pub fn tied_head(&self, head: Head) -> Result<TiedHead, CheckpointError> {
        let (Head::Tied, Some(head), Some(tokens)) = (head, self.place("head.weight"), self.place("tokens.weight"))
        else {
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

    /// The tensors that are neither in `used` nor known to mean nothing.
    pub fn unused(&self, used: &BTreeSet<String>) -> Vec<String> {
        let buffer = |name: &str| self.family.buffers.iter().any(|end| name.ends_with(end));
        (self.checkpoint.names()).filter(|name| !used.contains(*name) && !buffer(name)).map(str::to_string).collect()
    }
}

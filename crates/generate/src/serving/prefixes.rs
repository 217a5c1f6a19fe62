//! What has been read, a block at a time, by what stands in it and before it: requests that begin alike begin with the same
//! blocks. Those that nobody uses are given up, the longest unused first, when blocks are needed.

use std::collections::HashMap;

use phyla_nn::Block;

use super::adapters::Worn;
use super::blocks::{BlockId, Blocks};

/// A block's place among all: which texts go on behind it. Never given twice.
pub(super) type Place = u64;

/// The blocks.
#[derive(Default)]
pub(super) struct Prefixes {
    places: HashMap<Key, Place>,
    nodes: HashMap<Place, Node>,
    /// Where texts begin, by what changes the model for them. Over quantised weights the numbers of those that are to be alike in
    /// any company differ from the others', too.
    roots: HashMap<(Worn, bool), Place>,
    given: Place,
    clock: u64,
}

/// What decides the numbers of a block.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    before: Place,
    /// The length of the prompt, where some of the block was written: what is read in a prompt has other bits than what is
    /// read token by token. 0 where all of it is of a prompt.
    prompt: usize,
    ids: Box<[u32]>,
}

struct Node {
    key: Key,
    block: Block,
    id: BlockId,
    /// Nodes behind it.
    after: usize,
    used: u64,
}

/// A text whose first `prompt` ids are its prompt.
#[derive(Clone, Copy)]
pub(super) struct Written<'a> {
    pub ids: &'a [u32],
    pub prompt: usize,
}

impl Written<'_> {
    fn key(&self, before: Place, index: usize) -> Option<Key> {
        let end = (index + 1) * Block::POSITIONS;
        let ids = self.ids.get(index * Block::POSITIONS..end)?.into();
        Some(Key { before, prompt: if end <= self.prompt { 0 } else { self.prompt }, ids })
    }
}

/// A block that a text can begin with.
pub(super) struct Found {
    pub place: Place,
    pub id: BlockId,
    pub block: Block,
}

impl Prefixes {
    /// Where texts begin that are read under these adapters, to be alike in any company or not.
    pub fn root(&mut self, adapters: &Worn, deterministic: bool) -> Place {
        *self.roots.entry((adapters.clone(), deterministic)).or_insert_with(|| {
            self.given += 1;
            self.given
        })
    }

    /// The blocks that a text begins with.
    pub fn find(&mut self, root: Place, text: Written) -> Vec<Found> {
        let (mut found, mut before) = (vec![], root);
        self.clock += 1;
        while let Some(&place) = text.key(before, found.len()).and_then(|key| self.places.get(&key)) {
            let Some(node) = self.nodes.get_mut(&place) else { break };
            node.used = self.clock;
            found.push(Found { place, id: node.id, block: node.block.clone() });
            before = place;
        }
        found
    }

    /// Keeps a text's block number `index`, unless one like it is kept; returns its place, `None` if what is before it has been
    /// given up.
    pub fn keep(
        &mut self,
        before: Place,
        text: Written,
        index: usize,
        (id, block): (BlockId, Block),
        blocks: &mut Blocks,
    ) -> Option<Place> {
        let key = text.key(before, index)?;
        if let Some(&place) = self.places.get(&key) {
            return Some(place);
        }
        match self.nodes.get_mut(&before) {
            Some(node) => node.after += 1,
            None if self.roots.values().any(|&root| root == before) => {}
            None => return None,
        }
        self.given += 1;
        let place = self.given;
        blocks.share(id);
        self.places.insert(key.clone(), place);
        self.nodes.insert(place, Node { key, block, id, after: 0, used: self.clock });
        Some(place)
    }

    /// Blocks that nobody else has.
    pub fn unused(&self, blocks: &Blocks) -> usize {
        self.nodes.values().filter(|node| blocks.users(node.id) == 1).count()
    }

    /// Gives up the block that has been unused for longest; `false` if all are in use.
    pub fn give_up(&mut self, blocks: &mut Blocks) -> bool {
        let ends = self.nodes.iter().filter(|(_, node)| node.after == 0 && blocks.users(node.id) == 1);
        let Some(place) = ends.min_by_key(|(place, node)| (node.used, **place)).map(|(place, _)| *place) else {
            return false;
        };
        let Some(node) = self.nodes.remove(&place) else { return false };
        self.places.remove(&node.key);
        if let Some(before) = self.nodes.get_mut(&node.key.before) {
            before.after -= 1;
        }
        blocks.give_back(node.id);
        true
    }

    /// Forgets all. Who uses a block keeps it.
    pub fn clear(&mut self, blocks: &mut Blocks) {
        self.places.clear();
        self.nodes.drain().for_each(|(_, node)| blocks.give_back(node.id));
    }
}

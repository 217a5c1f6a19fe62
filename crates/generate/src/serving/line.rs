//! A sequence in an engine: a row of the cache while it runs, a place in the queue while it waits.

use phyla_nn::Block;

use super::blocks::{BlockId, Blocks};
use super::pieces::Reading;
use super::prefixes::{Place, Written};
use super::request::RequestId;
use crate::sequence::Active;

/// A sequence.
pub(super) struct Line<'a> {
    pub request: RequestId,
    /// Which of the request's sequences.
    pub number: usize,
    pub active: Active<'a>,
    /// Sequences of the request that begin with this one, once the prompt has been read.
    pub forks: usize,
    /// Positions that its row holds.
    pub read: usize,
    /// The blocks of these, and of those that it is about to read.
    pub blocks: Vec<BlockId>,
    /// How many of its blocks are kept for others, and the place of the last of them; none if what is before has been given up.
    pub kept: usize,
    pub place: Option<Place>,
}

impl<'a> Line<'a> {
    /// One that waits.
    pub fn new(request: RequestId, number: usize, active: Active<'a>, forks: usize) -> Self {
        Self { request, number, active, forks, read: 0, blocks: vec![], kept: 0, place: None }
    }

    /// Earlier ones go first, and keep their blocks.
    pub fn rank(&self) -> (RequestId, usize) {
        (self.request, self.number)
    }

    /// Ids, and how many of them are the prompt.
    pub fn written(&self) -> Written<'_> {
        Written { ids: self.active.history.ids(), prompt: self.active.history.prompt().len() }
    }

    /// Whether nothing has been written yet.
    pub fn is_fresh(&self) -> bool {
        self.active.history.new_ids().is_empty()
    }

    /// What it has to read before it can go on: the prompt or, once something is written, all but the last id.
    pub fn reading(&self, piece: Option<usize>) -> Reading {
        let Written { ids, prompt } = self.written();
        Reading { prompt, all: if self.is_fresh() { prompt } else { ids.len() - 1 }, piece }
    }

    /// Most positions that it comes to: the last id is never read.
    pub fn most(&self) -> usize {
        (self.active.history.prompt().len() + self.active.limit).saturating_sub(1)
    }

    /// Whether its next id needs a block more: behind the last one, or since others have that, too.
    pub fn wants_block(&self, blocks: &Blocks) -> bool {
        self.blocks.get(self.read / Block::POSITIONS).is_none_or(|&id| blocks.users(id) > 1)
    }

    /// Takes that block.
    pub fn grow(&mut self, id: BlockId, blocks: &mut Blocks) {
        match self.blocks.get_mut(self.read / Block::POSITIONS) {
            Some(shared) => blocks.give_back(std::mem::replace(shared, id)),
            None => self.blocks.push(id),
        }
    }

    /// Gives all blocks back: its row holds nothing more.
    pub fn release(&mut self, blocks: &mut Blocks) {
        self.blocks.drain(..).for_each(|id| blocks.give_back(id));
        (self.read, self.kept, self.place) = (0, 0, None);
    }
}

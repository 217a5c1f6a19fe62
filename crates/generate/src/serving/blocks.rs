//! The blocks of an engine's memory by number: which are free, and how many use each of the others.

/// A block's number.
pub(super) type BlockId = u32;

/// All blocks.
pub(super) struct Blocks {
    /// Lines that have a block, and the store of prefixes if it does.
    users: Vec<u32>,
    free: Vec<BlockId>,
}

impl Blocks {
    /// So many, all free.
    pub fn new(count: usize) -> Self {
        let count = BlockId::try_from(count).unwrap_or(BlockId::MAX);
        Self { users: vec![0; count as usize], free: (0..count).rev().collect() }
    }

    pub fn total(&self) -> usize {
        self.users.len()
    }

    pub fn free(&self) -> usize {
        self.free.len()
    }

    pub fn users(&self, id: BlockId) -> u32 {
        self.users[id as usize]
    }

    /// A block that nobody has.
    pub fn take(&mut self) -> Option<BlockId> {
        let id = self.free.pop()?;
        self.users[id as usize] = 1;
        Some(id)
    }

    /// Somebody more has this block.
    pub fn share(&mut self, id: BlockId) {
        self.users[id as usize] += 1;
    }

    /// Somebody has it no more.
    pub fn give_back(&mut self, id: BlockId) {
        let users = &mut self.users[id as usize];
        *users = users.saturating_sub(1);
        if *users == 0 {
            self.free.push(id);
        }
    }
}

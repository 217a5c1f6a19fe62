//! Factors of products in tiles of bf16, and blocks of their products with sums in f32: by tiles (AMX) or by lanes
//! (AVX-512 BF16). Both read the same tiles of 1 KiB: of a left factor 16 rows by 32 of depth, of a right one 16 columns,
//! whose depth stands in pairs beside one another.

mod ahead;
mod lanes;
mod pack;
mod tiles;

use crate::isa::Isa;
pub(crate) use ahead::Lines;
pub(crate) use pack::{Factor, Part, Side};

/// Rows or columns of a tile.
pub(crate) const SIDE: usize = 16;
/// Depth of a tile.
pub(crate) const DEPTH: usize = 32;
/// Pairs in a tile.
pub(crate) const TILE: usize = SIDE * DEPTH / 2;

/// What the thread needs before it runs blocks: with AMX, its tiles. Holds until dropped.
pub(crate) struct Ready(#[expect(dead_code, reason = "held until the blocks are done")] Option<crate::amx::Tiles>);

impl Ready {
    /// # Safety
    /// The machine has `isa`, which has bf16.
    pub unsafe fn new(isa: Isa) -> Self {
        // SAFETY: the caller's promise.
        Self((isa == Isa::Amx).then(|| unsafe { crate::amx::Tiles::new() }))
    }
}

/// `c[rows, columns] = start + left · right`.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a> {
    /// The first row of tiles of the left factor, all of one row before the next.
    pub left: *const u32,
    /// Pairs from one row of tiles to the next.
    pub left_row: usize,
    /// The first column of tiles of the right factor, likewise.
    pub right: *const u32,
    pub right_column: usize,
    /// Tiles of depth.
    pub steps: usize,
    pub c: *mut f32,
    /// Elements from one row of `c` to the next.
    pub c_row: usize,
    pub rows: usize,
    pub columns: usize,
    pub start: Start<'a>,
    /// Whether `c` lies beyond the caches, and its next rows are to be asked for ahead of time. Where rows are far apart, as
    /// those of logits are, that costs more than it saves.
    pub cold: bool,
    /// What is packed next: it is asked for bit by bit while this block is multiplied, which leaves the memory idle.
    pub ahead: Lines,
}

/// What a block of results starts from.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a> {
    Zero,
    Add,
    /// At least as many as there are columns.
    Row(&'a [f32]),
}

impl Block<'_> {
    /// Runs it; an element's sum depends neither on the other rows nor on the other columns.
    ///
    /// # Safety
    /// The machine has `isa`, the thread is [`Ready`] for it, the factors are packed over the whole tiles of the block, and
    /// nobody else touches its elements.
    pub unsafe fn run(&self, isa: Isa) {
        let (height, width) = if isa == Isa::Amx { (2 * SIDE, 2 * SIDE) } else { (SIDE, 3 * SIDE) };
        let parts = self.columns.div_ceil(width) * self.rows.div_ceil(height);
        let mut ahead = self.ahead.cut(parts);
        for column in (0..self.columns).step_by(width) {
            for row in (0..self.rows).step_by(height) {
                ahead.ask();
                // SAFETY: the part lies inside the block.
                unsafe {
                    let part = Block {
                        left: self.left.add(row / SIDE * self.left_row),
                        right: self.right.add(column / SIDE * self.right_column),
                        c: self.c.add(row * self.c_row + column),
                        rows: height.min(self.rows - row),
                        columns: width.min(self.columns - column),
                        start: match self.start {
                            Start::Row(row) => Start::Row(&row[column..]),
                            start => start,
                        },
                        ..*self
                    };
                    if isa == Isa::Amx { tiles::run(&part) } else { lanes::run(&part) }
                }
            }
        }
    }
}

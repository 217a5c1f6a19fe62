//! Products of many rows with both factors rounded to bf16 and sums in f32, by blocks of packed tiles. The smaller factor
//! is packed once for all threads, blocks of the larger one by the task that needs them.
//!
//! Floor: 2 m n k operations at the peak of such products. To pack a tile takes about 100 cycles where its pairs lie across
//! memory and 40 otherwise; AMX then needs 16 cycles for each tile of the other factor.

use super::{Factors, From, MatRef};
use crate::isa::Isa;
use crate::packed::{Block, DEPTH, Factor, Lines, Ready, SIDE, Side, Start, TILE};
use crate::room::Room;
use crate::threads::{self, Shared};
use std::cell::RefCell;
use std::ops::Range;

/// Tiles of depth in a block, at most: results are read and written once for each, and lie in rows far apart. Measured at
/// 512 x 768 x 768: 770 GFLOP/s with 8, 920 with 16, 1,160 with 24 and no more with 32. Which blocks there are depends on the
/// depth alone, since it decides in which order an element is summed.
const BLOCK: usize = 24;
/// Tiles of depth that make whole blocks of every quantised kind.
const WHOLE: usize = 256 / DEPTH;
/// Tiles that a task has packed at once, at most: 432 KiB of a second-level cache.
const PACKED: usize = 432;
/// Rows and columns of tiles in a task are multiples of this, which both kinds of blocks divide.
const STEP: usize = 6;
/// Rows or columns of tiles of the shared factor in a task.
const SHARED: [usize; 7] = [12, 16, 24, 32, 48, 64, 96];

thread_local! {
    /// The packed factor of this thread's call that all share, and a block of the other one.
    static WHOLE_FACTOR: RefCell<Room> = const { RefCell::new(Room::new()) };
    static PART: RefCell<Room> = const { RefCell::new(Room::new()) };
}

/// Runs the product over the threads; no two tasks write the same place, and an element's sum depends neither on the cut
/// nor on the other rows.
pub(super) fn run(isa: Isa, c: &mut [f32], p: &Factors) {
    if p.m == 0 || p.n == 0 {
        return;
    }
    let left = Factor { from: MatRef::F32(p.a), transposed: p.a_transposed, rows: p.m, depth: p.k };
    let right = Factor { from: p.b, transposed: !p.b_transposed, rows: p.n, depth: p.k };
    // Quantised blocks are unpacked one by one.
    let own = if p.m <= p.n || matches!(p.b, MatRef::Blocks(_)) { Side::Columns } else { Side::Rows };
    let (shared, own_factor) = if own == Side::Columns { (left, right) } else { (right, left) };
    let depth = p.k.div_ceil(DEPTH);
    let mut room = WHOLE_FACTOR.take();
    let packed = room.pairs(shared.rows.div_ceil(SIDE) * depth * TILE);
    // A task packs enough to be worth handing over.
    let strip = depth * TILE;
    let strips = (64 * TILE).div_ceil(strip.max(1)).max(1);
    threads::for_each_chunk(packed, strips * strip, 4 * shared.rows * p.k, |i, to| {
        // SAFETY: whoever calls with such an `isa` found AVX-512 BF16.
        unsafe { shared.pack(own.other(), i * strips, 0, to, depth) };
    });
    let [shared_tiles, own_tiles] = [shared, own_factor].map(|factor| factor.rows.div_ceil(SIDE));
    let most = steps(p, depth);
    let pack = match (own_factor.from, own_factor.transposed == (own == Side::Columns)) {
        (MatRef::Blocks(_), _) => 400,
        (_, true) => 50,
        (_, false) => 100,
    };
    let together = threads::threads();
    let (height, width) = cut([shared_tiles, own_tiles, depth], most, pack, together);
    let down = shared_tiles.div_ceil(height);
    let out = Shared(c.as_mut_ptr());
    threads::for_each(own_tiles.div_ceil(width) * down, 2 * p.m * p.n * p.k / 8, |task| {
        let (i, j) = (task % down * height, task / down * width);
        let (some, others) = (i..shared_tiles.min(i + height), j..own_tiles.min(j + width));
        let (rows, columns) = if own == Side::Columns { (some, others) } else { (others, some) };
        // What this thread probably does next.
        let next = (task + together) / down * width;
        let task = Task { p, c: out, own, factor: own_factor, shared: packed, depth, most, rows, columns, next };
        PART.with_borrow_mut(|part| task.run(isa, part.pairs(PACKED * TILE)));
    });
    WHOLE_FACTOR.set(room);
}

/// Tiles of depth in a block: like sizes; quantised ones are unpacked whole.
fn steps(p: &Factors, depth: usize) -> usize {
    match p.b {
        MatRef::Blocks(_) => BLOCK / WHOLE * WHOLE,
        _ => depth.div_ceil(depth.div_ceil(BLOCK).max(1)).max(1),
    }
}

/// How many rows or columns of tiles of the shared factor, and of the other, a task has: those that cost the fewest cycles,
/// by what was measured of each. Tasks wide in the one read the shared factor less often, in the other pack less often, and
/// few tasks leave threads without work.
fn cut([shared, own, depth]: [usize; 3], steps: usize, pack: usize, threads: usize) -> (usize, usize) {
    // Cycles for a tile: to read it from the second-level cache or from beyond, to pack it, to multiply it.
    let read = if shared * depth <= 1024 { 30 } else { 100 };
    let widest = (PACKED / steps.min(depth.max(1)) / STEP * STEP).max(STEP);
    let cost = |(height, width): (usize, usize)| {
        let (down, across) = (shared.div_ceil(height), own.div_ceil(width));
        let cycles = shared * own * 16 + across * shared * read + down * own * pack;
        // As if each thread had as many tasks as the busiest one.
        let tasks = down * across;
        cycles as f64 * (tasks.div_ceil(threads) * threads) as f64 / tasks.max(1) as f64
    };
    let widths = (STEP..=widest.min(own.next_multiple_of(STEP))).step_by(STEP);
    let choices = widths.flat_map(|width| SHARED.map(|height| (height, width)));
    choices.min_by(|a, b| cost(*a).total_cmp(&cost(*b))).unwrap_or((SHARED[0], STEP))
}

/// Rows and columns of tiles of the result.
struct Task<'a, 'b> {
    p: &'a Factors<'b>,
    c: Shared<f32>,
    /// Which factor the task packs itself, and that factor.
    own: Side,
    factor: Factor<'b>,
    /// The other one, packed.
    shared: &'a [u32],
    /// All tiles of depth, and of those in a block.
    depth: usize,
    most: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    /// The first row or column of tiles that is packed after this task.
    next: usize,
}

impl Task<'_, '_> {
    fn run(&self, isa: Isa, part: &mut [u32]) {
        let (p, [rows, columns]) = (self.p, [self.rows.len(), self.columns.len()]);
        // SAFETY: the instruction set is there.
        let _ready = unsafe { Ready::new(isa) };
        let (i, j) = (self.rows.start * SIDE, self.columns.start * SIDE);
        let mut first = 0;
        // An empty depth still has to write the start.
        loop {
            let steps = self.most.min(self.depth - first);
            let (own, others) = match self.own {
                Side::Columns => (&self.columns, &self.rows),
                Side::Rows => (&self.rows, &self.columns),
            };
            let ahead = match first + steps {
                after if after < self.depth => self.factor.lines(own.start, own.len(), after, self.most),
                _ if self.next == own.start => Lines::NONE,
                _ => self.factor.lines(self.next, own.len(), 0, self.most),
            };
            let part = &mut part[..own.len() * steps * TILE];
            // SAFETY: as above.
            unsafe { self.factor.pack(self.own, own.start, first, part, steps) };
            let shared = self.shared[(others.start * self.depth + first) * TILE..].as_ptr();
            let (own, shared) = ((part.as_ptr(), steps * TILE), (shared, self.depth * TILE));
            let (left, right) = if self.own == Side::Columns { (shared, own) } else { (own, shared) };
            let block = Block {
                left: left.0,
                left_row: left.1,
                right: right.0,
                right_column: right.1,
                steps,
                // SAFETY: i < m and j < n.
                c: unsafe { self.c.0.add(i * p.n + j) },
                c_row: p.n,
                rows: (rows * SIDE).min(p.m - i),
                columns: (columns * SIDE).min(p.n - j),
                start: match p.start {
                    _ if first > 0 => Start::Add,
                    From::Zero => Start::Zero,
                    From::Add => Start::Add,
                    From::Row(bias) => Start::Row(&bias[j..]),
                },
                // More rows than columns: the gradient of a weight, written once and read by the optimiser.
                cold: self.own == Side::Rows,
                ahead,
            };
            // SAFETY: this task alone writes these elements; both factors are packed over the block.
            unsafe { block.run(isa) };
            first += steps;
            if first >= self.depth {
                break;
            }
        }
    }
}

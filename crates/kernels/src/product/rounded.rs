//! Products of many rows with both factors rounded to bf16 and sums in f32, by blocks of packed tiles. The left factor is
//! packed once for all threads, blocks of the right one by the task that needs them.
//!
//! Floor: 2 m n k operations at the peak of such products. To pack a tile of the right factor takes about 100 cycles
//! where its columns are rows in memory, 40 otherwise; AMX then needs 16 cycles for each 16 rows of the left one.

use super::{Factors, From, MatRef};
use crate::isa::Isa;
use crate::packed::{Block, DEPTH, Factor, Ready, SIDE, Side, Start, TILE};
use crate::room::Room;
use crate::threads::{self, Shared};
use std::cell::RefCell;

/// Tiles of depth in a block, at most: results are read and written once for each, and lie in rows far apart. Measured at
/// 512 x 768 x 768: 770 GFLOP/s with 8, 920 with 16, 1,160 with 24 and no more with 32. Which blocks there are depends on the
/// depth alone, since it decides in which order an element is summed.
const BLOCK: usize = 24;
/// Tiles of depth that make whole blocks of every quantised kind.
const WHOLE: usize = 256 / DEPTH;
/// Tiles of the right factor that a task has packed at once, at most: 432 KiB of a second-level cache.
const PACKED: usize = 432;
/// Columns of tiles in a task are a multiple of this, which both kinds of blocks divide.
const STEP: usize = 6;
/// Rows of tiles in a task.
const ROWS: [usize; 3] = [16, 32, 64];

thread_local! {
    /// The packed left factor of this thread's call, and a block of the right one.
    static LEFT: RefCell<Room> = const { RefCell::new(Room::new()) };
    static RIGHT: RefCell<Room> = const { RefCell::new(Room::new()) };
}

/// Runs the product over the threads; no two tasks write the same place, and an element's sum depends neither on the cut
/// nor on the other rows.
pub(super) fn run(isa: Isa, c: &mut [f32], p: &Factors) {
    if p.m == 0 || p.n == 0 {
        return;
    }
    let (rows, columns, depth) = (p.m.div_ceil(SIDE), p.n.div_ceil(SIDE), p.k.div_ceil(DEPTH));
    let mut room = LEFT.take();
    let left = room.pairs(rows * depth * TILE);
    // A task packs enough rows to be worth handing over.
    let strip = depth * TILE;
    let strips = (64 * TILE).div_ceil(strip.max(1)).max(1);
    threads::for_each_chunk(left, strips * strip, 4 * p.m * p.k, |i, to| {
        let factor = Factor { from: MatRef::F32(p.a), transposed: p.a_transposed, rows: p.m, depth: p.k };
        // SAFETY: whoever calls with such an `isa` found AVX-512 BF16.
        unsafe { factor.pack(Side::Rows, i * strips, 0, to, depth) };
    });
    let (task_rows, task_columns) = cut(p, [rows, columns, depth], threads::threads());
    let down = rows.div_ceil(task_rows);
    let out = Shared(c.as_mut_ptr());
    threads::for_each(columns.div_ceil(task_columns) * down, 2 * p.m * p.n * p.k / 8, |task| {
        let (i, j) = (task % down * task_rows, task / down * task_columns);
        let task = Task {
            p,
            c: out,
            left,
            depth,
            rows: i..rows.min(i + task_rows),
            columns: j..columns.min(j + task_columns),
        };
        RIGHT.with_borrow_mut(|right| task.run(isa, right.pairs(PACKED * TILE)));
    });
    LEFT.set(room);
}

/// Tiles of depth in a block: like sizes; quantised ones are unpacked whole.
fn steps(p: &Factors, depth: usize) -> usize {
    match p.b {
        MatRef::Blocks(_) => BLOCK / WHOLE * WHOLE,
        _ => depth.div_ceil(depth.div_ceil(BLOCK).max(1)).max(1),
    }
}

/// Rows and columns of tiles of a task: those that cost the fewest cycles, by what was measured of each. Wide tasks read the
/// left factor less often, tall ones pack the right one less often, and few ones leave threads without work.
fn cut(p: &Factors, [rows, columns, depth]: [usize; 3], threads: usize) -> (usize, usize) {
    // Cycles for a tile: to read it from the second-level cache or from beyond, to pack it, to multiply it.
    let read = if rows * depth <= 1024 { 30 } else { 100 };
    let pack = match p.b {
        MatRef::Blocks(_) => 400,
        _ if p.b_transposed => 100,
        _ => 50,
    };
    let widest = (PACKED / steps(p, depth).min(depth.max(1)) / STEP * STEP).max(STEP);
    let cost = |(task_rows, task_columns): (usize, usize)| {
        let (down, across) = (rows.div_ceil(task_rows), columns.div_ceil(task_columns));
        let cycles = rows * columns * 16 + across * rows * read + down * columns * pack;
        // As if each thread had as many tasks as the busiest one.
        let tasks = down * across;
        cycles as f64 * (tasks.div_ceil(threads) * threads) as f64 / tasks.max(1) as f64
    };
    let widths = (STEP..=widest.min(columns.next_multiple_of(STEP))).step_by(STEP);
    let choices = widths.flat_map(|width| ROWS.map(|height| (height, width)));
    choices.min_by(|a, b| cost(*a).total_cmp(&cost(*b))).unwrap_or((ROWS[0], STEP))
}

/// Rows and columns of tiles of the result.
struct Task<'a, 'b> {
    p: &'a Factors<'b>,
    c: Shared<f32>,
    left: &'a [u32],
    /// All tiles of depth.
    depth: usize,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
}

impl Task<'_, '_> {
    fn run(&self, isa: Isa, right: &mut [u32]) {
        let (p, columns) = (self.p, self.columns.len());
        // SAFETY: the instruction set is there.
        let _ready = unsafe { Ready::new(isa) };
        let factor = Factor { from: p.b, transposed: !p.b_transposed, rows: p.n, depth: p.k };
        let most = steps(p, self.depth);
        let (i, j) = (self.rows.start * SIDE, self.columns.start * SIDE);
        let mut first = 0;
        // An empty depth still has to write the start.
        loop {
            let steps = most.min(self.depth - first);
            let right = &mut right[..columns * steps * TILE];
            // SAFETY: as above.
            unsafe { factor.pack(Side::Columns, self.columns.start, first, right, steps) };
            let block = Block {
                left: self.left[(self.rows.start * self.depth + first) * TILE..].as_ptr(),
                left_row: self.depth * TILE,
                right: right.as_ptr(),
                right_column: steps * TILE,
                steps,
                // SAFETY: i < m and j < n.
                c: unsafe { self.c.0.add(i * p.n + j) },
                c_row: p.n,
                rows: (self.rows.len() * SIDE).min(p.m - i),
                columns: (columns * SIDE).min(p.n - j),
                start: match p.start {
                    _ if first > 0 => Start::Add,
                    From::Zero => Start::Zero,
                    From::Add => Start::Add,
                    From::Row(bias) => Start::Row(&bias[j..]),
                },
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

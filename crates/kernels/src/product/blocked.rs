//! Products of many rows: blocks of the weight are packed (converted to f32, transposed where need be) into a
//! scratch of L2's size and multiplied from there. Few rows go to `dot` instead.
//!
//! Floor: 2 m n k operations at the multiply-add peak. Packing costs about 6 cycles for 16 weights where the block is
//! transposed and 2 where not, against m multiply-adds of one cycle each: 1 % at m = 512.

use super::{Blocks, Factors, From, MatRef};
use crate::isa::Isa;
use crate::room::Room;
use crate::simd::{Kernel, Simd, dispatch};
use crate::threads::{self, Shared};
use crate::tile::{self, Start, Tile};
use std::cell::RefCell;
use std::ops::Range;

/// Depth of a block: a panel of it, 128 x 64 weights, is 32 KiB and stays in a first-level cache, a block of 128 x 384 in a
/// second-level one. Measured at 512 x 768 x 768: 345 GFLOP/s of 440, where depth 256 gave 270. Fixed, since it decides in
/// which order an element is summed.
const DEPTH: usize = 128;
/// Columns of a task, a multiple of every instruction set's tile width. Each task reads (and, transposed, packs) its
/// rows of `a` once.
const COLUMNS: usize = 384;
/// Rows of a transposed `a` that are packed at once; a multiple of the tile's rows.
const ROWS: usize = 96;
/// Rows of a task at most: its results stay in a second-level cache while the depth passes by.
const TALL: usize = 768;

thread_local! {
    static SCRATCH: RefCell<Room> = const { RefCell::new(Room::new()) };
    /// A block of a quantised weight in f32.
    static WIDE: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Runs the product over the threads. A task is a block of columns and rows; no two write the same place, and an
/// element's sum does not depend on the cut.
pub(super) fn run(isa: Isa, c: &mut [f32], p: &Factors) {
    if p.m == 0 || p.n == 0 {
        return;
    }
    let across = p.n.div_ceil(COLUMNS);
    let task_rows = cut(p, across, threads::threads());
    let down = p.m.div_ceil(task_rows);
    let out = Shared(c.as_mut_ptr());
    threads::for_each(across * down, 2 * p.m * p.n * p.k, |task| {
        let (i, j) = (task % down * task_rows, task / down * COLUMNS);
        let (m, n) = (task_rows.min(p.m - i), COLUMNS.min(p.n - j));
        SCRATCH.with_borrow_mut(|scratch| {
            dispatch(isa, Task { p, c: out, i, j, m, n, scratch: scratch.floats(DEPTH * (COLUMNS + ROWS)) });
        });
    });
}

/// Rows of a task: as many as cost least. Each cut packs its block of weights again, and few tasks leave threads without
/// work.
fn cut(p: &Factors, across: usize, threads: usize) -> usize {
    let rows = |parts: usize| p.m.div_ceil(parts).next_multiple_of(ROWS).min(TALL);
    let cost = |parts: usize| {
        let down = p.m.div_ceil(rows(parts));
        // Cycles for a weight: 32 multiply-adds at a time, and what it takes to pack it from beyond the caches.
        let cycles = p.m as f64 / 32. + 1.5 * down as f64;
        let tasks = across * down;
        cycles * (tasks.div_ceil(threads) * threads) as f64 / tasks as f64
    };
    let parts = (1..=4 * threads).min_by(|a, b| cost(*a).total_cmp(&cost(*b)));
    rows(parts.unwrap_or(1))
}

struct Task<'a, 'b> {
    p: &'a Factors<'b>,
    c: Shared<f32>,
    i: usize,
    j: usize,
    m: usize,
    n: usize,
    scratch: &'a mut [f32],
}

impl Kernel for Task<'_, '_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Task { p, c, i, j, m, n, scratch } = self;
        let (b, a) = scratch.split_at_mut(DEPTH * COLUMNS);
        // Taken, not borrowed in a closure, which would be compiled without vectors.
        let mut wide = WIDE.take();
        let width = tile::widest::<S>();
        let mut depth = 0;
        // An empty depth still has to write the start.
        loop {
            let k = DEPTH.min(p.k - depth);
            let from = Source::of(p, depth..depth + k, j..j + n, &mut wide);
            // SAFETY: `dispatch` found S; the block lies inside b.
            unsafe { pack_b::<S>(&from, b, k, n, width) };
            for row in (0..m).step_by(ROWS) {
                let rows = ROWS.min(m - row);
                // SAFETY: as above.
                let (a, a_i, a_p) = unsafe { block_of_a::<S>(p, a, depth, k, i + row, rows) };
                for column in (0..n).step_by(width) {
                    let start = match p.start {
                        _ if depth > 0 => Start::Add,
                        From::Zero => Start::Zero,
                        From::Add => Start::Add,
                        From::Row(bias) => Start::Row(bias[j + column..].as_ptr()),
                    };
                    let tile = Tile {
                        m: rows,
                        n: width.min(n - column),
                        k,
                        a,
                        a_i,
                        a_p,
                        b: b[column * k..].as_ptr(),
                        b_row: width,
                        // SAFETY: row i + row < p.m, column j + column < p.n.
                        c: unsafe { c.0.add((i + row) * p.n + j + column) },
                        c_row: p.n,
                        start,
                    };
                    // SAFETY: `a` reaches over rows x k, the panel of `b` k x width; this task alone writes these elements.
                    unsafe { S::tile(&tile) };
                }
            }
            depth += k;
            if depth >= p.k {
                break;
            }
        }
        WIDE.set(wide);
    }
}

/// Where a block of `a` lies, and its strides. A transposed one is copied as it is, so that rows far apart in memory
/// come close together; six rows side by side stream well enough in place.
#[inline(always)]
unsafe fn block_of_a<S: Simd>(
    p: &Factors,
    to: &mut [f32],
    depth: usize,
    k: usize,
    i: usize,
    m: usize,
) -> (*const f32, usize, usize) {
    if !p.a_transposed {
        return (p.a[i * p.k + depth..].as_ptr(), p.k, 1);
    }
    for (to, from) in to.chunks_exact_mut(m).zip(p.a.chunks_exact(p.m).skip(depth).take(k)) {
        // SAFETY: the caller's promise.
        unsafe { convert::<S>(MatRef::F32(from), i, to) };
    }
    (to.as_ptr(), 1, m)
}

/// Where a block of `b` lies: from `at` on, in rows of `row`; `[n, k]` where `transposed`, else `[k, n]`.
struct Source<'a> {
    b: MatRef<'a>,
    transposed: bool,
    at: usize,
    row: usize,
}

impl<'a> Source<'a> {
    /// A block of blocks is turned to f32 first, in `wide`.
    fn of(p: &Factors<'a>, depth: Range<usize>, columns: Range<usize>, wide: &'a mut Vec<f32>) -> Source<'a> {
        let transposed = p.b_transposed;
        let (rows, columns, width) = if transposed { (columns, depth, p.k) } else { (depth, columns, p.n) };
        match p.b {
            MatRef::Blocks(blocks) => {
                let widen = |blocks: Blocks, to: &mut [f32]| blocks.widen(to);
                let (at, row) = blocks.window(width, rows, columns, wide, widen);
                Source { b: MatRef::F32(wide), transposed, at, row }
            }
            b => Source { b, transposed, at: rows.start * width + columns.start, row: width },
        }
    }
}

/// Packs a block of `k` by `n` into panels `[k, width]`, the last one padded with zeros.
#[inline(always)]
unsafe fn pack_b<S: Simd>(from: &Source, to: &mut [f32], k: usize, n: usize, width: usize) {
    if from.transposed {
        for column in (0..n).step_by(width) {
            let panel = &mut to[column * k..][..k * width];
            // SAFETY: as for the caller.
            unsafe { pack_transposed::<S>(from, panel, k, column, width.min(n - column), width) };
        }
        return;
    }
    // Row by row, as memory is read fastest, whatever panels they go to.
    for row in 0..k {
        for column in (0..n).step_by(width) {
            let to = &mut to[column * k + row * width..][..width];
            let columns = width.min(n - column);
            // SAFETY: as for the caller.
            unsafe { convert::<S>(from.b, from.at + row * from.row + column, &mut to[..columns]) };
            to[columns..].fill(0.0);
        }
    }
}

/// A panel from rows of `[n, k]`: squares of LANES are turned in registers.
#[inline(always)]
unsafe fn pack_transposed<S: Simd>(from: &Source, panel: &mut [f32], k: usize, j: usize, n: usize, width: usize) {
    let mut square = [0f32; 256];
    let mut turned = [0f32; 256];
    for column in (0..width).step_by(S::LANES) {
        let columns = S::LANES.min(n.saturating_sub(column));
        for d in (0..k).step_by(S::LANES) {
            let deep = S::LANES.min(k - d);
            let full = columns == S::LANES && deep == S::LANES;
            // SAFETY: a full square lies inside `b` and inside the panel; the buffers hold 16 rows of 16.
            unsafe {
                let to = panel.as_mut_ptr().add(d * width + column);
                match from.b {
                    MatRef::F32(b) if full => {
                        S::transpose(b.as_ptr().add(from.at + (j + column) * from.row + d), from.row, to, width);
                        continue;
                    }
                    _ => {}
                }
                if !full {
                    square.fill(0.0);
                }
                for row in 0..columns {
                    let at = from.at + (j + column + row) * from.row + d;
                    convert::<S>(from.b, at, &mut square[row * S::LANES..][..deep]);
                }
                if full {
                    S::transpose(square.as_ptr(), S::LANES, to, width);
                } else {
                    S::transpose(square.as_ptr(), S::LANES, turned.as_mut_ptr(), S::LANES);
                    for row in 0..deep {
                        panel[(d + row) * width + column..][..S::LANES]
                            .copy_from_slice(&turned[row * S::LANES..][..S::LANES]);
                    }
                }
            }
        }
    }
}

/// `to[..] = b[at..]` as f32.
#[inline(always)]
unsafe fn convert<S: Simd>(b: MatRef, at: usize, to: &mut [f32]) {
    let n = to.len();
    let whole = n - n % S::LANES;
    match b {
        // Not by a call of the system's, which takes longer than so few vectors.
        MatRef::F32(b) => {
            let b = &b[at..at + n];
            for i in (0..whole).step_by(S::LANES) {
                // SAFETY: i + LANES <= n.
                unsafe { S::store(to.as_mut_ptr().add(i), S::load(b.as_ptr().add(i))) };
            }
            to[whole..].copy_from_slice(&b[whole..]);
        }
        MatRef::Bf16(b) => {
            let b = &b[at..at + n];
            for i in (0..whole).step_by(S::LANES) {
                // SAFETY: i + LANES <= n.
                unsafe { S::store(to.as_mut_ptr().add(i), S::load_bf16(b.as_ptr().add(i))) };
            }
            for i in whole..n {
                to[i] = b[i].to_f32();
            }
        }
        MatRef::F16(b) => {
            let b = &b[at..at + n];
            for i in (0..whole).step_by(S::LANES) {
                // SAFETY: i + LANES <= n.
                unsafe { S::store(to.as_mut_ptr().add(i), S::load_f16(b.as_ptr().add(i))) };
            }
            for i in whole..n {
                to[i] = b[i].to_f32();
            }
        }
        // `Source` has turned them to f32.
        MatRef::Blocks(b) => b.slice(at..at + n).widen(to),
        MatRef::Bytes(b) => b.widen(at..at + n, to),
    }
}

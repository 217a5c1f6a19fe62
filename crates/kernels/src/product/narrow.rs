//! Products of few rows with a weight in bf16 by AMX: the weight's rows are the left factor and are loaded as tiles from
//! where they lie, so that nothing is packed but the few rows of `x`; the results come out transposed. Quantised rows are
//! brought to bf16 first, a stretch of them at a time. `rounded` multiplies more rows, and gives each of them the same bits:
//! an element is summed in the same order there, by the same instruction.
//!
//! Floor: the bytes of the weight over the read bandwidth. A tile of it takes 32 cycles for 32 rows of `x`, and in bf16 250 to
//! be read; to bring one of 4 bits to bf16 takes about 100, and to read it 70.

use super::blocks::{STRETCH, rows_to_bf16};
use super::dot::Dot;
use crate::amx::{self, BYTES, SIDE};
use crate::packed::{DEPTH, Factor, Lines, Side, TILE};
use crate::product::{Blocks, MatRef};
use crate::room::Room;
use crate::threads::{self, Shared};
use half::bf16;
use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Rows of `x` at most: beyond, a packed weight is read faster.
pub(super) const MOST: usize = 64;
/// Rows of `x` over a quantised weight: fewer are multiplied with its codes as fast, and more would have it unpacked twice.
pub(super) const QUANTISED: Range<usize> = 5..WIDTH + 1;
/// Rows and columns of a block of results.
const WIDTH: usize = 2 * SIDE;

thread_local! {
    static X: RefCell<Room> = const { RefCell::new(Room::new()) };
    /// Rows of the weight that are not read where they lie: quantised ones, and the last, which do not fill a tile.
    static REST: RefCell<Room> = const { RefCell::new(Room::new()) };
}

/// Whether rows of `k` numbers are whole tiles.
pub(super) fn fits(k: usize) -> bool {
    k > 0 && k.is_multiple_of(DEPTH)
}

/// Runs the product over the threads, each on a stretch of the weight's rows.
///
/// # Safety
/// The machine has AMX, and rows of the weight of `p`, in bf16 or quantised, [`fits`].
pub(super) unsafe fn run(y: &mut [f32], p: &Dot) {
    if p.m == 0 || p.n == 0 {
        return;
    }
    let (steps, columns) = (p.k / DEPTH, p.m.div_ceil(SIDE));
    let mut room = X.take();
    let x = room.pairs(columns * steps * TILE);
    let factor = Factor { from: MatRef::F32(p.x), transposed: false, rows: p.m, depth: p.k };
    // SAFETY: AMX comes with AVX-512 BF16.
    unsafe { factor.pack(Side::Columns, 0, 0, x, steps) };
    let rows = p.n.div_ceil(4 * threads::threads()).next_multiple_of(WIDTH);
    let product = Product { p, x, steps, y: Shared(y.as_mut_ptr()) };
    threads::for_each(p.n.div_ceil(rows), p.w.bytes().max(p.m * p.n * p.k / 64), |task| {
        let rows = task * rows..p.n.min((task + 1) * rows);
        // SAFETY: the caller's promise; tasks write different columns of `y`.
        unsafe {
            let _tiles = amx::Tiles::new();
            match p.w {
                MatRef::Bf16(w) => product.run(w, rows),
                MatRef::Blocks(w) => product.run_blocks(w, rows),
                _ => {}
            }
        }
    });
    X.set(room);
}

struct Product<'a, 'b> {
    p: &'a Dot<'b>,
    /// Packed, one column of tiles after the other.
    x: &'a [u32],
    /// Tiles of depth.
    steps: usize,
    y: Shared<f32>,
}

impl Product<'_, '_> {
    /// The results of some of the rows of a weight in bf16.
    ///
    /// # Safety
    /// As for [`run`], and the thread holds tiles.
    unsafe fn run(&self, w: &[bf16], rows: Range<usize>) {
        let (m, k) = (self.p.m, self.p.k);
        let at = |row: usize| w.as_ptr().wrapping_add(row * k).cast::<u8>();
        ask(at(rows.start), 0..rows.len().min(WIDTH) * self.steps);
        let mut row = rows.start;
        while row < rows.end {
            let left = rows.end - row;
            let (taken, tiles) = match left {
                WIDTH.. => (WIDTH, 2),
                SIDE.. => (SIDE, 1),
                // Fewer rows than fill a tile.
                left => (left, 1),
            };
            let mut part = Part { w: at(row), apart: k * 2, row, rows: taken, more: left - taken, ask: true };
            for column in (0..m).step_by(WIDTH) {
                // SAFETY: `left` rows of the weight from `row` on are there, and some rows of x.
                unsafe {
                    if taken < SIDE {
                        self.rest(w, part, column);
                    } else {
                        self.tiles(part, tiles, column);
                    }
                }
                part.ask = false;
            }
            row += taken;
        }
    }

    /// Fewer rows of the weight than fill a tile, which are packed.
    ///
    /// # Safety
    /// As for [`run`].
    unsafe fn rest(&self, w: &[bf16], part: Part, column: usize) {
        REST.with_borrow_mut(|room| {
            let packed = room.pairs(self.steps * TILE);
            let rows = &w[part.row * self.p.k..][..part.rows * self.p.k];
            let factor = Factor { from: MatRef::Bf16(rows), transposed: false, rows: part.rows, depth: self.p.k };
            // SAFETY: the caller's promise.
            unsafe {
                factor.pack(Side::Rows, 0, 0, packed, self.steps);
                self.tiles(Part { w: packed.as_ptr().cast(), apart: PACKED, ask: false, ..part }, 1, column);
            }
        });
    }

    /// The results of some of a quantised weight's rows.
    ///
    /// # Safety
    /// As for [`run`], and the thread holds tiles.
    unsafe fn run_blocks(&self, w: Blocks, rows: Range<usize>) {
        REST.with_borrow_mut(|room| {
            let wide = room.pairs(WIDTH * STRETCH / 2);
            // A tile of rows at a time leaves the first-level cache to a tile of `x`: a tenth faster for eight of those.
            let height = if self.p.m > SIDE { WIDTH } else { SIDE };
            for row in rows.clone().step_by(height) {
                let (here, wide) = (row..rows.end.min(row + height), wide.as_mut_ptr().cast());
                // SAFETY: the caller's promise; there is room for as many rows as a block has.
                unsafe {
                    match (here.len() > SIDE, self.p.m > SIDE) {
                        (true, _) => self.unpacked::<2, 2>(w, here, wide),
                        (false, true) => self.unpacked::<1, 2>(w, here, wide),
                        (false, false) => self.unpacked::<1, 1>(w, here, wide),
                    }
                }
            }
        });
    }

    /// As [`Product::block`], for all of `x` and rows that are unpacked into `wide`. What that holds of rows that are not there
    /// gives results that nobody reads.
    ///
    /// # Safety
    /// The thread holds tiles, the rows are there, and `wide` holds [`STRETCH`] elements of `R` tiles of rows.
    #[inline(always)]
    unsafe fn unpacked<const R: usize, const C: usize>(&self, w: Blocks, rows: Range<usize>, wide: *mut bf16) {
        let (p, k, tile) = (self.p, self.p.k, self.steps * BYTES);
        let next = w.slice(rows.end * k..(rows.end + rows.len()).min(p.n) * k).bytes();
        // SAFETY: the caller's promise.
        unsafe {
            let mut results = Results::start::<R, C>(p.bias.map(|bias| &bias[rows.clone()]));
            let x = self.x.as_ptr().cast::<u8>();
            // Each row that is unpacked asks for as much of those below.
            let below = Lines { first: next.as_ptr(), pieces: 1, apart: 0, bytes: next.len() };
            let mut below = below.cut(rows.len() * k.div_ceil(STRETCH));
            for from in (0..k).step_by(STRETCH) {
                let to = k.min(from + STRETCH);
                rows_to_bf16(w, k, rows.clone(), from..to, wide, R * SIDE, || below.ask());
                let (a, b) = (wide.cast::<u8>().cast_const(), x.wrapping_add(from / DEPTH * BYTES));
                amx::add_bf16::<R, C>(amx::Factors {
                    a: [a, a.wrapping_add(BYTES)],
                    a_apart: [amx::PACKED[0], R * BYTES],
                    b: [b, b.wrapping_add(tile)],
                    steps: (to - from) / DEPTH,
                });
            }
            results.finish::<R, C>();
            results.write(p, self.y, 0, rows);
        }
    }

    /// # Safety
    /// As for [`Product::block`].
    unsafe fn tiles(&self, part: Part, tiles: usize, column: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            match (tiles, self.p.m - column > SIDE) {
                (2, true) => self.block::<2, 2>(part, column),
                (2, false) => self.block::<2, 1>(part, column),
                (_, true) => self.block::<1, 2>(part, column),
                (_, false) => self.block::<1, 1>(part, column),
            }
        }
    }

    /// `R` tiles of the weight's rows by `C` of those of `x` from `column` on.
    ///
    /// # Safety
    /// The thread holds tiles, and the part is there.
    #[inline(always)]
    unsafe fn block<const R: usize, const C: usize>(&self, part: Part, column: usize) {
        let (p, tile, Part { w, apart, row, .. }) = (self.p, self.steps * BYTES, part);
        let (a_apart, below) = if apart == PACKED { (amx::PACKED, tile) } else { ([apart, 64], SIDE * apart) };
        // SAFETY: the caller's promise.
        unsafe {
            let mut results = Results::start::<R, C>(p.bias.map(|bias| &bias[row..row + part.rows]));
            let x = self.x.as_ptr().cast::<u8>().add(column / SIDE * tile);
            for step in 0..self.steps {
                if part.ask {
                    self.ask_below(part, step);
                }
                let (a, b) = (w.wrapping_add(step * a_apart[1]), x.wrapping_add(step * BYTES));
                let (a, b) = ([a, a.wrapping_add(below)], [b, b.wrapping_add(tile)]);
                amx::add_bf16::<R, C>(amx::Factors { a, a_apart, b, steps: 1 });
            }
            results.finish::<R, C>();
            results.write(p, self.y, column, row..row + part.rows);
        }
    }

    /// Asks for a step's share of the rows below a part, in the order of memory.
    #[inline(always)]
    fn ask_below(&self, part: Part, step: usize) {
        let rows = part.rows.min(part.more);
        ask(part.w.wrapping_add(part.rows * part.apart), step * rows..(step + 1) * rows);
    }
}

/// A block of results, turned: columns of `x` along each row of the weight. Written in full by `finish`.
struct Results(MaybeUninit<[f32; WIDTH * WIDTH]>, usize);

impl Results {
    /// Sets the tiles to the bias of the block's rows.
    ///
    /// # Safety
    /// The thread holds tiles.
    #[inline(always)]
    unsafe fn start<const R: usize, const C: usize>(bias: Option<&[f32]>) -> Self {
        let mut new = Self(MaybeUninit::uninit(), C * SIDE);
        // SAFETY: there is room for a whole block.
        unsafe {
            match bias {
                None => amx::start::<2, 2>(amx::From::Zero),
                Some(bias) => {
                    let all = std::slice::from_raw_parts_mut(new.0.as_mut_ptr().cast::<f32>(), R * SIDE * C * SIDE);
                    all.fill(0.0);
                    all.chunks_exact_mut(C * SIDE).zip(bias).for_each(|(results, bias)| results.fill(*bias));
                    amx::start::<R, C>(amx::From::Rows(all.as_ptr(), C * SIDE * 4));
                }
            }
        }
        new
    }

    /// # Safety
    /// As for [`Results::start`].
    #[inline(always)]
    unsafe fn finish<const R: usize, const C: usize>(&mut self) {
        // SAFETY: as above.
        unsafe { amx::finish::<R, C>(self.0.as_mut_ptr().cast(), self.1 * 4) };
    }

    /// Writes those of the weight's rows `rows` and of the rows of `x` from `column` on.
    ///
    /// # Safety
    /// After `finish`; nobody else writes there.
    #[inline(always)]
    unsafe fn write(&self, p: &Dot, y: Shared<f32>, column: usize, rows: Range<usize>) {
        for i in 0..(p.m - column).min(self.1) {
            // SAFETY: the caller's promise; the places exist.
            unsafe {
                let y = y.slice((column + i) * p.n + rows.start, rows.len());
                for (j, y) in y.iter_mut().enumerate() {
                    *y = *self.0.as_ptr().cast::<f32>().add(j * self.1 + i);
                }
            }
        }
    }
}

/// Bytes from a row of a packed tile to the next.
const PACKED: usize = amx::PACKED[0];

/// Some rows of the weight.
#[derive(Clone, Copy)]
struct Part {
    w: *const u8,
    /// Bytes from a row to the next.
    apart: usize,
    row: usize,
    rows: usize,
    /// How many follow in the same task.
    more: usize,
    /// Whether they are read for the first time.
    ask: bool,
}

/// Asks for lines of the cache.
#[inline(always)]
fn ask(from: *const u8, lines: Range<usize>) {
    for line in lines {
        // SAFETY: any address will do.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.wrapping_add(64 * line).cast()) };
    }
}

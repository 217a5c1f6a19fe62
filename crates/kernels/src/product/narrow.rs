//! Products of few rows with a weight in bf16 by AMX: the weight's rows are the left factor and are loaded as tiles from
//! where they lie, so that nothing is packed but the few rows of `x`; the results come out transposed. `rounded` multiplies
//! more rows, and gives each of them the same bits: an element is summed in the same order there, by the same instruction.
//!
//! Floor: the bytes of the weight over the read bandwidth. A tile of it takes 32 cycles for 32 rows of `x` and 250 to be read.

use super::dot::Dot;
use crate::amx::{self, BYTES, SIDE};
use crate::packed::{DEPTH, Factor, Side, TILE};
use crate::product::MatRef;
use crate::room::Room;
use crate::threads::{self, Shared};
use half::bf16;
use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Rows of `x` at most: beyond, a packed weight is read faster.
pub(super) const MOST: usize = 64;
/// Rows and columns of a block of results.
const WIDTH: usize = 2 * SIDE;

thread_local! {
    static X: RefCell<Room> = const { RefCell::new(Room::new()) };
    /// The last rows of the weight, which do not fill a tile.
    static REST: RefCell<Room> = const { RefCell::new(Room::new()) };
}

/// Whether rows of `k` numbers are whole tiles.
pub(super) fn fits(k: usize) -> bool {
    k > 0 && k.is_multiple_of(DEPTH)
}

/// Runs the product over the threads, each on a stretch of the weight's rows.
///
/// # Safety
/// The machine has AMX, and rows of the weight `w` of `p` [`fits`].
pub(super) unsafe fn run(y: &mut [f32], p: &Dot, w: &[bf16]) {
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
    let product = Product { p, w, x, steps, y: Shared(y.as_mut_ptr()) };
    threads::for_each(p.n.div_ceil(rows), size_of_val(w).max(p.m * p.n * p.k / 64), |task| {
        // SAFETY: the caller's promise; tasks write different columns of `y`.
        unsafe { product.run(task * rows..p.n.min((task + 1) * rows)) };
    });
    X.set(room);
}

struct Product<'a, 'b> {
    p: &'a Dot<'b>,
    w: &'a [bf16],
    /// Packed, one column of tiles after the other.
    x: &'a [u32],
    /// Tiles of depth.
    steps: usize,
    y: Shared<f32>,
}

impl Product<'_, '_> {
    /// The results of some of the weight's rows.
    ///
    /// # Safety
    /// As for [`run`].
    unsafe fn run(&self, rows: Range<usize>) {
        let (m, k) = (self.p.m, self.p.k);
        // SAFETY: the caller's promise.
        let _tiles = unsafe { amx::Tiles::new() };
        let at = |row: usize| self.w.as_ptr().wrapping_add(row * k).cast::<u8>();
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
                        self.rest(part, column);
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
    unsafe fn rest(&self, part: Part, column: usize) {
        REST.with_borrow_mut(|room| {
            let packed = room.pairs(self.steps * TILE);
            let rows = &self.w[part.row * self.p.k..][..part.rows * self.p.k];
            let factor = Factor { from: MatRef::Bf16(rows), transposed: false, rows: part.rows, depth: self.p.k };
            // SAFETY: the caller's promise.
            unsafe {
                factor.pack(Side::Rows, 0, 0, packed, self.steps);
                self.tiles(Part { w: packed.as_ptr().cast(), apart: PACKED, ask: false, ..part }, 1, column);
            }
        });
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
        // Written in full by `finish`.
        let mut room = MaybeUninit::<[f32; WIDTH * WIDTH]>::uninit();
        let (results, wide) = (room.as_mut_ptr().cast::<f32>(), C * SIDE);
        // SAFETY: the caller's promise; results have room for a whole block.
        unsafe {
            match p.bias {
                None => amx::start::<2, 2>(amx::From::Zero),
                Some(bias) => {
                    let all = std::slice::from_raw_parts_mut(results, R * SIDE * wide);
                    all.fill(0.0);
                    all.chunks_exact_mut(wide).zip(&bias[row..]).for_each(|(results, bias)| results.fill(*bias));
                    amx::start::<R, C>(amx::From::Rows(results, wide * 4));
                }
            }
            let x = self.x.as_ptr().cast::<u8>().add(column / SIDE * tile);
            for step in 0..self.steps {
                if part.ask {
                    self.ask_below(part, step);
                }
                let (a, b) = (w.wrapping_add(step * a_apart[1]), x.wrapping_add(step * BYTES));
                let (a, b) = ([a, a.wrapping_add(below)], [b, b.wrapping_add(tile)]);
                amx::add_bf16::<R, C>(amx::Factors { a, a_apart, b, steps: 1 });
            }
            amx::finish::<R, C>(results, wide * 4);
            for i in 0..(p.m - column).min(wide) {
                let y = self.y.slice((column + i) * p.n + row, part.rows);
                for (j, y) in y.iter_mut().enumerate() {
                    *y = *results.add(j * wide + i);
                }
            }
        }
    }

    /// Asks for a step's share of the rows below a part, in the order of memory.
    #[inline(always)]
    fn ask_below(&self, part: Part, step: usize) {
        let rows = part.rows.min(part.more);
        ask(part.w.wrapping_add(part.rows * part.apart), step * rows..(step + 1) * rows);
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

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
use std::ops::Range;

/// Rows of `x` at most: beyond, a packed weight is read faster.
pub(super) const MOST: usize = 64;
/// Rows and columns of a block of results.
const WIDTH: usize = 2 * SIDE;
/// Tiles of depth that are asked for at once, and how many before they are wanted.
const STEPS: usize = 4;
const AHEAD: usize = 16;

thread_local! {
    static X: RefCell<Room> = const { RefCell::new(Room::new()) };
    /// The last rows of the weight, where they do not fill a tile.
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
    unsafe fn run(&self, rows: Range<usize>) {
        let (p, k) = (self.p, self.p.k);
        // SAFETY: the caller's promise.
        let _tiles = unsafe { amx::Tiles::new() };
        for row in rows.clone().step_by(WIDTH) {
            let left = (rows.end - row).min(WIDTH);
            for column in (0..p.m).step_by(WIDTH) {
                let right = (p.m - column).min(WIDTH);
                // SAFETY: `left` rows of the weight from `row` on are there, and `right` rows of x.
                unsafe {
                    let w = self.w.as_ptr().add(row * k).cast::<u8>();
                    let ahead = if column == 0 { Some(rows.end - row - left) } else { None };
                    match (left, right > SIDE) {
                        (WIDTH, true) => self.block::<2, 2>(w, k * 2, row, column, ahead),
                        (WIDTH, false) => self.block::<2, 1>(w, k * 2, row, column, ahead),
                        (SIDE, true) => self.block::<1, 2>(w, k * 2, row, column, ahead),
                        (SIDE, false) => self.block::<1, 1>(w, k * 2, row, column, ahead),
                        _ => self.rest(row, left, column),
                    }
                }
            }
        }
    }

    /// A block of fewer rows of the weight than fill its tiles, which are packed.
    unsafe fn rest(&self, row: usize, left: usize, column: usize) {
        let wide = self.p.m - column > SIDE;
        REST.with_borrow_mut(|room| {
            let packed = room.pairs(left.div_ceil(SIDE) * self.steps * TILE);
            let rows = &self.w[row * self.p.k..][..left * self.p.k];
            let factor = Factor { from: MatRef::Bf16(rows), transposed: false, rows: left, depth: self.p.k };
            // SAFETY: as for `run`.
            unsafe {
                factor.pack(Side::Rows, 0, 0, packed, self.steps);
                let w = packed.as_ptr().cast();
                match (left > SIDE, wide) {
                    (true, true) => self.block::<2, 2>(w, 64, row, column, None),
                    (true, false) => self.block::<2, 1>(w, 64, row, column, None),
                    (false, true) => self.block::<1, 2>(w, 64, row, column, None),
                    (false, false) => self.block::<1, 1>(w, 64, row, column, None),
                }
            }
        });
    }

    /// `R` tiles of the weight's rows, each row `apart` bytes after the other (64: they are packed), by `C` of those of `x`.
    /// Where they are read for the first time, `ahead` says how many rows are below them.
    #[inline(always)]
    unsafe fn block<const R: usize, const C: usize>(
        &self,
        w: *const u8,
        apart: usize,
        row: usize,
        column: usize,
        ahead: Option<usize>,
    ) {
        let (p, tile) = (self.p, self.steps * BYTES);
        let (a_apart, below) = if apart == 64 { (amx::PACKED, tile) } else { ([apart, 64], SIDE * apart) };
        let mut results = [[0f32; WIDTH]; WIDTH];
        // SAFETY: the caller's promise; results are as large as a whole block.
        unsafe {
            let from = match p.bias {
                None => amx::From::Zero,
                Some(bias) => {
                    for (results, bias) in results.iter_mut().zip(&bias[row..]) {
                        results.fill(*bias);
                    }
                    amx::From::Rows(results.as_ptr().cast(), WIDTH * 4)
                }
            };
            amx::start::<R, C>(from);
            let x = self.x.as_ptr().cast::<u8>().add(column / SIDE * tile);
            for first in (0..self.steps).step_by(STEPS) {
                let steps = STEPS.min(self.steps - first);
                if let Some(more) = ahead {
                    for step in first + AHEAD..first + AHEAD + steps {
                        // Along the row, and from its end on in the rows below.
                        let below = step / self.steps * WIDTH;
                        let line = w.wrapping_add(below * apart + step % self.steps * 64);
                        for next in 0..WIDTH.min((R * SIDE + more).saturating_sub(below)) {
                            _mm_prefetch::<_MM_HINT_T1>(line.wrapping_add(next * apart).cast());
                        }
                    }
                }
                let (a, b) = (w.wrapping_add(first * a_apart[1]), x.wrapping_add(first * BYTES));
                amx::add_bf16::<R, C>(amx::Factors {
                    a: [a, a.wrapping_add(below)],
                    a_apart,
                    b: [b, b.wrapping_add(tile)],
                    steps,
                });
            }
            amx::finish::<R, C>(results.as_mut_ptr().cast(), WIDTH * 4);
            for i in 0..(p.m - column).min(C * SIDE) {
                let y = self.y.slice((column + i) * p.n + row, (p.n - row).min(R * SIDE));
                for (y, results) in y.iter_mut().zip(&results) {
                    *y = results[i];
                }
            }
        }
    }
}

//! Products with a weight in bytes, a scale for each of its rows: `x` is brought to bytes too, row by row, sums are in
//! i32 and exact. So every path gives the same bits, and a row's result depends on no other row.
//!
//! `x` and `w` become whole numbers of -127..=127: `round(127 v / largest |v| of the row)`, ties to the even one. Then
//! `y = sum · (scale of x · scale of w) + bias`, multiplied and added in f32. A row of `x` with a NaN or an infinity
//! gives NaN all over, one whose largest number is below 1e-36 counts as zeros.
//!
//! The weight is packed once, in the order that all paths read: tiles of 16 rows by 64 of depth (1 KiB), the tiles of a
//! row of tiles after one another. Within a tile fours of depth follow one another, each holding its 16 rows' four bytes;
//! beyond the edges stand zeros. `x` is packed for each call, in tiles of 16 rows of 64 bytes.
//!
//! Floor: 2 m n k operations at the peak of products of bytes, or the bytes of the weight over the read bandwidth.

mod left;
mod paths;
#[cfg(test)]
mod tests;

use super::MatRef;
use crate::activation::Act;
use crate::isa::Isa;
use crate::threads::{self, Shared};
use crate::vector::per_isa;
use left::Left;
use paths::{Block, Path, Sums, WIDTH};
use std::cell::RefCell;
use std::ops::Range;

/// Rows of a tile, of either factor.
const SIDE: usize = 16;
/// Depth of a tile.
const DEPTH: usize = 64;
/// Depth beyond which a sum of products could leave the range of i32.
const MAX_DEPTH: usize = i32::MAX as usize / (127 * 127);
/// Tiles of the left factor that a task holds at once: 512 KiB of a second-level cache.
const HELD: usize = 512;
/// Rows of tiles in a task at most.
const ROWS: usize = 16;

/// 1 KiB of a factor.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Tile([i8; SIDE * DEPTH]);

const ZEROS: Tile = Tile([0; SIDE * DEPTH]);

/// A weight matrix `[n, k]` in bytes, a scale for each row, packed for products.
pub struct ByteMatrix {
    sizes: [usize; 2],
    tiles: Vec<Tile>,
    /// One for each row; zeros up to whole tiles.
    scales: Vec<f32>,
}

impl ByteMatrix {
    /// Rounds a matrix `[n, k]`, whose rows must be whole blocks where it has blocks. `None` where the length does not fit,
    /// or where `k` is above 133,144, beyond which i32 could not hold a sum.
    pub fn quantize(w: MatRef, n: usize, k: usize) -> Option<Self> {
        if n.checked_mul(k) != Some(w.len()) || k > MAX_DEPTH {
            return None;
        }
        let (rows, depth) = (n.div_ceil(SIDE), k.div_ceil(DEPTH));
        let (mut tiles, mut scales) = (vec![ZEROS; rows * depth], vec![0f32; rows * SIDE]);
        let (to, of) = (Shared(tiles.as_mut_ptr()), Shared(scales.as_mut_ptr()));
        threads::for_each(rows, n * k, |row| {
            let mut wide = vec![0f32; k];
            let mut codes = Left::default();
            // SAFETY: each row of tiles is one task's.
            let (tiles, scales) = unsafe { (to.slice(row * depth, depth), of.slice(row * SIDE, SIDE)) };
            for (at, scale) in scales.iter_mut().enumerate().take(n - row * SIDE) {
                let j = row * SIDE + at;
                crate::embed::widen(&mut wide, w.slice(j * k..(j + 1) * k));
                codes.fill(&wide, k);
                *scale = codes.scales[0];
                for (tile, codes) in tiles.iter_mut().zip(&codes.tiles) {
                    // The first row of a left factor's tile.
                    for (four, codes) in codes.0[..DEPTH].chunks_exact(4).enumerate() {
                        tile.0[(four * SIDE + at) * 4..][..4].copy_from_slice(codes);
                    }
                }
            }
        });
        Some(Self { sizes: [n, k], tiles, scales })
    }

    /// Bytes of memory that a matrix `[n, k]` takes, unless they are too many to count.
    pub fn room(n: usize, k: usize) -> Option<usize> {
        let rows = n.checked_next_multiple_of(SIDE)?;
        rows.checked_mul(k.checked_next_multiple_of(DEPTH)?.checked_add(size_of::<f32>())?)
    }

    /// Rows and columns.
    pub fn sizes(&self) -> &[usize; 2] {
        &self.sizes
    }

    /// The matrix as products take it.
    pub fn view(&self) -> Bytes<'_> {
        let [n, k] = self.sizes;
        Bytes { n, k, tiles: &self.tiles, scales: &self.scales }
    }
}

impl std::fmt::Debug for ByteMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bytes {:?}", self.sizes)
    }
}

/// A [`ByteMatrix`], or rows of it.
#[derive(Clone, Copy)]
pub struct Bytes<'a> {
    n: usize,
    k: usize,
    tiles: &'a [Tile],
    scales: &'a [f32],
}

impl std::fmt::Debug for Bytes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bytes [{}, {}]", self.n, self.k)
    }
}

impl<'a> Bytes<'a> {
    /// Rows and columns.
    pub fn sizes(&self) -> [usize; 2] {
        [self.n, self.k]
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        size_of_val(self.tiles) + size_of_val(self.scales)
    }

    /// The rows of a range of elements.
    ///
    /// # Panics
    /// If the range is not whole rows that begin at a tile's first, or at the matrix' end.
    pub fn slice(&self, range: Range<usize>) -> Bytes<'a> {
        let k = self.k.max(1);
        let (first, last) = (range.start / k, range.end / k);
        assert!(
            range.start.is_multiple_of(k)
                && range.end.is_multiple_of(k)
                && first.is_multiple_of(SIDE)
                && (first..=self.n).contains(&last),
            "elements {range:?} of bytes [{}, {}] are not rows that begin at a multiple of {SIDE}",
            self.n,
            self.k
        );
        let depth = self.k.div_ceil(DEPTH);
        let tiles = first / SIDE..last.div_ceil(SIDE);
        Bytes {
            n: last - first,
            k: self.k,
            tiles: &self.tiles[tiles.start * depth..tiles.end * depth],
            scales: &self.scales[first..tiles.end * SIDE],
        }
    }

    /// One element, as a whole number and with its scale.
    fn code(&self, row: usize, column: usize) -> i8 {
        let tile = &self.tiles[row / SIDE * self.k.div_ceil(DEPTH) + column / DEPTH];
        tile.0[(column % DEPTH / 4 * SIDE + row % SIDE) * 4 + column % 4]
    }

    /// An element as f32.
    pub(super) fn get(&self, i: usize) -> f32 {
        f32::from(self.code(i / self.k, i % self.k)) * self.scales[i / self.k]
    }

    /// The elements of a range as f32.
    pub(crate) fn widen(&self, range: Range<usize>, to: &mut [f32]) {
        to.iter_mut().zip(range).for_each(|(to, i)| *to = self.get(i));
    }
}

thread_local! {
    /// The packed left factor of this thread's call or task.
    static LEFT: RefCell<Left> = RefCell::default();
}

/// `y[m, n] = act(x[m, k] · wᵀ + bias)`.
pub(super) struct Product<'a> {
    pub m: usize,
    pub x: &'a [f32],
    pub w: Bytes<'a>,
    pub bias: Option<&'a [f32]>,
    pub act: Option<Act>,
}

/// Runs the product over the threads; no two tasks write the same place.
pub(super) fn run(isa: Isa, y: &mut [f32], p: &Product) {
    run_on(Path::of(isa, p.m), y, p);
}

fn run_on(path: Path, y: &mut [f32], p: &Product) {
    let (m, n, k) = (p.m, p.w.n, p.w.k);
    if m == 0 || n == 0 {
        return;
    }
    let (rows, columns, depth) = (m.div_ceil(SIDE), n.div_ceil(SIDE), k.div_ceil(DEPTH));
    let (threads, work, out) = (threads::threads(), 2 * m * n * k / 16, Shared(y.as_mut_ptr()));
    let held = (HELD / depth.max(1)).clamp(2, ROWS) / 2 * 2;
    let at = |row: usize, rows: usize| row * SIDE * k..m.min((row + rows) * SIDE) * k;
    if threads == 1 || rows.div_ceil(held) >= 4 * threads {
        // Each task packs the rows that it multiplies, and finds them in its cache.
        threads::for_each(rows.div_ceil(held), work, |task| {
            LEFT.with_borrow_mut(|left| {
                let row = task * held;
                left.fill(&p.x[at(row, held)], k);
                let task =
                    Task { p, left, y: out, first: row, rows: 0..rows.min(row + held) - row, columns: 0..columns };
                task.run(path);
            });
        });
        return;
    }
    let mut left = LEFT.take();
    left.fill_over_threads(p.x, m, k);
    // Enough tasks to even out: narrow ones first, then low ones.
    let want = 4 * threads;
    let wide = columns.div_ceil(want).next_multiple_of(2);
    let across = columns.div_ceil(wide);
    let high = rows.div_ceil(want.div_ceil(across)).next_multiple_of(2).min(held);
    let down = rows.div_ceil(high);
    threads::for_each(across * down, work.max(p.w.bytes()), |task| {
        let (i, j) = (task % down * high, task / down * wide);
        let (rows, columns) = (i..rows.min(i + high), j..columns.min(j + wide));
        Task { p, left: &left, y: out, first: 0, rows, columns }.run(path);
    });
    LEFT.set(left);
}

/// Rows and columns of tiles of the result.
struct Task<'a, 'b> {
    p: &'a Product<'b>,
    left: &'a Left,
    y: Shared<f32>,
    /// Rows of tiles of the result before the left factor's.
    first: usize,
    /// Of the left factor.
    rows: Range<usize>,
    columns: Range<usize>,
}

impl Task<'_, '_> {
    fn run(&self, path: Path) {
        let Bytes { n, k, tiles, scales } = self.p.w;
        let depth = k.div_ceil(DEPTH);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the path is taken where there are tiles.
        let _tiles = (path == Path::Amx).then(|| unsafe { crate::amx::Tiles::new() });
        let mut sums = Sums([0; WIDTH * WIDTH]);
        let mut finished = [[0f32; WIDTH * WIDTH]; 2];
        // Two columns of tiles stay in the first-level cache while the rows pass by.
        for column in self.columns.clone().step_by(2) {
            let (j, wide) = (column * SIDE, (self.columns.end - column).min(2));
            let columns = (wide * SIDE).min(n - j);
            let mut by_column = [[0f32; WIDTH]; 2];
            by_column[0][..columns].copy_from_slice(&scales[j..j + columns]);
            if let Some(bias) = self.p.bias {
                by_column[1][..columns].copy_from_slice(&bias[j..j + columns]);
            }
            for row in self.rows.clone().step_by(2) {
                let i = (self.first + row) * SIDE;
                let rows = ((self.rows.end - row).min(2) * SIDE).min(self.p.m - i);
                let (left, right) = (&self.left.tiles[row * depth..], &tiles[column * depth..]);
                let codes = &self.left.sums[row * SIDE..];
                let block = Block { left, right, depth, rows, columns: wide, sums: codes };
                // SAFETY: the path was chosen for this machine; with AMX there are tiles.
                unsafe { paths::run(path, &block, &mut sums) };
                let scales = &self.left.scales[row * SIDE..][..rows];
                let to = To { y: self.y, first: i * n + j, row: n, columns };
                match self.p.act {
                    None => finish(&to, &sums, scales, &by_column),
                    Some(act) => {
                        let [plain, acted] = &mut finished;
                        let all = To { y: Shared(plain.as_mut_ptr()), first: 0, row: WIDTH, columns: WIDTH };
                        finish(&all, &sums, scales, &by_column);
                        let (plain, acted) = (&plain[..rows * WIDTH], &mut acted[..rows * WIDTH]);
                        crate::activation::activate_here(acted, plain, act);
                        for (r, acted) in acted.as_chunks::<WIDTH>().0.iter().enumerate() {
                            // SAFETY: as `finish`.
                            let y = unsafe { to.row(r) };
                            // Of a known length it is two stores, not a call.
                            match <&mut [f32; WIDTH]>::try_from(&mut *y) {
                                Ok(y) => *y = *acted,
                                Err(_) => y.copy_from_slice(&acted[..columns]),
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Where the rows of a block of results go; this thread alone writes there.
struct To {
    y: Shared<f32>,
    first: usize,
    row: usize,
    columns: usize,
}

impl To {
    /// # Safety
    /// Row `r` lies inside the result.
    #[inline(always)]
    unsafe fn row<'a>(&self, r: usize) -> &'a mut [f32] {
        // SAFETY: the caller's promise, and the struct's.
        unsafe { self.y.slice(self.first + r * self.row, self.columns) }
    }
}

/// Sums to numbers: the scales and the bias of the columns stand in `by_column`.
#[inline(always)]
fn finish_loop(to: &To, sums: &Sums, scales: &[f32], by_column: &[[f32; WIDTH]; 2]) {
    let [of_columns, bias] = by_column;
    for (r, (sums, scale)) in sums.0.as_chunks::<WIDTH>().0.iter().zip(scales).enumerate() {
        let value = |j: usize| sums[j] as f32 * (scale * of_columns[j]) + bias[j];
        // SAFETY: there are as many scales as rows of the result.
        let y = unsafe { to.row(r) };
        if let Ok(y) = <&mut [f32; WIDTH]>::try_from(&mut *y) {
            y.iter_mut().enumerate().for_each(|(j, y)| *y = value(j));
        } else {
            y.iter_mut().enumerate().for_each(|(j, y)| *y = value(j));
        }
    }
}

per_isa! {
    fn finish(to: &To, sums: &Sums, scales: &[f32], by_column: &[[f32; WIDTH]; 2]) = plain finish_loop;
}

//! The left factor in bytes: rows rounded with a scale for each, in tiles of 16 rows by 64 of depth.

use super::{DEPTH, SIDE, Tile, ZEROS};
use crate::threads::{self, Shared};
use crate::vector::per_isa;

/// Below this a row's largest number counts as 0: 127 over it would not be finite.
const TINY: f32 = 1e-36;
/// Adding this to a number below 2^22 leaves the nearest integer in the low bits, ties going to the even one.
const ROUND: f32 = 12_582_912.0;

/// Packed rows. The buffers only grow: what lies beyond the rows of the last call is left over from earlier ones.
#[derive(Default)]
pub(super) struct Left {
    /// Tiles of depth after one another, then the next row of tiles.
    pub tiles: Vec<Tile>,
    /// Of each row.
    pub scales: Vec<f32>,
    /// Of each row the sum of its codes.
    pub sums: Vec<i32>,
}

impl Left {
    /// Room for so many rows of tiles.
    fn reserve(&mut self, rows: usize, depth: usize) {
        if self.tiles.len() < rows * depth {
            self.tiles.resize(rows * depth, ZEROS);
        }
        if self.scales.len() < rows * SIDE {
            self.scales.resize(rows * SIDE, 0.0);
            self.sums.resize(rows * SIDE, 0);
        }
    }

    /// Packs rows of `k` on this thread.
    pub(super) fn fill(&mut self, x: &[f32], k: usize) {
        let rows = x.len() / k.max(1);
        self.reserve(rows.div_ceil(SIDE).max(1), k.div_ceil(DEPTH));
        rows_of_bytes(x, k, &mut self.tiles, &mut self.scales, &mut self.sums);
    }

    /// Packs `m` rows of `k` over the threads.
    pub(super) fn fill_over_threads(&mut self, x: &[f32], m: usize, k: usize) {
        let (rows, depth) = (m.div_ceil(SIDE), k.div_ceil(DEPTH));
        self.reserve(rows, depth);
        let tiles = Shared(self.tiles.as_mut_ptr());
        let (scales, sums) = (Shared(self.scales.as_mut_ptr()), Shared(self.sums.as_mut_ptr()));
        threads::for_each(rows, 4 * m * k, |row| {
            let x = &x[row * SIDE * k..m.min((row + 1) * SIDE) * k];
            // SAFETY: each row of tiles is one task's.
            unsafe {
                let (scales, sums) = (scales.slice(row * SIDE, SIDE), sums.slice(row * SIDE, SIDE));
                rows_of_bytes(x, k, tiles.slice(row * depth, depth), scales, sums);
            }
        });
    }
}

#[inline(always)]
fn rows_loop(x: &[f32], k: usize, tiles: &mut [Tile], scales: &mut [f32], sums: &mut [i32]) {
    let depth = k.div_ceil(DEPTH);
    for (i, ((x, scale), sum)) in x.chunks_exact(k.max(1)).zip(scales).zip(sums).enumerate() {
        let (factor, own) = factors(x);
        *scale = own;
        // A sum for each lane: to add up lanes for every tile took as long as to round its numbers.
        let mut lanes = [0i32; 16];
        for (tile, x) in tiles[i / SIDE * depth..].iter_mut().zip(x.chunks(DEPTH)) {
            let to = &mut tile.0[i % SIDE * DEPTH..][..DEPTH];
            if let (Ok(to), Ok(x)) = (<&mut [i8; DEPTH]>::try_from(&mut *to), <&[f32; DEPTH]>::try_from(x)) {
                for (to, x) in to.iter_mut().zip(x) {
                    *to = code(*x, factor);
                }
            } else {
                to.fill(0);
                for (to, x) in to.iter_mut().zip(x) {
                    *to = code(*x, factor);
                }
            }
            for codes in to.as_chunks::<16>().0 {
                for (sum, &code) in lanes.iter_mut().zip(codes) {
                    *sum += i32::from(code);
                }
            }
        }
        *sum = lanes.iter().sum();
    }
}

/// What numbers of a row are multiplied with to become codes, and codes to become numbers.
#[inline(always)]
fn factors(x: &[f32]) -> (f32, f32) {
    // As bits without the sign, numbers are in order, infinity above all and NaN above that.
    let largest = f32::from_bits(x.iter().fold(0, |most, x| most.max(x.to_bits() & 0x7fff_ffff)));
    if !largest.is_finite() {
        (0.0, f32::NAN)
    } else if largest < TINY {
        (0.0, 0.0)
    } else {
        (127.0 / largest, largest / 127.0)
    }
}

#[inline(always)]
fn code(x: f32, factor: f32) -> i8 {
    (x * factor + ROUND).to_bits() as i8
}

per_isa! {
    fn rows_of_bytes(x: &[f32], k: usize, tiles: &mut [Tile], scales: &mut [f32], sums: &mut [i32]) = plain rows_loop;
}

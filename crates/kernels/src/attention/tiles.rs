//! What the tiled forward and backward passes share: blocks of queries, tiles of scores, and who sees what.
//!
//! A tile of scores is kept transposed, `[key, query]`: vectors run along the queries, so that maximum, exponential
//! and sum need no work across lanes, and keys and values are read as they lie in memory.

use super::{Attention, AttentionShape};
use crate::page::POSITIONS;
use crate::room::Room;
use crate::simd::Simd;
use std::cell::RefCell;

/// Queries of a block: 64 lanes are the widest tile product.
pub(super) const BQ: usize = 64;
/// Keys of a tile, those of a page: with 64 queries, scores take 16 KiB, half the first-level cache.
pub(super) const BK: usize = POSITIONS;
/// The maximum's start: below every score, and finite, so that differences are never NaN.
pub(super) const LOWEST: f32 = -1e30;

thread_local! {
    static SCRATCH: RefCell<Room> = const { RefCell::new(Room::new()) };
}

/// Gives `f` `len` floats that this thread keeps from call to call; what they hold is left over.
pub(super) fn with_scratch<T>(len: usize, f: impl FnOnce(&mut [f32]) -> T) -> T {
    SCRATCH.with_borrow_mut(|scratch| f(scratch.floats(len)))
}

/// A block of queries of one head.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub b: usize,
    pub h: usize,
    /// The first query.
    pub q0: usize,
    /// How many, at most [`BQ`].
    pub nq: usize,
}

/// No block yet.
pub(super) const NOWHERE: Block = Block { b: 0, h: 0, q0: 0, nq: 0 };

impl Block {
    /// Where the first query stands among `[batch, time_q, heads]`; the next one is `heads` further.
    pub fn row(&self, s: &AttentionShape) -> usize {
        (self.b * s.time_q + self.q0) * s.heads + self.h
    }

    /// The key head.
    pub fn kv(&self, s: &AttentionShape) -> usize {
        self.h / (s.heads / s.kv_heads)
    }

    /// Where key `k0` stands among `[batch, keys, kv_heads]`.
    pub fn key_row(&self, s: &AttentionShape, k0: usize) -> usize {
        (self.b * s.keys + k0) * s.kv_heads + self.kv(s)
    }
}

/// The ranges of a block's queries: as vectors, and what they have in common.
pub(super) struct Seen {
    starts: [f32; BQ],
    ends: [f32; BQ],
    /// Keys that some query sees.
    pub any: std::ops::Range<usize>,
    /// Keys that every query sees.
    all: std::ops::Range<usize>,
}

impl Seen {
    pub fn new(a: &Attention, at: Block) -> Seen {
        let ranges = &a.visible.ranges[at.b * a.shape.time_q + at.q0..][..at.nq];
        let mut any: Option<std::ops::Range<usize>> = None;
        let mut all = 0..usize::MAX;
        // Lanes beyond the last query see nothing. Positions are exact in f32 up to 2^24.
        let (mut starts, mut ends) = ([0.0; BQ], [0.0; BQ]);
        for (i, &(start, end)) in ranges.iter().enumerate() {
            (starts[i], ends[i]) = (start as f32, end as f32);
            let (start, end) = (start as usize, end as usize);
            if start < end {
                any = Some(any.map_or(start..end, |any| any.start.min(start)..any.end.max(end)));
            }
            all = all.start.max(start)..all.end.min(end);
        }
        Seen { starts, ends, any: any.unwrap_or(0..0), all }
    }

    /// The tiles `(first key, keys)` inside `keys` that some query sees. They begin at multiples of [`BK`].
    pub fn tiles(&self, keys: std::ops::Range<usize>) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (from, to) = (self.any.start.max(keys.start), self.any.end.min(keys.end));
        (from / BK..to.div_ceil(BK).max(from / BK)).map(move |tile| (tile * BK, to.min((tile + 1) * BK) - tile * BK))
    }
}

/// `to[c, r] = from[r, c]`: squares of LANES in registers, the rest one by one.
///
/// # Safety
/// The pointers are good for the sizes, and the machine has `S`.
#[inline(always)]
pub(super) unsafe fn turn<S: Simd>(
    from: *const f32,
    from_row: usize,
    rows: usize,
    columns: usize,
    to: *mut f32,
    to_row: usize,
) {
    let (whole_rows, whole_columns) = (rows - rows % S::LANES, columns - columns % S::LANES);
    // SAFETY: r < rows, c < columns throughout.
    unsafe {
        for r in (0..whole_rows).step_by(S::LANES) {
            for c in (0..whole_columns).step_by(S::LANES) {
                S::transpose(from.add(r * from_row + c), from_row, to.add(c * to_row + r), to_row);
            }
        }
        for r in 0..rows {
            let first = if r < whole_rows { whole_columns } else { 0 };
            for c in first..columns {
                *to.add(c * to_row + r) = *from.add(r * from_row + c);
            }
        }
    }
}

/// Packs a block's rows of `[.., heads, dim]` as `[dim, BQ]`, times `factor`; lanes beyond the last query are zero.
///
/// # Safety
/// The block lies inside `from`; `to` holds `dim * BQ`; the machine has `S`.
#[inline(always)]
pub(super) unsafe fn pack<S: Simd>(from: *const f32, row: usize, nq: usize, dim: usize, to: *mut f32, factor: f32) {
    // SAFETY: the caller's promise.
    unsafe {
        turn::<S>(from, row, nq, dim, to, BQ);
        let lanes = nq.next_multiple_of(S::LANES);
        for d in 0..dim {
            for q in nq..lanes {
                *to.add(d * BQ + q) = 0.0;
            }
            if factor != 1.0 {
                for q in (0..lanes).step_by(S::LANES) {
                    let at = to.add(d * BQ + q);
                    S::store(at, S::mul(S::load(at), S::splat(factor)));
                }
            }
        }
    }
}

/// One tile of scores: keys `k0..k0 + nk` of a block.
pub(super) struct Scores<'a, 'b> {
    pub a: &'a Attention<'b>,
    pub at: Block,
    pub seen: &'a Seen,
    pub k0: usize,
    pub nk: usize,
}

impl Scores<'_, '_> {
    /// Makes scores of the products `st[BK, BQ]` of keys and scaled queries: capped, with the bias, minus infinity where
    /// hidden. `slope`, where there is a cap, receives the cap's derivative; `spare` (as large) is overwritten where there
    /// is a bias.
    ///
    /// # Safety
    /// The pointers are good for the sizes, and the machine has `S`.
    #[inline(always)]
    pub unsafe fn finish<S: Simd>(&self, st: *mut f32, slope: *mut f32, spare: *mut f32) {
        let Scores { a, at, seen, k0, nk } = *self;
        let s = &a.shape;
        let lanes = at.nq.next_multiple_of(S::LANES);
        // SAFETY: the caller's promise.
        unsafe {
            if let Some(cap) = a.softcap {
                for i in 0..nk {
                    for q in (0..lanes).step_by(S::LANES) {
                        let at = i * BQ + q;
                        let t = S::tanh(S::mul(S::load(st.add(at)), S::splat(1.0 / cap)));
                        S::store(st.add(at), S::mul(t, S::splat(cap)));
                        S::store(slope.add(at), S::sub(S::splat(1.0), S::mul(t, t)));
                    }
                }
            }
            if let Some(bias) = a.bias {
                let row = a.bias_row(at.b, at.h, at.q0);
                turn::<S>(bias.values.as_ptr().add(row + k0), s.keys, at.nq, nk, spare, BQ);
                for i in 0..nk {
                    for q in (0..lanes).step_by(S::LANES) {
                        let at = i * BQ + q;
                        S::store(st.add(at), S::add(S::load(st.add(at)), S::load(spare.add(at))));
                    }
                }
            }
            let hidden = S::splat(f32::NEG_INFINITY);
            if seen.all.start > k0 || seen.all.end < k0 + nk {
                for q in (0..lanes).step_by(S::LANES) {
                    let (start, end) = (S::load(seen.starts.as_ptr().add(q)), S::load(seen.ends.as_ptr().add(q)));
                    for i in 0..nk {
                        let at = st.add(i * BQ + q);
                        let key = S::splat((k0 + i) as f32);
                        let x = S::select_lt(key, end, S::load(at), hidden);
                        S::store(at, S::select_lt(key, start, hidden, x));
                    }
                }
            }
            if let Some(valid) = a.visible.key_valid {
                for (i, _) in valid[at.b * s.keys + k0..][..nk].iter().enumerate().filter(|(_, valid)| **valid == 0) {
                    for q in (0..lanes).step_by(S::LANES) {
                        S::store(st.add(i * BQ + q), hidden);
                    }
                }
            }
        }
    }
}

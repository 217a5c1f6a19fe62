//! Keys and values in tiles of bf16: packed once, for all the queries that see them.

use super::super::AttentionShape;
use super::super::backward::Gradient;
use super::super::forward::Pass;
use super::super::tiles::BK;
use super::{SIDES, STEPS};
use crate::packed::{DEPTH, Part, SIDE, Side, TILE};
use crate::room::Room;
use crate::simd::{Kernel, Simd, dispatch_wide};
use crate::threads;
use std::cell::RefCell;

thread_local! {
    /// Packed keys and values of all heads.
    static KEYS: RefCell<Room> = const { RefCell::new(Room::new()) };
    /// A tile of them in f32.
    static WIDE: RefCell<Room> = const { RefCell::new(Room::new()) };
}

/// How many tiles heads take.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    /// Of keys and queries as depth and as rows.
    pub steps: usize,
    pub sides: usize,
    /// Of values likewise.
    pub v_steps: usize,
    pub v_sides: usize,
}

impl Sizes {
    pub(super) fn new(s: &AttentionShape) -> Self {
        Self {
            steps: s.dim.div_ceil(DEPTH),
            sides: s.dim.div_ceil(SIDE),
            v_steps: s.v_dim.div_ceil(DEPTH),
            v_sides: s.v_dim.div_ceil(SIDE),
        }
    }
}

/// Rows of `[.., heads, dim]`: of them `rows`, `dim` wide.
pub(super) fn rows(first: *const f32, stride: usize, rows: usize, dim: usize) -> Part<f32> {
    Part { first, stride, transposed: false, rows, depth: dim }
}

/// The same the other way round: the rows are the depth.
pub(super) fn across(first: *const f32, stride: usize, depth: usize, dim: usize) -> Part<f32> {
    Part { first, stride, transposed: true, rows: dim, depth }
}

/// Packs tile `i` of a head's keys and values.
pub(super) trait Keys: Sync {
    fn shape(&self) -> &AttentionShape;
    /// Pairs that a tile takes.
    fn tile(&self) -> usize;
    /// # Safety
    /// The machine has bf16; `to` holds a tile.
    unsafe fn pack(&self, b: usize, kv: usize, k0: usize, to: &mut [u32]);

    /// Calls `f` with all of a head's tiles.
    fn with_head(&self, b: usize, kv: usize, f: impl FnOnce(&[u32])) {
        KEYS.with_borrow_mut(|room| {
            let keys = room.pairs(self.shape().keys.div_ceil(BK) * self.tile());
            for (i, to) in keys.chunks_exact_mut(self.tile().max(1)).enumerate() {
                // SAFETY: whoever chose this path found bf16.
                unsafe { self.pack(b, kv, i * BK, to) };
            }
            f(keys);
        });
    }

    /// Calls `f` with all tiles of all heads, packed by all threads.
    fn with_all(&self, f: impl FnOnce(&[u32])) {
        let s = self.shape();
        let (tiles, mut room) = (s.keys.div_ceil(BK), KEYS.take());
        let keys = room.pairs(s.batch * s.kv_heads * tiles * self.tile());
        threads::for_each_chunk(keys, self.tile(), 4 * s.k_len(), |i, to| {
            let head = i / tiles;
            // SAFETY: as above.
            unsafe { self.pack(head / s.kv_heads, head % s.kv_heads, i % tiles * BK, to) };
        });
        f(keys);
        KEYS.set(room);
    }
}

impl Keys for Pass<'_> {
    fn shape(&self) -> &AttentionShape {
        &self.a.shape
    }

    /// Keys as rows, values as depth.
    fn tile(&self) -> usize {
        let z = Sizes::new(&self.a.shape);
        (SIDES * z.steps + z.v_sides * STEPS) * TILE
    }

    unsafe fn pack(&self, b: usize, kv: usize, k0: usize, to: &mut [u32]) {
        WIDE.with_borrow_mut(|room| {
            let s = &self.a.shape;
            let room = room.floats(self.k.scratch(s.dim).max(self.v.scratch(s.v_dim)));
            dispatch_wide(Pack { f: self, b, kv, k0, to, room });
        });
    }
}

/// Packs tile `k0` of a head of keys and values.
struct Pack<'a, 'b> {
    f: &'a Pass<'b>,
    b: usize,
    kv: usize,
    k0: usize,
    to: &'a mut [u32],
    /// For what is not kept in f32.
    room: &'a mut [f32],
}

impl Kernel for Pack<'_, '_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Pack { f, b, kv, k0, to, room } = self;
        let (s, z) = (&f.a.shape, Sizes::new(&f.a.shape));
        let (nk, room) = (BK.min(s.keys - k0), room.as_mut_ptr());
        let (keys, values) = to.split_at_mut(SIDES * z.steps * TILE);
        // SAFETY: keys k0..k0 + nk are there; what has bf16 has the wide vectors, too.
        unsafe {
            let (k, k_row) = f.k.tile::<S>([b, kv], k0, nk, s.dim, room);
            rows(k, k_row, nk, s.dim).pack(Side::Rows, keys, z.steps);
            let (v, v_row) = f.v.tile::<S>([b, kv], k0, nk, s.v_dim, room);
            across(v, v_row, nk, s.v_dim).pack(Side::Rows, values, STEPS);
        }
    }
}

impl Keys for Gradient<'_> {
    fn shape(&self) -> &AttentionShape {
        &self.a.shape
    }

    /// Keys as rows, values as rows, keys as depth.
    fn tile(&self) -> usize {
        let z = Sizes::new(&self.a.shape);
        (SIDES * (z.steps + z.v_steps) + z.sides * STEPS) * TILE
    }

    unsafe fn pack(&self, b: usize, kv: usize, k0: usize, to: &mut [u32]) {
        let (a, s, z) = (self.a, &self.a.shape, Sizes::new(&self.a.shape));
        let nk = BK.min(s.keys - k0);
        let (k, v) = a.head(self.k, self.v, b, kv * (s.heads / s.kv_heads));
        let (keys, rest) = to.split_at_mut(SIDES * z.steps * TILE);
        let (values, depth) = rest.split_at_mut(SIDES * z.v_steps * TILE);
        // SAFETY: keys k0..k0 + nk are there.
        unsafe {
            let (k, v) = (k.add(k0 * a.k.time), v.add(k0 * a.v.time));
            rows(k, a.k.time, nk, s.dim).pack(Side::Rows, keys, z.steps);
            rows(v, a.v.time, nk, s.v_dim).pack(Side::Rows, values, z.v_steps);
            across(k, a.k.time, nk, s.dim).pack(Side::Rows, depth, STEPS);
        }
    }
}

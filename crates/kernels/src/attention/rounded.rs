//! The products of the tiled passes with factors rounded to bf16 and sums in f32: by AMX or AVX-512 BF16.
//!
//! Keys and values are packed once (`keys`) for all the queries that see them: where there are many key heads by the task
//! that has one to itself, else beforehand. What is summed over keys is kept transposed, `[dim, BQ]`, so that tiles of
//! weights, whose vectors run along the queries, need not be turned.
//!
//! Floor: of a tile of 64 by 64 scores with heads of 64, a product takes 512 cycles of AMX, the exponentials 2,000.

mod keys;

use super::backward::{self, Cut, Gradient, Makes};
use super::forward::{self, Pass};
use super::multiply;
use super::tiles::{BK, BQ, Block, NOWHERE, turn, with_scratch};
use crate::isa::Isa;
use crate::packed::{self, DEPTH, Lines, Part, Ready, SIDE, Side, Start, TILE};
use crate::simd::{Simd, dispatch_wide};
use crate::threads::{self, Shared};
use keys::{Keys, Sizes, across, rows};

/// Tiles along a block of queries or a tile of keys: as rows or columns, and as depth.
const SIDES: usize = BQ / SIDE;
const STEPS: usize = BQ / DEPTH;

impl Block {
    /// Its queries in whole tiles.
    fn lanes(&self) -> usize {
        self.nq.next_multiple_of(SIDE)
    }
}

/// The next `tiles` tiles of scratch.
unsafe fn take(scratch: &mut *mut u32, tiles: usize) -> *mut u32 {
    let first = *scratch;
    // SAFETY: the caller's scratch is as large as all that is taken.
    *scratch = unsafe { first.add(tiles * TILE) };
    first
}

/// Packs a part into `tiles` tiles.
///
/// # Safety
/// The machine has bf16; there is room for the tiles.
unsafe fn pack(part: Part<f32>, side: Side, to: *mut u32, tiles: usize, steps: usize) {
    // SAFETY: the caller's promise.
    unsafe { part.pack(side, std::slice::from_raw_parts_mut(to, tiles * TILE), steps) }
}

/// `c[rows, columns] (+)= left · right`, whose tiles lie one row (or column) after the other.
///
/// # Safety
/// As for [`packed::Block::run`].
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "two factors, a result and three sizes")]
unsafe fn product(
    isa: Isa,
    left: *const u32,
    right: *const u32,
    steps: usize,
    c: *mut f32,
    c_row: usize,
    [rows, columns]: [usize; 2],
    start: Start,
) {
    let (left_row, right_column) = (steps * TILE, steps * TILE);
    let (cold, ahead) = (false, Lines::NONE);
    let block =
        packed::Block { left, left_row, right, right_column, steps, c, c_row, rows, columns, start, cold, ahead };
    // SAFETY: the caller's promise.
    unsafe { block.run(isa) }
}

pub(super) fn forward(isa: Isa, f: &Pass) {
    let (s, blocks) = (&f.a.shape, f.blocks());
    let (heads, group) = (s.batch * s.kv_heads, s.heads / s.kv_heads);
    let one = |keys: &[u32], b: usize, h: usize, i: usize| {
        let products = Forward::new(isa, f, keys);
        let at = f.block(b, h, i);
        with_scratch(forward::scratch(&products), |scratch| dispatch_wide(forward::Task { f, at, scratch, products }));
    };
    if heads >= 2 * threads::threads() {
        threads::for_each(heads, f.work(), |head| {
            let (b, kv) = (head / s.kv_heads, head % s.kv_heads);
            f.with_head(b, kv, |keys| {
                (kv * group..(kv + 1) * group).for_each(|h| (0..blocks).for_each(|i| one(keys, b, h, i)));
            });
        });
        return;
    }
    f.with_all(|keys| {
        let head = s.keys.div_ceil(BK) * f.tile();
        threads::for_each(s.batch * s.heads * blocks, f.work(), |task| {
            let (b, h) = (task / blocks / s.heads, task / blocks % s.heads);
            one(&keys[(b * s.kv_heads + h / group) * head..][..head], b, h, task % blocks);
        });
    });
}

/// Of the forward pass.
struct Forward<'a> {
    isa: Isa,
    f: &'a Pass<'a>,
    z: Sizes,
    keys: &'a [u32],
    at: Block,
    queries: *mut u32,
    weights: *mut u32,
    /// `[v_dim, BQ]`.
    sums: *mut f32,
    _ready: Ready,
}

impl<'a> Forward<'a> {
    fn new(isa: Isa, f: &'a Pass<'a>, keys: &'a [u32]) -> Self {
        let (z, none) = (Sizes::new(&f.a.shape), std::ptr::null_mut::<u32>());
        // SAFETY: whoever chose this path found bf16.
        let _ready = unsafe { Ready::new(isa) };
        Self { isa, f, z, keys, at: NOWHERE, queries: none, weights: none, sums: none.cast(), _ready }
    }
}

impl multiply::Forward for Forward<'_> {
    fn scratch(&self) -> usize {
        (SIDES * (self.z.steps + STEPS)) * TILE + self.z.v_sides * SIDE * BQ + BQ * self.f.a.shape.dim
    }

    #[inline(always)]
    unsafe fn begin<S: Simd>(&mut self, at: Block, scratch: &mut [f32]) {
        let (a, s, z) = (self.f.a, &self.f.a.shape, self.z);
        self.at = at;
        let mut free = scratch.as_mut_ptr().cast::<u32>();
        // SAFETY: scratch is as large as `scratch` says.
        unsafe {
            self.queries = take(&mut free, SIDES * z.steps);
            self.weights = take(&mut free, SIDES * STEPS);
            self.sums = free.cast();
            let scaled = self.sums.add(z.v_sides * SIDE * BQ);
            std::slice::from_raw_parts_mut(self.sums, z.v_sides * SIDE * BQ).fill(0.0);
            scale_rows(self.f.q.as_ptr().add(at.row(s) * s.dim), s.heads * s.dim, at.nq, s.dim, a.scale, scaled);
            pack(rows(scaled, s.dim, at.nq, s.dim), Side::Columns, self.queries, SIDES * z.steps, z.steps);
        }
    }

    #[inline(always)]
    unsafe fn scores<S: Simd>(&mut self, k0: usize, nk: usize, st: *mut f32) {
        let (size, rows) = (self.f.tile(), nk.next_multiple_of(SIDE));
        let keys = self.keys[k0 / BK * size..].as_ptr();
        // SAFETY: tiles of scores hold BK rows; the keys were packed.
        unsafe { product(self.isa, keys, self.queries, self.z.steps, st, BQ, [rows, self.at.lanes()], Start::Zero) }
    }

    #[inline(always)]
    unsafe fn add_values<S: Simd>(&mut self, k0: usize, nk: usize, weights: *const f32, alpha: &[f32; BQ]) {
        let (size, z) = (self.f.tile(), self.z);
        let values = self.keys[k0 / BK * size + SIDES * z.steps * TILE..].as_ptr();
        // SAFETY: as above.
        unsafe {
            scale_lanes::<S>(self.sums, z.v_sides * SIDE, alpha);
            pack(
                across(weights, BQ, nk, self.at.lanes()),
                Side::Columns,
                self.weights,
                self.at.lanes() / SIDE * STEPS,
                STEPS,
            );
            product(
                self.isa,
                values,
                self.weights,
                STEPS,
                self.sums,
                BQ,
                [z.v_sides * SIDE, self.at.lanes()],
                Start::Add,
            );
        }
    }

    #[inline(always)]
    unsafe fn finish<S: Simd>(&mut self, factors: &[f32; BQ]) {
        let (s, at) = (&self.f.a.shape, self.at);
        // SAFETY: these rows are this block's; `turn` writes each of them.
        unsafe {
            scale_lanes::<S>(self.sums, s.v_dim, factors);
            turn::<S>(self.sums, BQ, s.v_dim, at.nq, self.f.out.0.add(at.row(s) * s.v_dim), s.heads * s.v_dim);
        }
    }
}

/// `to[i, d] = factor * from[i, d]`, contiguous.
#[inline(always)]
unsafe fn scale_rows(from: *const f32, stride: usize, n: usize, dim: usize, factor: f32, to: *mut f32) {
    for i in 0..n {
        for d in 0..dim {
            // SAFETY: the caller's promise.
            unsafe { *to.add(i * dim + d) = factor * *from.add(i * stride + d) };
        }
    }
}

/// `x[rows, BQ] *= factors[BQ]`; nothing where all are 1, as they mostly are once the maximum has been seen.
#[inline(always)]
unsafe fn scale_lanes<S: Simd>(x: *mut f32, rows: usize, factors: &[f32; BQ]) {
    if factors.iter().all(|factor| *factor == 1.0) {
        return;
    }
    for q in (0..BQ).step_by(S::LANES) {
        // SAFETY: the caller's promise.
        unsafe {
            let factor = S::load(factors.as_ptr().add(q));
            for row in 0..rows {
                let at = x.add(row * BQ + q);
                S::store(at, S::mul(S::load(at), factor));
            }
        }
    }
}

pub(super) fn backward(isa: Isa, g: &Gradient) {
    let s = &g.a.shape;
    let one = |keys: &[u32], cut: Cut| {
        let products = Backward::new(isa, g, keys, cut.makes);
        with_scratch(backward::scratch(&products), |scratch| {
            dispatch_wide(backward::Task { g, cut, scratch, products });
        });
    };
    if backward::whole_heads(g) {
        backward::each_cut(g, |cut| g.with_head(cut.b, cut.kv, |keys| one(keys, cut)));
        return;
    }
    g.with_all(|keys| {
        let head = s.keys.div_ceil(BK) * g.tile();
        backward::each_cut(g, |cut| one(&keys[(cut.b * s.kv_heads + cut.kv) * head..][..head], cut));
    });
}

/// Of the backward pass.
struct Backward<'a> {
    isa: Isa,
    g: &'a Gradient<'a>,
    z: Sizes,
    keys: &'a [u32],
    makes: Makes,
    at: Block,
    /// Queries (scaled) and gradients of results, as columns and as depth.
    queries: *mut u32,
    douts: *mut u32,
    queries_deep: *mut u32,
    douts_deep: *mut u32,
    /// A tile of weights or of their gradients.
    weights: *mut u32,
    /// `[dim, BQ]`.
    dq: *mut f32,
    _ready: Ready,
}

impl<'a> Backward<'a> {
    fn new(isa: Isa, g: &'a Gradient<'a>, keys: &'a [u32], makes: Makes) -> Self {
        let (z, none) = (Sizes::new(&g.a.shape), std::ptr::null_mut::<u32>());
        // SAFETY: whoever chose this path found bf16.
        let _ready = unsafe { Ready::new(isa) };
        let (queries, douts, queries_deep, douts_deep, weights, dq) = (none, none, none, none, none, none.cast());
        Self { isa, g, z, keys, makes, at: NOWHERE, queries, douts, queries_deep, douts_deep, weights, dq, _ready }
    }
}

impl Backward<'_> {
    /// `sums[k] += Σ_q by[k, q] rows[q]`, rows of `dim`, packed.
    ///
    /// # Safety
    /// As for [`multiply::Backward`].
    #[inline(always)]
    unsafe fn add_to_keys(
        &self,
        k0: usize,
        nk: usize,
        by: *const f32,
        packed: *const u32,
        sums: &Shared<f32>,
        dim: usize,
    ) {
        let s = &self.g.a.shape;
        // SAFETY: the caller's promise.
        unsafe {
            pack(rows(by, BQ, nk, self.at.nq), Side::Rows, self.weights, nk.div_ceil(SIDE) * STEPS, STEPS);
            let (c, c_row) = (sums.0.add(self.at.key_row(s, k0) * dim), s.kv_heads * dim);
            product(self.isa, self.weights, packed, STEPS, c, c_row, [nk, dim], Start::Add);
        }
    }
}

impl multiply::Backward for Backward<'_> {
    fn scratch(&self) -> usize {
        let z = self.z;
        let tiles = SIDES * (z.steps + z.v_steps + STEPS) + STEPS * (z.sides + z.v_sides);
        tiles * TILE + z.sides * SIDE * BQ + BQ * self.g.a.shape.dim
    }

    #[inline(always)]
    unsafe fn begin<S: Simd>(&mut self, at: Block, scratch: &mut [f32]) {
        let (g, a, s, z) = (self.g, self.g.a, &self.g.a.shape, self.z);
        self.at = at;
        let mut free = scratch.as_mut_ptr().cast::<u32>();
        // SAFETY: scratch is as large as `scratch` says.
        unsafe {
            self.queries = take(&mut free, SIDES * z.steps);
            self.douts = take(&mut free, SIDES * z.v_steps);
            self.weights = take(&mut free, SIDES * STEPS);
            self.queries_deep = take(&mut free, STEPS * z.sides);
            self.douts_deep = take(&mut free, STEPS * z.v_sides);
            self.dq = free.cast();
            let scaled = self.dq.add(z.sides * SIDE * BQ);
            let (q, dout) = (g.q.as_ptr().add(at.row(s) * s.dim), g.dout.as_ptr().add(at.row(s) * s.v_dim));
            let (q_row, dout_row) = (s.heads * s.dim, s.heads * s.v_dim);
            scale_rows(q, q_row, at.nq, s.dim, a.scale, scaled);
            pack(rows(scaled, s.dim, at.nq, s.dim), Side::Columns, self.queries, SIDES * z.steps, z.steps);
            let douts = rows(dout, dout_row, at.nq, s.v_dim);
            pack(douts, Side::Columns, self.douts, SIDES * z.v_steps, z.v_steps);
            if self.makes != Makes::Queries {
                let (queries, douts) = (across(q, q_row, at.nq, s.dim), across(dout, dout_row, at.nq, s.v_dim));
                pack(queries, Side::Columns, self.queries_deep, STEPS * z.sides, STEPS);
                pack(douts, Side::Columns, self.douts_deep, STEPS * z.v_sides, STEPS);
            }
            if self.makes != Makes::Keys {
                std::slice::from_raw_parts_mut(self.dq, z.sides * SIDE * BQ).fill(0.0);
            }
        }
    }

    #[inline(always)]
    unsafe fn scores<S: Simd>(&mut self, k0: usize, nk: usize, st: *mut f32) {
        let (size, rows) = (self.g.tile(), nk.next_multiple_of(SIDE));
        let keys = self.keys[k0 / BK * size..].as_ptr();
        // SAFETY: tiles of scores hold BK rows; the keys were packed.
        unsafe { product(self.isa, keys, self.queries, self.z.steps, st, BQ, [rows, self.at.lanes()], Start::Zero) }
    }

    #[inline(always)]
    unsafe fn d_weights<S: Simd>(&mut self, k0: usize, nk: usize, dst: *mut f32) {
        let (size, rows) = (self.g.tile(), nk.next_multiple_of(SIDE));
        let values = self.keys[k0 / BK * size + SIDES * self.z.steps * TILE..].as_ptr();
        // SAFETY: as above.
        unsafe { product(self.isa, values, self.douts, self.z.v_steps, dst, BQ, [rows, self.at.lanes()], Start::Zero) }
    }

    #[inline(always)]
    unsafe fn add_dv<S: Simd>(&mut self, k0: usize, nk: usize, weights: *const f32) {
        // SAFETY: these rows of dv are this task's.
        unsafe { self.add_to_keys(k0, nk, weights, self.douts_deep, &self.g.dv, self.g.a.shape.v_dim) }
    }

    #[inline(always)]
    unsafe fn add_dk<S: Simd>(&mut self, k0: usize, nk: usize, ds: *const f32) {
        // SAFETY: these rows of dk are this task's.
        unsafe { self.add_to_keys(k0, nk, ds, self.queries_deep, &self.g.dk, self.g.a.shape.dim) }
    }

    #[inline(always)]
    unsafe fn add_dq<S: Simd>(&mut self, k0: usize, nk: usize, ds: *const f32) {
        let (size, z) = (self.g.tile(), self.z);
        let keys = self.keys[k0 / BK * size + SIDES * (z.steps + z.v_steps) * TILE..].as_ptr();
        // SAFETY: the keys were packed.
        unsafe {
            pack(
                across(ds, BQ, nk, self.at.lanes()),
                Side::Columns,
                self.weights,
                self.at.lanes() / SIDE * STEPS,
                STEPS,
            );
            product(self.isa, keys, self.weights, STEPS, self.dq, BQ, [z.sides * SIDE, self.at.lanes()], Start::Add);
        }
    }

    #[inline(always)]
    unsafe fn finish<S: Simd>(&mut self) {
        let (s, at) = (&self.g.a.shape, self.at);
        // SAFETY: these rows of dq are this block's; `turn` writes each of them.
        unsafe { turn::<S>(self.dq, BQ, s.dim, at.nq, self.g.dq.0.add(at.row(s) * s.dim), s.heads * s.dim) }
    }
}

//! The forward pass of few queries (decoding): keys and values are read once for all query heads that share them.
//!
//! Floor: the bytes of the visible keys and values over the read bandwidth. Long caches are cut at fixed positions, so
//! that several threads can share one head and a query's result does not depend on the batch, on the other queries or
//! on the threads.

use super::forward::Pass;
use super::tiles::{BK, LOWEST, with_scratch};
use crate::isa::Isa;
use crate::simd::{Kernel, Simd, dispatch};
use crate::threads::{self, Shared};
use crate::tile::{Start, Tile};
use std::cell::RefCell;

/// Up to this many queries take this path.
pub(super) const FEW: usize = 8;
/// Keys of a cut; a multiple of [`BK`].
const CUT: usize = 512;

thread_local! {
    static PARTS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn run(isa: Isa, f: &Pass) {
    let s = &f.a.shape;
    let rows = s.heads / s.kv_heads * s.time_q;
    let last = f.a.visible.ranges.iter().map(|r| r.1 as usize).max().unwrap_or(0);
    let cuts = last.div_ceil(CUT).max(1);
    // Of every cut: a maximum and a sum for each row, then the rows' weighted sums.
    let part = rows * (s.v_dim + 2);
    let tile = f.k.scratch(s.dim).max(f.v.scratch(s.v_dim));
    PARTS.with_borrow_mut(|parts| {
        let len = s.batch * s.kv_heads * cuts * part;
        if parts.len() < len {
            parts.resize(len, 0.0);
        }
        let shared = Shared(parts.as_mut_ptr());
        let work = s.batch * s.kv_heads * last * (s.dim + s.v_dim) * (4 + rows / 4);
        threads::for_each(s.batch * s.kv_heads * cuts, work, |task| {
            let (b, kv) = (task / cuts / s.kv_heads, task / cuts % s.kv_heads);
            let from = task % cuts * CUT;
            // SAFETY: every task has its own part.
            let part = unsafe { shared.slice(task * part, part) };
            with_scratch(rows * (s.dim + BK) + tile, |scratch| dispatch(isa, Task { f, b, kv, from, part, scratch }));
        });
        for head in 0..s.batch * s.kv_heads {
            let (b, kv) = (head / s.kv_heads, head % s.kv_heads);
            let parts = &mut parts[head * cuts * part..][..cuts * part];
            dispatch(isa, Join { f, b, kv, parts, part });
        }
    });
}

/// One cut of one key head.
struct Task<'a, 'b> {
    f: &'a Pass<'b>,
    b: usize,
    kv: usize,
    from: usize,
    part: &'a mut [f32],
    scratch: &'a mut [f32],
}

impl Kernel for Task<'_, '_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Task { f, b, kv, from, part, scratch } = self;
        let (a, s) = (f.a, &f.a.shape);
        let group = s.heads / s.kv_heads;
        let rows = group * s.time_q;
        let (max, rest) = part.split_at_mut(rows);
        let (total, sums) = rest.split_at_mut(rows);
        max.fill(LOWEST);
        total.fill(0.0);
        sums.fill(0.0);
        let ranges = &a.visible.ranges[b * s.time_q..][..s.time_q];
        let any = ranges.iter().filter(|r| r.0 < r.1);
        let first = any.clone().map(|r| r.0 as usize).min().unwrap_or(0).max(from) / BK * BK;
        let last = any.map(|r| r.1 as usize).max().unwrap_or(0).min(from + CUT);
        if first >= last {
            return;
        }
        let (queries, rest) = scratch.split_at_mut(rows * s.dim);
        let (scores, tile) = rest.split_at_mut(rows * BK);
        for (row, to) in queries.chunks_exact_mut(s.dim.max(1)).enumerate() {
            let (t, h) = (row / group, kv * group + row % group);
            let from = &f.q[((b * s.time_q + t) * s.heads + h) * s.dim..][..s.dim];
            for (to, from) in to.iter_mut().zip(from) {
                *to = from * a.scale;
            }
        }
        // SAFETY: `check` compared every length with the shape; scratch and part are as large as `super::run` made them.
        unsafe {
            for k0 in (first..last).step_by(BK) {
                let nk = BK.min(last - k0);
                let (k, k_row) = f.k.tile::<S>([b, kv], k0, nk, s.dim, tile.as_mut_ptr());
                dots::<S>(queries, rows, s.dim, k, k_row, nk, scores.as_mut_ptr());
                let (v, v_row) = f.v.tile::<S>([b, kv], k0, nk, s.v_dim, tile.as_mut_ptr());
                let all_scores = scores.as_mut_ptr();
                let mut alpha = [0f32; 64];
                for row in 0..rows {
                    let (t, h) = (row / group, kv * group + row % group);
                    // Through the pointer, which the product below reads too.
                    let scores = std::slice::from_raw_parts_mut(all_scores.add(row * BK), BK);
                    scores[nk..].fill(f32::NEG_INFINITY);
                    if let Some(cap) = a.softcap {
                        for i in (0..BK).step_by(S::LANES) {
                            let at = scores.as_mut_ptr().add(i);
                            S::store(at, S::mul(S::tanh(S::mul(S::load(at), S::splat(1.0 / cap))), S::splat(cap)));
                        }
                        scores[nk..].fill(f32::NEG_INFINITY);
                    }
                    if let Some(bias) = a.bias {
                        let bias = &bias.values[a.bias_row(b, h, t) + k0..][..nk];
                        for (score, bias) in scores.iter_mut().zip(bias) {
                            *score += bias;
                        }
                    }
                    let (start, end) = (ranges[t].0 as usize, ranges[t].1 as usize);
                    if start > k0 || end < k0 + nk || a.visible.key_valid.is_some() {
                        let valid = a.visible.key_valid.map(|valid| &valid[b * s.keys + k0..][..nk]);
                        for (i, score) in scores[..nk].iter_mut().enumerate() {
                            let hidden = valid.is_some_and(|valid| valid[i] == 0);
                            if k0 + i < start || k0 + i >= end || hidden {
                                *score = f32::NEG_INFINITY;
                            }
                        }
                    }
                    let mut most = S::splat(max[row]);
                    for i in (0..BK).step_by(S::LANES) {
                        most = S::max(most, S::load(scores.as_ptr().add(i)));
                    }
                    let mut lanes = [LOWEST; 16];
                    S::store(lanes.as_mut_ptr(), most);
                    let new = lanes.into_iter().fold(LOWEST, f32::max);
                    let mut sum = S::splat(0.0);
                    for i in (0..BK).step_by(S::LANES) {
                        let at = scores.as_mut_ptr().add(i);
                        let p = S::exp(S::sub(S::load(at), S::splat(new)));
                        S::store(at, p);
                        sum = S::add(sum, p);
                    }
                    let factor = exp1::<S>(max[row] - new);
                    max[row] = new;
                    total[row] = total[row] * factor + S::sum(sum);
                    // Many rows are scaled in place, 64 at a time.
                    alpha[row % 64] = factor;
                    if row % 64 == 63 || row + 1 == rows {
                        let first = row / 64 * 64;
                        S::tile(&Tile {
                            m: row + 1 - first,
                            n: s.v_dim,
                            k: nk,
                            a: all_scores.add(first * BK),
                            a_i: BK,
                            a_p: 1,
                            b: v,
                            b_row: v_row,
                            c: sums.as_mut_ptr().add(first * s.v_dim),
                            c_row: s.v_dim,
                            start: Start::Scale(alpha.as_ptr()),
                        });
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn exp1<S: Simd>(x: f32) -> f32 {
    let mut lanes = [0f32; 16];
    // SAFETY: 16 lanes are enough for every instruction set.
    unsafe { S::store(lanes.as_mut_ptr(), S::exp(S::splat(x))) };
    lanes[0]
}

/// `scores[row, BK] = q[row] · k[i]` for `nk` keys. Each dot product keeps one vector of partial sums: its bits do not
/// depend on which others are computed beside it.
#[inline(always)]
unsafe fn dots<S: Simd>(q: &[f32], rows: usize, dim: usize, k: *const f32, k_row: usize, nk: usize, scores: *mut f32) {
    let mut i = 0;
    // SAFETY: i + C <= nk and row + R <= rows.
    unsafe {
        while i < nk {
            let four = nk - i >= 4;
            let mut row = 0;
            while row < rows {
                let q = q.as_ptr().add(row * dim);
                let (k, to) = (k.add(i * k_row), scores.add(row * BK + i));
                match (rows - row, four) {
                    (4.., true) => block::<S, 4, 4>(q, k, dim, k_row, to),
                    (3, true) => block::<S, 3, 4>(q, k, dim, k_row, to),
                    (2, true) => block::<S, 2, 4>(q, k, dim, k_row, to),
                    (_, true) => block::<S, 1, 4>(q, k, dim, k_row, to),
                    (4.., false) => block::<S, 4, 1>(q, k, dim, k_row, to),
                    (3, false) => block::<S, 3, 1>(q, k, dim, k_row, to),
                    (2, false) => block::<S, 2, 1>(q, k, dim, k_row, to),
                    (_, false) => block::<S, 1, 1>(q, k, dim, k_row, to),
                }
                row += 4.min(rows - row);
            }
            i += if four { 4 } else { 1 };
        }
    }
}

#[inline(always)]
unsafe fn block<S: Simd, const R: usize, const C: usize>(
    q: *const f32,
    k: *const f32,
    dim: usize,
    k_row: usize,
    scores: *mut f32,
) {
    let whole = dim - dim % S::LANES;
    // SAFETY: R rows of q and C rows of k, each `dim` long.
    unsafe {
        let mut sum = [[S::splat(0.0); C]; R];
        let mut d = 0;
        while d < whole {
            let mut keys = [S::splat(0.0); C];
            for (c, key) in keys.iter_mut().enumerate() {
                *key = S::load(k.add(c * k_row + d));
            }
            for (r, sum) in sum.iter_mut().enumerate() {
                let q = S::load(q.add(r * dim + d));
                for c in 0..C {
                    sum[c] = S::fma(q, keys[c], sum[c]);
                }
            }
            d += S::LANES;
        }
        if whole < dim {
            let left = dim - whole;
            for (r, sum) in sum.iter_mut().enumerate() {
                let q = S::load_n(q.add(r * dim + whole), left);
                for (c, sum) in sum.iter_mut().enumerate() {
                    *sum = S::fma(q, S::load_n(k.add(c * k_row + whole), left), *sum);
                }
            }
        }
        for (r, sum) in sum.into_iter().enumerate() {
            let to = scores.add(r * BK);
            if C == 4 {
                let sums = S::sum4([sum[0], sum[1 % C], sum[2 % C], sum[3 % C]]);
                to.cast::<[f32; 4]>().write_unaligned(sums);
            } else {
                *to = S::sum(sum[0]);
            }
        }
    }
}

/// Joins the cuts of one key head, in their order.
struct Join<'a, 'b> {
    f: &'a Pass<'b>,
    b: usize,
    kv: usize,
    parts: &'a mut [f32],
    part: usize,
}

impl Kernel for Join<'_, '_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Join { f, b, kv, parts, part } = self;
        let s = &f.a.shape;
        let group = s.heads / s.kv_heads;
        let rows = group * s.time_q;
        for row in 0..rows {
            let (t, h) = (row / group, kv * group + row % group);
            // SAFETY: each row of the output belongs to one (b, kv, row).
            let out = unsafe { f.out.slice(((b * s.time_q + t) * s.heads + h) * s.v_dim, s.v_dim) };
            out.fill(0.0);
            let max = parts.chunks_exact(part).fold(LOWEST, |m, part| if part[row] > m { part[row] } else { m });
            let mut total = 0.0;
            for part in parts.chunks_exact(part) {
                // SAFETY: `dispatch` found S.
                let factor = unsafe { exp1::<S>(part[row] - max) };
                total += part[rows + row] * factor;
                for (out, sum) in out.iter_mut().zip(&part[2 * rows + row * s.v_dim..][..s.v_dim]) {
                    *out += sum * factor;
                }
            }
            let seen = total > 0.0;
            let factor = if seen { 1.0 / total } else { 0.0 };
            out.iter_mut().for_each(|out| *out *= factor);
            if let Some(lse) = f.lse {
                let value = if seen { max + total.ln() } else { f32::NEG_INFINITY };
                // SAFETY: as above.
                unsafe { lse.slice((b * s.heads + h) * s.time_q + t, 1)[0] = value };
            }
        }
    }
}

//! The register-blocked product under every other one: a few rows of `a`, element by element, times rows of `b`, as
//! vectors. `product` feeds it packed blocks of weights; `attention` feeds it tiles of scores.

use crate::simd::Simd;

/// `c[i, j] = start + Σ_p a[i, p] b[p, j]` for `i < m`, `j < n`, `p < k`, summed in the order of `p`, so that an
/// element does not depend on `m`, `n` or its place.
///
/// Element `a[i, p]` lies at `i * a_i + p * a_p`: both a matrix and its transpose serve. `b` and `c` have contiguous
/// rows.
pub(crate) struct Tile {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub a: *const f32,
    pub a_i: usize,
    pub a_p: usize,
    pub b: *const f32,
    pub b_row: usize,
    pub c: *mut f32,
    pub c_row: usize,
    pub start: Start,
}

/// What the sums start from.
#[derive(Clone, Copy)]
pub(crate) enum Start {
    /// Nothing.
    Zero,
    /// What `c` holds.
    Add,
    /// What `c` holds, times a factor for each row.
    Scale(*const f32),
    /// One row of `n` values for all rows of `c`.
    Row(*const f32),
}

/// Rows of `c` held in registers: 6 rows of 4 vectors and the operands fill AVX-512's 32 registers, 6 of 2 AVX2's 16.
const ROWS: usize = 6;

/// How many lanes the widest tile of an instruction set has; packed blocks come in such widths.
pub(crate) const fn widest<S: Simd>() -> usize {
    if S::LANES == 16 { 64 } else { 2 * S::LANES }
}

/// Runs a tile of any size; [`Simd::tile`] is the way to call it.
///
/// # Safety
/// The pointers are good for the sizes, `c` overlaps nothing, and the machine has `S`.
#[inline(always)]
pub(crate) unsafe fn run<S: Simd>(t: &Tile) {
    let mut j = 0;
    while j < t.n {
        let left = t.n - j;
        // SAFETY: columns j..j + min(width, left) of the caller's tile.
        unsafe {
            if S::LANES == 16 && left > 2 * S::LANES {
                columns::<S, 4>(t, j, left);
                j += 4 * S::LANES;
            } else if left > S::LANES {
                columns::<S, 2>(t, j, left);
                j += 2 * S::LANES;
            } else {
                columns::<S, 1>(t, j, left);
                j += S::LANES;
            }
        }
    }
}

/// Columns `j..j + NV * LANES`, or to the last.
#[inline(always)]
unsafe fn columns<S: Simd, const NV: usize>(t: &Tile, j: usize, left: usize) {
    // SAFETY: as for `run`.
    unsafe {
        if left >= NV * S::LANES {
            rows::<S, NV, false>(t, j, left);
        } else {
            rows::<S, NV, true>(t, j, left);
        }
    }
}

#[inline(always)]
unsafe fn rows<S: Simd, const NV: usize, const PART: bool>(t: &Tile, j: usize, left: usize) {
    let mut i = 0;
    // SAFETY: as for `run`.
    unsafe {
        while i + ROWS <= t.m {
            micro::<S, 6, NV, PART>(t, i, j, left);
            i += ROWS;
        }
        match t.m - i {
            1 => micro::<S, 1, NV, PART>(t, i, j, left),
            2 => micro::<S, 2, NV, PART>(t, i, j, left),
            3 => micro::<S, 3, NV, PART>(t, i, j, left),
            4 => micro::<S, 4, NV, PART>(t, i, j, left),
            5 => micro::<S, 5, NV, PART>(t, i, j, left),
            _ => {}
        }
    }
}

/// One vector, or where `PART` what is left of it (nothing at all, perhaps).
#[inline(always)]
unsafe fn load<S: Simd, const PART: bool>(p: *const f32, v: usize, left: usize) -> S::F {
    // SAFETY: at most `left` elements after `p` are read.
    unsafe {
        let at = p.wrapping_add(v * S::LANES);
        if PART { S::load_n(at, left.saturating_sub(v * S::LANES).min(S::LANES)) } else { S::load(at) }
    }
}

#[inline(always)]
unsafe fn micro<S: Simd, const MR: usize, const NV: usize, const PART: bool>(
    t: &Tile,
    i0: usize,
    j: usize,
    left: usize,
) {
    // SAFETY: rows i0..i0 + MR and columns j..j + min(left, NV * LANES) lie inside the caller's tile.
    unsafe {
        let mut sum = [[S::splat(0.0); NV]; MR];
        let c = t.c.add(i0 * t.c_row + j);
        match t.start {
            Start::Zero => {}
            Start::Add => {
                for (i, row) in sum.iter_mut().enumerate() {
                    for (v, x) in row.iter_mut().enumerate() {
                        *x = load::<S, PART>(c.add(i * t.c_row), v, left);
                    }
                }
            }
            Start::Scale(factors) => {
                for (i, row) in sum.iter_mut().enumerate() {
                    let factor = S::splat(*factors.add(i0 + i));
                    for (v, x) in row.iter_mut().enumerate() {
                        *x = S::mul(factor, load::<S, PART>(c.add(i * t.c_row), v, left));
                    }
                }
            }
            Start::Row(row) => {
                for v in 0..NV {
                    let start = load::<S, PART>(row.add(j), v, left);
                    for row in &mut sum {
                        row[v] = start;
                    }
                }
            }
        }
        // The next rows' place: results of large products come from beyond the caches.
        for i in MR..2 * MR {
            for v in 0..NV {
                S::prefetch_write(c.wrapping_add(i * t.c_row + v * S::LANES));
            }
        }
        let mut a = t.a.add(i0 * t.a_i);
        let mut b = t.b.add(j);
        for _ in 0..t.k {
            let mut vectors = [S::splat(0.0); NV];
            for (v, vector) in vectors.iter_mut().enumerate() {
                *vector = load::<S, PART>(b, v, left);
            }
            for (i, row) in sum.iter_mut().enumerate() {
                let factor = S::splat(*a.add(i * t.a_i));
                for v in 0..NV {
                    row[v] = S::fma(factor, vectors[v], row[v]);
                }
            }
            a = a.wrapping_add(t.a_p);
            b = b.wrapping_add(t.b_row);
        }
        for (i, row) in sum.into_iter().enumerate() {
            for (v, x) in row.into_iter().enumerate() {
                let at = c.wrapping_add(i * t.c_row + v * S::LANES);
                if PART {
                    S::store_n(at, x, left.saturating_sub(v * S::LANES).min(S::LANES));
                } else {
                    S::store(at, x);
                }
            }
        }
    }
}

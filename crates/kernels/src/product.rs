//! Products with a weight matrix `[n, k]`: forward, both gradients, and the bias gradient. This file chooses the path:
//! `dot` multiplies few rows, `narrow` few in bf16, `blocks` few with quantised weights, `bytes` any number with weights in
//! bytes, `blocked` many rows, `rounded` many in bf16; `reference` checks them.

mod blocked;
mod blocks;
mod bytes;
mod dot;
mod matrix;
#[cfg(target_arch = "x86_64")]
mod narrow;
pub mod reference;
#[cfg(target_arch = "x86_64")]
mod rounded;
#[cfg(test)]
mod tests;

use crate::activation::Act;
use crate::isa::{Isa, isa};
use crate::threads;
use dot::Dot;

#[cfg(target_arch = "x86_64")]
pub(crate) use blocks::to_bf16;
pub use bytes::{ByteMatrix, Bytes};
pub use matrix::{Blocks, Gguf, MatRef};

/// How exactly the factors enter a product; sums are in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// As they are.
    #[default]
    F32,
    /// Rounded to bf16, where the machine multiplies those faster: those of many rows, since products of few wait for the
    /// weight to be read; with AMX and a weight in bf16, whose rows are whole tiles, those of any number.
    Bf16,
    /// Rounded to bytes, a row of either factor with a scale of its own; sums are exact. For weights that are stored so.
    Int8,
}

impl Precision {
    /// For products without a weight, beside those that take theirs so: nothing there is stored in bytes.
    pub fn beside(self) -> Self {
        match self {
            Precision::Int8 => Precision::Bf16,
            other => other,
        }
    }
}

/// Up to this many rows, [`linear_alike`] gives each row the same bits as if it were alone in the call, and [`linear`] does so
/// over weights that are not quantised. Their products wait for the weight to be read, or nearly: 32 rows take about twice
/// as long as one.
pub const fn rows_invariant_limit(precision: Precision) -> usize {
    match precision {
        Precision::F32 => 32,
        Precision::Bf16 => 32,
        Precision::Int8 => usize::MAX,
    }
}

/// `y[m, n] = x[m, k] · wᵀ + bias`, `w` being `[n, k]`; `sizes` are `[m, n, k]`.
///
/// # Panics
/// If a length does not fit the sizes; so do all functions here.
pub fn linear(y: &mut [f32], x: &[f32], w: MatRef, bias: Option<&[f32]>, sizes: [usize; 3], precision: Precision) {
    check_linear(y, x, w, bias, sizes);
    linear_free(isa(), y, x, w, bias, sizes, precision);
}

/// As [`linear`], and up to [`rows_invariant_limit`] rows each has the bits that it has alone. Where `linear` gives up on that,
/// it is up to four times as fast: over quantised weights with AMX, from a few rows on.
pub fn linear_alike(
    y: &mut [f32],
    x: &[f32],
    w: MatRef,
    bias: Option<&[f32]>,
    sizes: [usize; 3],
    precision: Precision,
) {
    check_linear(y, x, w, bias, sizes);
    linear_on(isa(), y, x, w, bias, sizes, precision);
}

fn check_linear(y: &[f32], x: &[f32], w: MatRef, bias: Option<&[f32]>, sizes: [usize; 3]) {
    check("linear", y.len(), x.len(), w.len(), sizes);
    assert!(bias.is_none_or(|b| b.len() == sizes[1]), "linear: bias must hold {} values", sizes[1]);
}

/// `y[m, n] = act(x[m, k] · wᵀ + bias)` with a weight in bytes: as [`linear`], then the activation on each block of results
/// while it is in the first-level cache. The bits are those of one after the other.
pub fn linear_act(y: &mut [f32], x: &[f32], w: Bytes, bias: Option<&[f32]>, m: usize, act: Act) {
    let [n, k] = w.sizes();
    check("linear_act", y.len(), x.len(), n * k, [m, n, k]);
    assert!(bias.is_none_or(|b| b.len() == n), "linear_act: bias must hold {n} values");
    bytes::run(isa(), y, &bytes::Product { m, x, w, bias, act: Some(act) });
}

/// `dx[m, k] = dy[m, n] · w[n, k]`, or `+=` where `accumulate`; not of a weight in bytes, which has no order to read it in
/// this way.
pub fn linear_dx(dx: &mut [f32], dy: &[f32], w: MatRef, sizes: [usize; 3], accumulate: bool, precision: Precision) {
    check("linear_dx", dy.len(), dx.len(), w.len(), sizes);
    assert!(!matches!(w, MatRef::Bytes(_)), "linear_dx: there is no gradient through a weight in bytes");
    linear_dx_on(isa(), dx, dy, w, sizes, accumulate, precision);
}

/// `dw[n, k] = dyᵀ · x`, or `+=` where `accumulate`, with `dy[m, n]` and `x[m, k]`.
pub fn linear_dw(dw: &mut [f32], dy: &[f32], x: &[f32], sizes: [usize; 3], accumulate: bool, precision: Precision) {
    check("linear_dw", dy.len(), x.len(), dw.len(), sizes);
    linear_dw_on(isa(), dw, dy, x, sizes, accumulate, precision);
}

/// `db[n] +=` the column sums of `dy[m, n]`: the gradient of a bias. Each column is summed from the first row on.
pub fn sum_rows(db: &mut [f32], dy: &[f32], m: usize, n: usize) {
    assert!(
        db.len() == n && dy.len() == m * n,
        "sum_rows: expected db[{n}] and dy[{m}, {n}], found {} and {}",
        db.len(),
        dy.len()
    );
    // 256 columns of sums stay in the first-level cache while the rows pass by.
    threads::for_each_chunk(db, 256, m * n, |i, sums| {
        for row in dy.chunks_exact(n) {
            for (sum, value) in sums.iter_mut().zip(&row[i * 256..]) {
                *sum += value;
            }
        }
    });
}

fn linear_free(
    isa: Isa,
    y: &mut [f32],
    x: &[f32],
    w: MatRef,
    bias: Option<&[f32]>,
    sizes: [usize; 3],
    precision: Precision,
) {
    #[cfg(target_arch = "x86_64")]
    if let (Isa::Amx, Precision::Bf16, MatRef::Blocks(_), [m, n, k]) = (isa, precision, w, sizes)
        && narrow::fits(k)
        && narrow::QUANTISED.contains(&m)
    {
        // SAFETY: the instruction set is there.
        return unsafe { narrow::run(y, &Dot { m, n, k, x, w, bias }) };
    }
    linear_on(isa, y, x, w, bias, sizes, precision);
}

fn linear_on(
    isa: Isa,
    y: &mut [f32],
    x: &[f32],
    w: MatRef,
    bias: Option<&[f32]>,
    [m, n, k]: [usize; 3],
    precision: Precision,
) {
    if let MatRef::Bytes(w) = w {
        return bytes::run(isa, y, &bytes::Product { m, x, w, bias, act: None });
    }
    let p = Dot { m, n, k, x, w, bias };
    #[cfg(target_arch = "x86_64")]
    if let (Isa::Amx, Precision::Bf16, MatRef::Bf16(_), true) = (isa, precision, w, narrow::fits(k))
        && m <= narrow::MOST
    {
        // SAFETY: the instruction set is there.
        return unsafe { narrow::run(y, &p) };
    }
    if m <= rows_invariant_limit(precision) {
        return if let MatRef::Blocks(blocks) = w { blocks::run(isa, y, &p, blocks) } else { dot::run(isa, y, &p) };
    }
    let start = bias.map_or(From::Zero, From::Row);
    many(isa, y, &Factors { m, n, k, a: x, a_transposed: false, b: w, b_transposed: true, start }, precision);
}

fn linear_dx_on(
    isa: Isa,
    dx: &mut [f32],
    dy: &[f32],
    w: MatRef,
    [m, n, k]: [usize; 3],
    accumulate: bool,
    precision: Precision,
) {
    let start = if accumulate { From::Add } else { From::Zero };
    let p = Factors { m, n: k, k: n, a: dy, a_transposed: false, b: w, b_transposed: false, start };
    many(isa, dx, &p, precision);
}

fn linear_dw_on(
    isa: Isa,
    dw: &mut [f32],
    dy: &[f32],
    x: &[f32],
    [m, n, k]: [usize; 3],
    accumulate: bool,
    precision: Precision,
) {
    let start = if accumulate { From::Add } else { From::Zero };
    let b = MatRef::F32(x);
    let p = Factors { m: n, n: k, k: m, a: dy, a_transposed: true, b, b_transposed: false, start };
    many(isa, dw, &p, precision);
}

/// `c[m, n] = start + a[m, k] · b[k, n]`.
struct Factors<'a> {
    m: usize,
    n: usize,
    k: usize,
    /// Contiguous, `[m, k]` or, where `a_transposed`, `[k, m]`.
    a: &'a [f32],
    a_transposed: bool,
    /// Contiguous, `[k, n]` or, where `b_transposed`, `[n, k]`.
    b: MatRef<'a>,
    b_transposed: bool,
    start: From<'a>,
}

/// What a product starts from.
#[derive(Clone, Copy)]
enum From<'a> {
    Zero,
    /// What the result holds.
    Add,
    /// One row for all.
    Row(&'a [f32]),
}

fn many(isa: Isa, c: &mut [f32], p: &Factors, precision: Precision) {
    #[cfg(target_arch = "x86_64")]
    if precision == Precision::Bf16 && isa.has_bf16() {
        return rounded::run(isa, c, p);
    }
    let _ = precision;
    blocked::run(isa, c, p);
}

fn check(name: &str, y: usize, x: usize, w: usize, [m, n, k]: [usize; 3]) {
    assert!(
        y == m * n && x == m * k && w == n * k,
        "{name}: m={m}, n={n}, k={k} need y[m, n], x[m, k], w[n, k]; found lengths {y}, {x}, {w}"
    );
}

//! Products with a weight matrix `[n, k]`: forward, both gradients, and the bias gradient. This file chooses the path;
//! `dot` multiplies few rows, `blocked` many, `reference` checks both.

mod blocked;
mod dot;
pub mod reference;
#[cfg(test)]
mod tests;

use crate::isa::{Isa, isa};
use crate::threads;
use blocked::{Blocked, From};
use dot::Dot;

use half::{bf16, f16};

/// A weight matrix `[n, k]` (outputs, inputs), row-major, perhaps borrowed from a memory map.
#[derive(Clone, Copy, Debug)]
pub enum MatRef<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// bfloat16.
    Bf16(&'a [bf16]),
    /// IEEE half precision.
    F16(&'a [f16]),
}

impl MatRef<'_> {
    /// How many elements.
    pub fn len(&self) -> usize {
        match self {
            MatRef::F32(w) => w.len(),
            MatRef::Bf16(w) => w.len(),
            MatRef::F16(w) => w.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        match self {
            MatRef::F32(w) => size_of_val(*w),
            MatRef::Bf16(w) => size_of_val(*w),
            MatRef::F16(w) => size_of_val(*w),
        }
    }

    /// One element as f32.
    pub fn get(&self, i: usize) -> f32 {
        match self {
            MatRef::F32(w) => w[i],
            MatRef::Bf16(w) => w[i].to_f32(),
            MatRef::F16(w) => w[i].to_f32(),
        }
    }
}

/// Up to this many rows, [`linear`] gives each row the same bits as if it were alone in the call.
pub const fn rows_invariant_limit() -> usize {
    32
}

/// `y[m, n] = x[m, k] · wᵀ + bias`, `w` being `[n, k]`.
///
/// # Panics
/// If a length does not fit the sizes; so do all functions here.
pub fn linear(y: &mut [f32], x: &[f32], w: MatRef, bias: Option<&[f32]>, m: usize, n: usize, k: usize) {
    check("linear", y.len(), x.len(), w.len(), [m, n, k]);
    assert!(bias.is_none_or(|b| b.len() == n), "linear: bias must hold {n} values");
    linear_on(isa(), y, x, w, bias, [m, n, k]);
}

/// `dx[m, k] = dy[m, n] · w[n, k]`, or `+=` where `accumulate`.
pub fn linear_dx(dx: &mut [f32], dy: &[f32], w: MatRef, m: usize, n: usize, k: usize, accumulate: bool) {
    check("linear_dx", dy.len(), dx.len(), w.len(), [m, n, k]);
    linear_dx_on(isa(), dx, dy, w, [m, n, k], accumulate);
}

/// `dw[n, k] += dyᵀ · x`, with `dy[m, n]` and `x[m, k]`.
pub fn linear_dw(dw: &mut [f32], dy: &[f32], x: &[f32], m: usize, n: usize, k: usize) {
    check("linear_dw", dy.len(), x.len(), dw.len(), [m, n, k]);
    linear_dw_on(isa(), dw, dy, x, [m, n, k]);
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

fn linear_on(isa: Isa, y: &mut [f32], x: &[f32], w: MatRef, bias: Option<&[f32]>, [m, n, k]: [usize; 3]) {
    if m <= rows_invariant_limit() {
        dot::run(isa, y, &Dot { m, n, k, x, w, bias });
    } else {
        let start = bias.map_or(From::Zero, From::Row);
        blocked::run(isa, y, &Blocked { m, n, k, a: x, a_transposed: false, b: w, b_transposed: true, start });
    }
}

fn linear_dx_on(isa: Isa, dx: &mut [f32], dy: &[f32], w: MatRef, [m, n, k]: [usize; 3], accumulate: bool) {
    let start = if accumulate { From::Add } else { From::Zero };
    let p = Blocked { m, n: k, k: n, a: dy, a_transposed: false, b: w, b_transposed: false, start };
    blocked::run(isa, dx, &p);
}

fn linear_dw_on(isa: Isa, dw: &mut [f32], dy: &[f32], x: &[f32], [m, n, k]: [usize; 3]) {
    let b = MatRef::F32(x);
    let p = Blocked { m: n, n: k, k: m, a: dy, a_transposed: true, b, b_transposed: false, start: From::Add };
    blocked::run(isa, dw, &p);
}

fn check(name: &str, y: usize, x: usize, w: usize, [m, n, k]: [usize; 3]) {
    assert!(
        y == m * n && x == m * k && w == n * k,
        "{name}: m={m}, n={n}, k={k} need y[m, n], x[m, k], w[n, k]; found lengths {y}, {x}, {w}"
    );
}

//! Products with a weight matrix `[n, k]`: forward, both gradients, and the bias gradient.

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
pub fn linear(
    y: &mut [f32],
    x: &[f32],
    w: MatRef,
    bias: Option<&[f32]>,
    m: usize,
    n: usize,
    k: usize,
) {
    check("linear", y.len(), x.len(), w.len(), m, n, k);
    assert!(
        bias.is_none_or(|b| b.len() == n),
        "linear: bias must hold {n} values"
    );
    reference::linear(y, x, w, bias, m, n, k);
}

/// `dx[m, k] = dy[m, n] · w[n, k]`, or `+=` where `accumulate`.
pub fn linear_dx(
    dx: &mut [f32],
    dy: &[f32],
    w: MatRef,
    m: usize,
    n: usize,
    k: usize,
    accumulate: bool,
) {
    check("linear_dx", dy.len(), dx.len(), w.len(), m, n, k);
    reference::linear_dx(dx, dy, w, m, n, k, accumulate);
}

/// `dw[n, k] += dyᵀ · x`, with `dy[m, n]` and `x[m, k]`.
pub fn linear_dw(dw: &mut [f32], dy: &[f32], x: &[f32], m: usize, n: usize, k: usize) {
    check("linear_dw", dy.len(), x.len(), dw.len(), m, n, k);
    reference::linear_dw(dw, dy, x, m, n, k);
}

/// `db[n] +=` the column sums of `dy[m, n]`: the gradient of a bias.
pub fn sum_rows(db: &mut [f32], dy: &[f32], m: usize, n: usize) {
    assert!(
        db.len() == n && dy.len() == m * n,
        "sum_rows: expected db[{n}] and dy[{m}, {n}], found {} and {}",
        db.len(),
        dy.len()
    );
    for row in dy.chunks_exact(n.max(1)) {
        for (sum, value) in db.iter_mut().zip(row) {
            *sum += value;
        }
    }
}

fn check(name: &str, y: usize, x: usize, w: usize, m: usize, n: usize, k: usize) {
    assert!(
        y == m * n && x == m * k && w == n * k,
        "{name}: m={m}, n={n}, k={k} need y[m, n], x[m, k], w[n, k]; found lengths {y}, {x}, {w}"
    );
}

/// Plain loops that the fast paths are tested against.
pub mod reference {
    use super::MatRef;

    /// See [`super::linear`].
    pub fn linear(
        y: &mut [f32],
        x: &[f32],
        w: MatRef,
        bias: Option<&[f32]>,
        m: usize,
        n: usize,
        k: usize,
    ) {
        for i in 0..m {
            for j in 0..n {
                let dot: f64 = (0..k)
                    .map(|l| f64::from(x[i * k + l]) * f64::from(w.get(j * k + l)))
                    .sum();
                y[i * n + j] = dot as f32 + bias.map_or(0.0, |b| b[j]);
            }
        }
    }

    /// See [`super::linear_dx`].
    pub fn linear_dx(
        dx: &mut [f32],
        dy: &[f32],
        w: MatRef,
        m: usize,
        n: usize,
        k: usize,
        accumulate: bool,
    ) {
        for i in 0..m {
            for l in 0..k {
                let dot: f64 = (0..n)
                    .map(|j| f64::from(dy[i * n + j]) * f64::from(w.get(j * k + l)))
                    .sum();
                dx[i * k + l] = dot as f32 + if accumulate { dx[i * k + l] } else { 0.0 };
            }
        }
    }

    /// See [`super::linear_dw`].
    pub fn linear_dw(dw: &mut [f32], dy: &[f32], x: &[f32], m: usize, n: usize, k: usize) {
        for j in 0..n {
            for l in 0..k {
                let dot: f64 = (0..m)
                    .map(|i| f64::from(dy[i * n + j]) * f64::from(x[i * k + l]))
                    .sum();
                dw[j * k + l] += dot as f32;
            }
        }
    }
}

//! Products by plain loops in f64: what the fast paths are tested against.

use super::MatRef;

/// See [`super::linear`].
pub fn linear(y: &mut [f32], x: &[f32], w: MatRef, bias: Option<&[f32]>, m: usize, n: usize, k: usize) {
    for i in 0..m {
        for j in 0..n {
            let dot: f64 = (0..k).map(|l| f64::from(x[i * k + l]) * f64::from(w.get(j * k + l))).sum();
            y[i * n + j] = dot as f32 + bias.map_or(0.0, |b| b[j]);
        }
    }
}

/// See [`super::linear_dx`].
pub fn linear_dx(dx: &mut [f32], dy: &[f32], w: MatRef, m: usize, n: usize, k: usize, accumulate: bool) {
    for i in 0..m {
        for l in 0..k {
            let dot: f64 = (0..n).map(|j| f64::from(dy[i * n + j]) * f64::from(w.get(j * k + l))).sum();
            dx[i * k + l] = dot as f32 + if accumulate { dx[i * k + l] } else { 0.0 };
        }
    }
}

/// See [`super::linear_dw`].
pub fn linear_dw(dw: &mut [f32], dy: &[f32], x: &[f32], m: usize, n: usize, k: usize) {
    for j in 0..n {
        for l in 0..k {
            let dot: f64 = (0..m).map(|i| f64::from(dy[i * n + j]) * f64::from(x[i * k + l])).sum();
            dw[j * k + l] += dot as f32;
        }
    }
}

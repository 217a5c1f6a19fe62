//! RMS norm and layer norm over the rows of `[rows, dim]`, with their gradients.
//!
//! Zhang and Sennrich, "Root mean square layer normalization" (2019); Ba, Kiros and Hinton, "Layer normalization"
//! (2016). Sums run over 64 partial sums, so their error does not grow with the row as a single f32 sum's would.

use crate::chunk::{self, Parts};
use crate::vector::{self, Math, per_isa};

/// Rows whose weight gradients are summed before they join the others: fixed by the width, so that threads change no
/// bit; enough that the sums cost little beside the rows, few enough that every thread gets some.
fn rows_per_group(dim: usize) -> usize {
    (4 * chunk::rows_per_chunk(dim)).clamp(8, 64)
}

fn check(name: &str, rows: usize, dim: usize, matrices: &[usize], vectors: &[usize], kept: &[usize]) {
    assert!(
        matrices.iter().all(|n| *n == rows * dim)
            && vectors.iter().all(|n| *n == dim)
            && kept.iter().all(|n| *n == rows),
        "{name}: rows={rows}, dim={dim} do not fit matrices of {matrices:?}, weights of {vectors:?}, kept of {kept:?}"
    );
}

/// `y = x / sqrt(mean(x²) + eps) * w` on every row; `inv[rows]` receives the reciprocal roots, for the gradient.
pub fn rms_norm(y: &mut [f32], x: &[f32], w: &[f32], eps: f32, rows: usize, dim: usize, inv: Option<&mut [f32]>) {
    check("rms_norm", rows, dim, &[y.len(), x.len()], &[w.len()], &[]);
    let inv = inv.map(|inv| {
        check("rms_norm", rows, dim, &[], &[], &[inv.len()]);
        Parts::new(inv)
    });
    chunk::each_mut(y, dim, |at, y| {
        let first = at / dim;
        for (i, (y, x)) in y.chunks_exact_mut(dim).zip(x[at..].chunks_exact(dim)).enumerate() {
            let kept = rms_row(y, x, w, eps);
            if let Some(inv) = &inv {
                // SAFETY: one row, one value.
                unsafe { inv.set(first + i, kept) };
            }
        }
    });
}

#[inline(always)]
fn rms_row_loop<M: Math>(y: &mut [f32], x: &[f32], w: &[f32], eps: f32) -> f32 {
    let squares = vector::sum1(x, |sum, x| M::fma(x, x, sum));
    let inv = 1.0 / (squares / x.len() as f32 + eps).sqrt();
    for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
        *y = x * inv * w;
    }
    inv
}

per_isa! { fn rms_row(y: &mut [f32], x: &[f32], w: &[f32], eps: f32) -> f32 = rms_row_loop; }

/// The gradient of [`rms_norm`]: `dx` is overwritten, `dw += Σ dy x inv` over the rows, `inv[rows]` as kept there.
#[expect(clippy::too_many_arguments, reason = "plain slices and their sizes")]
pub fn rms_norm_backward(
    dx: &mut [f32],
    dw: Option<&mut [f32]>,
    dy: &[f32],
    x: &[f32],
    w: &[f32],
    inv: &[f32],
    rows: usize,
    dim: usize,
) {
    check("rms_norm_backward", rows, dim, &[dx.len(), dy.len(), x.len()], &[w.len()], &[inv.len()]);
    by_groups(dx, [dw, None], rows, dim, |row, dx, [dw, _]| {
        let at = row * dim..(row + 1) * dim;
        rms_row_backward(dx, dw, &dy[at.clone()], &x[at], w, inv[row]);
    });
}

#[inline(always)]
fn rms_row_backward_loop<M: Math>(dx: &mut [f32], dw: &mut [f32], dy: &[f32], x: &[f32], w: &[f32], inv: f32) {
    // With x^ = x inv: dx = inv (w dy - x^ mean(w dy x^)).
    let mut acc = [0f32; 64];
    let dim = x.len();
    let (x, w) = (&x[..dim], &w[..dim]);
    for (i, acc) in acc.iter_mut().enumerate().take(dim % 64) {
        let i = dim - dim % 64 + i;
        *acc = dy[i] * w[i] * x[i];
    }
    for start in (0..dim - dim % 64).step_by(64) {
        let (dy, w, x) = (&dy[start..start + 64], &w[start..start + 64], &x[start..start + 64]);
        for i in 0..64 {
            acc[i] = M::fma(dy[i] * w[i], x[i], acc[i]);
        }
    }
    let mean = vector::fold(acc) * inv / dim as f32;
    for (((dx, &dy), &x), &w) in dx.iter_mut().zip(dy).zip(x).zip(w) {
        *dx = inv * M::fma(-(x * inv), mean, w * dy);
    }
    for ((dw, &dy), &x) in dw.iter_mut().zip(dy).zip(x) {
        *dw = M::fma(dy, x * inv, *dw);
    }
}

per_isa! {
    fn rms_row_backward(dx: &mut [f32], dw: &mut [f32], dy: &[f32], x: &[f32], w: &[f32], inv: f32)
        = rms_row_backward_loop;
}

/// Calls `f(row, dx of the row, sums)` for every row, with sums of `dim` for the weights' gradients (empty where none
/// is wanted), and adds the sums to `out` group by group.
fn by_groups(
    dx: &mut [f32],
    out: [Option<&mut [f32]>; 2],
    rows: usize,
    dim: usize,
    f: impl Fn(usize, &mut [f32], [&mut [f32]; 2]) + Sync,
) {
    let width = [0, 1].map(|i| if out[i].is_some() { dim } else { 0 });
    for sum in out.iter().flatten() {
        assert!(sum.len() == dim, "norm: a weight's gradient has {} values, expected {dim}", sum.len());
    }
    let each = width[0] + width[1];
    let in_group = rows_per_group(dim);
    let groups = rows.div_ceil(in_group);
    let mut sums = vec![0f32; groups * each];
    let (dx, parts) = (Parts::new(dx), Parts::new(&mut sums));
    crate::threads::for_each(groups, rows * dim * 4, |group| {
        // SAFETY: each group has its own rows and its own sums.
        let sums = unsafe { parts.at(group * each..(group + 1) * each) };
        let (first, second) = sums.split_at_mut(width[0]);
        for row in group * in_group..rows.min((group + 1) * in_group) {
            // SAFETY: as above.
            f(row, unsafe { dx.at(row * dim..(row + 1) * dim) }, [&mut *first, &mut *second]);
        }
    });
    let mut start = 0;
    for out in out.into_iter().flatten() {
        for group in 0..groups {
            crate::elementwise::add_assign(out, &sums[group * each + start..][..dim]);
        }
        start += dim;
    }
}

/// `y = (x - mean(x)) / sqrt(var(x) + eps) * w + b` on every row, with the biased variance; `kept` receives the means
/// and the reciprocal roots, `[rows]` each, for the gradient.
#[expect(clippy::too_many_arguments, reason = "plain slices and their sizes")]
pub fn layer_norm(
    y: &mut [f32],
    x: &[f32],
    w: &[f32],
    b: Option<&[f32]>,
    eps: f32,
    rows: usize,
    dim: usize,
    kept: Option<(&mut [f32], &mut [f32])>,
) {
    check("layer_norm", rows, dim, &[y.len(), x.len()], &[w.len(), b.map_or(dim, <[f32]>::len)], &[]);
    let kept = kept.map(|(mean, inv)| {
        check("layer_norm", rows, dim, &[], &[], &[mean.len(), inv.len()]);
        (Parts::new(mean), Parts::new(inv))
    });
    chunk::each_mut(y, dim, |at, y| {
        let first = at / dim;
        for (i, (y, x)) in y.chunks_exact_mut(dim).zip(x[at..].chunks_exact(dim)).enumerate() {
            let (mean, inv) = layer_row(y, x, w, b.unwrap_or_default(), eps);
            if let Some((means, invs)) = &kept {
                // SAFETY: one row, one value of each.
                unsafe {
                    means.set(first + i, mean);
                    invs.set(first + i, inv);
                }
            }
        }
    });
}

#[inline(always)]
fn layer_row_loop<M: Math>(y: &mut [f32], x: &[f32], w: &[f32], b: &[f32], eps: f32) -> (f32, f32) {
    // The variance from the centred values: the difference of two large sums would lose it.
    let mean = vector::sum1(x, |sum, x| sum + x) / x.len() as f32;
    let squares = vector::sum1(x, |sum, x| M::fma(x - mean, x - mean, sum));
    let inv = 1.0 / (squares / x.len() as f32 + eps).sqrt();
    if b.is_empty() {
        for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
            *y = (x - mean) * inv * w;
        }
    } else {
        for (((y, &x), &w), &b) in y.iter_mut().zip(x).zip(w).zip(b) {
            *y = M::fma((x - mean) * inv, w, b);
        }
    }
    (mean, inv)
}

per_isa! { fn layer_row(y: &mut [f32], x: &[f32], w: &[f32], b: &[f32], eps: f32) -> (f32, f32) = layer_row_loop; }

/// The gradient of [`layer_norm`]: `dx` is overwritten, `dw += Σ dy x^` and `db += Σ dy` over the rows; `kept` holds
/// the means and reciprocal roots from there.
#[expect(clippy::too_many_arguments, reason = "plain slices and their sizes")]
pub fn layer_norm_backward(
    dx: &mut [f32],
    dw: Option<&mut [f32]>,
    db: Option<&mut [f32]>,
    dy: &[f32],
    x: &[f32],
    w: &[f32],
    kept: (&[f32], &[f32]),
    rows: usize,
    dim: usize,
) {
    let (mean, inv) = kept;
    check("layer_norm_backward", rows, dim, &[dx.len(), dy.len(), x.len()], &[w.len()], &[mean.len(), inv.len()]);
    by_groups(dx, [dw, db], rows, dim, |row, dx, sums| {
        let at = row * dim..(row + 1) * dim;
        layer_row_backward(dx, sums, &dy[at.clone()], &x[at], w, (mean[row], inv[row]));
    });
}

#[inline(always)]
fn layer_row_backward_loop<M: Math>(
    dx: &mut [f32],
    [dw, db]: [&mut [f32]; 2],
    dy: &[f32],
    x: &[f32],
    w: &[f32],
    (mean, inv): (f32, f32),
) {
    // With x^ = (x - mean) inv and g = w dy: dx = inv (g - mean(g) - x^ mean(g x^)).
    let dim = x.len();
    let (dy, w) = (&dy[..dim], &w[..dim]);
    let (mut sum, mut dot) = ([0f32; 64], [0f32; 64]);
    let whole = dim - dim % 64;
    for i in whole..dim {
        let g = dy[i] * w[i];
        (sum[i - whole], dot[i - whole]) = (g, g * (x[i] - mean));
    }
    for start in (0..whole).step_by(64) {
        let (dy, w, x) = (&dy[start..start + 64], &w[start..start + 64], &x[start..start + 64]);
        for i in 0..64 {
            let g = dy[i] * w[i];
            sum[i] += g;
            dot[i] = M::fma(g, x[i] - mean, dot[i]);
        }
    }
    let mean_g = vector::fold(sum) / dim as f32;
    let mean_gx = vector::fold(dot) * inv / dim as f32;
    for (((dx, &dy), &x), &w) in dx.iter_mut().zip(dy).zip(x).zip(w) {
        let centred = M::fma(w, dy, -mean_g);
        *dx = inv * M::fma(-((x - mean) * inv), mean_gx, centred);
    }
    for ((dw, &dy), &x) in dw.iter_mut().zip(dy).zip(x) {
        *dw = M::fma(dy, (x - mean) * inv, *dw);
    }
    for (db, &dy) in db.iter_mut().zip(dy) {
        *db += dy;
    }
}

per_isa! {
    fn layer_row_backward(
        dx: &mut [f32], sums: [&mut [f32]; 2], dy: &[f32], x: &[f32], w: &[f32], kept: (f32, f32),
    ) = layer_row_backward_loop;
}

/// Plain loops in f64 that the fast paths are tested against.
pub mod reference {
    /// One row of [`super::layer_norm`], or of [`super::rms_norm`] where `centred` is false: `x^` in f64.
    pub fn normalised(x: &[f32], eps: f32, centred: bool) -> (Vec<f64>, f64) {
        let n = x.len() as f64;
        let mean = if centred { x.iter().map(|&x| f64::from(x)).sum::<f64>() / n } else { 0.0 };
        let var = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
        let inv = 1.0 / (var + f64::from(eps)).sqrt();
        (x.iter().map(|&x| (f64::from(x) - mean) * inv).collect(), inv)
    }

    /// `dx` of one row from `x^`, the reciprocal root and `w dy`.
    pub fn backward(hat: &[f64], inv: f64, g: &[f64], centred: bool) -> Vec<f64> {
        let n = hat.len() as f64;
        let mean_g = if centred { g.iter().sum::<f64>() / n } else { 0.0 };
        let mean_gx = g.iter().zip(hat).map(|(g, x)| g * x).sum::<f64>() / n;
        g.iter().zip(hat).map(|(g, x)| inv * (g - mean_g - x * mean_gx)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn close(name: &str, got: &[f32], truth: impl IntoIterator<Item = f64>, tolerance: f64) {
        for (i, (got, truth)) in got.iter().zip(truth).enumerate() {
            assert!((f64::from(*got) - truth).abs() <= tolerance * truth.abs().max(1.0), "{name}[{i}]: {got} {truth}");
        }
    }

    #[test]
    fn values_and_gradients_match_f64() {
        for (rows, dim) in [(1, 1), (3, 7), (65, 64), (130, 770), (5, 4099)] {
            for centred in [false, true] {
                let (n, eps) = (rows * dim, 1e-5);
                let mut rng = Rng::new(dim as u64);
                let mut x = vec![0.0; n];
                // An offset of ten deviations: a variance from the difference of two sums would show.
                rng.fill_normal(&mut x, if centred { 10.0 } else { 0.5 }, 1.0);
                let (mut dy, mut w, mut b) = (vec![0.0; n], vec![0.0; dim], vec![0.0; dim]);
                rng.fill_normal(&mut dy, 0.0, 1.0);
                rng.fill_normal(&mut w, 1.0, 0.2);
                rng.fill_normal(&mut b, 0.0, 0.2);
                let (mut y, mut mean, mut inv) = (vec![0.0; n], vec![0.0; rows], vec![0.0; rows]);
                let (mut dx, mut dw, mut db) = (vec![9.0; n], vec![1.0; dim], vec![2.0; dim]);
                if centred {
                    layer_norm(&mut y, &x, &w, Some(&b), eps, rows, dim, Some((&mut mean, &mut inv)));
                    let sums = (Some(&mut dw[..]), Some(&mut db[..]));
                    layer_norm_backward(&mut dx, sums.0, sums.1, &dy, &x, &w, (&mean, &inv), rows, dim);
                } else {
                    b.fill(0.0);
                    rms_norm(&mut y, &x, &w, eps, rows, dim, Some(&mut inv));
                    rms_norm_backward(&mut dx, Some(&mut dw), &dy, &x, &w, &inv, rows, dim);
                }
                let (mut dw_, mut db_) = (vec![1f64; dim], vec![2f64; dim]);
                for r in 0..rows {
                    let at = r * dim..(r + 1) * dim;
                    let (hat, root) = reference::normalised(&x[at.clone()], eps, centred);
                    // The mean of a row of 10 ± 1 is off by some 1e-6, which a row of equal values (dim 1) scales up
                    // by 1 / sqrt(eps); elsewhere a few ulps.
                    close("y", &y[at.clone()], (0..dim).map(|i| hat[i] * f64::from(w[i]) + f64::from(b[i])), 4e-6);
                    let g: Vec<f64> = (0..dim).map(|i| f64::from(dy[at.start + i]) * f64::from(w[i])).collect();
                    let scale = if dim == 1 { 1e-3 } else { 5e-6 };
                    close("dx", &dx[at.clone()], reference::backward(&hat, root, &g, centred), scale);
                    for i in 0..dim {
                        dw_[i] += f64::from(dy[at.start + i]) * hat[i];
                        db_[i] += f64::from(dy[at.start + i]);
                    }
                }
                close("dw", &dw, dw_, 3e-5);
                if centred {
                    close("db", &db, db_, 1e-5);
                    let mut plain = vec![0.0; n];
                    layer_norm(&mut plain, &x, &w, None, eps, rows, dim, None);
                    close("no bias", &plain, y.iter().enumerate().map(|(i, y)| f64::from(y - b[i % dim])), 1e-6);
                }
            }
        }
    }

    #[test]
    fn threads_change_no_bit() {
        let (rows, dim) = (400, 333);
        let (mut x, mut dy) = (vec![0.0; rows * dim], vec![0.0; rows * dim]);
        Rng::new(1).fill_normal(&mut x, 0.0, 1.0);
        Rng::new(2).fill_normal(&mut dy, 0.0, 1.0);
        let w = vec![1.5; dim];
        let run = || {
            let (mut y, mut inv) = (vec![0.0; rows * dim], vec![0.0; rows]);
            rms_norm(&mut y, &x, &w, 1e-6, rows, dim, Some(&mut inv));
            let (mut dx, mut dw) = (vec![0.0; rows * dim], vec![0.0; dim]);
            rms_norm_backward(&mut dx, Some(&mut dw), &dy, &x, &w, &inv, rows, dim);
            (y, dx, dw)
        };
        let all = crate::threads::tests::with_threads(2, run);
        let one = crate::threads::tests::with_threads(1, run);
        assert!(all == one);
    }
}

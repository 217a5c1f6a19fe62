//! Attention by plain loops in f64, one query at a time: what the tiled kernels are tested against.

use super::{Attention, Gradients};

/// Scores of one query (minus infinity where hidden) and, for each, the derivative of score by `q·k`.
fn scores(a: &Attention, q: &[f32], k: &[f32], b: usize, t: usize, h: usize) -> Vec<(f64, f64)> {
    let s = &a.shape;
    let (start, end) = a.visible.ranges[b * s.time_q + t];
    let plane = s.heads * s.time_q * s.keys;
    let qrow = &q[((b * s.time_q + t) * s.heads + h) * s.dim..][..s.dim];
    (0..s.keys)
        .map(|j| {
            let seen =
                j >= start as usize && j < end as usize && a.visible.key_valid.is_none_or(|m| m[b * s.keys + j] != 0);
            if !seen {
                return (f64::NEG_INFINITY, 0.0);
            }
            let krow = &k[b * a.k.batch + j * a.k.time + h / (s.heads / s.kv_heads) * s.dim..][..s.dim];
            let mut score: f64 =
                qrow.iter().zip(krow).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>() * f64::from(a.scale);
            let mut slope = f64::from(a.scale);
            if let Some(cap) = a.softcap.map(f64::from) {
                let tanh = (score / cap).tanh();
                score = cap * tanh;
                slope *= 1.0 - tanh * tanh;
            }
            if let Some(bias) = a.bias {
                let batch = if bias.values.len() == plane { 0 } else { b };
                score += f64::from(bias.values[batch * plane + (h * s.time_q + t) * s.keys + j]);
            }
            (score, slope)
        })
        .collect()
}

/// Log-sum-exp of the scores, minus infinity where none is visible.
fn log_sum_exp(scores: &[(f64, f64)]) -> f64 {
    let max = scores.iter().fold(f64::NEG_INFINITY, |m, s| m.max(s.0));
    if max == f64::NEG_INFINITY { max } else { max + scores.iter().map(|s| (s.0 - max).exp()).sum::<f64>().ln() }
}

/// What dropout multiplies the weights of one query by.
fn factors(a: &Attention, b: usize, t: usize, h: usize) -> Vec<f64> {
    let factor = |j| a.dropped.map_or(1.0, |dropped| dropped.factor(dropped.row(a, b, h, t), j));
    (0..a.shape.keys).map(|j| f64::from(factor(j))).collect()
}

/// See [`super::forward`].
pub fn forward(out: &mut [f32], mut lse: Option<&mut [f32]>, q: &[f32], k: &[f32], v: &[f32], a: &Attention) {
    let s = &a.shape;
    for b in 0..s.batch {
        for t in 0..s.time_q {
            for h in 0..s.heads {
                let scores = scores(a, q, k, b, t, h);
                let total = log_sum_exp(&scores);
                if let Some(lse) = lse.as_deref_mut() {
                    lse[(b * s.heads + h) * s.time_q + t] = total as f32;
                }
                let mut sum = vec![0f64; s.v_dim];
                let kept = factors(a, b, t, h);
                for (j, score) in scores.iter().enumerate().filter(|(_, score)| score.0 > f64::NEG_INFINITY) {
                    let p = (score.0 - total).exp() * kept[j];
                    let vrow = &v[b * a.v.batch + j * a.v.time + h / (s.heads / s.kv_heads) * s.v_dim..][..s.v_dim];
                    for (sum, v) in sum.iter_mut().zip(vrow) {
                        *sum += p * f64::from(*v);
                    }
                }
                let row = &mut out[((b * s.time_q + t) * s.heads + h) * s.v_dim..][..s.v_dim];
                for (out, sum) in row.iter_mut().zip(sum) {
                    *out = sum as f32;
                }
            }
        }
    }
}

/// See [`super::backward`].
#[expect(clippy::too_many_arguments, reason = "the signature of the kernel it checks")]
pub fn backward(g: Gradients, dout: &[f32], q: &[f32], k: &[f32], v: &[f32], out: &[f32], lse: &[f32], a: &Attention) {
    let s = &a.shape;
    let plane = s.heads * s.time_q * s.keys;
    let Gradients { dq, dk, dv, mut dbias } = g;
    for grad in [&mut *dq, &mut *dk, &mut *dv] {
        grad.fill(0.0);
    }
    for b in 0..s.batch {
        for t in 0..s.time_q {
            for h in 0..s.heads {
                let kv = h / (s.heads / s.kv_heads);
                let row = (b * s.time_q + t) * s.heads + h;
                let (dout, out) = (&dout[row * s.v_dim..][..s.v_dim], &out[row * s.v_dim..][..s.v_dim]);
                let delta: f64 = dout.iter().zip(out).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
                let total = f64::from(lse[(b * s.heads + h) * s.time_q + t]);
                let kept = factors(a, b, t, h);
                for (j, (score, slope)) in scores(a, q, k, b, t, h).into_iter().enumerate() {
                    if score == f64::NEG_INFINITY {
                        continue;
                    }
                    let p = (score - total).exp();
                    let vrow = &v[b * a.v.batch + j * a.v.time + kv * s.v_dim..][..s.v_dim];
                    let dp: f64 =
                        dout.iter().zip(vrow).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>() * kept[j];
                    let dv = &mut dv[((b * s.keys + j) * s.kv_heads + kv) * s.v_dim..][..s.v_dim];
                    for (dv, dout) in dv.iter_mut().zip(dout) {
                        *dv += (p * kept[j] * f64::from(*dout)) as f32;
                    }
                    let ds = p * (dp - delta);
                    if let (Some(dbias), Some(bias)) = (dbias.as_deref_mut(), a.bias) {
                        let batch = if bias.values.len() == plane { 0 } else { b };
                        dbias[batch * plane + (h * s.time_q + t) * s.keys + j] += ds as f32;
                    }
                    let ds = ds * slope;
                    let krow = &k[b * a.k.batch + j * a.k.time + kv * s.dim..][..s.dim];
                    let qrow = &q[row * s.dim..][..s.dim];
                    let dk = &mut dk[((b * s.keys + j) * s.kv_heads + kv) * s.dim..][..s.dim];
                    let dq = &mut dq[row * s.dim..][..s.dim];
                    for d in 0..s.dim {
                        dq[d] += (ds * f64::from(krow[d])) as f32;
                        dk[d] += (ds * f64::from(qrow[d])) as f32;
                    }
                }
            }
        }
    }
}

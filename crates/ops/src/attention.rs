//! Scaled dot-product attention (Vaswani et al. 2017, eq. 1) with grouped queries: the one place where
//! attention scores are computed.

use std::sync::Arc;

use candle_core::{D, Result};
use phyla_kernels::attention::{
    self as kernels, Attention, AttentionShape, Bias, Dropped, Gradients, Strided, Visible,
};
use phyla_kernels::memory::{alloc, zeros};
use phyla_kernels::product::Precision;

use crate::elementwise::Dropout;
use crate::{Data, Tensor, cpu, plain};

/// Which keys each query may see: a range of key slots per query, and slots hidden from all of a sequence.
///
/// A range says causal, sliding-window, block-diagonal and padding masks alike, in 8 bytes a query.
#[derive(Clone, Debug)]
pub struct Visibility {
    /// `[batch, queries]`: key slots `start..end`. An empty range gives zeros.
    pub ranges: Arc<Vec<(u32, u32)>>,
    /// `[batch, keys]`: 0 hides a slot inside the ranges (padding in odd places).
    pub key_valid: Option<Arc<Vec<u8>>>,
}

/// What shapes the scores.
#[derive(Clone, Debug)]
pub struct AttentionArgs {
    /// Factor on `q·k`.
    pub scale: f32,
    /// Bound on the scores: `c tanh(s / c)`.
    pub softcap: Option<f32>,
    /// Added to the scores after scaling and capping: `[1 or batch, heads, queries, keys]`.
    pub bias: Option<Tensor>,
    /// Dropout on the attention weights, in training.
    pub dropout: Option<Dropout>,
    /// How exactly queries, keys, values and weights enter the products on the CPU: as those of the maps around them do.
    pub precision: Precision,
}

impl AttentionArgs {
    /// Scores times `scale`, and nothing else.
    pub fn scaled(scale: f32) -> Self {
        Self { scale, softcap: None, bias: None, dropout: None, precision: Precision::F32 }
    }
}

/// `softmax(scale · q kᵀ + bias) v` over the visible keys.
///
/// `q` is `[batch, queries, heads, dim]`, `k` `[batch, keys, kv_heads, dim]` and `v`
/// `[batch, keys, kv_heads, v_dim]`; query head `h` reads key head `h · kv_heads / heads`. `k` and `v` may be
/// the filled part of a larger cache (strided over the batch). The result is `[batch, queries, heads, v_dim]`.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, visible: &Visibility, args: &AttentionArgs) -> Result<Tensor> {
    let shape = shape(q, k, v, visible)?;
    check(shape, visible, args.bias.as_ref())?;
    let mut inputs = vec![q, k, v];
    inputs.extend(&args.bias);
    if !plain::fast(q) {
        let (visible, args) = (visible.clone(), AttentionArgs { bias: None, ..args.clone() });
        return plain::composed(&inputs, &[], move |x| reference(x, shape, &visible, &args));
    }
    let (qd, (kd, ks), (vd, vs)) = (q.data().contiguous()?, strided(k.data())?, strided(v.data())?);
    let bias = args.bias.as_ref().map(|bias| bias.data().contiguous()).transpose()?;
    let tracked = crate::recording() && inputs.iter().any(|x| x.tracked());
    let call = Call::new(shape, [ks, vs], visible, args);
    let mut out = alloc(shape.out_len());
    let mut lse = tracked.then(|| alloc(shape.lse_len()));
    kernels::forward(
        &mut out,
        lse.as_deref_mut(),
        &cpu::view(&qd)?,
        &cpu::span(&kd)?,
        &cpu::span(&vd)?,
        &call.attention(bias.as_ref().map(cpu::view).transpose()?.as_deref()),
    );
    let out = cpu::tensor(out, (shape.batch, shape.time_q, shape.heads, shape.v_dim))?;
    let kept = out.clone();
    let bias_learns = args.bias.as_ref().is_some_and(Tensor::tracked);
    Ok(Tensor::record(out, &inputs, false, move |dout| {
        let dout = dout.contiguous()?;
        let lse = lse.unwrap_or_default();
        let (mut dq, mut dk, mut dv) = (alloc(shape.q_len()), alloc(shape.k_len()), alloc(shape.v_len()));
        let mut dbias = bias.as_ref().filter(|_| bias_learns).map(|bias| zeros(bias.elem_count()));
        kernels::backward(
            Gradients { dq: &mut dq, dk: &mut dk, dv: &mut dv, dbias: dbias.as_deref_mut() },
            &cpu::view(&dout)?,
            &cpu::view(&qd)?,
            &cpu::span(&kd)?,
            &cpu::span(&vd)?,
            &cpu::view(&kept)?,
            &lse,
            &call.attention(bias.as_ref().map(cpu::view).transpose()?.as_deref()),
        );
        let kv = |values, dim| cpu::tensor(values, (shape.batch, shape.keys, shape.kv_heads, dim));
        let mut grads =
            vec![Some(cpu::tensor(dq, qd.shape().clone())?), Some(kv(dk, shape.dim)?), Some(kv(dv, shape.v_dim)?)];
        if let Some(bias) = bias {
            grads.push(dbias.map(|dbias| cpu::tensor(dbias, bias.shape().clone())).transpose()?);
        }
        Ok(grads)
    }))
}

/// What the kernels are told, kept for the backward pass.
pub(crate) struct Call {
    shape: AttentionShape,
    k: Strided,
    v: Strided,
    visible: Visibility,
    scale: f32,
    softcap: Option<f32>,
    dropout: Option<Dropout>,
    precision: Precision,
}

impl Call {
    pub(crate) fn new(shape: AttentionShape, [k, v]: [Strided; 2], visible: &Visibility, args: &AttentionArgs) -> Self {
        let (scale, softcap, dropout, precision) = (args.scale, args.softcap, args.dropout.clone(), args.precision);
        Self { shape, k, v, visible: visible.clone(), scale, softcap, dropout, precision }
    }

    pub(crate) fn attention<'a>(&'a self, bias: Option<&'a [f32]>) -> Attention<'a> {
        Attention {
            shape: self.shape,
            k: self.k,
            v: self.v,
            visible: Visible {
                ranges: &self.visible.ranges,
                key_valid: self.visible.key_valid.as_deref().map(|v| &v[..]),
            },
            scale: self.scale,
            softcap: self.softcap,
            bias: bias.map(|values| Bias { values }),
            dropped: self.dropout.as_ref().map(|drop| Dropped { p: drop.p, rng: &drop.rng, offset: drop.offset }),
            precision: self.precision,
        }
    }
}

/// The weights of [`attention`], which it never holds all at once: `[batch, heads, queries, keys]`. For looking at them; there is
/// no gradient.
///
/// # Errors
/// If sizes do not fit together.
pub fn attention_weights(q: &Tensor, k: &Tensor, visible: &Visibility, args: &AttentionArgs) -> Result<Tensor> {
    let shape = shape(q, k, k, visible)?;
    check(shape, visible, args.bias.as_ref())?;
    let bias = args.bias.as_ref().map(Tensor::data);
    let weights = weights([q.data(), k.data()], bias, shape, visible, args)?;
    Ok(weights.reshape((shape.batch, shape.heads, shape.time_q, shape.keys))?.into())
}

fn shape(q: &Tensor, k: &Tensor, v: &Tensor, visible: &Visibility) -> Result<AttentionShape> {
    let (&[batch, time_q, heads, dim], &[_, keys, kv_heads, _], &[_, _, _, v_dim]) = (q.dims(), k.dims(), v.dims())
    else {
        candle_core::bail!(
            "attention expects q, k, v of 4 dimensions, found {:?} {:?} {:?}",
            q.dims(),
            k.dims(),
            v.dims()
        );
    };
    let fits = k.dims() == [batch, keys, kv_heads, dim]
        && v.dims() == [batch, keys, kv_heads, v_dim]
        && kv_heads > 0
        && heads.is_multiple_of(kv_heads)
        && visible.ranges.len() == batch * time_q;
    if !fits {
        candle_core::bail!(
            "attention: q {:?}, k {:?}, v {:?} and a mask of {} queries do not fit together",
            q.dims(),
            k.dims(),
            v.dims(),
            visible.ranges.len()
        );
    }
    Ok(AttentionShape { batch, time_q, keys, heads, kv_heads, dim, v_dim })
}

/// Ranges and bias against the sizes.
pub(crate) fn check(s: AttentionShape, visible: &Visibility, bias: Option<&Tensor>) -> Result<()> {
    if let Some(row) = visible.ranges.iter().position(|r| r.0 < r.1 && r.1 as usize > s.keys) {
        candle_core::bail!("attention: query {row} sees keys {:?} of {}", visible.ranges[row], s.keys);
    }
    if let Some(valid) = visible.key_valid.as_ref().filter(|valid| valid.len() != s.batch * s.keys) {
        candle_core::bail!("attention: a mask of {} keys for {} sequences of {}", valid.len(), s.batch, s.keys);
    }
    match bias.map(Tensor::dims) {
        Some(&[batch, heads, queries, keys])
            if (batch == 1 || batch == s.batch) && [heads, queries, keys] == [s.heads, s.time_q, s.keys] =>
        {
            Ok(())
        }
        None => Ok(()),
        Some(dims) => candle_core::bail!(
            "attention: the bias must be [1 or {}, {}, {}, {}] (batch, heads, queries, keys), found {dims:?}",
            s.batch,
            s.heads,
            s.time_q,
            s.keys
        ),
    }
}

/// A tensor whose `[heads, dim]` rows are contiguous, and the strides of batch and time.
fn strided(data: &Data) -> Result<(Data, Strided)> {
    let rows_contiguous = |data: &Data| {
        let (stride, dims) = (data.stride().to_vec(), data.dims().to_vec());
        stride[3] == 1 && (stride[2] == dims[3] || dims[2] == 1) && (stride[1] >= dims[2] * dims[3] || dims[1] == 1)
    };
    let data = if rows_contiguous(data) { data.clone() } else { data.contiguous()? };
    let stride = Strided { batch: data.stride()[0], time: data.stride()[1] };
    Ok((data, stride))
}

/// Of `q`, `k`, `v` and perhaps the bias.
fn reference(x: &[Data], s: AttentionShape, visible: &Visibility, args: &AttentionArgs) -> Result<Data> {
    let weights = weights([&x[0], &x[1]], x.get(3), s, visible, args)?;
    let (all, v3) = (s.batch * s.heads, spread(&x[2], s, s.v_dim)?);
    let out = weights.reshape((all, s.time_q, s.keys))?.to_dtype(v3.dtype())?.matmul(&v3)?;
    out.reshape((s.batch, s.heads, s.time_q, s.v_dim))?.transpose(1, 2)?.contiguous()
}

/// Keys or values for every head, `[batch · heads, keys, dim]`: candle cannot differentiate products that are broadcast.
fn spread(x: &Data, s: AttentionShape, dim: usize) -> Result<Data> {
    let group = s.heads / s.kv_heads;
    let x = x.transpose(1, 2)?.unsqueeze(2)?.broadcast_as((s.batch, s.kv_heads, group, s.keys, dim))?;
    x.contiguous()?.reshape((s.batch * s.heads, s.keys, dim))
}

/// The softmax of the scores, `[batch, kv_heads, heads / kv_heads, queries, keys]`.
fn weights(
    [q, k]: [&Data; 2],
    bias: Option<&Data>,
    s: AttentionShape,
    visible: &Visibility,
    args: &AttentionArgs,
) -> Result<Data> {
    let (group, device) = (s.heads / s.kv_heads, q.device());
    let q3 = q.transpose(1, 2)?.contiguous()?.reshape((s.batch * s.heads, s.time_q, s.dim))?;
    let k3 = spread(k, s, s.dim)?;
    let mut scores = (q3.matmul(&k3.t()?)?.to_dtype(plain::wide(q))? * args.scale as f64)?;
    scores = scores.reshape((s.batch, s.kv_heads, group, s.time_q, s.keys))?;
    if let Some(cap) = args.softcap {
        scores = ((scores / cap as f64)?.tanh()? * cap as f64)?;
    }
    if let Some(bias) = bias {
        let bias = bias.to_dtype(scores.dtype())?;
        scores = scores.broadcast_add(&bias.reshape(((), s.kv_heads, group, s.time_q, s.keys))?)?;
    }
    let (mut mask, mut seen) = (vec![0f32; s.batch * s.time_q * s.keys], vec![0f32; s.batch * s.time_q]);
    for (row, &(start, end)) in visible.ranges.iter().enumerate() {
        for key in 0..s.keys {
            let valid = visible.key_valid.as_ref().is_none_or(|v| v[row / s.time_q * s.keys + key] != 0);
            if (start as usize..end as usize).contains(&key) && valid {
                seen[row] = 1.;
            } else {
                mask[row * s.keys + key] = -1e30;
            }
        }
    }
    let mask = Data::from_vec(mask, (s.batch, 1, 1, s.time_q, s.keys), device)?.to_dtype(scores.dtype())?;
    let seen = Data::from_vec(seen, (s.batch, 1, 1, s.time_q, 1), device)?.to_dtype(scores.dtype())?;
    let scores = scores.broadcast_add(&mask)?;
    let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
    let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?.broadcast_mul(&seen)?;
    match &args.dropout {
        Some(dropout) => {
            // Rows of whole Philox blocks, beginning with one: see `Dropped`.
            let dropout = Dropout { offset: dropout.offset.next_multiple_of(4), ..dropout.clone() };
            let rows = [s.batch, s.kv_heads, group, s.time_q, s.keys.next_multiple_of(4)];
            &weights * dropout.mask(&rows, device)?.narrow(4, 0, s.keys)?.to_dtype(weights.dtype())?
        }
        None => Ok(weights),
    }
}

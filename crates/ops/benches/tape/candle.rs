//! The step on candle's graph: with candle's own operations, or with our kernels as custom operations of its.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, D, DType, Layout, Result, Shape, Tensor, Var};
use phyla_kernels::activation::{self, Act};
use phyla_kernels::attention::{self, Attention, AttentionShape, Gradients, Visible};
use phyla_kernels::memory::alloc;
use phyla_kernels::product::{self, MatRef, Precision};
use phyla_kernels::{loss, norm};

use crate::Sizes;

pub(crate) fn model(s: &Sizes, kernels: bool) -> Result<impl FnMut() -> Result<f32> + use<>> {
    let fresh = |(i, shape): (usize, Vec<usize>)| Var::from_tensor(&crate::fresh(&shape, i)?);
    let weights = s.weights().into_iter().enumerate().map(fresh).collect::<Result<Vec<_>>>()?;
    let (batch, time, heads, dim, layers) = (s.batch, s.time, s.heads, s.hidden / s.heads, s.layers);
    let indices = |ids: Vec<u32>| Tensor::new(ids, &candle_core::Device::Cpu);
    let (ids, positions) = (indices(s.ids())?, indices(s.positions())?);
    let ranges: Arc<Vec<(u32, u32)>> = Arc::new(s.positions().iter().map(|&i| (0, i + 1)).collect());
    let mask: Vec<f32> = (0..time * time).map(|i| if i % time > i / time { f32::NEG_INFINITY } else { 0. }).collect();
    let mask = Tensor::from_vec(mask, (time, time), &candle_core::Device::Cpu)?;
    let shape = AttentionShape { batch, time_q: time, keys: time, heads, kv_heads: heads, dim, v_dim: dim };
    Ok(move || {
        let linear = |x: &Tensor, w: &[Var]| if kernels { fused_linear(x, w) } else { plain_linear(x, w) };
        let norm = |x: &Tensor, w: &[Var]| if kernels { fused_norm(x, w) } else { plain_norm(x, w) };
        let rows = |w: &Var, ids: &Tensor| w.index_select(ids, 0)?.reshape((batch, time, heads * dim));
        let mut x = (rows(&weights[0], &ids)? + rows(&weights[1], &positions)?)?;
        for w in weights[4..].chunks_exact(16).take(layers) {
            let h = norm(&x, &w[0..2])?;
            let split = |i: usize| linear(&h, &w[i..i + 2])?.reshape((batch, time, heads, dim));
            let (q, k, v) = (split(2)?, split(4)?, split(6)?);
            let a = if kernels {
                fused_attention(&q, &k, &v, shape, &ranges)?
            } else {
                plain_attention(&q, &k, &v, &mask)?
            };
            x = (x + linear(&a.reshape((batch, time, heads * dim))?, &w[8..10])?)?;
            let h = linear(&norm(&x, &w[10..12])?, &w[12..14])?;
            let h = if kernels { fused_gelu(&h)? } else { h.gelu_erf()? };
            x = (x + linear(&h, &w[14..16])?)?;
        }
        let x = norm(&x, &weights[2..4])?;
        let loss = if kernels { fused_loss(&x, &weights[0], &ids)? } else { plain_loss(&x, &weights[0], &ids)? };
        let grads = loss.backward()?;
        assert!(weights.iter().all(|w| grads.get(w).is_some()));
        loss.to_scalar()
    })
}

fn plain_linear(x: &Tensor, w: &[Var]) -> Result<Tensor> {
    let dims: Vec<usize> = x.dims()[..2].iter().copied().chain([w[0].dim(0)?]).collect();
    x.reshape(((), w[0].dim(1)?))?.matmul(&w[0].t()?)?.broadcast_add(&w[1])?.reshape(dims)
}

fn plain_norm(x: &Tensor, w: &[Var]) -> Result<Tensor> {
    let x = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let deviation = (x.sqr()?.mean_keepdim(D::Minus1)? + 1e-5)?.sqrt()?;
    x.broadcast_div(&deviation)?.broadcast_mul(&w[0])?.broadcast_add(&w[1])
}

fn plain_attention(q: &Tensor, k: &Tensor, v: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let heads_first = |x: &Tensor| x.transpose(1, 2)?.contiguous();
    let scores = (heads_first(q)?.matmul(&heads_first(k)?.t()?)? * (1. / (q.dim(3)? as f64).sqrt()))?;
    let scores = scores.broadcast_add(mask)?;
    let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
    let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
    // Through another shape and back, since candle cannot multiply by the gradient that a transposition leaves.
    let out = weights.matmul(&heads_first(v)?)?;
    out.flatten(0, 1)?.reshape(out.dims())?.transpose(1, 2)?.contiguous()
}

fn plain_loss(x: &Tensor, w: &Var, ids: &Tensor) -> Result<Tensor> {
    let logits = x.flatten(0, 1)?.matmul(&w.t()?)?;
    let shifted = logits.broadcast_sub(&logits.max_keepdim(1)?.detach())?;
    let log_probs = shifted.broadcast_sub(&shifted.exp()?.sum_keepdim(1)?.log()?)?;
    log_probs.gather(&ids.unsqueeze(1)?, 1)?.mean_all()?.neg()
}

type Slices<'a> = &'a [&'a [f32]];
type Forward = Box<dyn Fn(Slices) -> Vec<f32> + Send + Sync>;
/// From the arguments, the result and its gradient.
type Backward = Box<dyn Fn(Slices, &[f32], &[f32]) -> Vec<Vec<f32>> + Send + Sync>;

/// A pair of kernels as a custom operation of one to three contiguous arguments.
struct Op {
    shape: Shape,
    forward: Forward,
    backward: Backward,
}

impl Op {
    fn run(&self, args: &[(&CpuStorage, &Layout)]) -> Result<(CpuStorage, Shape)> {
        let slices = args.iter().map(|(s, l)| Ok(&s.as_slice::<f32>()?[l.start_offset()..][..l.shape().elem_count()]));
        let out = (self.forward)(&slices.collect::<Result<Vec<_>>>()?);
        Ok((CpuStorage::F32(out), self.shape.clone()))
    }

    fn back(&self, args: &[&Tensor], res: &Tensor, grad: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let grad = grad.contiguous()?;
        let views = args.iter().map(|x| phyla_ops::cpu::view::<f32>(x)).collect::<Result<Vec<_>>>()?;
        let slices: Vec<&[f32]> = views.iter().map(|view| &**view).collect();
        let grads = (self.backward)(&slices, &phyla_ops::cpu::view(res)?, &phyla_ops::cpu::view(&grad)?);
        grads.into_iter().zip(args).map(|(g, x)| Ok(Some(phyla_ops::cpu::tensor(g, x.dims())?))).collect()
    }
}

impl CustomOp1 for Op {
    fn name(&self) -> &'static str {
        "kernel"
    }
    fn cpu_fwd(&self, a: &CpuStorage, la: &Layout) -> Result<(CpuStorage, Shape)> {
        self.run(&[(a, la)])
    }
    fn bwd(&self, a: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(self.back(&[a], res, grad)?.swap_remove(0))
    }
}

impl CustomOp2 for Op {
    fn name(&self) -> &'static str {
        "kernel"
    }
    fn cpu_fwd(&self, a: &CpuStorage, la: &Layout, b: &CpuStorage, lb: &Layout) -> Result<(CpuStorage, Shape)> {
        self.run(&[(a, la), (b, lb)])
    }
    fn bwd(&self, a: &Tensor, b: &Tensor, res: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut grads = self.back(&[a, b], res, grad)?;
        Ok((grads[0].take(), grads[1].take()))
    }
}

type Three = (Option<Tensor>, Option<Tensor>, Option<Tensor>);

impl CustomOp3 for Op {
    fn name(&self) -> &'static str {
        "kernel"
    }
    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        la: &Layout,
        b: &CpuStorage,
        lb: &Layout,
        c: &CpuStorage,
        lc: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.run(&[(a, la), (b, lb), (c, lc)])
    }
    fn bwd(&self, a: &Tensor, b: &Tensor, c: &Tensor, res: &Tensor, grad: &Tensor) -> Result<Three> {
        let mut grads = self.back(&[a, b, c], res, grad)?;
        Ok((grads[0].take(), grads[1].take(), grads[2].take()))
    }
}

/// What a forward pass leaves for its backward pass.
fn left<T: Default>() -> [Arc<Mutex<T>>; 2] {
    let value = Arc::new(Mutex::new(T::default()));
    [value.clone(), value]
}

fn take<T: Default>(from: &Mutex<T>) -> T {
    std::mem::take(&mut from.lock().unwrap_or_else(PoisonError::into_inner))
}

fn put<T>(to: &Mutex<T>, value: T) {
    *to.lock().unwrap_or_else(PoisonError::into_inner) = value;
}

fn fused_linear(x: &Tensor, w: &[Var]) -> Result<Tensor> {
    let (n, k) = w[0].dims2()?;
    let m = x.elem_count() / k;
    let forward: Forward = Box::new(move |a| {
        let mut y = alloc(m * n);
        product::linear(&mut y, a[0], MatRef::F32(a[1]), Some(a[2]), [m, n, k], Precision::F32);
        y
    });
    let backward: Backward = Box::new(move |a, _, dy| {
        let (mut dx, mut dw, mut db) = (alloc(m * k), alloc(n * k), alloc(n));
        product::linear_dx(&mut dx, dy, MatRef::F32(a[1]), [m, n, k], false, Precision::F32);
        product::linear_dw(&mut dw, dy, a[0], [m, n, k], true, Precision::F32);
        product::sum_rows(&mut db, dy, m, n);
        vec![dx, dw, db]
    });
    let shape = Shape::from(x.dims()[..2].iter().copied().chain([n]).collect::<Vec<_>>());
    x.apply_op3(&w[0], &w[1], Op { shape, forward, backward })
}

fn fused_norm(x: &Tensor, w: &[Var]) -> Result<Tensor> {
    let dim = w[0].dim(0)?;
    let rows = x.elem_count() / dim;
    let [kept, again] = left::<(Vec<f32>, Vec<f32>)>();
    let forward: Forward = Box::new(move |a| {
        let (mut y, mut mean, mut inv) = (alloc(rows * dim), alloc(rows), alloc(rows));
        norm::layer_norm(&mut y, a[0], a[1], Some(a[2]), 1e-5, rows, dim, Some((&mut mean, &mut inv)));
        put(&kept, (mean, inv));
        y
    });
    let backward: Backward = Box::new(move |a, _, dy| {
        let ((mean, inv), (mut dx, mut dw, mut db)) = (take(&again), (alloc(rows * dim), alloc(dim), alloc(dim)));
        norm::layer_norm_backward(&mut dx, Some(&mut dw), Some(&mut db), dy, a[0], a[1], (&mean, &inv), rows, dim);
        vec![dx, dw, db]
    });
    x.apply_op3(&w[0], &w[1], Op { shape: x.shape().clone(), forward, backward })
}

fn fused_gelu(x: &Tensor) -> Result<Tensor> {
    let n = x.elem_count();
    let forward: Forward = Box::new(move |a| {
        let mut y = alloc(n);
        activation::activate(&mut y, a[0], Act::Gelu);
        y
    });
    let backward: Backward = Box::new(move |a, _, dy| {
        let mut dx = alloc(n);
        activation::activate_backward(&mut dx, dy, a[0], Act::Gelu);
        vec![dx]
    });
    x.apply_op1(Op { shape: x.shape().clone(), forward, backward })
}

fn fused_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    shape: AttentionShape,
    ranges: &Arc<Vec<(u32, u32)>>,
) -> Result<Tensor> {
    fn call(shape: AttentionShape, ranges: &[(u32, u32)]) -> Attention<'_> {
        let visible = Visible { ranges, key_valid: None };
        let (k, v, scale) = (shape.k_contiguous(), shape.v_contiguous(), 1. / (shape.dim as f32).sqrt());
        Attention { shape, k, v, visible, scale, softcap: None, bias: None, dropped: None, precision: Precision::F32 }
    }
    let [kept, again] = left::<Vec<f32>>();
    let (here, there) = (ranges.clone(), ranges.clone());
    let forward: Forward = Box::new(move |a| {
        let (mut out, mut lse) = (alloc(shape.out_len()), alloc(shape.lse_len()));
        attention::forward(&mut out, Some(&mut lse), a[0], a[1], a[2], &call(shape, &here));
        put(&kept, lse);
        out
    });
    let backward: Backward = Box::new(move |a, out, dout| {
        let (mut dq, mut dk, mut dv) = (alloc(shape.q_len()), alloc(shape.k_len()), alloc(shape.v_len()));
        let grads = Gradients { dq: &mut dq, dk: &mut dk, dv: &mut dv, dbias: None };
        attention::backward(grads, dout, a[0], a[1], a[2], out, &take(&again), &call(shape, &there));
        vec![dq, dk, dv]
    });
    q.apply_op3(k, v, Op { shape: q.shape().clone(), forward, backward })
}

/// Fused as ours is: the gradients are made in the forward pass, the logits never all at once.
fn fused_loss(x: &Tensor, w: &Var, ids: &Tensor) -> Result<Tensor> {
    let (n, k) = w.dims2()?;
    let targets: Vec<i32> = ids.to_vec1::<u32>()?.into_iter().map(|id| id as i32).collect();
    let m = targets.len();
    let [kept, again] = left::<(Vec<f32>, Vec<f32>)>();
    let forward: Forward = Box::new(move |a| {
        let (mut dx, mut dw, mut losses) = (alloc(m * k), alloc(n * k), alloc(m));
        let chunk = 128;
        let mut logits = alloc(chunk * n);
        for start in (0..m).step_by(chunk) {
            let m_here = chunk.min(m - start);
            let (xs, logits) = (&a[0][start * k..][..m_here * k], &mut logits[..m_here * n]);
            product::linear(logits, xs, MatRef::F32(a[1]), None, [m_here, n, k], Precision::F32);
            let (targets, losses) = (&targets[start..][..m_here], &mut losses[start..][..m_here]);
            // The targets are ids of the vocabulary.
            let _ = loss::cross_entropy_rows(logits, targets, 0., Some(1. / m as f32), losses);
            product::linear_dx(
                &mut dx[start * k..][..m_here * k],
                logits,
                MatRef::F32(a[1]),
                [m_here, n, k],
                false,
                Precision::F32,
            );
            product::linear_dw(&mut dw, logits, xs, [m_here, n, k], true, Precision::F32);
        }
        put(&kept, (dx, dw));
        vec![losses.iter().sum::<f32>() / m as f32]
    });
    let backward: Backward = Box::new(move |_, _, _| {
        let (dx, dw) = take(&again);
        vec![dx, dw]
    });
    x.apply_op2(w, Op { shape: Shape::from(()), forward, backward })?.to_dtype(DType::F32)
}

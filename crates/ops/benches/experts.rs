//! What a mixture of experts costs beside its products, and against computing every expert on every row; and the
//! absorbed projections of one decoded token. `cargo bench -p phyla-ops --bench experts`

use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Device, Result};
use phyla_kernels::activation::Act;
use phyla_kernels::rng::Rng;
use phyla_kernels::roofline;
use phyla_ops::{
    Data, Param, Routing, Tensor, Weight, add, combine, dispatch, gated, group_by_expert, linear, per_head_down,
    per_head_up, route, scale_rows,
};

fn data(seed: u64, dims: &[usize]) -> Result<Data> {
    let mut values = vec![0.; dims.iter().product()];
    Rng::new(seed).fill_normal(&mut values, 0., 0.1);
    Data::from_vec(values, dims, &Device::Cpu)
}

fn param(seed: u64, dims: &[usize], dtype: DType) -> Result<Arc<Param>> {
    Ok(Arc::new(Param::new("w", Weight::Dense(data(seed, dims)?.to_dtype(dtype)?))))
}

/// The best of some runs, in microseconds.
fn best(runs: usize, mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = f64::MAX;
    for _ in 0..runs {
        let start = Instant::now();
        f()?;
        best = best.min(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(best)
}

type Expert = [Arc<Param>; 3];

fn perceptron(x: &Tensor, [gate, up, down]: &Expert) -> Result<Tensor> {
    linear(&gated(&linear(x, gate, None)?, &linear(x, up, None)?, Act::Silu)?, down, None)
}

fn mixture(rows: usize, dim: usize, inner: usize, count: usize, routing: &Routing) -> Result<()> {
    let expert = |e: usize| -> Result<Expert> {
        let seed = 3 * e as u64;
        Ok([
            param(seed, &[inner, dim], DType::F32)?,
            param(seed + 1, &[inner, dim], DType::F32)?,
            param(seed + 2, &[dim, inner], DType::F32)?,
        ])
    };
    let experts: Vec<Expert> = (0..count).map(expert).collect::<Result<_>>()?;
    let x: Tensor = data(1, &[rows, dim])?.into();
    let logits: Tensor = data(2, &[rows, count])?.into();
    let chosen = route(&logits, routing)?;
    let groups = group_by_expert(&chosen.experts, routing.top_k, count)?;
    let sent = dispatch(&x, &groups)?;
    let answers: Vec<_> = sent
        .iter()
        .zip(&groups)
        .map(|(x, group)| Ok((perceptron(x, &experts[group.expert])?, &group.slots[..])))
        .collect::<Result<_>>()?;
    let routing_time = best(50, || {
        let routed = route(&logits, routing)?;
        group_by_expert(&routed.experts, routing.top_k, count).map(drop)
    })?;
    let out_time = best(50, || dispatch(&x, &groups).map(drop))?;
    let products = best(10, || {
        sent.iter().zip(&groups).try_for_each(|(x, group)| perceptron(x, &experts[group.expert]).map(drop))
    })?;
    let back_time = best(50, || combine(&answers, &chosen.weights, dim).map(drop))?;
    let dense = best(5, || {
        let mut sum: Option<Tensor> = None;
        for (e, expert) in experts.iter().enumerate() {
            let y = scale_rows(&perceptron(&x, expert)?, &chosen.probs.data().narrow(1, e, 1)?.contiguous()?.into())?;
            sum = Some(match sum {
                Some(sum) => add(&sum, &y)?,
                None => y,
            });
        }
        Ok(())
    })?;
    let all = routing_time + out_time + products + back_time;
    println!(
        "{rows} rows, {count} experts of {dim} x {inner}, {} each: routing {routing_time:.0} us, out {out_time:.0}, \
         products {products:.0}, back {back_time:.0}: {all:.0} us; every expert on every row {dense:.0} us ({:.1} x)",
        routing.top_k,
        dense / all
    );
    // Training: the same, recorded, with a gradient for the input and the router.
    let step = best(5, || {
        let (x, logits) = (Tensor::leaf(x.data().clone()), Tensor::leaf(logits.data().clone()));
        let routed = route(&logits, routing)?;
        let groups = group_by_expert(&routed.experts, routing.top_k, count)?;
        let answers: Vec<_> = dispatch(&x, &groups)?.into_iter().zip(&groups).map(|(x, g)| (x, &g.slots[..])).collect();
        let y = combine(&answers, &routed.weights, dim)?;
        y.backward_with(y.data().clone())
    })?;
    println!("  out and back with their gradients, experts left out: {step:.0} us");
    Ok(())
}

fn absorbed(rows: usize, heads: usize, size: usize, rank: usize, bandwidth: f64) -> Result<()> {
    for dtype in [DType::F32, DType::BF16] {
        let w = param(1, &[heads * 2 * size, rank], dtype)?;
        let x: Tensor = data(2, &[rows, heads, size])?.into();
        let y: Tensor = data(3, &[rows, heads, rank])?.into();
        let up = best(200, || per_head_up(&x, &w, 0).map(drop))?;
        let down = best(200, || per_head_down(&y, &w, size, size).map(drop))?;
        let bytes = heads * size * rank * dtype.size_in_bytes();
        println!(
            "{rows} rows, {heads} heads of {size} x {rank}, {dtype:?}: up {up:.0} us, down {down:.0} us; \
             {:.0} us to read the weight from memory once",
            bytes as f64 / bandwidth * 1e6
        );
    }
    Ok(())
}

fn main() -> Result<()> {
    let limits = roofline::measure();
    println!("reads {:.1} GB/s, multiplies {:.0} GFLOP/s in f32", limits.read_gbps, limits.f32_gflops);
    for rows in [1, 8, 256] {
        absorbed(rows, 16, 128, 512, limits.read_gbps * 1e9)?;
    }
    let routing = Routing { top_k: 6, renormalise: false, scale: 1., groups: None };
    mixture(512, 256, 256, 64, &routing)
}

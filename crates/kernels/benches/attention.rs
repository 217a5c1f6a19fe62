//! Times attention at the shapes of GPT-2 small, of a character model and of decoding, beside the ceilings of the
//! machine. `cargo bench -p phyla-kernels --bench attention [one]` (`one`: one thread and its processor time).
#![expect(unsafe_code, reason = "the processor time of a thread has no safe call in std")]

use phyla_kernels::attention::disentangled::{self, Disentangled, Side, SideGradients};
use phyla_kernels::attention::{Attention, AttentionShape, Dropped, Gradients, Visible, backward, forward};
use phyla_kernels::product::Precision;
use phyla_kernels::rng::Rng;
use phyla_kernels::roofline;
use std::hint::black_box;
use std::time::Instant;

/// Seconds of processor time of this thread.
fn thread_time() -> f64 {
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut [i64; 2]) -> i32;
    }
    let mut time = [0i64; 2];
    // SAFETY: 3 is CLOCK_THREAD_CPUTIME_ID; a timespec on 64-bit Linux is two 64-bit integers.
    unsafe { clock_gettime(3, &mut time) };
    time[0] as f64 + time[1] as f64 * 1e-9
}

/// The best of several runs, in seconds; about a quarter of a second in all.
fn best(mut f: impl FnMut()) -> f64 {
    let one = phyla_kernels::threads::threads() == 1;
    f();
    let (mut best, mut total) = (f64::MAX, 0.0);
    while total < 0.25 {
        let (start, start_cpu) = (Instant::now(), thread_time());
        f();
        let time = if one { thread_time() - start_cpu } else { start.elapsed().as_secs_f64() };
        best = best.min(time);
        total += time;
    }
    best
}

fn main() {
    if std::env::args().any(|a| a == "one") {
        phyla_kernels::threads::set_threads(1);
    }
    println!("{:.1?}", roofline::measure());
    let sizes =
        [(2, 256, 12, 12, 64), (8, 256, 6, 6, 64), (1, 1024, 12, 12, 64), (1, 1024, 14, 2, 64), (12, 64, 4, 4, 32)];
    let both = |size| [(size, Precision::F32), (size, Precision::Bf16)];
    for ((batch, time, heads, kv_heads, dim), precision) in sizes.into_iter().flat_map(both) {
        let shape = AttentionShape { batch, time_q: time, keys: time, heads, kv_heads, dim, v_dim: dim };
        let ranges: Vec<(u32, u32)> = (0..batch * time).map(|i| (0, (i % time + 1) as u32)).collect();
        let a = Attention { precision, ..attention(shape, &ranges) };
        let [q, k, v] = [shape.q_len(), shape.k_len(), shape.v_len()].map(|n| vec![0.1f32; n]);
        let [mut dq, mut dk, mut dv] = [shape.q_len(), shape.k_len(), shape.v_len()].map(|n| vec![0f32; n]);
        let (mut out, mut lse) = (vec![0f32; shape.out_len()], vec![0f32; shape.lse_len()]);
        let there = best(|| forward(black_box(&mut out), Some(&mut lse), &q, &k, &v, &a));
        let back = best(|| {
            let g = Gradients { dq: &mut dq, dk: &mut dk, dv: &mut dv, dbias: None };
            backward(black_box(g), &out, &q, &k, &v, &out, &lse, &a);
        });
        // Visible pairs times two products (forward) or five (backward).
        let product = 2e-9 * (batch * heads * time * (time + 1) / 2 * dim) as f64;
        println!(
            "causal b{batch} t{time} h{heads}/{kv_heads} d{dim} {precision:?}: forward {:.2} ms {:.1} GFLOP/s, backward {:.2} ms {:.1}, both {:.1}",
            there * 1e3,
            2.0 * product / there,
            back * 1e3,
            5.0 * product / back,
            7.0 * product / (there + back)
        );
    }
    let rng = Rng::new(1);
    for time in [32, 64, 128, 256, 512] {
        let shape = AttentionShape { batch: 2, time_q: time, keys: time, heads: 4, kv_heads: 4, dim: 64, v_dim: 64 };
        let ranges = vec![(0, time as u32); 2 * time];
        let [q, k, v] = [shape.q_len(), shape.k_len(), shape.v_len()].map(|n| vec![0.1f32; n]);
        let [mut dq, mut dk, mut dv] = [shape.q_len(), shape.k_len(), shape.v_len()].map(|n| vec![0f32; n]);
        let (mut out, mut lse) = (vec![0f32; shape.out_len()], vec![0f32; shape.lse_len()]);
        let [kept, dropped] = [None, Some(Dropped { p: 0.1, rng: &rng, offset: 0 })].map(|dropped| {
            let a = Attention { dropped, ..attention(shape, &ranges) };
            let there = best(|| forward(black_box(&mut out), Some(&mut lse), &q, &k, &v, &a));
            let back = best(|| {
                let g = Gradients { dq: &mut dq, dk: &mut dk, dv: &mut dv, dbias: None };
                backward(black_box(g), &out, &q, &k, &v, &out, &lse, &a);
            });
            [there, back]
        });
        println!(
            "dropout b2 t{time} h4 d64: forward {:.3} -> {:.3} ms, backward {:.3} -> {:.3} ms, both x{:.2}",
            kept[0] * 1e3,
            dropped[0] * 1e3,
            kept[1] * 1e3,
            dropped[1] * 1e3,
            (dropped[0] + dropped[1]) / (kept[0] + kept[1])
        );
    }
    disentangled_scores();
    for (batch, keys, heads, kv_heads, dim) in [(1, 1024, 14, 2, 64), (1, 8192, 14, 2, 64), (8, 1024, 12, 12, 64)] {
        let shape = AttentionShape { batch, time_q: 1, keys, heads, kv_heads, dim, v_dim: dim };
        let ranges = vec![(0, keys as u32); batch];
        let a = attention(shape, &ranges);
        let q = vec![0.1f32; shape.q_len()];
        // As many caches as layers, so that none is still in the processor's cache when its turn comes.
        let layers = (96usize << 20).div_ceil(shape.k_len() * 8);
        let caches: Vec<_> = (0..layers).map(|_| (vec![0.1f32; shape.k_len()], vec![0.1f32; shape.v_len()])).collect();
        let mut out = vec![0f32; shape.out_len()];
        let seconds = best(|| {
            for (k, v) in &caches {
                forward(black_box(&mut out), None, &q, k, v, &a);
            }
        }) / layers as f64;
        let bytes = 4.0 * (shape.k_len() + shape.v_len()) as f64;
        let rate = bytes / seconds * 1e-9;
        println!("decode b{batch} keys{keys} h{heads}/{kv_heads} d{dim}: {:.1} us, {rate:.1} GB/s", seconds * 1e6);
    }
}

/// Both terms of a layer of DeBERTa: 12 heads of 64, tables of 512 rows.
fn disentangled_scores() {
    let (batch, heads, dim, rows) = (4, 12, 64, 512);
    for (time, name) in [(256, "linear"), (256, "buckets"), (128, "buckets"), (512, "buckets")] {
        let row = |distance: i64| match name {
            "linear" => distance,
            // As a table of 256 buckets for distances up to 512.
            _ if distance.abs() <= 128 => distance,
            _ => ((distance.abs() as f64 / 128.0).log2() / 3.992f64.log2() * 127.0 + 128.0) as i64 * distance.signum(),
        };
        let index: Vec<u32> =
            (1 - time..time).map(|at: i64| (row(-at) + 256).clamp(0, rows as i64 - 1) as u32).collect();
        let time = time as usize;
        let a = Disentangled { batch, time_q: time, keys: time, heads, dim, index: &index, rows, scale: 0.1 };
        let content = vec![0.1f32; batch * time * heads * dim];
        let positions = vec![0.1f32; rows * heads * dim];
        let side = Side { content: &content, positions: &positions };
        let mut bias = vec![0f32; batch * heads * time * time];
        let there = best(|| disentangled::forward(black_box(&mut bias), Some(side), Some(side), &a));
        let (mut dx, mut dp) = (vec![0f32; content.len()], vec![0f32; positions.len()]);
        let back = best(|| {
            for of_queries in [true, false] {
                let g = SideGradients { content: &mut dx, positions: &mut dp };
                disentangled::backward(black_box(g), &bias, side, of_queries, &a);
            }
        });
        // What picks one row for each score would multiply: one product for each term forward, two backward.
        let product = 2e-9 * (batch * heads * time * time * dim) as f64;
        println!(
            "disentangled b{batch} t{time} h{heads} d{dim} {name}: forward {:.2} ms {:.1} GFLOP/s, backward {:.2} ms {:.1}",
            there * 1e3,
            2.0 * product / there,
            back * 1e3,
            4.0 * product / back
        );
    }
}

fn attention(shape: AttentionShape, ranges: &[(u32, u32)]) -> Attention<'_> {
    Attention {
        shape,
        k: shape.k_contiguous(),
        v: shape.v_contiguous(),
        visible: Visible { ranges, key_valid: None },
        scale: 0.125,
        softcap: None,
        bias: None,
        dropped: None,
        precision: Precision::F32,
    }
}

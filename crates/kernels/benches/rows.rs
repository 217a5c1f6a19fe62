//! Times the kernels that move more bytes than they compute, against the machine's copy speed in the same run.

use std::{hint::black_box, time::Instant};

use half::bf16;
use phyla_kernels::{activation, elementwise, embed, loss, memory, norm, optim, product::MatRef, rng::Rng, rope};

/// The best of several runs within about 0.3 s, in seconds.
fn best(mut f: impl FnMut()) -> f64 {
    f();
    let (start, mut best) = (Instant::now(), f64::INFINITY);
    while start.elapsed().as_secs_f64() < 0.3 {
        let run = Instant::now();
        f();
        best = best.min(run.elapsed().as_secs_f64());
    }
    best
}

fn main() {
    // GPT-2 small's activations, eight rows of 512 tokens: 12 MB a tensor; its vocabulary for the loss.
    let (rows, dim, vocab, tokens) = (4096, 768, 50_257, 256);
    let n = rows * dim;
    let normal = |n: usize, seed: u64| {
        let mut x = vec![0f32; n];
        Rng::new(seed).fill_normal(&mut x, 0.0, 1.0);
        x
    };
    let large = 16 << 20;
    let (mut a, b) = (normal(large, 1), normal(large, 2));
    let copy = 8.0 * large as f64 / best(|| a.copy_from_slice(black_box(&b))) / 1e9;
    println!("copy, one thread, 64 MiB: {copy:.1} GB/s");
    let report = |name: &str, bytes: usize, elements: usize, seconds: f64| {
        let (speed, each) = (bytes as f64 / seconds / 1e9, seconds * 1e9 / elements as f64);
        println!("{name:28} {:9.3} ms {speed:7.1} GB/s {each:7.3} ns/element", seconds * 1e3);
    };
    macro_rules! time {
        ($name:expr, $floats:expr, $elements:expr, $call:expr) => {
            report($name, 4 * $floats * $elements, $elements, best(|| _ = black_box($call)))
        };
    }
    time!("fill_normal", 1, large, Rng::new(3).fill_normal(&mut a, 0.0, 1.0));
    time!("fill_uniform", 1, large, Rng::new(3).fill_uniform(&mut a, 0.0, 1.0));
    time!("sum_squares", 1, large, elementwise::sum_squares(&b));
    time!("all_finite", 1, large, elementwise::all_finite(&b));
    time!("add_assign", 3, large, elementwise::add_assign(&mut a, &b));
    let (mut m, mut v) = (vec![0.0; large], vec![0.0; large]);
    let mut low = vec![bf16::ZERO; large];
    let adam =
        optim::AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, step: 3, grad_scale: 1.0 };
    time!("adamw", 7, large, optim::adamw(&mut a, &b, &mut m, &mut v, &adam, None));
    time!("adamw with bf16 copy", 7, large, optim::adamw(&mut a, &b, &mut m, &mut v, &adam, Some(&mut low)));
    let ada = optim::Adafactor::default();
    let (mut row, mut column) = (vec![0.0; 4096], vec![0.0; 4096]);
    time!("adafactor 4096 x 4096", 5, large, {
        let second = optim::Second::Factored { row: &mut row, column: &mut column };
        optim::adafactor(&mut a, &b, None, second, &ada, None)
    });
    time!("f32_to_bf16", 2, large, elementwise::f32_to_bf16(&mut low, &b));
    time!("alloc and fill", 1, large, {
        let mut fresh = memory::alloc::<f32>(large);
        fresh.copy_from_slice(&b);
        fresh
    });

    let (x, dy, up) = (normal(n, 4), normal(n, 5), normal(n, 6));
    let (mut y, mut z) = (vec![0f32; n], vec![0f32; n]);
    let (w, mut dw, mut db) = (normal(dim, 7), vec![0.0; dim], vec![0.0; dim]);
    let (mut mean, mut inv) = (vec![0.0; rows], vec![0.0; rows]);
    time!("rms_norm", 2, n, norm::rms_norm(&mut y, &x, &w, 1e-5, rows, dim, Some(&mut inv)));
    time!("rms_norm_backward", 3, n, norm::rms_norm_backward(&mut y, Some(&mut dw), &dy, &x, &w, &inv, rows, dim));
    time!("layer_norm", 2, n, norm::layer_norm(&mut y, &x, &w, Some(&w), 1e-5, rows, dim, Some((&mut mean, &mut inv))));
    time!(
        "layer_norm_backward",
        3,
        n,
        norm::layer_norm_backward(&mut y, Some(&mut dw), Some(&mut db), &dy, &x, &w, (&mean, &inv), rows, dim)
    );
    for act in ["gelu_new", "gelu", "silu", "mish", "relu"] {
        let Ok(act) = activation::Act::from_name(act) else {
            continue;
        };
        time!(&format!("{act:?}"), 2, n, activation::activate(&mut y, &x, act));
        time!(&format!("{act:?} backward"), 3, n, activation::activate_backward(&mut y, &dy, &x, act));
    }
    let silu = activation::Act::Silu;
    time!("swiglu", 3, n, activation::gated(&mut y, &x, &up, silu));
    time!("swiglu backward", 5, n, activation::gated_backward(&mut y, &mut z, &dy, &x, &up, silu));
    time!("dropout", 2, n, elementwise::dropout(&mut y, &x, 0.1, &Rng::new(1), 0));
    let positions: Vec<u32> = (0..rows as u32).map(|r| r % 512).collect();
    let (cos, sin) = (normal(512 * 32, 8), normal(512 * 32, 9));
    let table = rope::Table { cos: &cos, sin: &sin };
    for style in [rope::Style::Half, rope::Style::Interleaved] {
        let spec = rope::Rope { heads: 12, dim: 64, rotary_dim: 64, style, inverse: false };
        time!(&format!("rope {style:?}"), 2, n, rope::rope_into(&mut y, &x, table, &positions, &spec));
    }
    let ids: Vec<u32> = (0..rows as u32).map(|r| r * 7919 % 20_000).collect();
    let mut embedding = vec![0f32; 20_000 * dim];
    time!("gather f32", 2, n, embed::gather(&mut y, MatRef::F32(&embedding), &ids, dim));
    time!("scatter_add", 3, n, embed::scatter_add(&mut embedding, &dy, &ids, dim));
    let logits = normal(tokens * vocab, 10);
    let (mut grad, mut losses) = (logits.clone(), vec![0.0; tokens]);
    let targets: Vec<i32> = (0..tokens as i32).map(|t| t * 191).collect();
    time!("cross_entropy", 1, tokens * vocab, {
        loss::cross_entropy_rows(&mut grad, &targets, 0.0, None, &mut losses)
    });
    time!("cross_entropy with gradient", 3, tokens * vocab, {
        loss::cross_entropy_rows(&mut grad, &targets, 0.0, Some(1.0), &mut losses)
    });
    let mut best = vec![0; tokens];
    time!("argmax", 1, tokens * vocab, loss::argmax_rows(&mut best, &logits, vocab));
}

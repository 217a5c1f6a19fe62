//! Times the weight products at the shapes of GPT-2 small, of a character model and of decoding, beside the ceilings
//! of the machine. `cargo bench -p phyla-kernels --bench products [train|decode] [one]`
//!
//! `one` uses one thread and its own processor time, which other programs disturb little.
#![expect(unsafe_code, reason = "the processor time of a thread has no safe call in std")]

use half::bf16;
use phyla_kernels::memory::{self, zeros};
use phyla_kernels::product::{MatRef, Precision, linear, linear_dw, linear_dx};
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

fn train() {
    memory::keep_freed();
    let limit = phyla_kernels::roofline::measure();
    println!("at most {:.0} GFLOP/s in f32, {:.0} in bf16", limit.f32_gflops, limit.bf16_gflops);
    println!("{:>6} {:>6} {:>6}  f32: linear, dx, dw; bf16: linear, dx, dw", "m", "n", "k");
    for (m, n, k) in [
        (512, 768, 768),
        (512, 2304, 768),
        (512, 3072, 768),
        (512, 768, 3072),
        (512, 50257, 768),
        (2048, 384, 384),
        (2048, 1152, 384),
        (2048, 1536, 384),
        (2048, 384, 1536),
        (768, 128, 128),
        (768, 512, 128),
        (768, 128, 512),
        (40, 768, 768),
        (64, 4096, 4096),
    ] {
        // In the memory that operations get, since pages count.
        let (mut x, mut w, mut half) = (zeros::<f32>(m * k), zeros::<f32>(n * k), zeros::<bf16>(n * k));
        x.fill(0.5);
        w.fill(0.25);
        half.fill(bf16::ONE);
        let (mut y, mut dx, mut dw) = (zeros::<f32>(m * n), zeros::<f32>(m * k), zeros::<f32>(n * k));
        let bias = vec![0f32; n];
        let rate = |seconds: f64| 2e-9 * (m * n * k) as f64 / seconds;
        print!("{m:>6} {n:>6} {k:>6}");
        for (w, precision) in [(MatRef::F32(&w), Precision::F32), (MatRef::Bf16(&half), Precision::Bf16)] {
            let sizes = [m, n, k];
            let forward = best(|| linear(black_box(&mut y), &x, w, Some(&bias), sizes, precision));
            let back = best(|| linear_dx(black_box(&mut dx), &y, w, sizes, false, precision));
            y.fill(0.0);
            let weight = best(|| linear_dw(black_box(&mut dw), &y, &x, sizes, true, precision));
            print!("  {:6.0} {:6.0} {:6.0}", rate(forward), rate(back), rate(weight));
        }
        println!();
    }
}

fn decode() {
    memory::keep_freed();
    for (n, k) in [(896, 896), (4864, 896), (896, 4864), (151_936, 896)] {
        // Enough copies of the weight that none is still cached when its turn comes again, as in a real model.
        let copies = (256usize << 20).div_ceil(n * k * 2).min(64);
        let weights: Vec<Vec<bf16>> = (0..copies).map(|_| zeros(n * k)).collect();
        for m in [1, 2, 4, 8, 16, 32] {
            let (x, mut y) = (vec![0.5f32; m * k], vec![0f32; m * n]);
            let seconds = best(|| {
                for w in &weights {
                    linear(black_box(&mut y), &x, MatRef::Bf16(w), None, [m, n, k], Precision::Bf16);
                }
            }) / copies as f64;
            let bytes = (n * k * 2) as f64;
            println!(
                "bf16 m{m} n{n} k{k}: {:.1} us, {:.1} GB/s, {:.1} GFLOP/s",
                seconds * 1e6,
                bytes / seconds * 1e-9,
                bytes * m as f64 / seconds * 1e-9
            );
        }
    }
}

fn main() {
    if std::env::args().any(|a| a == "one") {
        phyla_kernels::threads::set_threads(1);
    }
    let wanted =
        |name: &str| std::env::args().any(|a| a == name) || !std::env::args().any(|a| a == "train" || a == "decode");
    if wanted("train") {
        train();
    }
    if wanted("decode") {
        decode();
    }
}

//! What this machine can do at most: the ceilings that the benchmarks compare kernels with.

#[cfg(target_arch = "x86_64")]
use crate::amx;
use crate::isa::{Isa, isa};
use crate::simd::{Kernel, Simd, dispatch};
use crate::threads::threads;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

/// Ceilings at the current thread count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Roofline {
    /// f32 multiply-adds, two operations each, in 10⁹ per second.
    pub f32_gflops: f64,
    /// bf16 products accumulated in f32 (equal to f32's where the machine has no such instruction).
    pub bf16_gflops: f64,
    /// u8 x i8 products accumulated in i32 (equal to f32's where the machine has no such instruction).
    pub int8_gops: f64,
    /// Streaming reads from main memory, in 10⁹ bytes per second.
    pub read_gbps: f64,
}

/// Runs of each measurement; the median counts.
const RUNS: usize = 5;
/// Bytes that are read: far more than the last-level cache holds.
const READ_BYTES: usize = 512 << 20;
/// Independent chains of multiply-adds: more than latency times throughput of every machine so far, and few enough for
/// the registers.
const CHAINS: usize = 12;

/// Measures all ceilings in about a second, on as many threads as the kernels use.
pub fn measure() -> Roofline {
    let isa = isa();
    let f32_gflops = rate(|rounds| dispatch(isa, Fma(rounds)));
    let bf16_gflops = if isa.has_bf16() { rate(|rounds| bf16_products(isa, rounds)) } else { f32_gflops };
    let int8_gops = if isa.has_int8() { rate(|rounds| int8_products(isa, rounds)) } else { f32_gflops };
    Roofline { f32_gflops, bf16_gflops, int8_gops, read_gbps: read_rate(isa) }
}

/// Median over the runs of the seconds that all threads need for `f(thread)`, once all of them have started.
fn seconds(f: impl Fn(usize) + Sync) -> f64 {
    let threads = threads();
    let mut times: Vec<f64> = (0..RUNS)
        .map(|_| {
            let barrier = Barrier::new(threads);
            let time = |thread: usize| {
                barrier.wait();
                let start = Instant::now();
                f(thread);
                start.elapsed().as_secs_f64()
            };
            std::thread::scope(|scope| {
                let time = &time;
                let others: Vec<_> = (1..threads).map(|thread| scope.spawn(move || time(thread))).collect();
                let mine = time(0);
                others.into_iter().filter_map(|other| other.join().ok()).fold(mine, f64::max)
            })
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[RUNS / 2]
}

/// 10⁹ operations per second of `f(rounds)`, which gives the operations it did.
fn rate(f: impl Fn(usize) -> usize + Sync) -> f64 {
    // As many rounds as take about 30 ms on one thread.
    let start = Instant::now();
    f(1 << 16);
    let rounds = ((1 << 16) as f64 * 0.03 / start.elapsed().as_secs_f64().max(1e-6)) as usize;
    let operations = f(rounds) * threads();
    operations as f64 / seconds(|_| _ = black_box(f(rounds))) * 1e-9
}

/// Rounds of independent f32 multiply-adds in registers.
struct Fma(usize);

impl Kernel for Fma {
    type Out = usize;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> usize {
        // SAFETY: `dispatch` found S.
        unsafe {
            let (x, y) = (S::splat(black_box(0.999)), S::splat(black_box(0.001)));
            let mut sums = [S::splat(1.0); CHAINS];
            for _ in 0..self.0 {
                for sum in &mut sums {
                    *sum = S::fma(*sum, x, y);
                }
            }
            for sum in sums {
                black_box(S::sum(sum));
            }
            2 * CHAINS * S::LANES * self.0
        }
    }
}

/// Rounds of products of tiles that stay in registers, with instruction `add`.
#[cfg(target_arch = "x86_64")]
fn tile_products(add: unsafe fn(amx::Factors), depth: usize, rounds: usize) -> usize {
    // Two tiles of each factor, read from the first-level cache again and again.
    const STEPS: usize = 4;
    let zeros = vec![0u8; 4 * STEPS * amx::BYTES];
    let at = |i: usize| zeros[i * STEPS * amx::BYTES..].as_ptr();
    let factors = amx::Factors { a: [at(0), at(1)], a_apart: amx::PACKED, b: [at(2), at(3)], steps: STEPS };
    // SAFETY: `Isa::Amx` was found on this machine; the factors hold as many tiles as they say.
    unsafe {
        let _tiles = amx::Tiles::new();
        amx::start::<2, 2>(amx::From::Zero);
        for _ in 0..rounds.div_ceil(STEPS) {
            add(black_box(factors));
        }
    }
    2 * 4 * amx::SIDE * amx::SIDE * depth * STEPS * rounds.div_ceil(STEPS)
}

/// Rounds of products of bf16: tiles, or `vdpbf16ps` with 32 products and sums into 16 lanes.
#[cfg(target_arch = "x86_64")]
fn bf16_products(isa: Isa, rounds: usize) -> usize {
    use std::arch::x86_64::*;
    if isa == Isa::Amx {
        return tile_products(amx::add_bf16::<2, 2>, 32, rounds);
    }
    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn run(rounds: usize) {
        let halves = _mm512_set1_epi16(black_box(0x3f80));
        // SAFETY: both are 512 bits of anything.
        let halves: __m512bh = unsafe { std::mem::transmute(halves) };
        let mut sums = [_mm512_setzero_ps(); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, halves, halves);
            }
        }
        black_box(sums);
    }
    // SAFETY: called only where the instruction set has them.
    unsafe { run(rounds) };
    2 * 32 * CHAINS * rounds
}

/// Rounds of products of bytes: tiles, or `vpdpbusd` with 64 products and sums into 16 lanes.
#[cfg(target_arch = "x86_64")]
fn int8_products(isa: Isa, rounds: usize) -> usize {
    use std::arch::x86_64::*;
    if isa == Isa::Amx {
        return tile_products(amx::add_bytes::<2, 2>, 64, rounds);
    }
    #[target_feature(enable = "avx512f,avx512vnni")]
    unsafe fn run(rounds: usize) {
        let bytes = _mm512_set1_epi8(black_box(1));
        let mut sums = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, bytes, bytes);
            }
        }
        black_box(sums);
    }
    // SAFETY: as above.
    unsafe { run(rounds) };
    2 * 64 * CHAINS * rounds
}

#[cfg(not(target_arch = "x86_64"))]
fn bf16_products(_: Isa, _: usize) -> usize {
    0
}

#[cfg(not(target_arch = "x86_64"))]
fn int8_products(_: Isa, _: usize) -> usize {
    0
}

/// 10⁹ bytes per second of reading a large buffer once, each thread its own stretch.
fn read_rate(isa: Isa) -> f64 {
    // Written, not just zeroed: untouched pages are all the same page of zeros.
    let data = vec![1f32; READ_BYTES / size_of::<f32>()];
    let piece = data.len() / threads();
    let time = seconds(|thread| _ = black_box(dispatch(isa, Read(&data[thread * piece..][..piece]))));
    (piece * threads() * size_of::<f32>()) as f64 / time * 1e-9
}

struct Read<'a>(&'a [f32]);

impl Kernel for Read<'_> {
    type Out = f32;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f32 {
        // SAFETY: `dispatch` found S; a chunk holds eight vectors.
        unsafe {
            let mut sums = [S::splat(0.0); 8];
            for chunk in self.0.chunks_exact(8 * S::LANES) {
                S::prefetch(chunk.as_ptr().wrapping_add(1024));
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = S::add(*sum, S::load(chunk.as_ptr().add(i * S::LANES)));
                }
            }
            let mut total = 0.0;
            for sum in sums {
                total += S::sum(sum);
            }
            total
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_are_plausible() {
        // Wide bounds: what is checked is that nothing was optimised away and no unit is off by a thousand.
        let r = measure();
        let threads = threads() as f64;
        assert!(r.f32_gflops > 0.5 && r.f32_gflops < 1000.0 * threads, "{r:?}");
        assert!(r.bf16_gflops >= 0.5 * r.f32_gflops && r.bf16_gflops < 4000.0 * threads, "{r:?}");
        assert!(r.int8_gops >= 0.5 * r.f32_gflops && r.int8_gops < 8000.0 * threads, "{r:?}");
        assert!(r.read_gbps > 0.2 && r.read_gbps < 2000.0, "{r:?}");
    }
}

//! One training step of GPT-2 small without the optimiser, three ways: our operations on our tape, the same kernels
//! on candle's graph, and candle's own operations on candle's graph. See docs/decisions/0001-own-tape.md.
//!
//! `cargo bench -p phyla-ops --bench tape [LAYERS [STEPS]]`: each way in a process of its own, for its peak memory.

mod tape {
    pub(crate) mod candle;
    pub(crate) mod ours;
}

use std::{process::Command, time::Instant};

use candle_core::Result;
use phyla_kernels::rng::Rng;
use phyla_ops::Data;

/// Sizes of the model and of the batch.
pub(crate) struct Sizes {
    pub(crate) layers: usize,
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    pub(crate) vocab: usize,
    pub(crate) batch: usize,
    pub(crate) time: usize,
}

impl Sizes {
    /// Path and shape of every weight, in the order in which the models read them; the layers' last.
    pub(crate) fn weights(&self) -> Vec<Vec<usize>> {
        let d = self.hidden;
        let mut all = vec![vec![self.vocab, d], vec![self.time, d], vec![d], vec![d]];
        for _ in 0..self.layers {
            all.extend([vec![d], vec![d]]);
            (0..4).for_each(|_| all.extend([vec![d, d], vec![d]]));
            all.extend([vec![d], vec![d], vec![4 * d, d], vec![4 * d], vec![d, 4 * d], vec![d]]);
        }
        all
    }

    pub(crate) fn ids(&self) -> Vec<u32> {
        let mut rng = Rng::new(1);
        (0..self.batch * self.time).map(|_| rng.below(self.vocab as u64) as u32).collect()
    }

    pub(crate) fn positions(&self) -> Vec<u32> {
        (0..self.batch * self.time).map(|i| (i % self.time) as u32).collect()
    }
}

/// Norm scales of 1, everything else small and random; the same for every way.
pub(crate) fn fresh(shape: &[usize], index: usize) -> Result<Data> {
    let mut values = vec![0f32; shape.iter().product()];
    let mean = if shape.len() == 1 { 1. } else { 0. };
    Rng::new(index as u64).fill_normal(&mut values, mean, 0.02);
    phyla_ops::cpu::tensor(values, shape)
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let number = |i: usize, default| args.get(i).and_then(|arg| arg.parse().ok()).unwrap_or(default);
    let Some(way) = std::env::var_os("PHYLA_BENCH_WAY") else {
        for way in ["ours", "kernels", "candle"] {
            Command::new(std::env::current_exe()?).args(&args).env("PHYLA_BENCH_WAY", way).status()?;
        }
        return Ok(());
    };
    let sizes = Sizes { layers: number(0, 12), hidden: 768, heads: 12, vocab: 50_257, batch: 2, time: 256 };
    let mut step: Box<dyn FnMut() -> Result<f32>> = match way.to_str() {
        Some("ours") => Box::new(tape::ours::model(&sizes)?),
        Some("kernels") => Box::new(tape::candle::model(&sizes, true)?),
        _ => Box::new(tape::candle::model(&sizes, false)?),
    };
    let loss = step()?;
    let (before, mut times) = (usage(), vec![]);
    let steps = number(1, 4);
    for _ in 0..steps {
        let start = Instant::now();
        step()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let after = usage();
    let each = |i: usize| (after[i] - before[i]) / steps as u64;
    println!(
        "{:8} loss {loss:.5}, best {:5.0} ms, median {:5.0} ms, processor {:5} ms (system {:4} ms), {:7} page faults, \
         peak {:5.0} MiB",
        way.display(),
        times[0],
        times[times.len() / 2],
        10 * (each(1) + each(2)),
        10 * each(2),
        each(0),
        peak_mib(),
    );
    Ok(())
}

fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(f64::NAN) / 1024.
}

/// Minor page faults (4 KiB, or 2 MiB, that the system had to find and clear), and the processor's time in user and
/// in system mode, in hundredths of a second: unlike the clock's, hardly disturbed by other work on the machine.
fn usage() -> [u64; 3] {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let field = |i| after_name.split_whitespace().nth(i).and_then(|n| n.parse().ok()).unwrap_or(0);
    [field(7), field(11), field(12)]
}

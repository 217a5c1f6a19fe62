//! What was measured, beside what would have been possible: as a small table, or as JSON.

use candle_core::DType;
use phyla_kernels::roofline::Roofline;
use phyla_kernels::threads::threads;
use phyla_models::Model;
use serde_json::{Map, Value, json};

use super::limit::Work;
use super::machine;
use super::subject::Subject;
use crate::cli::output::{self, bytes, count};

/// Times of equal steps.
pub struct Measured {
    /// Which benchmark.
    pub name: &'static str,
    /// Its own settings, for the output.
    pub settings: Vec<(&'static str, usize)>,
    /// Seconds of each step.
    pub steps: Vec<f64>,
    /// Tokens of a step.
    pub tokens: usize,
    /// What a step must do.
    pub work: Work,
    /// The machine's limits before the first step.
    pub before: Roofline,
}

impl Measured {
    /// Measures the machine and prints everything.
    pub fn show(&self, subject: &Subject, model: &Model) -> anyhow::Result<()> {
        let peak = peak_rss();
        let limits = machine::higher(self.before, machine::measure());
        if subject.json {
            return output::json(&self.json(subject, model, peak, &limits));
        }
        output::stdout(|out| {
            let settings: Vec<String> =
                self.settings.iter().map(|(name, value)| format!("{} {value}", name.replace('_', " "))).collect();
            let (step, (floor, reading)) = (median(&self.steps), self.work.seconds(&limits));
            let (parameters, dtype) = (count(model.count() as u64), self.dtype());
            let range =
                (self.steps.iter().copied().fold(f64::MAX, f64::min), self.steps.iter().copied().fold(0., f64::max));
            let by = match reading {
                true => format!("reading {}", bytes(self.work.bytes as u64)),
                false => format!("{:.3e} operations", self.work.operations),
            };
            writeln!(out, "{:8} {}, {}", self.name, settings.join(", "), dtype)?;
            writeln!(out, "model    {}, {parameters} parameters", model.family.model_type)?;
            writeln!(out, "speed    {:.1} tokens/s", self.tokens as f64 / step)?;
            writeln!(
                out,
                "step     {:.2} ms (median of {}, {:.2} to {:.2})",
                step * 1e3,
                self.steps.len(),
                range.0 * 1e3,
                range.1 * 1e3
            )?;
            if on_cpu(model) {
                writeln!(out, "limit    {:.2} ms for {by}: {:.1} % reached", floor * 1e3, 100. * floor / step)?;
            }
            if let Some(peak) = peak {
                writeln!(out, "memory   {} at most", bytes(peak))?;
            }
            writeln!(out, "{}", machine(&limits))
        })
    }

    fn dtype(&self) -> &'static str {
        self.work.stored.unwrap_or(DType::F32.as_str())
    }

    fn json(&self, subject: &Subject, model: &Model, peak: Option<u64>, limits: &Roofline) -> Value {
        let (step, (floor, reading)) = (median(&self.steps), self.work.seconds(limits));
        let cpu = on_cpu(model);
        let mut value = Map::from_iter([("bench".to_string(), json!(self.name))]);
        value.extend(self.settings.iter().map(|(name, setting)| (name.to_string(), json!(setting))));
        let measured = json!({
            "model_type": model.family.model_type,
            "parameters": model.count(),
            "dtype": self.dtype(),
            "device": if cpu { "cpu".into() } else { subject.device.to_string() },
            "threads": threads(),
            "tokens_per_second": self.tokens as f64 / step,
            "step_ms": step * 1e3,
            "step_ms_all": self.steps.iter().map(|step| step * 1e3).collect::<Vec<_>>(),
            "peak_rss_mb": peak.map(|peak| peak as f64 * 1e-6),
            "fraction_of_limit": cpu.then_some(floor / step),
            "limit_ms": floor * 1e3,
            "limited_by": if reading { "reading" } else { "products" },
            "operations_per_step": self.work.operations,
            "roofline": roofline_json(limits),
        });
        if let Value::Object(measured) = measured {
            value.extend(measured);
        }
        Value::Object(value)
    }
}

/// Whether the model is where the limits are measured; other devices have limits of their own.
fn on_cpu(model: &Model) -> bool {
    model.params().iter().all(|param| param.weight().device().is_cpu())
}

/// The machine's limits under the names of the JSON output.
pub fn roofline_json(limits: &Roofline) -> Value {
    json!({
        "f32_gflops": limits.f32_gflops,
        "bf16_gflops": limits.bf16_gflops,
        "int8_gops": limits.int8_gops,
        "read_gbps": limits.read_gbps,
    })
}

/// The machine's limits in a line.
pub fn machine(limits: &Roofline) -> String {
    let Roofline { f32_gflops, bf16_gflops, int8_gops, read_gbps } = limits;
    format!(
        "machine  f32 {f32_gflops:.0} GFLOP/s, bf16 {bf16_gflops:.0} GFLOP/s, int8 {int8_gops:.0} GOP/s, \
         reads {read_gbps:.1} GB/s, {} threads",
        threads()
    )
}

/// The middle one, or the mean of the middle two.
pub fn median(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    let middle = times.len() / 2;
    match times.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => times[middle],
        _ => (times[middle - 1] + times[middle]) / 2.,
    }
}

/// Highest resident size of this process so far, in bytes, where the system tells.
pub fn peak_rss() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!((median(&[3., 1., 2.]), median(&[4., 1., 2., 3.])), (2., 2.5));
        assert!(median(&[]).is_nan());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_tells_the_peak() {
        assert!(peak_rss().is_some_and(|peak| peak > 1 << 20));
    }
}

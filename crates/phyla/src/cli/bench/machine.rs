//! The machine's limits as a process of their own measures them: here their buffers would count as the model's memory.

use std::process::{Command, Stdio};

use phyla_kernels::roofline::{self, Roofline};
use phyla_kernels::threads::threads;
use serde_json::Value;

/// Measures them with `phyla bench roofline`; here, if that program cannot be started.
pub fn measure() -> Roofline {
    let other = || {
        let mut command = Command::new(std::env::current_exe().ok()?);
        command.args(["bench", "roofline", "--json", "--threads", &threads().to_string()]).stdin(Stdio::null());
        let output = command.stderr(Stdio::null()).output().ok()?;
        read(&serde_json::from_slice::<Value>(&output.stdout).ok()?["roofline"])
    };
    other().unwrap_or_else(roofline::measure)
}

/// Limits under the names of the JSON output; `None` if one is not there.
pub fn read(limits: &Value) -> Option<Roofline> {
    let number = |name: &str| limits[name].as_f64();
    Some(Roofline {
        f32_gflops: number("f32_gflops")?,
        bf16_gflops: number("bf16_gflops")?,
        int8_gops: number("int8_gops")?,
        read_gbps: number("read_gbps")?,
    })
}

/// The higher of each limit: what else runs on the machine can only lower what is measured.
pub fn higher(a: Roofline, b: Roofline) -> Roofline {
    Roofline {
        f32_gflops: a.f32_gflops.max(b.f32_gflops),
        bf16_gflops: a.bf16_gflops.max(b.bf16_gflops),
        int8_gops: a.int8_gops.max(b.int8_gops),
        read_gbps: a.read_gbps.max(b.read_gbps),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::cli::bench::report::roofline_json;

    #[test]
    fn what_is_printed_is_read_and_the_higher_counts() {
        let a = Roofline { f32_gflops: 1., bf16_gflops: 20., int8_gops: 3., read_gbps: 40. };
        let b = Roofline { f32_gflops: 10., bf16_gflops: 2., int8_gops: 30., read_gbps: 4. };
        let both = higher(read(&roofline_json(&a)).unwrap(), read(&roofline_json(&b)).unwrap());
        let found = [both.f32_gflops, both.bf16_gflops, both.int8_gops, both.read_gbps];
        assert_eq!(found, [10., 20., 30., 40.]);
        assert!(read(&serde_json::json!({ "f32_gflops": 1. })).is_none());
    }
}

//! What this machine can do at most: the ceilings that the benchmarks compare kernels with.

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

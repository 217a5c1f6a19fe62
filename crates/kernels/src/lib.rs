//! CPU kernels on plain slices: each file holds one kernel, its plain reference and its tests; dispatch over
//! instruction sets happens inside, at run time, so callers see safe functions only.
#![expect(unsafe_code, reason = "vector intrinsics and disjoint writes from several threads")]

pub mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
pub mod balance;
mod chunk;
pub mod decompose;
pub mod divergence;
pub mod elementwise;
pub mod embed;
pub mod entropy;
pub mod heads;
pub mod isa;
pub mod loss;
pub mod map;
pub mod memory;
pub mod norm;
pub mod optim;
#[cfg(target_arch = "x86_64")]
mod packed;
pub mod page;
mod pool;
pub mod product;
pub mod quant;
pub mod regression;
pub mod rng;
pub mod roofline;
mod room;
pub mod rope;
pub mod route;
pub mod rows;
mod simd;
pub mod spool;
pub mod threads;
mod tile;
pub mod unfold;
pub mod variation;
pub mod vector;

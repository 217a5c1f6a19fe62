//! CPU kernels on plain slices: each file holds one kernel, its plain reference and its tests; dispatch over
//! instruction sets happens inside, at run time, so callers see safe functions only.
#![expect(unsafe_code, reason = "vector intrinsics and disjoint writes from several threads")]

pub mod attention;
pub mod isa;
pub mod product;
pub mod roofline;
pub mod threads;
mod chunk;
pub mod map;
pub mod rng;
pub mod vector;

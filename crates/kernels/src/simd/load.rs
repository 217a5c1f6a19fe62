//! Numbers of several kinds, read as vectors of f32.

use super::Simd;
use half::{bf16, f16};

/// Numbers that load as f32.
///
/// # Safety
/// As [`Simd`].
pub(crate) trait Load: Copy {
    /// `LANES` of them.
    unsafe fn load<S: Simd>(p: *const Self) -> S::F;
    fn value(self) -> f32;
}

impl Load for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const f32) -> S::F {
        // SAFETY: the caller's promise of LANES elements.
        unsafe { S::load(p) }
    }
    #[inline(always)]
    fn value(self) -> f32 {
        self
    }
}

impl Load for bf16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const bf16) -> S::F {
        // SAFETY: the caller's promise of LANES elements.
        unsafe { S::load_bf16(p) }
    }
    #[inline(always)]
    fn value(self) -> f32 {
        self.to_f32()
    }
}

impl Load for f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(p: *const f16) -> S::F {
        // SAFETY: the caller's promise of LANES elements.
        unsafe { S::load_f16(p) }
    }
    #[inline(always)]
    fn value(self) -> f32 {
        self.to_f32()
    }
}

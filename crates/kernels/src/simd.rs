//! Vectors of f32 behind one trait, so that a kernel is written once and compiled for each instruction set.
//!
//! A kernel is a struct that implements [`Kernel`]; its `run` is `#[inline(always)]`, and [`dispatch`] inlines it
//! into a function that has the instruction set switched on. Helpers on the way must be `#[inline(always)]` too:
//! whatever stays a call is compiled without vectors.

mod load;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use load::Load;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::Avx512;

use crate::isa::Isa;
use crate::tile::Tile;
use half::{bf16, f16};

/// Vectors of f32 of one instruction set.
///
/// # Safety
/// Every method may run only where the instruction set is there; pointers must be good for `LANES` elements, or for
/// `n <= LANES` in the methods that take a count (the other lanes then read as zero and are not written).
pub(crate) trait Simd: Copy + 'static {
    /// One vector.
    type F: Copy;
    /// Its elements.
    const LANES: usize;
    /// Sixteen numbers to look up.
    type Table: Copy;

    unsafe fn splat(x: f32) -> Self::F;
    unsafe fn load(p: *const f32) -> Self::F;
    unsafe fn load_n(p: *const f32, n: usize) -> Self::F;
    unsafe fn store(p: *mut f32, x: Self::F);
    unsafe fn store_n(p: *mut f32, x: Self::F, n: usize);
    unsafe fn load_bf16(p: *const bf16) -> Self::F;
    unsafe fn load_f16(p: *const f16) -> Self::F;
    /// `values`, each times `by`.
    unsafe fn table(values: &[f32; 16], by: f32) -> Self::Table;
    /// What a table has at the low halves of `LANES` bytes, and at their high halves.
    unsafe fn look_up(table: Self::Table, bytes: *const u8) -> [Self::F; 2];
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// The larger one; `b` where either is NaN.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// `a < b ? x : y`, lane by lane.
    unsafe fn select_lt(a: Self::F, b: Self::F, x: Self::F, y: Self::F) -> Self::F;
    /// The nearest whole number.
    unsafe fn round(a: Self::F) -> Self::F;
    /// `a * 2^n` for whole `n` in -126..=127.
    unsafe fn scale2(a: Self::F, n: Self::F) -> Self::F;
    /// The sum of the lanes, always in the same order.
    unsafe fn sum(a: Self::F) -> f32;
    /// The sums of four vectors, each as [`Simd::sum`] gives it, to the bit.
    #[inline(always)]
    unsafe fn sum4(a: [Self::F; 4]) -> [f32; 4] {
        // SAFETY: the trait's own condition.
        unsafe { [Self::sum(a[0]), Self::sum(a[1]), Self::sum(a[2]), Self::sum(a[3])] }
    }
    /// Asks for the cache line at `p`, which may be any address.
    unsafe fn prefetch<T>(p: *const T);
    /// The same for a line that will be written.
    unsafe fn prefetch_write<T>(p: *mut T);
    /// Transposes a square of `LANES` rows: `dst[j * dst_row + i] = src[i * src_row + j]`.
    unsafe fn transpose(src: *const f32, src_row: usize, dst: *mut f32, dst_row: usize);
    /// [`crate::tile::run`], compiled once for each instruction set rather than into every caller.
    unsafe fn tile(tile: &Tile);

    /// `exp(x)` to about 1e-7 relative; 0 below -87.3 (no subnormals, and no surprise at minus infinity).
    ///
    /// Cody and Waite: x = n ln 2 + r with |r| <= ln 2 / 2, a polynomial for exp(r), then 2^n.
    #[inline(always)]
    unsafe fn exp(x: Self::F) -> Self::F {
        // SAFETY: the trait's own condition.
        unsafe {
            let low = Self::splat(-87.336_54);
            let high = Self::splat(88.722_84);
            let inner = Self::select_lt(x, low, low, Self::select_lt(high, x, high, x));
            // At the upper end n would be 128, which has no exponent; 127 leaves r slightly larger, still exact enough.
            let n = Self::round(Self::mul(inner, Self::splat(std::f32::consts::LOG2_E)));
            let n = Self::select_lt(Self::splat(127.0), n, Self::splat(127.0), n);
            let r = Self::fma(n, Self::splat(-0.693_359_4), inner);
            let r = Self::fma(n, Self::splat(2.121_944_4e-4), r);
            Self::select_lt(x, low, Self::splat(0.0), Self::scale2(Self::exp_near(r), n))
        }
    }

    /// [`Simd::exp`] for `x` below 88, as weights of a softmax need it: theirs are not above 0.
    #[inline(always)]
    unsafe fn exp_falling(x: Self::F) -> Self::F {
        // SAFETY: the trait's own condition.
        unsafe {
            let low = Self::splat(-87.336_54);
            // In this order: the larger of a number and NaN is the second of the two.
            let inner = Self::max(low, x);
            let n = Self::round(Self::mul(inner, Self::splat(std::f32::consts::LOG2_E)));
            let y = Self::exp_near(Self::fma(
                n,
                Self::splat(2.121_944_4e-4),
                Self::fma(n, Self::splat(-0.693_359_4), inner),
            ));
            Self::select_lt(x, low, Self::splat(0.0), Self::scale2(y, n))
        }
    }

    /// `exp(r)` for `|r| <= ln 2 / 2`.
    #[inline(always)]
    unsafe fn exp_near(r: Self::F) -> Self::F {
        // SAFETY: the trait's own condition.
        unsafe {
            let mut p = Self::splat(1.987_569_1e-4);
            for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
                p = Self::fma(p, r, Self::splat(c));
            }
            Self::fma(p, Self::mul(r, r), Self::add(r, Self::splat(1.0)))
        }
    }

    /// `tanh(x)` to about 2e-7 relative: an odd polynomial near 0, elsewhere from `exp`.
    #[inline(always)]
    unsafe fn tanh(x: Self::F) -> Self::F {
        // SAFETY: the trait's own condition.
        unsafe {
            let one = Self::splat(1.0);
            let z = Self::mul(x, x);
            let mut p = Self::splat(-5.704_989e-3);
            for c in [2.063_909e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
                p = Self::fma(p, z, Self::splat(c));
            }
            let small = Self::fma(Self::mul(p, z), x, x);
            let e = Self::exp(Self::add(x, x));
            let large = Self::sub(one, Self::div(Self::splat(2.0), Self::add(e, one)));
            Self::select_lt(z, Self::splat(0.625 * 0.625), small, large)
        }
    }
}

/// Work that is written once for all instruction sets.
pub(crate) trait Kernel {
    type Out;
    /// # Safety
    /// The machine has the instruction set of `S`. Implementations are `#[inline(always)]`.
    unsafe fn run<S: Simd>(self) -> Self::Out;
}

/// Runs `kernel` compiled for `isa`, or for plain Rust where the machine lacks it.
pub(crate) fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Out {
    #[cfg(target_arch = "x86_64")]
    if isa.available() {
        // SAFETY: the instruction set was just found.
        match isa {
            Isa::Amx | Isa::Avx512 => return unsafe { run_avx512(kernel) },
            Isa::Avx2 => return unsafe { run_avx2(kernel) },
            Isa::Portable => {}
        }
    }
    // SAFETY: needs no particular instructions.
    unsafe { kernel.run::<portable::Portable>() }
}

/// Runs `kernel` compiled for AVX-512 alone: what else is special about it needs that anyway.
#[cfg(target_arch = "x86_64")]
pub(crate) fn dispatch_wide<K: Kernel>(kernel: K) -> K::Out {
    assert!(Isa::Avx512.available(), "this machine has no AVX-512");
    // SAFETY: the instruction set was just found.
    unsafe { run_avx512(kernel) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi1,bmi2")]
unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Out {
    // SAFETY: `dispatch` checked the instruction set.
    unsafe { kernel.run::<x86::Avx512>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Out {
    // SAFETY: `dispatch` checked the instruction set.
    unsafe { kernel.run::<x86::Avx2>() }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Map<'a>(&'a mut [f32], bool);

    impl Kernel for Map<'_> {
        type Out = ();
        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            for piece in self.0.chunks_mut(S::LANES) {
                // SAFETY: the piece's own length; `dispatch` checked the instruction set.
                unsafe {
                    let x = S::load_n(piece.as_ptr(), piece.len());
                    let y = if self.1 { S::exp(x) } else { S::tanh(x) };
                    S::store_n(piece.as_mut_ptr(), y, piece.len());
                }
            }
        }
    }

    #[test]
    fn exp_and_tanh_are_accurate_on_every_instruction_set() {
        let x: Vec<f32> = (0..100_003).map(|i| -90.0 + i as f32 * 0.00178).collect();
        for isa in Isa::all_available() {
            for exp in [true, false] {
                let mut y = x.clone();
                dispatch(isa, Map(&mut y, exp));
                for (x, y) in x.iter().zip(&y) {
                    let x = f64::from(*x);
                    let want = if exp { x.exp() } else { x.tanh() };
                    // Below -87.33 exp is a subnormal, which we round to zero.
                    let want = if exp && x < -87.336_54 { 0.0 } else { want };
                    let want = want.min(f64::from(f32::MAX));
                    assert!((f64::from(*y) - want).abs() <= 3e-7 * want.abs(), "{isa:?} {exp} {x}: {y} for {want}");
                }
            }
            let mut ends = [f32::NEG_INFINITY, 0.0];
            dispatch(isa, Map(&mut ends, true));
            assert_eq!(ends, [0.0, 1.0]);
        }
    }

    struct Turn<'a>(&'a [f32], &'a mut [f32]);

    impl Kernel for Turn<'_> {
        type Out = usize;
        #[inline(always)]
        unsafe fn run<S: Simd>(self) -> usize {
            // SAFETY: both slices hold 16 rows of 20.
            unsafe { S::transpose(self.0.as_ptr(), 20, self.1.as_mut_ptr(), 20) };
            S::LANES
        }
    }

    #[test]
    fn transpose_turns_a_square() {
        let x: Vec<f32> = (0..320).map(|i| i as f32).collect();
        for isa in Isa::all_available() {
            let mut y = vec![-1f32; 320];
            let n = dispatch(isa, Turn(&x, &mut y));
            for i in 0..16 {
                for j in 0..20 {
                    let want = if i < n && j < n { x[j * 20 + i] } else { -1.0 };
                    assert_eq!(y[i * 20 + j], want, "{isa:?} {i} {j}");
                }
            }
        }
    }

    struct Halves<'a>(&'a [bf16], &'a [f16], &'a mut [f32], &'a mut [f32]);

    impl Kernel for Halves<'_> {
        type Out = (usize, f32);
        #[inline(always)]
        unsafe fn run<S: Simd>(self) -> (usize, f32) {
            // SAFETY: the slices hold 16 elements, at least LANES.
            unsafe {
                S::store(self.2.as_mut_ptr(), S::load_bf16(self.0.as_ptr()));
                let x = S::load_f16(self.1.as_ptr());
                S::store(self.3.as_mut_ptr(), x);
                let y = S::mul(x, S::splat(0.3));
                assert_eq!(S::sum4([x, y, x, y]), [S::sum(x), S::sum(y), S::sum(x), S::sum(y)]);
                (S::LANES, S::sum(x))
            }
        }
    }

    #[test]
    fn halves_load_exactly() {
        let b: Vec<bf16> = (0..16).map(|i| bf16::from_f32(i as f32 * 1.7 - 9.0)).collect();
        let h: Vec<f16> = (0..16).map(|i| f16::from_f32(i as f32 * 1.7 - 9.0)).collect();
        for isa in Isa::all_available() {
            let (mut x, mut y) = ([0f32; 16], [0f32; 16]);
            let (lanes, sum) = dispatch(isa, Halves(&b, &h, &mut x, &mut y));
            for i in 0..lanes {
                assert_eq!((x[i], y[i]), (b[i].to_f32(), h[i].to_f32()));
            }
            let want: f32 = h[..lanes].iter().map(|h| h.to_f32()).sum();
            assert!((sum - want).abs() < 1e-3, "{isa:?}: {sum} for {want}");
        }
    }
}

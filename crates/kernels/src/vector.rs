//! Vector mathematics in plain Rust: branch-free scalar functions that the compiler turns into vector code, and the
//! macro that compiles one loop for each instruction set and picks at run time.
//!
//! A function here is generic over [`Math`], which says whether a multiply-add is one instruction. Values do not
//! depend on the place in a slice or on the thread count; they may differ in the last bit between instruction sets.

/// How an instruction set multiplies and adds.
pub trait Math: Copy {
    /// `a * b + c`.
    fn fma(a: f32, b: f32, c: f32) -> f32;
}

/// Multiply-add in one instruction, rounded once.
#[derive(Clone, Copy, Debug)]
pub struct Fused;

/// Multiply, then add: where a fused one would be a call into the C library.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl Math for Fused {
    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

impl Math for Plain {
    #[inline(always)]
    fn fma(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
}

/// What [`per_isa`] uses where the machine is not x86-64.
#[cfg(target_arch = "aarch64")]
pub type Baseline = Fused;
/// What [`per_isa`] uses on x86-64 without AVX2, and on other machines.
#[cfg(not(target_arch = "aarch64"))]
pub type Baseline = Plain;

/// `fn name[G: Bound](args) -> R = body;` makes `name` out of `body::<M: Math, G>`, an `#[inline(always)]` function,
/// compiled once for each instruction set; `= plain body;` out of one that needs no [`Math`].
macro_rules! per_isa {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $([$($g:ident: $b:path),+])? ($($args:tt)*) $(-> $ret:ty)? = plain $body:ident;) => {
        $crate::vector::per_isa! {
            @ { $(#[$meta])* $vis } $name [$($($g: $b),+)?] ($($args)*) [$($ret)?] { $body } { $body }
        }
    };
    ($(#[$meta:meta])* $vis:vis fn $name:ident $([$($g:ident: $b:path),+])? ($($args:tt)*) $(-> $ret:ty)? = $body:ident;) => {
        $crate::vector::per_isa! {
            @ { $(#[$meta])* $vis } $name [$($($g: $b),+)?] ($($args)*) [$($ret)?]
            { $body::<$crate::vector::Fused $(, $($g),+)?> } { $body::<$crate::vector::Baseline $(, $($g),+)?> }
        }
    };
    (@ { $($head:tt)* } $name:ident [$($g:ident: $b:path),*] ($($arg:ident: $ty:ty),* $(,)?) [$($ret:ty)?]
     { $($fused:tt)+ } { $($baseline:tt)+ }) => {
        $($head)* fn $name<$($g: $b),*>($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
            fn avx512<$($g: $b),*>($($arg: $ty),*) $(-> $ret)? {
                $($fused)+($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2<$($g: $b),*>($($arg: $ty),*) $(-> $ret)? {
                $($fused)+($($arg),*)
            }
            match $crate::isa::isa() {
                // SAFETY: `isa` found these features on this machine.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Amx | $crate::isa::Isa::Avx512 => unsafe { avx512::<$($g),*>($($arg),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::isa::Isa::Avx2 => unsafe { avx2::<$($g),*>($($arg),*) },
                _ => $($baseline)+($($arg),*),
            }
        }
    };
}
pub(crate) use per_isa;

/// Horner's rule, the highest coefficient first.
macro_rules! poly {
    ($m:ty, $x:expr, $first:expr $(, $rest:expr)+) => {{
        let (x, mut sum) = ($x, $first);
        $( sum = <$m>::fma(sum, x, $rest); )+
        sum
    }};
}

/// Adding this to a number below 2^22 leaves the nearest integer in the low bits.
const ROUND: f32 = 12_582_912.0;

/// ln 2 in two parts, the first with so few bits that its product with an exponent is exact.
const LN2_HI: f32 = 0.693_359_4;
const LN2_LO: f32 = -2.121_944_4e-4;

/// `(n, e^r - 1)` with `x = n ln 2 + r`, for |x| below 2^20.
#[inline(always)]
fn exp_parts<M: Math>(x: f32) -> (i32, f32) {
    let shifted = M::fma(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = M::fma(n, -LN2_LO, M::fma(n, -LN2_HI, x));
    // Taylor's series: |r| <= 0.347, so the first term left out is below 6e-9.
    let p = poly!(M, r, 1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5);
    (shifted.to_bits() as i32 - ROUND.to_bits() as i32, M::fma(p * r, r, r))
}

/// 2^n for n in -126 ..= 127.
#[inline(always)]
fn pow2(n: i32) -> f32 {
    f32::from_bits(((n + 127) << 23) as u32)
}

#[inline(always)]
fn clamp(x: f32, lo: f32, hi: f32) -> f32 {
    // Written so that NaN passes.
    let x = if x < lo { lo } else { x };
    if x > hi { hi } else { x }
}

/// e^x over the whole range: infinity above 88.73, subnormal results below -87.34.
#[inline(always)]
pub fn exp<M: Math>(x: f32) -> f32 {
    let (n, p) = exp_parts::<M>(clamp(x, -104.0, 89.0));
    // The exponent in two halves: one factor alone would overflow at either end.
    let half = n >> 1;
    M::fma(p, pow2(half), pow2(half)) * pow2(n - half)
}

/// e^x for x <= 88, with results below 2^-126 taken as 0: what a softmax needs, two multiplications cheaper.
#[inline(always)]
pub fn exp_down<M: Math>(x: f32) -> f32 {
    let (n, p) = exp_parts::<M>(clamp(x, -87.3, 88.0));
    let y = M::fma(p, pow2(n), pow2(n));
    if x < -87.3 { 0.0 } else { y }
}

/// tanh x.
#[inline(always)]
pub fn tanh<M: Math>(x: f32) -> f32 {
    // (e^2a - 1) / (e^2a + 1) through e^2a - 1, which loses nothing near 0. At 9.1 the result rounds to 1.
    let (n, p) = exp_parts::<M>(clamp(x.abs() * 2.0, 0.0, 20.0));
    let scale = pow2(n);
    let e = M::fma(p, scale, scale - 1.0);
    (e / (e + 2.0)).copysign(x)
}

/// The logistic function 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid<M: Math>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<M>(-x))
}

/// The error function.
#[inline(always)]
pub fn erf<M: Math>(x: f32) -> f32 {
    let a = clamp(x.abs(), 0.0, 4.0);
    let s = a * a;
    // Both fits are minimax in the relative error (of the second: weighted), below 4e-8: erf(x) / x over x^2 on [0, 1] …
    let near = a * poly!(
        M,
        s,
        7.853_854e-5,
        -8.010_191_5e-4,
        5.188_327_3e-3,
        -2.685_381_2e-2,
        1.128_358_5e-1,
        -3.761_262_6e-1,
        std::f32::consts::FRAC_2_SQRT_PI
    );
    // … and ln(1 - erf(x)) over x on [1, 4], where erf reaches 1.
    let far = 1.0
        - exp_down::<M>(poly!(
            M,
            a,
            -1.579_019_5e-5,
            3.588_381_7e-4,
            -3.721_835e-3,
            2.367_863_4e-2,
            -1.055_864_4e-1,
            -6.362_82e-1,
            -1.127_788_7,
            -2.482_666_4e-4
        ));
    (if a < 1.0 { near } else { far }).copysign(x)
}

/// ln x for positive normal finite x.
#[inline(always)]
pub fn ln<M: Math>(x: f32) -> f32 {
    // x = 2^e m with m in [sqrt 1/2, sqrt 2); ln m = 2 atanh((m - 1) / (m + 1)), its series.
    let e = (x.to_bits() as i32).wrapping_sub(0x3F35_04F3) >> 23;
    let m = f32::from_bits((x.to_bits() as i32).wrapping_sub(e << 23) as u32);
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let tail = poly!(M, z, 2.0 / 9.0, 2.0 / 7.0, 2.0 / 5.0, 2.0 / 3.0) * z;
    let e = e as f32;
    M::fma(e, LN2_HI, M::fma(e, LN2_LO, M::fma(tail, s, 2.0 * s)))
}

/// Sine and cosine of `word` / 2^32 turns.
#[inline(always)]
pub fn sin_cos_turns<M: Math>(word: u32) -> (f32, f32) {
    let quarter = word.wrapping_add(1 << 29) >> 30;
    let t = word.wrapping_sub(quarter << 30) as i32 as f32 * (std::f32::consts::TAU / 4_294_967_296.0);
    // Taylor's series on |t| <= pi / 4: the terms left out are below 2e-9.
    let z = t * t;
    let sin = M::fma(t * z, poly!(M, z, 1.0 / 362_880.0, -1.0 / 5040.0, 1.0 / 120.0, -1.0 / 6.0), t);
    let cos = poly!(M, z, -1.0 / 3_628_800.0, 1.0 / 40_320.0, -1.0 / 720.0, 1.0 / 24.0, -0.5, 1.0);
    let (a, b) = if quarter & 1 == 0 { (sin, cos) } else { (cos, sin) };
    let minus = |value: f32, yes: bool| if yes { -value } else { value };
    (minus(a, quarter & 2 != 0), minus(b, (quarter + 1) & 2 != 0))
}

/// The inverse of [`erf`] on (-1, 1).
#[inline(always)]
pub fn erf_inv<M: Math>(x: f32) -> f32 {
    // Giles, "Approximating the erfinv function" (GPU Computing Gems 2, 2011), table 5.
    let w = -ln::<M>(clamp((1.0 - x) * (1.0 + x), 1e-30, 1.0));
    let near = poly!(
        M,
        w - 2.5,
        2.810_226_4e-8,
        3.432_739_4e-7,
        -3.523_387_7e-6,
        -4.391_506_5e-6,
        2.185_808_7e-4,
        -1.253_725e-3,
        -4.177_681_6e-3,
        2.466_407_3e-1,
        1.501_409_4
    );
    let far = poly!(
        M,
        w.sqrt() - 3.0,
        -2.002_142_6e-4,
        1.009_505_6e-4,
        1.349_343_2e-3,
        -3.673_428_4e-3,
        5.739_507_7e-3,
        -7.622_461_3e-3,
        9.438_87e-3,
        1.001_674,
        2.832_976_8
    );
    x * if w < 5.0 { near } else { far }
}

/// Accumulators of a sum: enough independent additions to hide their latency at 16 lanes.
const LANES: usize = 64;

/// The sum of `f(a[i], b[i])` in a fixed order of 64 partial sums.
#[inline(always)]
pub fn sum2<M: Math>(a: &[f32], b: &[f32], f: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut acc = [0f32; LANES];
    let (a_body, a_tail) = a.as_chunks::<LANES>();
    let (b_body, b_tail) = b[..a.len()].as_chunks::<LANES>();
    for (a, b) in a_body.iter().zip(b_body) {
        for i in 0..LANES {
            acc[i] = f(acc[i], a[i], b[i]);
        }
    }
    for (i, (a, b)) in a_tail.iter().zip(b_tail).enumerate() {
        acc[i] = f(acc[i], *a, *b);
    }
    fold(acc)
}

/// The sum of `f(sum, a[i])` steps in a fixed order of 64 partial sums.
#[inline(always)]
pub fn sum1(a: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut acc = [0f32; LANES];
    let (body, tail) = a.as_chunks::<LANES>();
    for a in body {
        for i in 0..LANES {
            acc[i] = f(acc[i], a[i]);
        }
    }
    for (i, a) in tail.iter().enumerate() {
        acc[i] = f(acc[i], *a);
    }
    fold(acc)
}

/// The greatest value; NaN is passed over; -infinity when empty.
#[inline(always)]
pub fn max(a: &[f32]) -> f32 {
    let mut acc = [f32::NEG_INFINITY; LANES];
    let (body, tail) = a.as_chunks::<LANES>();
    for a in body {
        for i in 0..LANES {
            acc[i] = if a[i] > acc[i] { a[i] } else { acc[i] };
        }
    }
    let best = acc.iter().fold(f32::NEG_INFINITY, |m, &x| if x > m { x } else { m });
    tail.iter().fold(best, |m, &x| if x > m { x } else { m })
}

#[inline(always)]
pub(crate) fn fold(mut acc: [f32; LANES]) -> f32 {
    // Pairwise: the rounding grows with the logarithm.
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            acc[i] += acc[i + width];
        }
        width /= 2;
    }
    acc[0]
}

/// Double-precision references for the tests of this crate.
#[cfg(test)]
pub(crate) mod reference {
    /// The error function to about 1e-15, by its series below 3 and its continued fraction above.
    pub fn erf(x: f64) -> f64 {
        let a = x.abs();
        if a < 3.0 {
            let (mut term, mut sum, mut n) = (x, x, 0.0);
            while term.abs() > 1e-18 * sum.abs() {
                n += 1.0;
                term *= -x * x / n;
                sum += term / (2.0 * n + 1.0);
            }
            return sum * std::f64::consts::FRAC_2_SQRT_PI;
        }
        let tail = (1..60).rev().fold(a, |f, k| a + f64::from(k) / 2.0 / f);
        (1.0 - (-a * a).exp() / tail / std::f64::consts::PI.sqrt()).copysign(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    per_isa! { fn map(y: &mut [f32], x: &[f32], f: usize) = map_loop; }

    #[inline(always)]
    fn map_loop<M: Math>(y: &mut [f32], x: &[f32], f: usize) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = match f {
                0 => exp::<M>(x),
                1 => tanh::<M>(x),
                2 => erf::<M>(x),
                3 => sigmoid::<M>(x),
                4 => ln::<M>(x),
                _ => exp_down::<M>(x),
            };
        }
    }

    /// The greatest relative error over a sweep of [lo, hi], on the machine's instruction set and on plain Rust.
    fn worst(f: usize, lo: f32, hi: f32, truth: impl Fn(f64) -> f64) -> f64 {
        let n = 400_003;
        let x: Vec<f32> = (0..n).map(|i| lo + (hi - lo) * (i as f32 / (n - 1) as f32)).collect();
        let mut y = vec![0f32; n];
        let mut worst = 0f64;
        for isa in [true, false] {
            if isa {
                map(&mut y, &x, f)
            } else {
                map_loop::<Plain>(&mut y, &x, f)
            }
            for (&x, &y) in x.iter().zip(&y) {
                let t = truth(f64::from(x));
                worst = worst.max((f64::from(y) - t).abs() / t.abs().max(1e-37));
            }
        }
        worst
    }

    #[test]
    fn functions_are_within_a_few_ulps() {
        // One ulp is at most 1.2e-7 relative.
        assert!(worst(0, -87.0, 88.7, f64::exp) < 2e-7);
        assert!(worst(5, -87.0, 0.0, f64::exp) < 2e-7);
        for reach in [1e-3, 1.0, 12.0] {
            assert!(worst(1, -reach, reach, f64::tanh) < 3e-7, "{}", worst(1, -reach, reach, f64::tanh));
            assert!(worst(2, -reach, reach, reference::erf) < 3e-7, "{}", worst(2, -reach, reach, reference::erf));
        }
        assert!(worst(3, -80.0, 80.0, |x| 1.0 / (1.0 + (-x).exp())) < 3e-7);
        assert!(worst(4, 0.01, 0.9, f64::ln) < 3e-7 && worst(4, 1.1, 1e6, f64::ln) < 3e-7);
    }

    #[test]
    fn ends_of_the_range() {
        let inf = f32::INFINITY;
        assert_eq!(
            [exp::<Plain>(89.0), exp::<Plain>(inf), exp::<Plain>(-inf), exp::<Plain>(0.0)],
            [inf, inf, 0.0, 1.0]
        );
        assert_eq!([exp_down::<Plain>(-inf), exp_down::<Plain>(-88.0), exp_down::<Plain>(0.0)], [0.0, 0.0, 1.0]);
        assert!((exp::<Plain>(-95.0) as f64 / (-95f64).exp() - 1.0).abs() < 1e-3, "subnormal");
        assert_eq!([tanh::<Plain>(inf), tanh::<Plain>(-inf), tanh::<Plain>(-0.0)], [1.0, -1.0, 0.0]);
        assert_eq!([erf::<Plain>(8.0), erf::<Plain>(-8.0), erf::<Plain>(0.0)], [1.0, -1.0, 0.0]);
        assert_eq!([sigmoid::<Plain>(200.0), sigmoid::<Plain>(-200.0)], [1.0, 0.0]);
        assert_eq!([erf::<Plain>(inf), erf::<Plain>(-inf)], [1.0, -1.0]);
        let nan = f32::NAN;
        assert!(
            [exp::<Plain>(nan), exp_down::<Plain>(nan), tanh::<Plain>(nan), erf::<Plain>(nan)]
                .iter()
                .all(|x| x.is_nan())
        );
    }

    #[test]
    fn circle_and_inverse() {
        for i in 0..100_000u32 {
            let word = i.wrapping_mul(2_654_435_761);
            let angle = f64::from(word) / 4_294_967_296.0 * std::f64::consts::TAU;
            let (sin, cos) = sin_cos_turns::<Fused>(word);
            assert!((f64::from(sin) - angle.sin()).abs() < 2e-7 && (f64::from(cos) - angle.cos()).abs() < 2e-7);
            let x = (i as f32 + 0.5) / 50_000.0 - 1.0;
            // The slope of erf falls with x: its inverse is compared through it.
            assert!((reference::erf(f64::from(erf_inv::<Plain>(x))) - f64::from(x)).abs() < 4e-7);
        }
    }

    #[test]
    fn sums_at_odd_sizes() {
        for n in [0, 1, 63, 64, 65, 200, 4097] {
            let a: Vec<f32> = (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect();
            let truth: f64 = a.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            let one = f64::from(sum1(&a, |s, x| Fused::fma(x, x, s)));
            let two = f64::from(sum2::<Plain>(&a, &a, |s, x, y| s + x * y));
            assert!((one - truth).abs() <= 1e-6 * truth && (two - truth).abs() <= 1e-6 * truth);
            assert_eq!(max(&a), a.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}

//! Products with a stretch of one weight's rows for each head: the projections that latent attention absorbs
//! (DeepSeek-V2, section 2.1.2). The sums are those of `product`, head by head; what is here is how heads share the
//! threads, and the product `x · W` of few rows, for which `product` has no path of its own.

use crate::chunk::Parts;
use crate::isa::{Isa, isa};
use crate::product::{self, MatRef, Precision};
use crate::simd::{Kernel, Simd, dispatch};
use crate::threads;
use half::{bf16, f16};
use std::cell::RefCell;
use std::ops::Range;

/// Which rows of a weight `[heads · stride, rank]` belong to which head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadRows {
    /// How many heads.
    pub heads: usize,
    /// Rows of the weight for each head.
    pub stride: usize,
    /// The first of them to use.
    pub offset: usize,
    /// How many to use.
    pub size: usize,
    /// Columns of the weight.
    pub rank: usize,
}

impl HeadRows {
    fn range(&self, head: usize) -> Range<usize> {
        let first = head * self.stride + self.offset;
        first * self.rank..(first + self.size) * self.rank
    }

    fn check(&self, name: &str, n: usize, small: usize, wide: usize, weight: usize) {
        let Self { heads, stride, offset, size, rank } = *self;
        assert!(
            offset + size <= stride
                && small == n * heads * size
                && wide == n * heads * rank
                && weight == heads * stride * rank,
            "{name}: {n} rows of {self:?}; found {small} by size, {wide} by rank, a weight of {weight}"
        );
    }

    /// Calls `f(head)` over the threads; products inside then run on the thread they are on.
    fn each(&self, n: usize, f: impl Fn(usize) + Sync) {
        threads::for_each(self.heads, self.heads * self.size * self.rank * n.max(2), f);
    }
}

thread_local! {
    /// One head's rows of either side.
    static SCRATCH: RefCell<[Vec<f32>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// One head of `x[n, heads, dim]`, contiguous.
fn gather<'a>(to: &'a mut Vec<f32>, x: &[f32], head: usize, [heads, dim]: [usize; 2]) -> &'a [f32] {
    to.clear();
    if dim > 0 {
        x.chunks_exact(dim).skip(head).step_by(heads).for_each(|row| to.extend_from_slice(row));
    }
    to
}

/// Lets `f` fill `[n, to]` from `[n, from]` for one head, copying only where a head's rows do not lie together.
fn by_head(
    y: &Parts<f32>,
    x: &[f32],
    head: usize,
    [n, heads, from, to]: [usize; 4],
    f: impl FnOnce(&mut [f32], &[f32]),
) {
    if n == 1 {
        // SAFETY: each head has its own elements, and one call.
        let y = unsafe { y.at(head * to..(head + 1) * to) };
        return f(y, &x[head * from..(head + 1) * from]);
    }
    SCRATCH.with_borrow_mut(|[a, b]| {
        let x = gather(a, x, head, [heads, from]);
        b.resize(n * to, 0.0);
        f(b, x);
        if to > 0 {
            for (row, b) in b.chunks_exact(to).enumerate() {
                let at = (row * heads + head) * to;
                // SAFETY: as above.
                unsafe { y.at(at..at + to) }.copy_from_slice(b);
            }
        }
    });
}

/// `y[n, heads, rank] = x[n, heads, size] · W_h`, `W_h` being the head's rows of `w`.
///
/// # Panics
/// If a length does not fit the sizes; so do all functions here.
pub fn up(y: &mut [f32], x: &[f32], w: MatRef, n: usize, rows: &HeadRows) {
    rows.check("heads up", n, x.len(), y.len(), w.len());
    up_on(isa(), y, x, w, n, rows);
}

fn up_on(isa: Isa, y: &mut [f32], x: &[f32], w: MatRef, n: usize, rows: &HeadRows) {
    let HeadRows { heads, size, rank, .. } = *rows;
    let y = Parts::new(y);
    rows.each(n, |head| {
        let w = w.slice(rows.range(head));
        by_head(&y, x, head, [n, heads, size, rank], |y, x| {
            if n <= product::rows_invariant_limit(Precision::F32) {
                y.fill(0.0);
                dispatch(isa, Few { y, x, w, n, size, rank });
            } else {
                product::linear_dx(y, x, w, [n, size, rank], false, Precision::F32);
            }
        });
    });
}

/// `y[n, heads, size] = x[n, heads, rank] · W_hᵀ`.
pub fn down(y: &mut [f32], x: &[f32], w: MatRef, n: usize, rows: &HeadRows) {
    rows.check("heads down", n, y.len(), x.len(), w.len());
    let HeadRows { heads, size, rank, .. } = *rows;
    let y = Parts::new(y);
    rows.each(n, |head| {
        let w = w.slice(rows.range(head));
        by_head(&y, x, head, [n, heads, rank, size], |y, x| {
            product::linear(y, x, w, None, [n, size, rank], Precision::F32)
        });
    });
}

/// `dW_h += smallᵀ · wide` for every head, with `small[n, heads, size]` and `wide[n, heads, rank]`: the gradient of the
/// weight of [`up`] (from its `x` and `dy`) and of [`down`] (from its `dy` and `x`).
pub fn weight_backward(dw: &mut [f32], small: &[f32], wide: &[f32], n: usize, rows: &HeadRows) {
    rows.check("heads weight_backward", n, small.len(), wide.len(), dw.len());
    let HeadRows { heads, size, rank, .. } = *rows;
    let dw = Parts::new(dw);
    rows.each(n, |head| {
        SCRATCH.with_borrow_mut(|[a, b]| {
            let (small, wide) = (gather(a, small, head, [heads, size]), gather(b, wide, head, [heads, rank]));
            // SAFETY: the rows of different heads do not overlap.
            product::linear_dw(unsafe { dw.at(rows.range(head)) }, small, wide, [n, size, rank], true, Precision::F32);
        });
    });
}

/// `y[n, rank] += x[n, size] · w[size, rank]` for few rows: the weight streams by once, four of its rows at a time, and
/// `y` stays in the cache. An element is summed in the order of the weight's rows, as `blocked` does: the same bits.
///
/// Floor: the bytes of the weight over the read bandwidth.
struct Few<'a> {
    y: &'a mut [f32],
    x: &'a [f32],
    w: MatRef<'a>,
    n: usize,
    size: usize,
    rank: usize,
}

impl Kernel for Few<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { y, x, w, n, size, rank } = self;
        assert!(y.len() == n * rank && x.len() == n * size && w.len() == size * rank, "few rows: {n} {size} {rank}");
        // SAFETY: `dispatch` found S; the lengths were just checked.
        unsafe {
            match w {
                MatRef::F32(w) => few::<S, f32>(y, x, w, [n, size, rank]),
                MatRef::Bf16(w) => few::<S, bf16>(y, x, w, [n, size, rank]),
                MatRef::F16(w) => few::<S, f16>(y, x, w, [n, size, rank]),
                MatRef::Blocks(w) => {
                    let mut wide = vec![0f32; size * rank];
                    w.widen(&mut wide);
                    few::<S, f32>(y, x, &wide, [n, size, rank]);
                }
                MatRef::Bytes(w) => {
                    let mut wide = vec![0f32; size * rank];
                    w.widen(0..size * rank, &mut wide);
                    few::<S, f32>(y, x, &wide, [n, size, rank]);
                }
            }
        }
    }
}

/// A kind of weight that loads as f32.
trait Weight: Copy {
    unsafe fn load<S: Simd>(p: *const Self) -> S::F;
    fn value(self) -> f32;
}

macro_rules! weight {
    ($kind:ty, $load:ident, |$x:ident| $value:expr) => {
        impl Weight for $kind {
            #[inline(always)]
            unsafe fn load<S: Simd>(p: *const Self) -> S::F {
                // SAFETY: the caller's promise of LANES elements.
                unsafe { S::$load(p) }
            }
            #[inline(always)]
            fn value(self) -> f32 {
                let $x = self;
                $value
            }
        }
    };
}
weight!(f32, load, |x| x);
weight!(bf16, load_bf16, |x| x.to_f32());
weight!(f16, load_f16, |x| x.to_f32());

#[inline(always)]
unsafe fn few<S: Simd, W: Weight>(y: &mut [f32], x: &[f32], w: &[W], [n, size, rank]: [usize; 3]) {
    let (y, x, w) = (y.as_mut_ptr(), x.as_ptr(), w.as_ptr());
    // SAFETY: rows i..i + 4 of w and r..r + 4 of x and y exist in each call.
    unsafe {
        let mut i = 0;
        while i < size {
            let deep = if size - i >= 4 { 4 } else { 1 };
            let mut r = 0;
            while r < n {
                let (x, y, w) = (x.add(r * size + i), y.add(r * rank), w.add(i * rank));
                match (n - r, deep) {
                    (4.., 4) => strip::<S, W, 4, 4>(y, x, w, size, rank),
                    (4.., _) => strip::<S, W, 4, 1>(y, x, w, size, rank),
                    (_, 4) => strip::<S, W, 1, 4>(y, x, w, size, rank),
                    _ => strip::<S, W, 1, 1>(y, x, w, size, rank),
                }
                r += if n - r >= 4 { 4 } else { 1 };
            }
            i += deep;
        }
    }
}

/// D rows of the weight onto R rows of `y`.
#[inline(always)]
unsafe fn strip<S: Simd, W: Weight, const R: usize, const D: usize>(
    y: *mut f32,
    x: *const f32,
    w: *const W,
    size: usize,
    rank: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut factors = [[S::splat(0.0); D]; R];
        for (r, factors) in factors.iter_mut().enumerate() {
            for (d, factor) in factors.iter_mut().enumerate() {
                *factor = S::splat(*x.add(r * size + d));
            }
        }
        let whole = rank - rank % S::LANES;
        let mut c = 0;
        while c < whole {
            let mut weights = [S::splat(0.0); D];
            for (d, weight) in weights.iter_mut().enumerate() {
                // The next rows but three: four streams at once are more than the hardware follows well.
                S::prefetch(w.wrapping_add((d + D) * rank + c));
                *weight = W::load::<S>(w.add(d * rank + c));
            }
            for (r, factors) in factors.iter().enumerate() {
                let at = y.add(r * rank + c);
                let mut sum = S::load(at);
                for d in 0..D {
                    sum = S::fma(factors[d], weights[d], sum);
                }
                S::store(at, sum);
            }
            c += S::LANES;
        }
        let left = rank - whole;
        if left > 0 {
            for (d, _) in factors[0].iter().enumerate() {
                let mut last = [0f32; 16];
                for (l, last) in last.iter_mut().enumerate().take(left) {
                    *last = (*w.add(d * rank + whole + l)).value();
                }
                let weight = S::load(last.as_ptr());
                for (r, factors) in factors.iter().enumerate() {
                    let at = y.add(r * rank + whole);
                    S::store_n(at, S::fma(factors[d], weight, S::load_n(at, left)), left);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::threads::tests::with_threads;

    fn normal(seed: u64, n: usize) -> Vec<f32> {
        let mut x = vec![0.0; n];
        Rng::new(seed).fill_normal(&mut x, 0.0, 1.0);
        x
    }

    /// Rows, then heads, stride, offset, size, rank.
    const SIZES: [(usize, [usize; 5]); 9] = [
        (1, [1, 1, 0, 1, 1]),
        (1, [3, 7, 2, 5, 33]),
        (2, [2, 3, 1, 2, 17]),
        (3, [1, 9, 0, 9, 16]),
        (8, [4, 20, 7, 13, 130]),
        (33, [2, 5, 1, 3, 40]),
        (70, [3, 12, 4, 8, 65]),
        (0, [2, 3, 1, 2, 5]),
        (4, [2, 3, 1, 0, 5]),
    ];

    #[test]
    fn each_head_has_its_rows_in_every_format_and_on_any_threads() {
        for (n, [heads, stride, offset, size, rank]) in SIZES {
            let rows = HeadRows { heads, stride, offset, size, rank };
            let full = normal(1, heads * stride * rank);
            let brains: Vec<bf16> = full.iter().map(|x| bf16::from_f32(*x)).collect();
            let halves: Vec<f16> = full.iter().map(|x| f16::from_f32(*x)).collect();
            let (small, wide) = (normal(2, n * heads * size), normal(3, n * heads * rank));
            for w in [MatRef::F32(&full), MatRef::Bf16(&brains), MatRef::F16(&halves)] {
                let run = |threads| {
                    with_threads(threads, || {
                        let (mut y, mut z) = (vec![9.0; wide.len()], vec![9.0; small.len()]);
                        up(&mut y, &small, w, n, &rows);
                        down(&mut z, &wide, w, n, &rows);
                        (y, z)
                    })
                };
                let (y, z) = run(1);
                assert_eq!((y.clone(), z.clone()), run(2));
                // Row by row: the same bits as alone.
                if n <= product::rows_invariant_limit(Precision::F32) {
                    for r in 0..n {
                        let (mut alone, mut other) = (vec![9.0; heads * rank], vec![9.0; heads * size]);
                        up(&mut alone, &small[r * heads * size..][..heads * size], w, 1, &rows);
                        down(&mut other, &wide[r * heads * rank..][..heads * rank], w, 1, &rows);
                        assert!(alone == y[r * heads * rank..][..heads * rank]);
                        assert!(other == z[r * heads * size..][..heads * size]);
                    }
                }
                let weight = |h: usize, i: usize, l: usize| f64::from(w.get((h * stride + offset + i) * rank + l));
                let x = |r: usize, h: usize, i: usize| f64::from(small[(r * heads + h) * size + i]);
                let v = |r: usize, h: usize, l: usize| f64::from(wide[(r * heads + h) * rank + l]);
                // Sums of up to 130 terms of about 1; bf16 products may round the other side to 8 bits as well.
                let fine = if matches!(w, MatRef::Bf16(_)) { 0.15 } else { 5e-5 };
                for (r, h) in (0..n).flat_map(|r| (0..heads).map(move |h| (r, h))) {
                    for l in 0..rank {
                        let truth: f64 = (0..size).map(|i| x(r, h, i) * weight(h, i, l)).sum();
                        assert!((f64::from(y[(r * heads + h) * rank + l]) - truth).abs() <= fine);
                    }
                    for i in 0..size {
                        let truth: f64 = (0..rank).map(|l| v(r, h, l) * weight(h, i, l)).sum();
                        assert!((f64::from(z[(r * heads + h) * size + i]) - truth).abs() <= fine);
                    }
                }
                let mut dw = vec![1.0; full.len()];
                with_threads(2, || weight_backward(&mut dw, &small, &wide, n, &rows));
                for (at, dw) in dw.iter().enumerate() {
                    let (h, i, l) = (at / rank / stride, at / rank % stride, at % rank);
                    let inside = (offset..offset + size).contains(&i);
                    let sum: f64 = if inside { (0..n).map(|r| x(r, h, i - offset) * v(r, h, l)).sum() } else { 0.0 };
                    assert!((f64::from(*dw) - 1.0 - sum).abs() <= 5e-5);
                }
            }
        }
    }

    #[test]
    fn few_rows_have_the_bits_of_many_on_every_instruction_set() {
        for isa in Isa::all_available() {
            for (size, rank) in [(1, 1), (13, 33), (300, 70), (128, 512)] {
                let rows = HeadRows { heads: 1, stride: size, offset: 0, size, rank };
                let (x, w) = (normal(1, 40 * size), normal(2, size * rank));
                let mut many = vec![0.0; 40 * rank];
                product::linear_dx(&mut many, &x, MatRef::F32(&w), [40, size, rank], false, Precision::F32);
                for n in [1, 2, 4, 7] {
                    let mut y = vec![9.0; n * rank];
                    up_on(isa, &mut y, &x[..n * size], MatRef::F32(&w), n, &rows);
                    if isa == crate::isa::isa() {
                        assert!(y == many[..n * rank], "{n} rows, {size} x {rank}");
                    } else {
                        let apart = y.iter().zip(&many).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                        // 300 terms of about 1.
                        assert!(apart < 1e-4, "{isa:?}: {apart}");
                    }
                }
            }
        }
    }
}

//! The search for the scale of a group of values, for many groups side by side: one vector holds the same element of
//! `L` groups of `N`, so that sums run in the order of the elements and yet in parallel.
//!
//! The searches are those of llama.cpp, down to the order of the operations, since a tie decided otherwise is another
//! block. All try scales a little above and below the one that fits the extreme values, set the codes for each, and
//! take the weighted least-squares scale for these codes.

/// The same element of several groups.
pub(super) type Lanes<const L: usize> = [f32; L];

/// Below this a group counts as zero.
pub(super) const ZERO: f32 = 1e-15;

/// Adding this to a number below 2^22 leaves the nearest integer in the low bits, ties to even.
const ROUND: f32 = 12_582_912.0;

/// The nearest whole number from `low` to `high`; `low` for a NaN.
#[inline(always)]
pub(super) fn nearest(x: f32, low: f32, high: f32) -> f32 {
    let x = if x > low { x } else { low };
    let x = if x < high { x } else { high };
    (x + ROUND) - ROUND
}

/// Groups that follow one another, side by side.
#[inline(always)]
pub(super) fn lanes<const L: usize, const N: usize>(x: &[f32]) -> [Lanes<L>; N] {
    let mut out = [[0.0; L]; N];
    for (lane, group) in x.chunks_exact(N).enumerate().take(L) {
        for (out, x) in out.iter_mut().zip(group) {
            out[lane] = *x;
        }
    }
    out
}

/// The reverse of [`lanes`], for codes.
#[inline(always)]
pub(super) fn codes<const L: usize, const N: usize>(lanes: &[Lanes<L>; N]) -> [u8; 256] {
    let mut out = [0; 256];
    for (lane, group) in out.chunks_exact_mut(N).enumerate().take(L) {
        for (out, lanes) in group.iter_mut().zip(lanes) {
            *out = lanes[lane] as u8;
        }
    }
    out
}

/// The value of the largest magnitude in each group, with its sign.
#[inline(always)]
fn extremes<const L: usize, const N: usize>(x: &[Lanes<L>; N]) -> Lanes<L> {
    let mut extreme = [0f32; L];
    for x in x {
        for l in 0..L {
            extreme[l] = if x[l].abs() > extreme[l].abs() { x[l] } else { extreme[l] };
        }
    }
    extreme
}

/// How [`affine`] searches.
#[derive(Clone, Copy)]
pub(super) struct Search {
    /// The largest code.
    pub top: f32,
    /// The first candidate, in codes beyond `top`; the others follow in tenths.
    pub first: f32,
    /// Candidates after the first.
    pub steps: usize,
    /// Judge by absolute errors rather than squares.
    pub absolute: bool,
}

/// What [`affine`] finds: `x` is near `scale * code - min`, with `min` at least 0.
pub(super) struct Affine<const L: usize, const N: usize> {
    pub scale: Lanes<L>,
    pub min: Lanes<L>,
    pub codes: [Lanes<L>; N],
}

/// Scale and minimum of each group, by weighted least squares.
#[inline(always)]
pub(super) fn affine<const L: usize, const N: usize>(
    x: &[Lanes<L>; N],
    weights: &[Lanes<L>; N],
    search: Search,
) -> Affine<L, N> {
    let (mut low, mut high, mut sum_w, mut sum_x) = (x[0], x[0], [0f32; L], [0f32; L]);
    for (x, w) in x.iter().zip(weights) {
        for l in 0..L {
            low[l] = if x[l] < low[l] { x[l] } else { low[l] };
            high[l] = if x[l] > high[l] { x[l] } else { high[l] };
            sum_w[l] += w[l];
            sum_x[l] += w[l] * x[l];
        }
    }
    // A minimum above zero would need a sign; a group of equal values gets scale 0 and codes 0 by itself.
    let low = low.map(|low| if low > 0.0 { 0.0 } else { low });
    let mut best = Affine { scale: [0.0; L], min: low, codes: [[0.0; L]; N] };
    let mut inverse = [0f32; L];
    for l in 0..L {
        inverse[l] = search.top / (high[l] - low[l]);
        best.scale[l] = 1.0 / inverse[l];
    }
    set_codes(&mut best.codes, x, &inverse, &low, search.top);
    let mut least = error(&best, x, weights, search.absolute);
    let mut tried = Affine { scale: [0.0; L], min: low, codes: [[0.0; L]; N] };
    for step in 0..=search.steps {
        // The best minimum so far, not the smallest value, is what each candidate starts from.
        for l in 0..L {
            inverse[l] = (search.first + 0.1 * step as f32 + search.top) / (high[l] - best.min[l]);
        }
        set_codes(&mut tried.codes, x, &inverse, &best.min, search.top);
        let (mut sum_c, mut sum_cc, mut sum_cx) = ([0f32; L], [0f32; L], [0f32; L]);
        for ((x, w), code) in x.iter().zip(weights).zip(&tried.codes) {
            for l in 0..L {
                let wc = w[l] * code[l];
                sum_c[l] += wc;
                sum_cc[l] += wc * code[l];
                sum_cx[l] += wc * x[l];
            }
        }
        let mut solved = [false; L];
        for l in 0..L {
            let det = sum_w[l] * sum_cc[l] - sum_c[l] * sum_c[l];
            let scale = (sum_w[l] * sum_cx[l] - sum_x[l] * sum_c[l]) / det;
            let min = (sum_cc[l] * sum_x[l] - sum_c[l] * sum_cx[l]) / det;
            solved[l] = det > 0.0;
            tried.scale[l] = if min > 0.0 { sum_cx[l] / sum_cc[l] } else { scale };
            tried.min[l] = if min > 0.0 { 0.0 } else { min };
        }
        let errors = error(&tried, x, weights, search.absolute);
        for l in 0..L {
            solved[l] &= errors[l] < least[l];
            least[l] = if solved[l] { errors[l] } else { least[l] };
            best.scale[l] = if solved[l] { tried.scale[l] } else { best.scale[l] };
            best.min[l] = if solved[l] { tried.min[l] } else { best.min[l] };
        }
        for (best, tried) in best.codes.iter_mut().zip(&tried.codes) {
            for l in 0..L {
                best[l] = if solved[l] { tried[l] } else { best[l] };
            }
        }
    }
    best.min = best.min.map(|min| -min);
    best
}

#[inline(always)]
fn set_codes<const L: usize, const N: usize>(
    codes: &mut [Lanes<L>; N],
    x: &[Lanes<L>; N],
    inverse: &Lanes<L>,
    min: &Lanes<L>,
    top: f32,
) {
    for (code, x) in codes.iter_mut().zip(x) {
        for l in 0..L {
            code[l] = nearest(inverse[l] * (x[l] - min[l]), 0.0, top);
        }
    }
}

/// The weighted errors of `scale * code + min`.
#[inline(always)]
fn error<const L: usize, const N: usize>(
    fit: &Affine<L, N>,
    x: &[Lanes<L>; N],
    weights: &[Lanes<L>; N],
    absolute: bool,
) -> Lanes<L> {
    let mut sum = [0f32; L];
    for ((x, w), code) in x.iter().zip(weights).zip(&fit.codes) {
        for l in 0..L {
            let off = fit.scale[l] * code[l] + fit.min[l] - x[l];
            sum[l] += w[l] * if absolute { off.abs() } else { off * off };
        }
    }
    sum
}

/// What the symmetric searches find: `x` is near `scale * code`.
pub(super) struct Symmetric<const L: usize, const N: usize> {
    pub scale: Lanes<L>,
    /// From 0: the code that stands for 0 is `top`, except that groups of zeros have 0 throughout.
    pub codes: [Lanes<L>; N],
}

/// Sums for the least-squares scale of codes: `x` by code and code by code, both weighted by the square of `x`.
type Sums<const L: usize> = (Lanes<L>, Lanes<L>);

/// The sums for the values that `level(l, x)` gives.
#[inline(always)]
fn sums<const L: usize, const N: usize>(x: &[Lanes<L>; N], level: impl Fn(usize, f32) -> f32) -> Sums<L> {
    let (mut by_x, mut by_code) = ([0f32; L], [0f32; L]);
    for x in x {
        for l in 0..L {
            let code = level(l, x[l]);
            let w = x[l] * x[l];
            by_x[l] += w * x[l] * code;
            by_code[l] += w * code * code;
        }
    }
    (by_x, by_code)
}

/// The scale of each group for codes of -`top` to `top` - 1, the larger values weighing more.
#[inline(always)]
pub(super) fn symmetric<const L: usize, const N: usize>(x: &[Lanes<L>; N], top: f32) -> Symmetric<L, N> {
    let extreme = extremes(x);
    let mut best_inverse = extreme.map(|extreme| -top / extreme);
    let (by_x, by_code) = sums(x, |l, x| nearest(best_inverse[l] * x, -top, top - 1.0));
    let (mut scale, mut best) = ([0f32; L], [0f32; L]);
    for l in 0..L {
        scale[l] = if by_code[l] == 0.0 { 0.0 } else { by_x[l] / by_code[l] };
        best[l] = scale[l] * by_x[l];
    }
    for tenth in (-9..=9).filter(|tenth| *tenth != 0) {
        let inverse = extreme.map(|extreme| -(top + 0.1 * tenth as f32) / extreme);
        let (by_x, by_code) = sums(x, |l, x| nearest(inverse[l] * x, -top, top - 1.0));
        for l in 0..L {
            let better = by_code[l] > 0.0 && by_x[l] * by_x[l] > best[l] * by_code[l];
            let tried = by_x[l] / by_code[l];
            scale[l] = if better { tried } else { scale[l] };
            best[l] = if better { tried * by_x[l] } else { best[l] };
            best_inverse[l] = if better { inverse[l] } else { best_inverse[l] };
        }
    }
    let mut codes = [[0f32; L]; N];
    for (code, x) in codes.iter_mut().zip(x) {
        for l in 0..L {
            code[l] = nearest(best_inverse[l] * x[l], -top, top - 1.0) + top;
        }
    }
    without_zeros(Symmetric { scale, codes }, &extreme)
}

/// As [`symmetric`], by another way: from the codes that fit the extreme value, one code after another moves to where
/// it serves the common scale best, until none does.
#[inline(always)]
pub(super) fn descent<const L: usize, const N: usize>(x: &[Lanes<L>; N], top: f32) -> Symmetric<L, N> {
    let extreme = extremes(x);
    let inverse = extreme.map(|extreme| -top / extreme);
    let (mut by_x, mut by_code) = sums(x, |l, x| nearest(inverse[l] * x, -top, top - 1.0));
    let mut codes = [[0f32; L]; N];
    for (code, x) in codes.iter_mut().zip(x) {
        for l in 0..L {
            code[l] = nearest(inverse[l] * x[l], -top, top - 1.0);
        }
    }
    for _ in 0..5 {
        // Groups that no longer move stay as they are, so all may go on until the last one stops.
        let mut moved = false;
        for (x, code) in x.iter().zip(&mut codes) {
            for l in 0..L {
                let w = x[l] * x[l];
                // The sums without this value, the code that suits their scale, and the sums with it.
                let rest_x = by_x[l] - w * x[l] * code[l];
                let rest_code = by_code[l] - w * code[l] * code[l];
                let tried = nearest(x[l] * rest_code / rest_x, -top, top - 1.0);
                let new_x = rest_x + w * x[l] * tried;
                let new_code = rest_code + w * tried * tried;
                let better = rest_x > 0.0
                    && tried != code[l]
                    && new_code > 0.0
                    && new_x * new_x * by_code[l] > by_x[l] * by_x[l] * new_code;
                code[l] = if better { tried } else { code[l] };
                by_x[l] = if better { new_x } else { by_x[l] };
                by_code[l] = if better { new_code } else { by_code[l] };
                moved |= better;
            }
        }
        if !moved {
            break;
        }
    }
    let mut scale = [0f32; L];
    for l in 0..L {
        scale[l] = if by_code[l] > 0.0 { by_x[l] / by_code[l] } else { 0.0 };
    }
    let codes = codes.map(|code| code.map(|code| code + top));
    without_zeros(Symmetric { scale, codes }, &extreme)
}

#[inline(always)]
fn without_zeros<const L: usize, const N: usize>(mut fit: Symmetric<L, N>, extreme: &Lanes<L>) -> Symmetric<L, N> {
    for (scale, extreme) in fit.scale.iter_mut().zip(extreme) {
        *scale = if extreme.abs() < ZERO { 0.0 } else { *scale };
    }
    for code in &mut fit.codes {
        for l in 0..L {
            code[l] = if extreme[l].abs() < ZERO { 0.0 } else { code[l] };
        }
    }
    fit
}

/// The scale of each group for codes that stand for the values of a table, which starts at `first`; `level` gives the
/// table's value next to a number.
#[inline(always)]
pub(super) fn table<const L: usize, const N: usize>(
    x: &[Lanes<L>; N],
    first: f32,
    level: impl Fn(f32) -> f32,
) -> Lanes<L> {
    let extreme = extremes(x);
    // The first try maps the extreme value to the table's first with its sign reversed: the other end of the table.
    let inverse = extreme.map(|extreme| 1.0 / (-extreme / first));
    let (by_x, by_code) = weighed(x, &inverse, &level);
    let (mut scale, mut best) = ([0f32; L], [0f32; L]);
    for l in 0..L {
        scale[l] = if by_code[l] > 0.0 { by_x[l] / by_code[l] } else { 0.0 };
        best[l] = scale[l] * by_x[l];
    }
    for step in -7..=7 {
        let inverse = extreme.map(|extreme| (step as f32 + first) / extreme);
        let (by_x, by_code) = weighed(x, &inverse, &level);
        for l in 0..L {
            let better = by_code[l] > 0.0 && by_x[l] * by_x[l] > best[l] * by_code[l];
            let tried = by_x[l] / by_code[l];
            scale[l] = if better { tried } else { scale[l] };
            best[l] = if better { tried * by_x[l] } else { best[l] };
        }
    }
    for l in 0..L {
        scale[l] = if extreme[l].abs() < ZERO { 0.0 } else { scale[l] };
    }
    scale
}

/// [`sums`] for a table, whose products come in another order.
#[inline(always)]
fn weighed<const L: usize, const N: usize>(
    x: &[Lanes<L>; N],
    inverse: &Lanes<L>,
    level: &impl Fn(f32) -> f32,
) -> Sums<L> {
    let (mut by_x, mut by_code) = ([0f32; L], [0f32; L]);
    for x in x {
        for l in 0..L {
            let code = level(inverse[l] * x[l]);
            let weighted = x[l] * x[l] * code;
            by_x[l] += weighted * x[l];
            by_code[l] += weighted * code;
        }
    }
    (by_x, by_code)
}

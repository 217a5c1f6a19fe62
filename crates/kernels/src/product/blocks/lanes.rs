//! The product of codes with bytes of `x` by AVX-512 VNNI, 64 at a time.

use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;

use super::codes::{Codes, each_64, row_scales, with_codes};
use crate::product::Gguf;
use crate::product::dot::Dot;
use crate::quant::Quant;
use crate::threads::Shared;

/// Rows of `x` in bytes.
pub(super) struct Bytes {
    /// Elements of a row, up to whole vectors.
    pub padded: usize,
    /// The code that means 0, and how many elements share a scale of the weight.
    zero: i32,
    group: usize,
    /// Each row's bytes, `x / scale` to the nearest.
    pub bytes: Vec<i8>,
    /// A scale for every 32.
    pub scales: Vec<f32>,
    /// The same for every lane of a vector, two of them in each, where the weight's scales stand beside its codes.
    pub spread: Vec<f32>,
    /// What the codes' zero takes off, for every 4: minus their sum times it.
    pub starts: Vec<i32>,
    /// The sum of every group that shares a scale of the weight.
    pub sums: Vec<f32>,
}

impl Bytes {
    /// Zeros, for so many rows.
    pub fn room(rows: usize, k: usize, kind: Quant) -> Bytes {
        #[inline(always)]
        fn parts<K: Codes>() -> (i32, usize, bool, bool) {
            (K::ZERO, K::GROUP, K::MINS, beside::<K>())
        }
        let (zero, group, mins, beside) = with_codes!(kind, parts());
        let padded = k.next_multiple_of(64);
        Bytes {
            padded,
            zero,
            group,
            bytes: vec![0; rows * padded],
            scales: vec![0.0; rows * padded / 32],
            spread: vec![0.0; if beside { rows * padded / 4 } else { 0 }],
            starts: vec![0; rows * padded / 4],
            sums: vec![0.0; if mins { rows * padded / group } else { 0 }],
        }
    }

    /// Sets the `i`-th 32 of a row.
    #[inline(always)]
    pub fn set(&mut self, row: usize, i: usize, bytes: &[i8; 32], scale: f32) {
        let at = row * self.padded + 32 * i;
        self.bytes[at..][..32].copy_from_slice(bytes);
        self.scales[at / 32] = scale;
        if !self.spread.is_empty() {
            self.spread[at / 4..][..8].fill(scale);
        }
        for (start, four) in self.starts[at / 4..].iter_mut().zip(bytes.chunks_exact(4)) {
            *start = -self.zero * four.iter().map(|&byte| i32::from(byte)).sum::<i32>();
        }
        if !self.sums.is_empty() {
            for (sum, group) in self.sums[at / self.group..].iter_mut().zip(bytes.chunks_exact(self.group)) {
                *sum = scale * group.iter().map(|&byte| i32::from(byte)).sum::<i32>() as f32;
            }
        }
    }

    /// # Safety
    /// The machine has AVX-512 VNNI; rows are multiples of 32 long.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c,bmi1,bmi2")]
    pub(super) unsafe fn of(x: &[f32], k: usize, kind: Quant) -> Bytes {
        let mut to = Self::room(x.len() / k, k, kind);
        for (row, x) in x.chunks_exact(k).enumerate() {
            for (i, x) in x.chunks_exact(32).enumerate() {
                let mut bytes = [0i8; 32];
                // SAFETY: 32 elements are read, as many bytes are written.
                unsafe {
                    let (low, high) = (_mm512_loadu_ps(x.as_ptr()), _mm512_loadu_ps(x[16..].as_ptr()));
                    let largest = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high)));
                    let scale = match _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(low, high) {
                        0 => largest / 127.0,
                        // Whatever is multiplied with it becomes NaN too.
                        _ => f32::NAN,
                    };
                    let inverse = _mm512_set1_ps(if scale > 0.0 { 1.0 / scale } else { 0.0 });
                    let whole = |x| _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(x, inverse)));
                    _mm256_storeu_si256(bytes.as_mut_ptr().cast(), _mm256_set_m128i(whole(high), whole(low)));
                    to.set(row, i, &bytes, scale);
                }
            }
        }
        to
    }
}

/// Whether scales are taken from where they stand: nothing then waits for those of a whole row. Minima are not: they come
/// with sums of `x` for a vector of groups at once.
const fn beside<K: Codes>() -> bool {
    K::BESIDE && !K::MINS
}

thread_local! {
    /// Scales and minima of a row of the weight, and the products of its scales with those of each row of `x`.
    static SCRATCH: RefCell<[Vec<f32>; 3]> = const { RefCell::new([Vec::new(), Vec::new(), Vec::new()]) };
}

/// Rows of `x` for which a row of the weight is unpacked at once: their sums and its codes stay in registers.
const ROWS: usize = 8;

/// Bytes of the weight that are asked for ahead: the scales, which stand all over a row, are read before its codes, and the
/// processor's own reading ahead ends with a page. Measured: with 4,096 bytes decoding is a tenth slower.
pub(super) const AHEAD: usize = 2048;

/// Columns `columns` of `y`.
///
/// # Safety
/// The machine has AVX-512 VNNI; nobody else writes these columns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c,bmi1,bmi2")]
pub(super) unsafe fn run(p: &Dot, blocks: Gguf, x: &Bytes, columns: Range<usize>, y: Shared<f32>) {
    SCRATCH.with_borrow_mut(|scratch| {
        // SAFETY: the caller's promise.
        unsafe { with_codes!(blocks.kind(), kind(p, blocks, x, columns, y, scratch)) }
    });
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c,bmi1,bmi2")]
unsafe fn kind<K: Codes>(
    p: &Dot,
    blocks: Gguf,
    x: &Bytes,
    columns: Range<usize>,
    y: Shared<f32>,
    [scales, mins, both]: &mut [Vec<f32>; 3],
) {
    let groups = x.padded / K::GROUP;
    scales.resize(groups.next_multiple_of(16), 0.0);
    mins.resize(if K::MINS { groups.next_multiple_of(16) } else { 0 }, 0.0);
    both.resize(ROWS * groups.next_multiple_of(16), 0.0);
    let row_bytes = p.k / K::BLOCK * K::BYTES;
    for j in columns {
        let row = blocks.bytes()[j * row_bytes..].as_ptr();
        // SAFETY: the row is whole; `y` holds m rows of n. What is asked for ahead may be any address.
        unsafe {
            for line in (0..row_bytes).step_by(64) {
                _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(AHEAD + line).cast());
            }
            if !beside::<K>() {
                row_scales::<K>(row, p.k, scales, mins);
            }
            for i in (0..p.m).step_by(ROWS) {
                let f = Few { x, first: i, scales, mins, groups };
                let y = y.0.add(i * p.n + j);
                let bias = p.bias.map_or(0.0, |bias| bias[j]);
                match p.m - i {
                    1 => f.dots::<K, 1>(row, p.k, both, y, p.n, bias),
                    2 => f.dots::<K, 2>(row, p.k, both, y, p.n, bias),
                    3 => f.dots::<K, 3>(row, p.k, both, y, p.n, bias),
                    4 => f.dots::<K, 4>(row, p.k, both, y, p.n, bias),
                    5 => f.dots::<K, 5>(row, p.k, both, y, p.n, bias),
                    6 => f.dots::<K, 6>(row, p.k, both, y, p.n, bias),
                    7 => f.dots::<K, 7>(row, p.k, both, y, p.n, bias),
                    _ => f.dots::<K, ROWS>(row, p.k, both, y, p.n, bias),
                }
            }
        }
    }
}

/// Some rows of `x`, and the scales of one row of the weight.
struct Few<'a> {
    x: &'a Bytes,
    first: usize,
    scales: &'a [f32],
    mins: &'a [f32],
    /// Groups of a row, up to whole vectors of bytes.
    groups: usize,
}

impl Few<'_> {
    #[inline(always)]
    unsafe fn dots<K: Codes, const R: usize>(
        &self,
        row: *const u8,
        k: usize,
        both: &mut [f32],
        y: *mut f32,
        n: usize,
        bias: f32,
    ) {
        let (x, groups, stride) = (self.x, self.groups, self.groups.next_multiple_of(16));
        // SAFETY: the vectors of `x` are padded to whole 64s, the scales to whole 16s.
        unsafe {
            let mut sum = [_mm512_setzero_ps(); R];
            for (r, sum) in sum.iter_mut().enumerate().filter(|_| !beside::<K>()) {
                let theirs = &x.scales[(self.first + r) * x.padded / 32..][..x.padded / 32];
                let both = &mut both[r * stride..][..groups];
                if K::GROUP == 32 {
                    for ((both, ours), theirs) in both.iter_mut().zip(self.scales).zip(theirs) {
                        *both = ours * theirs;
                    }
                } else {
                    for ((both, ours), theirs) in both.chunks_exact_mut(2).zip(self.scales.chunks_exact(2)).zip(theirs)
                    {
                        both[0] = ours[0] * theirs;
                        both[1] = ours[1] * theirs;
                    }
                }
                if K::MINS {
                    let sums = &x.sums[(self.first + r) * groups..][..groups];
                    let whole = groups - groups % 16;
                    for g in (0..whole).step_by(16) {
                        let min = _mm512_loadu_ps(self.mins.as_ptr().add(g));
                        *sum = _mm512_fnmadd_ps(min, _mm512_loadu_ps(sums.as_ptr().add(g)), *sum);
                    }
                    let mask = (1u16 << (groups % 16)) - 1;
                    let rest = _mm512_maskz_loadu_ps(mask, sums.as_ptr().wrapping_add(whole));
                    let min = _mm512_maskz_loadu_ps(mask, self.mins.as_ptr().wrapping_add(whole));
                    *sum = _mm512_fnmadd_ps(min, rest, *sum);
                }
            }
            // Each lane sums four elements: eight of them have one scale, or four.
            let spread = match K::GROUP {
                32 => _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0),
                _ => _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0),
            };
            each_64!(K, row, k, |i, codes| {
                let two = if beside::<K>() { K::two_beside(row, i, 64 * i + 32 >= k) } else { _mm512_setzero_ps() };
                for (r, sum) in sum.iter_mut().enumerate() {
                    let at = (self.first + r) * x.padded + 64 * i;
                    let bytes = _mm512_loadu_si512(x.bytes.as_ptr().add(at).cast());
                    let start = if K::ZERO == 0 {
                        _mm512_setzero_si512()
                    } else {
                        _mm512_loadu_si512(x.starts.as_ptr().add(at / 4).cast())
                    };
                    let whole = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(start, codes, bytes));
                    if beside::<K>() {
                        let scale = _mm512_mul_ps(two, _mm512_loadu_ps(x.spread.as_ptr().add(at / 4)));
                        *sum = _mm512_fmadd_ps(whole, scale, *sum);
                        continue;
                    }
                    let scale = both.as_ptr().add(r * stride + 64 / K::GROUP * i);
                    let scale = if K::GROUP == 32 {
                        _mm_castsi128_ps(_mm_loadl_epi64(scale.cast()))
                    } else {
                        _mm_loadu_ps(scale)
                    };
                    let scale = _mm512_permutexvar_ps(spread, _mm512_castps128_ps512(scale));
                    *sum = _mm512_fmadd_ps(whole, scale, *sum);
                }
            });
            for (r, sum) in sum.into_iter().enumerate() {
                *y.add(r * n) = _mm512_reduce_add_ps(sum) + bias;
            }
        }
    }
}

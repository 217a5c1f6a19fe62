//! Sums of products of bytes for a block of results, on each instruction set; all are exact.

#[cfg(target_arch = "x86_64")]
use super::DEPTH;
use super::{SIDE, Tile};
use crate::isa::Isa;

/// Columns of a block, and its rows, at most.
pub(super) const WIDTH: usize = 2 * SIDE;

/// Which instructions multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// Tiles of 16 x 16 results.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// Fours of bytes into 16 lanes.
    #[cfg(target_arch = "x86_64")]
    Vnni512,
    /// Fours of bytes into 8 lanes.
    #[cfg(target_arch = "x86_64")]
    Vnni256,
    /// Bytes widened to pairs of i16, since pairs of bytes would saturate.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Plain loops.
    Plain,
}

impl Path {
    /// The path for `m` rows.
    pub(super) fn of(isa: Isa, m: usize) -> Path {
        let has = |path: Path| path.allowed(isa);
        #[cfg(target_arch = "x86_64")]
        for path in [Path::Amx, Path::Vnni512, Path::Vnni256, Path::Avx2] {
            // A tile of few rows is mostly empty.
            if has(path) && (path != Path::Amx || m > SIDE / 2) {
                return path;
            }
        }
        let _ = (m, has);
        Path::Plain
    }

    /// Whether it is among what `isa` stands for, and this machine has it.
    fn allowed(self, isa: Isa) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Path::Amx => isa == Isa::Amx && isa.available(),
            #[cfg(target_arch = "x86_64")]
            Path::Vnni512 => isa.has_int8() && isa.available(),
            #[cfg(target_arch = "x86_64")]
            Path::Vnni256 => isa != Isa::Portable && isa.available() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => isa != Isa::Portable && isa.available(),
            Path::Plain => true,
        }
    }

    /// Every path of this machine.
    #[cfg(test)]
    pub(super) fn all_available() -> Vec<Path> {
        #[cfg(target_arch = "x86_64")]
        let all = [Path::Amx, Path::Vnni512, Path::Vnni256, Path::Avx2, Path::Plain];
        #[cfg(not(target_arch = "x86_64"))]
        let all = [Path::Plain];
        all.into_iter().filter(|path| Isa::ALL.into_iter().any(|isa| path.allowed(isa))).collect()
    }
}

/// The factors of a block of results.
pub(super) struct Block<'a> {
    /// Rows of tiles of `x`, each of `depth`.
    pub left: &'a [Tile],
    /// Of `w`, likewise.
    pub right: &'a [Tile],
    pub depth: usize,
    /// Rows of `x`, at most [`WIDTH`].
    pub rows: usize,
    /// Rows of tiles of `w`, one or two.
    pub columns: usize,
    /// Of each row of `x` the sum of its codes.
    pub sums: &'a [i32],
}

/// A block of results, in rows of [`WIDTH`]. Aligned, so that no line of it is split.
#[repr(align(64))]
pub(super) struct Sums(pub [i32; WIDTH * WIDTH]);

/// Writes the sums of a block's rows and columns; what lies beyond them is left as it is, or not, as suits the path.
///
/// # Safety
/// The path is one that this machine has; for [`Path::Amx`] the thread holds tiles.
pub(super) unsafe fn run(path: Path, block: &Block, to: &mut Sums) {
    let tall = block.rows.div_ceil(SIDE);
    assert!(
        (1..=2).contains(&tall)
            && (1..=2).contains(&block.columns)
            && block.left.len() >= tall * block.depth
            && block.right.len() >= block.columns * block.depth
            && block.sums.len() >= block.rows,
        "a block of bytes: {} rows, {} columns of tiles of depth {}",
        block.rows,
        block.columns,
        block.depth
    );
    // SAFETY: the caller's promise; the factors are as large as was just checked.
    unsafe {
        match path {
            #[cfg(target_arch = "x86_64")]
            Path::Amx => amx(block, tall, to),
            #[cfg(target_arch = "x86_64")]
            Path::Vnni512 => vnni512(block, to),
            #[cfg(target_arch = "x86_64")]
            Path::Vnni256 => vnni256(block, to),
            #[cfg(target_arch = "x86_64")]
            Path::Avx2 => avx2(block, to),
            Path::Plain => plain(block, to),
        }
    }
}

fn plain(b: &Block, to: &mut Sums) {
    for i in 0..b.rows {
        for column in 0..b.columns {
            let mut sums = [0i32; SIDE];
            for step in 0..b.depth {
                let x = &b.left[i / SIDE * b.depth + step].0[i % SIDE * 64..][..64];
                let w = &b.right[column * b.depth + step].0;
                for (x, w) in x.as_chunks::<4>().0.iter().zip(w.as_chunks::<64>().0) {
                    let x = x.map(i32::from);
                    for (sum, w) in sums.iter_mut().zip(w.as_chunks::<4>().0) {
                        let w = w.map(i32::from);
                        *sum += x[0] * w[0] + x[1] * w[1] + x[2] * w[2] + x[3] * w[3];
                    }
                }
            }
            to.0[i * WIDTH + column * SIDE..][..SIDE].copy_from_slice(&sums);
        }
    }
}

#[cfg(target_arch = "x86_64")]
unsafe fn amx(b: &Block, tall: usize, to: &mut Sums) {
    // SAFETY: the caller's promise; `to` holds 2 x 2 tiles of results.
    unsafe {
        match (tall, b.columns) {
            (1, 1) => amx_tiles::<1, 1>(b, to),
            (1, _) => amx_tiles::<1, 2>(b, to),
            (_, 1) => amx_tiles::<2, 1>(b, to),
            _ => amx_tiles::<2, 2>(b, to),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn amx_tiles<const R: usize, const C: usize>(b: &Block, to: &mut Sums) {
    use crate::amx;
    let both = |tiles: &[Tile]| [tiles.as_ptr().cast::<u8>(), tiles.as_ptr().wrapping_add(b.depth).cast()];
    // SAFETY: the caller's promise.
    unsafe {
        amx::start::<R, C>(amx::From::Zero);
        amx::add_bytes::<R, C>(amx::Factors {
            a: both(b.left),
            a_apart: amx::PACKED,
            b: both(b.right),
            steps: b.depth,
        });
        amx::finish::<R, C>(to.0.as_mut_ptr().cast(), WIDTH * size_of::<i32>());
    }
}

/// The first byte of row `i` of `x` in the tile at depth 0; the same row of the next tile is a tile further.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn row(b: &Block, i: usize) -> *const i8 {
    b.left.as_ptr().wrapping_add(i / SIDE * b.depth).cast::<i8>().wrapping_add(i % SIDE * DEPTH)
}

/// Works off the block's rows in stretches of these sizes, the largest first; none leaves a row of tiles.
#[cfg(target_arch = "x86_64")]
macro_rules! stretches {
    ($b:ident, $i:ident, $($size:literal => $run:expr),+) => {{
        let mut $i = 0;
        while $i < $b.rows {
            $(if $b.rows - $i >= $size {
                $run;
                $i += $size;
                continue;
            })+
        }
    }};
}

/// The products take one factor without a sign: the weight's bytes have 128 added, and 128 times the sum of `x` is taken
/// away again.
#[cfg(target_arch = "x86_64")]
const OFFSET: i32 = 128;

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,bmi1,bmi2")]
unsafe fn vnni512(b: &Block, to: &mut Sums) {
    // SAFETY: the caller's promise.
    unsafe {
        if b.columns == 2 {
            stretches!(b, i,
                8 => vnni512_rows::<8, 2>(b, i, to), 4 => vnni512_rows::<4, 2>(b, i, to),
                2 => vnni512_rows::<2, 2>(b, i, to), 1 => vnni512_rows::<1, 2>(b, i, to));
        } else {
            stretches!(b, i,
                8 => vnni512_rows::<8, 1>(b, i, to), 4 => vnni512_rows::<4, 1>(b, i, to),
                2 => vnni512_rows::<2, 1>(b, i, to), 1 => vnni512_rows::<1, 1>(b, i, to));
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,bmi1,bmi2")]
unsafe fn vnni512_rows<const R: usize, const C: usize>(b: &Block, first: usize, to: &mut Sums) {
    use std::arch::x86_64::*;
    // SAFETY: the caller's promise; rows of a tile are 64 bytes apart.
    unsafe {
        let turn = _mm512_set1_epi8(-128);
        let mut sums = [[_mm512_setzero_si512(); C]; R];
        let x = row(b, first);
        for step in 0..b.depth {
            let x = x.wrapping_add(step * size_of::<Tile>());
            for four in 0..SIDE {
                let mut w = [turn; C];
                for (c, w) in w.iter_mut().enumerate() {
                    let tile = b.right.as_ptr().wrapping_add(c * b.depth + step).cast::<i8>();
                    *w = _mm512_xor_si512(turn, _mm512_load_si512(tile.wrapping_add(four * 64).cast()));
                }
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = _mm512_set1_epi32(x.wrapping_add(r * DEPTH + four * 4).cast::<i32>().read());
                    for (sum, w) in sums.iter_mut().zip(w) {
                        *sum = _mm512_dpbusd_epi32(*sum, w, x);
                    }
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            let less = _mm512_set1_epi32(OFFSET * b.sums[first + r]);
            for (c, sum) in sums.into_iter().enumerate() {
                let to = to.0[(first + r) * WIDTH + c * SIDE..][..SIDE].as_mut_ptr();
                _mm512_storeu_si512(to.cast(), _mm512_sub_epi32(sum, less));
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,avxvnni,fma")]
unsafe fn vnni256(b: &Block, to: &mut Sums) {
    for c in 0..b.columns {
        // SAFETY: the caller's promise.
        unsafe {
            stretches!(b, i,
                4 => vnni256_rows::<4>(b, i, c, to), 2 => vnni256_rows::<2>(b, i, c, to),
                1 => vnni256_rows::<1>(b, i, c, to));
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,avxvnni,fma")]
unsafe fn vnni256_rows<const R: usize>(b: &Block, first: usize, column: usize, to: &mut Sums) {
    use std::arch::x86_64::*;
    // SAFETY: as above.
    unsafe {
        let turn = _mm256_set1_epi8(-128);
        let mut sums = [[_mm256_setzero_si256(); 2]; R];
        let x = row(b, first);
        for step in 0..b.depth {
            let x = x.wrapping_add(step * size_of::<Tile>());
            let tile = b.right.as_ptr().wrapping_add(column * b.depth + step).cast::<i8>();
            for four in 0..SIDE {
                let at = tile.wrapping_add(four * 64).cast::<__m256i>();
                let w = [at, at.wrapping_add(1)].map(|at| _mm256_xor_si256(turn, _mm256_load_si256(at)));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let x = _mm256_set1_epi32(x.wrapping_add(r * DEPTH + four * 4).cast::<i32>().read());
                    for (sum, w) in sums.iter_mut().zip(w) {
                        *sum = _mm256_dpbusd_avx_epi32(*sum, w, x);
                    }
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            let less = _mm256_set1_epi32(OFFSET * b.sums[first + r]);
            let to = to.0[(first + r) * WIDTH + column * SIDE..][..SIDE].as_mut_ptr().cast::<__m256i>();
            for (half, sum) in sums.into_iter().enumerate() {
                _mm256_storeu_si256(to.add(half), _mm256_sub_epi32(sum, less));
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(b: &Block, to: &mut Sums) {
    for c in 0..b.columns {
        // SAFETY: the caller's promise.
        unsafe { stretches!(b, i, 2 => avx2_rows::<2>(b, i, c, to), 1 => avx2_rows::<1>(b, i, c, to)) };
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2_rows<const R: usize>(b: &Block, first: usize, column: usize, to: &mut Sums) {
    use std::arch::x86_64::*;
    // SAFETY: as above.
    unsafe {
        // A vector holds four columns, each as the sums of the first and the second pair of every four.
        let mut sums = [[_mm256_setzero_si256(); 4]; R];
        let x = row(b, first);
        for step in 0..b.depth {
            let x = x.wrapping_add(step * size_of::<Tile>());
            let tile = b.right.as_ptr().wrapping_add(column * b.depth + step).cast::<i8>();
            for four in 0..SIDE {
                let mut fours = [_mm256_setzero_si256(); R];
                for (r, four_of) in fours.iter_mut().enumerate() {
                    let x = x.wrapping_add(r * DEPTH + four * 4).cast::<i32>().read();
                    *four_of = _mm256_cvtepi8_epi16(_mm_set1_epi32(x));
                }
                for v in 0..4 {
                    let at = tile.wrapping_add(four * 64 + v * 16).cast::<__m128i>();
                    let w = _mm256_cvtepi8_epi16(_mm_load_si128(at));
                    for (sums, x) in sums.iter_mut().zip(fours) {
                        sums[v] = _mm256_add_epi32(sums[v], _mm256_madd_epi16(w, x));
                    }
                }
            }
        }
        for (r, sums) in sums.into_iter().enumerate() {
            let to = to.0[(first + r) * WIDTH + column * SIDE..][..SIDE].as_mut_ptr().cast::<__m256i>();
            for half in 0..2 {
                let pairs = _mm256_hadd_epi32(sums[2 * half], sums[2 * half + 1]);
                _mm256_storeu_si256(to.add(half), _mm256_permute4x64_epi64::<0b11_01_10_00>(pairs));
            }
        }
    }
}

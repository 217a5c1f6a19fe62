//! Factors as tiles of bf16: 16 rows (or columns) by 32 of depth, zeros beyond the edge.
//!
//! A tile of rows has each row's depth in a row; one of columns has pairs of depth in a row, a pair for each column. As
//! matrices of pairs the one is the other transposed, so whichever way the factor lies in memory, it is loaded along it
//! and turned where need be.

use super::{DEPTH, Lines, SIDE, TILE};
use crate::product::{Blocks, MatRef, to_bf16};
use crate::simd::{Avx512, Simd};
use half::{bf16, f16};
use std::arch::x86_64::*;
use std::cell::RefCell;

/// Which factor tiles are for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Rows,
    Columns,
}

impl Side {
    pub fn other(self) -> Side {
        match self {
            Side::Rows => Side::Columns,
            Side::Columns => Side::Rows,
        }
    }
}

/// Numbers that are read as bf16.
trait Element: Copy {
    /// The first `n <= 32`, the rest zeros.
    unsafe fn all(p: *const Self, n: usize) -> __m512i;
    /// The first `n <= 16`, the rest zeros.
    unsafe fn half(p: *const Self, n: usize) -> __m256i;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn all(p: *const f32, n: usize) -> __m512i {
        // SAFETY: masked lanes are not read.
        unsafe {
            let low = _mm512_maskz_loadu_ps(first(n.min(16)) as __mmask16, p);
            let high = _mm512_maskz_loadu_ps(first(n.saturating_sub(16)) as __mmask16, p.wrapping_add(16));
            std::mem::transmute(_mm512_cvtne2ps_pbh(high, low))
        }
    }
    #[inline(always)]
    unsafe fn half(p: *const f32, n: usize) -> __m256i {
        // SAFETY: as above.
        unsafe { std::mem::transmute(_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(first(n) as __mmask16, p))) }
    }
}

impl Element for bf16 {
    #[inline(always)]
    unsafe fn all(p: *const bf16, n: usize) -> __m512i {
        // SAFETY: masked lanes are not read.
        unsafe { _mm512_maskz_loadu_epi16(first(n), p.cast()) }
    }
    #[inline(always)]
    unsafe fn half(p: *const bf16, n: usize) -> __m256i {
        // SAFETY: as above.
        unsafe { _mm256_maskz_loadu_epi16(first(n) as __mmask16, p.cast()) }
    }
}

impl Element for f16 {
    #[inline(always)]
    unsafe fn all(p: *const f16, n: usize) -> __m512i {
        // SAFETY: masked lanes are not read.
        unsafe {
            let halves = _mm512_maskz_loadu_epi16(first(n), p.cast());
            let low = _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
            let high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(halves));
            std::mem::transmute(_mm512_cvtne2ps_pbh(high, low))
        }
    }
    #[inline(always)]
    unsafe fn half(p: *const f16, n: usize) -> __m256i {
        // SAFETY: as above.
        unsafe {
            let halves = _mm256_maskz_loadu_epi16(first(n) as __mmask16, p.cast());
            std::mem::transmute(_mm512_cvtneps_pbh(_mm512_cvtph_ps(halves)))
        }
    }
}

/// The mask of the first `n` of at most 32 lanes.
#[inline(always)]
fn first(n: usize) -> u32 {
    if n >= 32 { u32::MAX } else { (1 << n) - 1 }
}

/// A factor `[rows, depth]`, or `[depth, rows]` where `transposed`; of columns likewise.
#[derive(Clone, Copy)]
pub(crate) struct Factor<'a> {
    pub from: MatRef<'a>,
    pub transposed: bool,
    pub rows: usize,
    pub depth: usize,
}

/// A part of a factor in memory: its first element, the distance of rows of memory, whether the depth lies across these, and
/// how much of it there is.
#[derive(Clone, Copy)]
pub(crate) struct Part<E> {
    pub first: *const E,
    pub stride: usize,
    pub transposed: bool,
    pub rows: usize,
    pub depth: usize,
}

impl Part<f32> {
    /// Packs it into as many tiles as `to` holds, each row (or column) of them `steps` tiles deep: zeros beyond the edge.
    ///
    /// # Safety
    /// The machine has AVX-512 BF16; the part is readable.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c,bmi1,bmi2")]
    pub(crate) unsafe fn pack(self, side: Side, to: &mut [u32], steps: usize) {
        // SAFETY: the caller's promise.
        unsafe { tiles(self, side, to, steps) };
    }
}

thread_local! {
    /// A part of a quantised factor in bf16.
    static WIDE: RefCell<Vec<bf16>> = const { RefCell::new(Vec::new()) };
}

impl Factor<'_> {
    /// The memory that [`Factor::pack`] reads for `tiles` tiles of rows from tile `outer` on, `steps` tiles of depth from tile
    /// `inner` on, of a quantised factor. Others are read at the memory's speed as it is, and nothing was won by asking.
    pub(crate) fn lines(&self, outer: usize, tiles: usize, inner: usize, steps: usize) -> Lines {
        let MatRef::Blocks(blocks) = self.from else { return Lines::NONE };
        let (row, d) = (outer * SIDE, inner * DEPTH);
        let rows = (tiles * SIDE).min(self.rows.saturating_sub(row));
        let depth = (steps * DEPTH).min(self.depth.saturating_sub(d));
        let (line, lines, at, elements, width) =
            if self.transposed { (d, depth, row, rows, self.rows) } else { (row, rows, d, depth, self.depth) };
        let bytes = |elements: usize| blocks.bytes_of(elements);
        let first = blocks.bytes().as_ptr().wrapping_add(bytes(line * width + at));
        Lines { first, pieces: lines, apart: bytes(width), bytes: bytes(elements) }
    }

    /// Packs into `to` tiles of the rows (or columns) from tile `outer` on, as many as `to` holds, each over `steps` tiles
    /// of depth from tile `inner` on.
    ///
    /// # Safety
    /// The machine has AVX-512 BF16; the matrix is as large as it says.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c,bmi1,bmi2")]
    pub(crate) unsafe fn pack(&self, side: Side, outer: usize, inner: usize, to: &mut [u32], steps: usize) {
        if to.is_empty() {
            return;
        }
        let (row, d) = (outer * SIDE, inner * DEPTH);
        let rows = self.rows.saturating_sub(row).min(to.len() / (TILE * steps) * SIDE);
        let depth = self.depth.saturating_sub(d).min(steps * DEPTH);
        let stride = if self.transposed { self.rows } else { self.depth };
        let at = if self.transposed { d * stride + row } else { row * stride + d };
        let (transposed, part) = (self.transposed, Window { at, stride, rows, depth });
        // SAFETY: the caller's promise; the part lies inside the matrix.
        unsafe {
            match self.from {
                MatRef::F32(x) => tiles(part.of(x, transposed), side, to, steps),
                MatRef::Bf16(x) => tiles(part.of(x, transposed), side, to, steps),
                MatRef::F16(x) => tiles(part.of(x, transposed), side, to, steps),
                MatRef::Bytes(_) => {} // `bytes` multiplies those
                MatRef::Blocks(blocks) => WIDE.with_borrow_mut(|wide| {
                    let (along, across) = (d..d + depth, row..row + rows);
                    let (lines, columns) = if transposed { (along, across) } else { (across, along) };
                    let widen = |blocks: Blocks, to: &mut [bf16]| to_bf16(blocks, to);
                    let (at, stride) = blocks.window(stride, lines, columns, wide, widen);
                    tiles(Window { at, stride, ..part }.of(wide, transposed), side, to, steps);
                }),
            }
        }
    }
}

/// Where a part begins in its matrix, the distance of rows of memory, and its size.
#[derive(Clone, Copy)]
struct Window {
    at: usize,
    stride: usize,
    rows: usize,
    depth: usize,
}

impl Window {
    fn of<E>(self, matrix: &[E], transposed: bool) -> Part<E> {
        let Window { at, stride, rows, depth } = self;
        Part { first: matrix.as_ptr().wrapping_add(at), stride, transposed, rows, depth }
    }
}

/// Tiles in the order of memory, so that it is read as a few long streams: rows of tiles are `steps` tiles long.
#[inline(always)]
unsafe fn tiles<E: Element>(part: Part<E>, side: Side, to: &mut [u32], steps: usize) {
    let outer = to.len() / TILE / steps;
    let (lines, columns) = if part.transposed { (steps, outer) } else { (outer, steps) };
    for line in 0..lines {
        for column in 0..columns {
            let (tile, step) = if part.transposed { (column, line) } else { (line, column) };
            let (row, d) = (tile * SIDE, step * DEPTH);
            let (rows, depth) = (part.rows.saturating_sub(row).min(SIDE), part.depth.saturating_sub(d).min(DEPTH));
            let to = &mut to[(tile * steps + step) * TILE..][..TILE];
            // SAFETY: what is read lies inside the part: rows from `row` on and depth from `d` on, as many as there are.
            unsafe {
                if part.transposed {
                    let from = part.first.wrapping_add(d * part.stride + row);
                    pairs(from, part.stride, rows, depth, to, side == Side::Rows);
                } else {
                    let from = part.first.wrapping_add(row * part.stride + d);
                    along(from, part.stride, rows, depth, to, side == Side::Columns);
                }
            }
        }
    }
}

/// A tile whose depth lies along rows of memory.
#[inline(always)]
unsafe fn along<E: Element>(from: *const E, row: usize, rows: usize, depth: usize, to: &mut [u32], turn: bool) {
    let mut tile = [0u32; TILE];
    let at = if turn { tile.as_mut_ptr() } else { to.as_mut_ptr() };
    // SAFETY: the caller's promise; a tile holds 16 rows of 16 pairs.
    unsafe {
        for r in 0..SIDE {
            let x = if r < rows { E::all(from.add(r * row), depth) } else { _mm512_setzero_si512() };
            _mm512_storeu_si512(at.add(r * SIDE).cast(), x);
        }
        if turn {
            Avx512::transpose(tile.as_ptr().cast(), SIDE, to.as_mut_ptr().cast(), SIDE);
        }
    }
}

/// A tile whose depth lies across rows of memory.
#[inline(always)]
unsafe fn pairs<E: Element>(from: *const E, row: usize, rows: usize, depth: usize, to: &mut [u32], turn: bool) {
    let mut tile = [0u32; TILE];
    let at = if turn { tile.as_mut_ptr() } else { to.as_mut_ptr() };
    // SAFETY: as above.
    unsafe {
        for pair in 0..SIDE {
            let even = if 2 * pair < depth { E::half(from.add(2 * pair * row), rows) } else { _mm256_setzero_si256() };
            // The next tile of depth: more rows of memory than the machine follows by itself.
            for next in [DEPTH + 2 * pair, DEPTH + 2 * pair + 1] {
                _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(next * row).cast());
            }
            let odd = if 2 * pair + 1 < depth {
                E::half(from.add((2 * pair + 1) * row), rows)
            } else {
                _mm256_setzero_si256()
            };
            let odd = _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(odd));
            _mm512_storeu_si512(at.add(pair * SIDE).cast(), _mm512_or_si512(_mm512_cvtepu16_epi32(even), odd));
        }
        if turn {
            Avx512::transpose(tile.as_ptr().cast(), SIDE, to.as_mut_ptr().cast(), SIDE);
        }
    }
}

//! Where keys and values lie: in one piece, or in the pages of a cache.

use super::AttentionShape;
use crate::page::POSITIONS;
use crate::product::MatRef;
use crate::simd::{Load, Simd};
use half::{bf16, f16};

/// Where the rows of `k` or `v` lie: element `(b, t, h, d)` is at `b * batch + t * time + h * dim + d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strided {
    /// From one sequence to the next, in elements.
    pub batch: usize,
    /// From one position to the next, in elements: at least `kv_heads * dim`.
    pub time: usize,
}

/// Keys or values in pages of [`POSITIONS`] positions each: element `(b, t, h, d)` is element
/// `t % POSITIONS * time + h * head + d` of page `t / POSITIONS` of sequence `b`.
#[derive(Clone, Copy, Debug)]
pub struct Paged<'a> {
    /// `[batch, pages of a sequence]`. Pages that no query sees may be empty.
    pub pages: &'a [MatRef<'a>],
    /// Pages of a sequence.
    pub each: usize,
    /// From one position to the next, in elements.
    pub time: usize,
    /// From one head to the next: at least `dim`, and whole blocks where pages are in blocks.
    pub head: usize,
}

/// Keys or values of a forward pass.
#[derive(Clone, Copy)]
pub(super) enum Rows<'a> {
    Whole(&'a [f32], Strided),
    Paged(Paged<'a>),
}

impl Paged<'_> {
    /// Whether every page that a query sees is there.
    pub(super) fn check(&self, name: &str, s: &AttentionShape, dim: usize, ranges: &[(u32, u32)]) {
        let (time, head) = (self.time, self.head);
        assert!(
            head >= dim && time >= (s.kv_heads - 1) * head + dim,
            "attention: heads of {name} overlap: {dim} elements, {head} apart, {time} a position"
        );
        assert!(
            self.pages.len() == s.batch * self.each && s.keys <= self.each * POSITIONS,
            "attention: {name} has {} pages for {} sequences of {} keys",
            self.pages.len(),
            s.batch,
            s.keys
        );
        for (row, &(start, end)) in ranges.iter().enumerate().filter(|(_, range)| range.0 < range.1) {
            let b = row / s.time_q;
            let (first, last) = (start as usize / POSITIONS, (end as usize - 1) / POSITIONS);
            for page in &self.pages[b * self.each..][first..=last] {
                assert!(
                    page.len() >= POSITIONS * time,
                    "attention: query {row} sees a page of {name} that is not there"
                );
                let block = if let MatRef::Blocks(blocks) = page { blocks.block() } else { 1 };
                assert!(
                    [time, head, dim].iter().all(|size| size.is_multiple_of(block)),
                    "attention: heads of {name} are not whole blocks of {block}: {dim} elements, {head} apart"
                );
            }
        }
    }
}

impl Rows<'_> {
    /// Floats that [`Rows::tile`] needs.
    pub fn scratch(&self, dim: usize) -> usize {
        match self {
            Rows::Whole(..) => 0,
            Rows::Paged(_) => POSITIONS * dim,
        }
    }

    /// Keys (or values) `k0..k0 + nk` of head `kv` in f32, `dim` each, and from one to the next: where they lie or, if they
    /// are kept otherwise, in `room`. All of them are in one tile.
    ///
    /// # Safety
    /// The call was checked, the machine has `S`, and `room` is as large as [`Rows::scratch`] says.
    #[inline(always)]
    pub unsafe fn tile<S: Simd>(
        &self,
        [b, kv]: [usize; 2],
        k0: usize,
        nk: usize,
        dim: usize,
        room: *mut f32,
    ) -> (*const f32, usize) {
        let p = match self {
            // Where there are no keys the pointer is not read, and may lie outside.
            Rows::Whole(values, at) => {
                return (values.as_ptr().wrapping_add(b * at.batch + k0 * at.time + kv * dim), at.time);
            }
            Rows::Paged(p) => p,
        };
        let first = k0 % POSITIONS * p.time + kv * p.head;
        let page = p.pages[b * p.each + k0 / POSITIONS];
        // SAFETY: pages that are seen were checked, others may be empty.
        unsafe {
            match page {
                page if page.len() < POSITIONS * p.time => {
                    std::slice::from_raw_parts_mut(room, nk * dim).fill(0.0);
                }
                MatRef::F32(values) => return (values.as_ptr().add(first), p.time),
                MatRef::Bf16(values) => widen::<S, bf16>(values.as_ptr().add(first), p.time, nk, dim, room),
                MatRef::F16(values) => widen::<S, f16>(values.as_ptr().add(first), p.time, nk, dim, room),
                MatRef::Blocks(blocks) => {
                    for i in 0..nk {
                        let to = std::slice::from_raw_parts_mut(room.add(i * dim), dim);
                        let from = first + i * p.time;
                        blocks.slice(from..from + dim).widen(to);
                    }
                }
                MatRef::Bytes(_) => {} // no page is
            }
        }
        (room, dim)
    }
}

/// `to[nk, dim]` from rows `apart`.
#[inline(always)]
unsafe fn widen<S: Simd, W: Load>(from: *const W, apart: usize, nk: usize, dim: usize, to: *mut f32) {
    let whole = dim - dim % S::LANES;
    for i in 0..nk {
        // SAFETY: the caller's promise.
        unsafe {
            let (from, to) = (from.add(i * apart), to.add(i * dim));
            for d in (0..whole).step_by(S::LANES) {
                S::store(to.add(d), W::load::<S>(from.add(d)));
            }
            for d in whole..dim {
                *to.add(d) = (*from.add(d)).value();
            }
        }
    }
}

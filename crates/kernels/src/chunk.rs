//! Slices cut into fixed chunks for the threads: element-wise and row-wise kernels all hand out their work here.

use std::{marker::PhantomData, ops::Range};

use crate::threads::{self, Shared};

/// Elements per chunk: 64 KiB of f32, so that a chunk's operands share the L2 cache, and a thread has enough to do.
pub(crate) const CHUNK: usize = 1 << 14;

/// Elements to put in a chunk when they come in rows of `dim`: whole rows, a multiple of four elements apart from that.
pub(crate) fn rows_per_chunk(dim: usize) -> usize {
    (CHUNK / dim.max(1)).max(1)
}

/// Calls `f(range)` for the chunks of `0..len` in whole rows of `dim` elements, over the threads.
pub(crate) fn each(len: usize, dim: usize, f: impl Fn(Range<usize>) + Sync) {
    let chunk = rows_per_chunk(dim) * dim.max(1);
    threads::for_each(len.div_ceil(chunk), len * 2, |i| {
        f(i * chunk..((i + 1) * chunk).min(len));
    });
}

/// As [`each`], with the chunk itself: `f(start, chunk)`.
pub(crate) fn each_mut<T: Send>(out: &mut [T], dim: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let parts = Parts::new(out);
    each(parts.len, dim, |range| {
        // SAFETY: `each` gives every element to one call.
        f(range.start, unsafe { parts.at(range) });
    });
}

/// A slice that several threads write at ranges that do not overlap.
pub(crate) struct Parts<'a, T> {
    base: Shared<T>,
    len: usize,
    borrow: PhantomData<&'a ()>,
}

impl<'a, T> Parts<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { base: Shared(slice.as_mut_ptr()), len: slice.len(), borrow: PhantomData }
    }

    /// # Safety
    /// No two results that are alive at once overlap.
    pub(crate) unsafe fn at(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "chunk {range:?} of {} elements", self.len);
        // SAFETY: in range as just checked; disjoint by the caller's promise; borrowed for 'a.
        unsafe { self.base.slice(range.start, range.len()) }
    }

    /// Sets one element.
    ///
    /// # Safety
    /// As [`Parts::at`], for the range of this element.
    pub(crate) unsafe fn set(&self, i: usize, value: T) {
        // SAFETY: the caller's promise.
        unsafe { self.at(i..i + 1)[0] = value };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_once_in_whole_rows() {
        for (len, dim) in [(0, 1), (5, 1), (CHUNK * 3 + 7, 1), (700 * 130, 700), (3 * 40_000, 40_000)] {
            let mut seen = vec![0u32; len];
            each_mut(&mut seen, dim, |start, chunk| {
                assert!(start % dim == 0 && chunk.len() % dim == 0);
                chunk.iter_mut().enumerate().for_each(|(i, x)| *x += (start + i) as u32 + 1);
            });
            assert!(seen.iter().enumerate().all(|(i, &x)| x == i as u32 + 1));
        }
    }
}

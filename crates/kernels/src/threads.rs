//! Threads for kernels: work is cut into pieces whose borders never depend on how many threads there are, so one
//! thread and many give the same bits.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::pool;

static THREADS: AtomicUsize = AtomicUsize::new(0);

/// Sets how many threads the kernels use, at least one.
pub fn set_threads(n: usize) {
    THREADS.store(n.max(1), Ordering::Relaxed);
}

thread_local! {
    /// Whether this thread does a piece of work that was handed out.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// How many threads the kernels use: what [`set_threads`] said, else one per core that this process may use. Inside a
/// piece of [`for_each`] it is one, since the others have pieces of their own.
pub fn threads() -> usize {
    if INSIDE.get() {
        return 1;
    }
    #[cfg(test)]
    if tests::only() > 0 {
        return tests::only();
    }
    match THREADS.load(Ordering::Relaxed) {
        0 => {
            let n = std::thread::available_parallelism().map_or(1, usize::from);
            THREADS.store(n, Ordering::Relaxed);
            n
        }
        n => n,
    }
}

/// Calls `f(i)` for every `i < count`, in any order, over the threads; each call must be independent of the others.
///
/// `work` is the floating-point operations (or bytes) of all calls together: little work runs inline, since handing
/// it over costs a microsecond or two.
pub fn for_each(count: usize, work: usize, f: impl Fn(usize) + Sync) {
    let workers = threads().min(count);
    if workers <= 1 || work < INLINE_WORK {
        (0..count).for_each(f);
        return;
    }
    pool::run(count, workers, &|i| {
        let _inside = Inside(INSIDE.replace(true));
        f(i);
    });
}

/// Sets [`INSIDE`] back, also when a piece panics.
struct Inside(bool);

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(self.0);
    }
}

/// Below this many operations (or bytes) the caller does the work itself.
pub const INLINE_WORK: usize = 1 << 16;

/// Cuts `data` into pieces of `chunk` elements (the last may be shorter) and calls `f(index of the piece, piece)`.
pub fn for_each_chunk<T: Send>(data: &mut [T], chunk: usize, work: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let chunk = chunk.max(1);
    let len = data.len();
    let base = Shared(data.as_mut_ptr());
    for_each(len.div_ceil(chunk), work, |i| {
        let start = i * chunk;
        // SAFETY: pieces of different `i` do not overlap, each lies inside `data`, and `data` is borrowed for all calls.
        let piece = unsafe { base.slice(start, chunk.min(len - start)) };
        f(i, piece);
    });
}

/// A pointer that several threads write through, at places that do not overlap.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(pub(crate) *mut T);

// SAFETY: who uses `Shared` answers for its writes being disjoint; the pointer itself is only a number.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// # Safety
    /// `start..start + len` lies inside the slice the pointer was made from, which outlives the result, and nobody
    /// else touches that range meanwhile.
    pub(crate) unsafe fn slice<'a>(&self, start: usize, len: usize) -> &'a mut [T] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        static ONLY: Cell<usize> = const { Cell::new(0) };
    }

    /// Runs `f` as if there were `n` threads, on this thread's calls alone: other tests run meanwhile.
    pub(crate) fn with_threads<T>(n: usize, f: impl FnOnce() -> T) -> T {
        ONLY.set(n);
        let result = f();
        ONLY.set(0);
        result
    }

    pub(super) fn only() -> usize {
        ONLY.get()
    }

    #[test]
    fn inside_a_piece_there_is_one_thread() {
        with_threads(2, || {
            assert_eq!(threads(), 2);
            for_each(8, usize::MAX, |_| {
                assert_eq!(threads(), 1);
                for_each(8, usize::MAX, |_| assert_eq!(threads(), 1));
                assert_eq!(threads(), 1);
            });
            assert_eq!(threads(), 2);
        });
    }

    #[test]
    fn every_piece_is_visited_once_whatever_the_thread_count() {
        for n in [0, 1, 5, 64, 1000] {
            for chunk in [1, 7, 64] {
                let mut data = vec![0usize; n];
                for_each_chunk(&mut data, chunk, usize::MAX, |i, piece| {
                    for (j, value) in piece.iter_mut().enumerate() {
                        *value += i * chunk + j + 1;
                    }
                });
                assert!(data.iter().enumerate().all(|(i, &value)| value == i + 1));
            }
        }
    }
}

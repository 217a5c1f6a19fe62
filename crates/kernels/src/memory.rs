//! Memory for large vectors, the heap's habits, and how much of it this process can have.

mod limits;

use std::sync::OnceLock;
#[cfg(target_os = "linux")]
use std::sync::atomic::{AtomicUsize, Ordering};

use half::{bf16, f16};

pub use limits::{available, total};

/// Numbers that large vectors are of.
pub trait Number: Copy + Send + Sync + private::Sealed {
    #[doc(hidden)]
    const NAN: Self;
    #[doc(hidden)]
    const ZERO: Self;
}

mod private {
    pub trait Sealed {}
}

macro_rules! number {
    ($($kind:ty, $zero:expr);*) => {$(
        impl private::Sealed for $kind {}
        impl Number for $kind {
            const NAN: Self = <$kind>::NAN;
            const ZERO: Self = $zero;
        }
    )*};
}
number!(f32, 0.0; bf16, bf16::ZERO; f16, f16::ZERO);

/// A vector of `n` numbers, whichever, for a caller that overwrites them all. Who adds to them takes [`zeros`].
///
/// Memory that the process had before is not cleared: that alone took 7 % of reading a prompt.
/// With `PHYLA_POISON=1` the numbers are NaN, so that tests find whoever reads them.
pub fn alloc<T: Number>(n: usize) -> Vec<T> {
    static POISON: OnceLock<bool> = OnceLock::new();
    let mut numbers = Vec::with_capacity(n);
    ask_for_huge_pages(&mut numbers);
    match *POISON.get_or_init(|| std::env::var_os("PHYLA_POISON").is_some_and(|value| value == "1")) {
        true => numbers.resize(n, T::NAN),
        false => left_over(&mut numbers, n),
    }
    numbers
}

/// A vector of `n` zeros for a caller that adds to them. They are written, by all threads: pages that are read before they
/// are written cost twice.
pub fn zeros<T: Number>(n: usize) -> Vec<T> {
    let mut zeros = alloc(n);
    crate::threads::for_each_chunk(&mut zeros, 1 << 16, n, |_, part| part.fill(T::ZERO));
    zeros
}

/// An empty vector with room for `n` numbers; `None` if there is no memory for them.
pub fn room<T: Number>(n: usize) -> Option<Vec<T>> {
    let mut numbers = Vec::new();
    numbers.try_reserve_exact(n).ok()?;
    ask_for_huge_pages(&mut numbers);
    Some(numbers)
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn left_over<T: Number>(numbers: &mut Vec<T>, n: usize) {
    assert!(n <= numbers.capacity());
    // SAFETY: the assembly is empty, but the compiler has to take it that it writes what the pointer leads to; from then on
    // these are n numbers with a value of some kind, as all bits are.
    unsafe {
        std::arch::asm!("/* {0} */", in(reg) numbers.as_mut_ptr(), options(nostack, preserves_flags));
        numbers.set_len(n);
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn left_over<T: Number>(numbers: &mut Vec<T>, n: usize) {
    numbers.resize(n, T::ZERO);
}

/// Advises the system to back the memory of `x`, if it is large, with huge pages; of the heap all that has been added to it,
/// since its books are kept between the vectors, and a page that is touched before the advice stays small and keeps those
/// around it so. No effect where the system will not.
///
/// The first touch of a fresh page costs 0.5 ms for each MiB in pages of 4 KiB and a fifth of that in huge ones; and whoever
/// walks through hundreds of megabytes waits for the tables of small pages: a step of training GPT-2 small takes 0.67 s
/// with all of the heap in huge pages and 0.76 s without.
fn ask_for_huge_pages<T>(x: &mut Vec<T>) {
    #[cfg(not(target_os = "linux"))]
    let _ = x;
    #[cfg(target_os = "linux")]
    {
        /// Up to where the heap has been advised.
        static ADVISED: AtomicUsize = AtomicUsize::new(0);
        let (start, len) = (x.as_ptr() as usize, x.capacity() * size_of::<T>());
        if len < LARGE {
            return;
        }
        // SAFETY: this asks where the heap ends and changes nothing.
        let top = unsafe { libc::sbrk(0) } as usize;
        let (from, to) = match start < top {
            true => (ADVISED.fetch_max(top, Ordering::Relaxed).max(start / HUGE * HUGE), top),
            // A mapping of its own.
            false => (start.next_multiple_of(HUGE), (start + len) / HUGE * HUGE),
        };
        if from < to {
            // SAFETY: advice changes no contents, and passes over what is not mapped.
            unsafe { libc::madvise(from as *mut libc::c_void, to - from, libc::MADV_HUGEPAGE) };
        }
    }
}

/// A huge page.
#[cfg(target_os = "linux")]
const HUGE: usize = 2 << 20;
/// Vectors from this many bytes on are large.
#[cfg(target_os = "linux")]
const LARGE: usize = 256 << 10;

/// Gives freed memory back to the system, for after what takes much of it once: opening a tokenizer of 150,000 tokens
/// takes 170 MB and leaves 40. Without glibc it does nothing.
pub fn give_back_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: this may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// How far the heap reaches at first, in bytes; what has not been touched of it costs nothing.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const RESERVED: usize = 256 << 20;

/// Keeps freed memory in the process instead of giving it back to the system, for programs that train.
///
/// Each step of training allocates and frees the same activations; given back, their pages have to be faulted in and
/// cleared by the system every time. Measured on GPT-2 small, batch 2 x 256: 2.25 s a step instead of 2.6 s, 40 % fewer
/// page faults, the same peak. Affects the whole process; without glibc it does nothing.
pub fn keep_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only sets parameters of the allocator, and may be called at any time.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        // All ones: the top of the heap is never trimmed.
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
        // It grows by whole huge pages, and many: what has not been touched costs nothing.
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
    // The heap begins so, too: a large vocabulary alone takes 40,000 small pages.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    drop(room::<f32>(RESERVED / size_of::<f32>()));
}

//! The threads behind `threads::for_each`: workers that look for work a little while before they sleep, because in a
//! model the next piece of work is microseconds away. A general pool's hand-over took a third of a small step.
//!
//! A call is one shared word, `state`: its number, whether it is open, and how many workers are inside. A worker may
//! enter only while the call is open; the caller works too, closes the call when the pieces have run out, and waits for
//! those inside. A worker that comes late finds the call closed and keeps nobody waiting.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::thread::{self, Thread};

/// Looks for work this often before sleeping: some 50 microseconds.
const PATIENCE: u32 = 2_000;

const OPEN: u64 = 1 << 31;
const CALL: u64 = 1 << 32;
const INSIDE: u64 = OPEN - 1;

/// One call: the pieces, and which is next.
struct Job<'a> {
    f: &'a (dyn Fn(usize) + Sync),
    count: usize,
    next: AtomicUsize,
    /// Workers with a lower number may help.
    workers: usize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Job<'_> {
    fn work(&self) {
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= self.count {
                return;
            }
            (self.f)(i);
        }
    }
}

struct Board {
    state: AtomicU64,
    /// The open call's job, on its caller's stack.
    job: AtomicPtr<Job<'static>>,
}

struct Worker {
    thread: Thread,
    asleep: Arc<AtomicBool>,
}

struct Pool {
    board: Arc<Board>,
    workers: Vec<Worker>,
}

static POOL: Mutex<Option<Pool>> = Mutex::new(None);

/// Calls `f(i)` for every `i < count` on up to `threads` threads, this one included. A call from inside another, or
/// beside another, runs on its own thread alone.
pub(crate) fn run(count: usize, threads: usize, f: &(dyn Fn(usize) + Sync)) {
    let mut pool = match POOL.try_lock() {
        Ok(pool) => pool,
        Err(TryLockError::Poisoned(pool)) => PoisonError::into_inner(pool),
        Err(TryLockError::WouldBlock) => return (0..count).for_each(f),
    };
    let pool = pool.get_or_insert_with(Pool::new);
    pool.grow(threads - 1);
    let job = Job { f, count, next: AtomicUsize::new(0), workers: threads - 1, panic: Mutex::new(None) };
    let call = pool.open(&job);
    job.work();
    drop(call);
    let panicked = job.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(panic) = panicked {
        resume_unwind(panic);
    }
}

impl Pool {
    fn new() -> Self {
        let board = Board { state: AtomicU64::new(0), job: AtomicPtr::new(std::ptr::null_mut()) };
        Self { board: Arc::new(board), workers: vec![] }
    }

    /// Starts workers until there are `count`, or as many as the system gives.
    fn grow(&mut self, count: usize) {
        while self.workers.len() < count {
            let (board, asleep, number) = (self.board.clone(), Arc::new(AtomicBool::new(false)), self.workers.len());
            let flag = asleep.clone();
            let started =
                thread::Builder::new().name(format!("kernels-{number}")).spawn(move || board.serve(number, &flag));
            match started {
                Ok(handle) => self.workers.push(Worker { thread: handle.thread().clone(), asleep }),
                // The caller does the work, with whoever there is.
                Err(_) => return,
            }
        }
    }

    fn open<'a>(&'a self, job: &'a Job) -> Call<'a> {
        let board = &*self.board;
        board.job.store(std::ptr::from_ref(job).cast::<Job<'static>>().cast_mut(), Ordering::Relaxed);
        // The last call is closed and empty, so nobody else writes the state now.
        let last = board.state.load(Ordering::Relaxed);
        board.state.store(((last & !INSIDE & !OPEN).wrapping_add(CALL)) | OPEN, Ordering::SeqCst);
        for worker in self.workers.iter().take(job.workers) {
            if worker.asleep.swap(false, Ordering::SeqCst) {
                worker.thread.unpark();
            }
        }
        Call(board)
    }
}

/// An open call; dropping it closes it and waits for the workers inside, also when the caller panics.
struct Call<'a>(&'a Board);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut looks = 0u32;
        while self.0.state.load(Ordering::Acquire) & INSIDE != 0 {
            looks += 1;
            // A worker that the system has put aside needs the processor more than we do.
            if looks < PATIENCE { std::hint::spin_loop() } else { thread::yield_now() }
        }
    }
}

impl Board {
    /// A worker's life.
    fn serve(&self, number: usize, asleep: &AtomicBool) {
        let mut served = 0;
        loop {
            let state = self.wait(served, asleep);
            served = state & !INSIDE & !OPEN;
            if self.state.compare_exchange(state, state + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                // Another entered first, or the call was closed: look again, at the same call if it is open.
                served = served.wrapping_sub(CALL);
                continue;
            }
            // SAFETY: the call was open when we entered, so its job lives until we have left again.
            let job = unsafe { &*self.job.load(Ordering::Relaxed) };
            if number < job.workers
                && let Err(panic) = catch_unwind(AssertUnwindSafe(|| job.work()))
            {
                *job.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
            }
            self.state.fetch_sub(1, Ordering::Release);
        }
    }

    /// The state once a call other than `served` is open.
    fn wait(&self, served: u64, asleep: &AtomicBool) -> u64 {
        let mut looks = 0;
        loop {
            let state = self.state.load(Ordering::Acquire);
            if state & OPEN != 0 && state & !INSIDE & !OPEN != served {
                return state;
            }
            looks += 1;
            if looks < PATIENCE {
                std::hint::spin_loop();
                continue;
            }
            asleep.store(true, Ordering::SeqCst);
            // A call that was opened just before may not have seen the flag.
            let state = self.state.load(Ordering::SeqCst);
            if state & OPEN == 0 || state & !INSIDE & !OPEN == served {
                thread::park();
            }
            asleep.store(false, Ordering::SeqCst);
            looks = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;

    #[test]
    fn many_calls_from_many_threads_do_every_piece_once() {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for call in 0..2_000 {
                        let count = call % 17;
                        let done: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                        run(count, 1 + call % 4, &|i| {
                            done[i].fetch_add(1, Ordering::Relaxed);
                        });
                        assert!(done.iter().all(|n| n.load(Ordering::Relaxed) == 1));
                        if call % 500 == 0 {
                            thread::sleep(std::time::Duration::from_millis(1));
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_pool_usable() {
        for _ in 0..50 {
            let result = catch_unwind(|| {
                run(100, 3, &|i| {
                    if i == 57 {
                        panic!("piece 57")
                    }
                })
            });
            assert_eq!(*result.unwrap_err().downcast_ref::<&str>().unwrap(), "piece 57");
            let sum = AtomicUsize::new(0);
            run(100, 3, &|i| {
                sum.fetch_add(i, Ordering::Relaxed);
            });
            assert_eq!(sum.into_inner(), 4950);
        }
    }
}

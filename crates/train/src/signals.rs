//! Ctrl-C and SIGTERM: the first asks the run to save and stop, the second ends the process at once.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Whether someone is asked to stop at all; without, a signal does what it does by default.
static LISTENING: AtomicBool = AtomicBool::new(false);
/// Whether a stop is requested, for work that is to break off at once.
static STOP: AtomicBool = AtomicBool::new(false);
/// The signal that requested the stop; 0 without one.
static REQUESTED: AtomicI32 = AtomicI32::new(0);
/// Whether the listening thread runs. Handlers cannot be taken down again without leaving the signal
/// ignored, so the thread stays for the life of the process.
static STARTED: Mutex<bool> = Mutex::new(false);

/// While it lives, the first Ctrl-C or SIGTERM only sets a flag. One at a time per process.
#[derive(Debug)]
pub struct Interrupt(());

impl Interrupt {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the system refuses the handler.
    pub fn listen() -> io::Result<Self> {
        let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
        REQUESTED.store(0, Ordering::SeqCst);
        STOP.store(false, Ordering::SeqCst);
        LISTENING.store(true, Ordering::SeqCst);
        if !*started {
            let mut signals = Signals::new([SIGINT, SIGTERM])?;
            // A thread instead of a handler: it may print, and it answers while a long step computes.
            std::thread::Builder::new().name("signals".into()).spawn(move || signals.forever().for_each(receive))?;
            *started = true;
        }
        Ok(Self(()))
    }

    /// Whether the run should save and stop.
    #[must_use]
    pub fn requested(&self) -> bool {
        self.signal().is_some()
    }

    /// The same as a flag, for work between two steps that can be done again.
    #[must_use]
    pub fn flag(&self) -> &'static AtomicBool {
        &STOP
    }

    /// The signal that asked for it.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        Some(REQUESTED.load(Ordering::SeqCst)).filter(|&signal| signal != 0)
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        LISTENING.store(false, Ordering::SeqCst);
    }
}

fn receive(signal: i32) {
    if !LISTENING.load(Ordering::SeqCst) {
        // Ends the process as if no handler stood there. Should even that fail, so does this thread's wish.
        signal_hook::low_level::emulate_default_handler(signal).ok();
    } else if REQUESTED.swap(signal, Ordering::SeqCst) != 0 {
        eprintln!("\nstopped at once; the newest checkpoint is intact, continue from it with --resume");
        // The shell's convention: 128 plus the signal.
        std::process::exit(128 + signal);
    } else {
        STOP.store(true, Ordering::SeqCst);
        eprintln!("\nstopping after this step to save a checkpoint; once more to stop at once");
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};

    const ROLE: &str = "PHYLA_TEST_SIGNALS";

    /// Not a test of its own: the process that the test below sends signals to.
    #[test]
    fn child() {
        if std::env::var_os(ROLE).is_none() {
            return;
        }
        let interrupt = Interrupt::listen().unwrap();
        eprintln!("ready");
        let wait = |until: &dyn Fn() -> bool| {
            for _ in 0..2000 {
                if until() {
                    return;
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        };
        wait(&|| interrupt.requested());
        eprintln!("requested");
        wait(&|| false);
    }

    fn send(child: &Child, signal: &str) {
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    }

    #[test]
    fn the_first_signal_asks_and_the_second_ends() {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "signals::tests::child", "--nocapture", "--test-threads=1"])
            .env(ROLE, "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        // Whether all of these are said, in any order: two threads say them.
        let mut until = |texts: &[&str]| {
            let mut missing = texts.to_vec();
            lines.by_ref().any(|line| {
                missing.retain(|text| !line.contains(text));
                missing.is_empty()
            })
        };
        assert!(until(&["ready"]));
        send(&child, "-INT");
        assert!(until(&["stopping after this step", "requested"]));
        send(&child, "-TERM");
        assert!(until(&["stopped at once"]));
        assert_eq!(child.wait().unwrap().code(), Some(128 + SIGTERM));
    }
}

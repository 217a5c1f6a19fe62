//! Other programs as children: what they print is kept, and a signal to us ends them and all that they have started.

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::cli::error::Interrupted;

/// How long we sleep before we look again whether a child has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a child left behind.
pub struct Finished {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    /// From its start to its first byte on standard output.
    pub first_byte: Option<Duration>,
}

impl Finished {
    /// The last line that it wrote as a message, or how it ended.
    pub fn last_words(&self) -> String {
        match self.stderr.lines().rfind(|line| !line.trim().is_empty()) {
            Some(line) if self.status.code().is_some() => line.trim().to_owned(),
            _ => format!("ended with {}", self.status),
        }
    }
}

/// Starts children, and ends the one that runs when Ctrl-C or SIGTERM comes.
pub struct Children {
    /// The number of the signal that came, or 0.
    signal: Arc<AtomicUsize>,
}

impl Children {
    pub fn new() -> anyhow::Result<Self> {
        let signal = Arc::new(AtomicUsize::new(0));
        for number in [SIGINT, SIGTERM] {
            signal_hook::flag::register_usize(number, Arc::clone(&signal), number as usize)
                .context("cannot listen to Ctrl-C")?;
        }
        Ok(Self { signal })
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// `Interrupted` after a signal, when the child has been ended; otherwise if the program cannot be started.
    pub fn run(&self, mut command: Command) -> anyhow::Result<Finished> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own, so that what it has started can be ended with it.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let start = Instant::now();
        let mut child = command.spawn().with_context(|| format!("cannot run `{name}`"))?;
        let stdout = child.stdout.take().map(|pipe| thread::spawn(move || read(pipe, start)));
        let stderr = child.stderr.take().map(|pipe| thread::spawn(move || read(pipe, start)));
        let status = self.wait(&mut child).inspect_err(|_| end(&mut child))?;
        let text = |reader: Option<thread::JoinHandle<_>>| reader.and_then(|reader| reader.join().ok());
        let (stdout, first_byte) = text(stdout).unwrap_or_default();
        let (stderr, _) = text(stderr).unwrap_or_default();
        Ok(Finished { status, stdout, stderr, first_byte })
    }

    fn wait(&self, child: &mut Child) -> anyhow::Result<ExitStatus> {
        loop {
            if let Some(status) = child.try_wait().context("cannot wait for a child")? {
                return Ok(status);
            }
            match self.signal.load(Ordering::SeqCst) {
                0 => thread::sleep(LOOK_EVERY),
                signal => return Err(Interrupted(signal as i32).into()),
            }
        }
    }
}

/// All that a pipe gives, and when its first byte came after `start`.
fn read(mut pipe: impl Read, start: Instant) -> (String, Option<Duration>) {
    let (mut bytes, mut first) = (vec![0], None);
    let read = pipe.read(&mut bytes);
    if matches!(read, Ok(1)) {
        first = Some(start.elapsed());
        // What cannot be read is missed where the text is used.
        pipe.read_to_end(&mut bytes).ok();
    } else {
        bytes.clear();
    }
    (String::from_utf8_lossy(&bytes).into_owned(), first)
}

/// Ends a child and its own children.
fn end(child: &mut Child) {
    #[cfg(unix)]
    if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL).ok();
    }
    child.kill().ok();
    let _: io::Result<ExitStatus> = child.wait();
}

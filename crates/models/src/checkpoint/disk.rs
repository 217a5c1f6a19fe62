//! The few file operations that saving uses, each of them a point at which a test can make the disk
//! fail or the process die. Without tests they are the standard library's, one to one.
//!
//! Under `cfg(test)` or the hidden feature `fault-injection`, the environment variable `PHYLA_FAULT`
//! arms one fault for the process: `abort:N` dies at operation N (from 0) without any clean-up, as
//! `kill -9` does; `error:N` lets operation N fail; `full:BYTES` is a disk with so much room left.
//! `PHYLA_FAULT_PLAIN=1` stands for a file system that cannot swap two folders.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use super::CheckpointError;

type Result<T> = std::result::Result<T, CheckpointError>;

/// Creates a file that must not exist yet.
pub(super) fn create_new(path: &Path) -> Result<File> {
    let create = || {
        fault::point()?;
        File::options().write(true).create_new(true).open(path)
    };
    create().map_err(CheckpointError::io("create", path))
}

/// Creates a folder that must not exist yet.
pub(super) fn create_dir(path: &Path) -> Result<()> {
    fault::point().and_then(|()| fs::create_dir(path)).map_err(CheckpointError::io("create", path))
}

/// Writes all of `bytes` at byte `offset`; `path` is for the message.
pub(super) fn write_at(file: &mut File, path: &Path, offset: u64, bytes: &[u8]) -> Result<()> {
    let mut write = || {
        fault::point()?;
        let room = fault::room(bytes.len());
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(&bytes[..room])?;
        if room < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    };
    write().map_err(CheckpointError::io("write", path))
}

/// Waits until a file's bytes are on the disk.
pub(super) fn sync(file: &File, path: &Path) -> Result<()> {
    fault::point().and_then(|()| file.sync_all()).map_err(CheckpointError::io("sync", path))
}

/// Waits until a folder's names are on the disk.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    let sync = || {
        fault::point()?;
        // Only Unix can open a folder; elsewhere the names follow in the system's own time.
        if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
    };
    sync().map_err(CheckpointError::io("sync", path))
}

/// Renames, replacing a file at `to`.
pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    fault::point().and_then(|()| fs::rename(from, to)).map_err(CheckpointError::io("rename a file to", to))
}

/// Swaps two folders in one step; `Ok(false)` where the system or the file system cannot.
pub(super) fn exchange(a: &Path, b: &Path) -> Result<bool> {
    fault::point().map_err(CheckpointError::io("replace", b))?;
    if fault::plain() {
        return Ok(false);
    }
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        match renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE) {
            Ok(()) => Ok(true),
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => Ok(false),
            Err(error) => Err(CheckpointError::io("replace", b)(error.into())),
        }
    }
    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    {
        let _ = a;
        Ok(false)
    }
}

/// Removes a file; one that is already gone is fine.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fault::point().and_then(|()| fs::remove_file(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(CheckpointError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Removes a folder and all in it.
pub(super) fn remove_dir_all(path: &Path) -> Result<()> {
    fault::point().and_then(|()| fs::remove_dir_all(path)).map_err(CheckpointError::io("remove", path))
}

#[cfg(not(any(test, feature = "fault-injection")))]
mod fault {
    pub(super) fn point() -> std::io::Result<()> {
        Ok(())
    }
    pub(super) fn room(bytes: usize) -> usize {
        bytes
    }
    pub(super) fn plain() -> bool {
        false
    }
}

#[cfg(any(test, feature = "fault-injection"))]
pub(crate) mod fault {
    use std::io;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Mutex, OnceLock, PoisonError};

    /// One thing that goes wrong.
    #[derive(Clone, Copy, Debug)]
    pub enum Plan {
        /// The process dies at this operation.
        Abort(u64),
        /// This operation fails.
        Error(u64),
        /// The disk takes so many bytes more.
        Full(u64),
    }

    static OPERATIONS: AtomicU64 = AtomicU64::new(0);
    static ROOM: OnceLock<Mutex<u64>> = OnceLock::new();

    fn from_env() -> Option<Plan> {
        static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
        *PLAN.get_or_init(|| {
            let text = std::env::var("PHYLA_FAULT").ok()?;
            let (kind, number) = text.split_once(':')?;
            let number = number.parse().ok()?;
            match kind {
                "abort" => Some(Plan::Abort(number)),
                "error" => Some(Plan::Error(number)),
                "full" => Some(Plan::Full(number)),
                _ => None,
            }
        })
    }

    pub(super) fn point() -> io::Result<()> {
        #[cfg(test)]
        if thread::point() {
            return Err(io::Error::other("injected"));
        }
        match from_env() {
            Some(Plan::Abort(n)) if OPERATIONS.fetch_add(1, Ordering::SeqCst) == n => std::process::abort(),
            Some(Plan::Error(n)) if OPERATIONS.fetch_add(1, Ordering::SeqCst) == n => Err(io::Error::other("injected")),
            _ => Ok(()),
        }
    }

    pub(super) fn room(bytes: usize) -> usize {
        #[cfg(test)]
        if let Some(room) = thread::room(bytes) {
            return room;
        }
        let Some(Plan::Full(limit)) = from_env() else {
            return bytes;
        };
        let mut left = ROOM.get_or_init(|| Mutex::new(limit)).lock().unwrap_or_else(PoisonError::into_inner);
        take(&mut left, bytes)
    }

    pub(super) fn plain() -> bool {
        std::env::var_os("PHYLA_FAULT_PLAIN").is_some()
    }

    fn take(left: &mut u64, bytes: usize) -> usize {
        let taken = (*left).min(bytes as u64);
        *left -= taken;
        taken as usize
    }

    /// The same for one thread of a test process, where tests run side by side.
    #[cfg(test)]
    pub mod thread {
        use super::{Plan, take};
        use std::cell::Cell;

        thread_local! {
            static PLAN: Cell<Option<Plan>> = const { Cell::new(None) };
            static COUNT: Cell<u64> = const { Cell::new(0) };
        }

        /// Runs `body` under a plan; returns its result and the number of operations that it made.
        pub fn with<T>(plan: Option<Plan>, body: impl FnOnce() -> T) -> (T, u64) {
            PLAN.set(plan);
            COUNT.set(0);
            let result = body();
            PLAN.set(None);
            (result, COUNT.get())
        }

        pub(super) fn point() -> bool {
            let n = COUNT.replace(COUNT.get() + 1);
            matches!(PLAN.get(), Some(Plan::Error(at)) if at == n)
        }

        pub(super) fn room(bytes: usize) -> Option<usize> {
            let Some(Plan::Full(mut left)) = PLAN.get() else {
                return None;
            };
            let taken = take(&mut left, bytes);
            PLAN.set(Some(Plan::Full(left)));
            Some(taken)
        }
    }
}

//! Files and folders that appear whole or not at all: written under a temporary name beside the
//! target, synced, then moved into place in one step. Neither knows what it holds.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{CheckpointError, disk};

type Result<T> = std::result::Result<T, CheckpointError>;

/// Writes `bytes` to `path` so that a reader sees the old file or the new one, never a part, even
/// after a power cut. An existing file is replaced; a symlink is replaced too, not followed.
///
/// # Errors
/// [`CheckpointError::Io`]; the old file is then intact and no temporary file stays.
pub fn atomic_write(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    atomic_write_parts(path, [bytes])
}

/// The same of bytes that lie in several pieces.
///
/// # Errors
/// As [`atomic_write`].
pub fn atomic_write_parts<'b>(path: impl AsRef<Path>, parts: impl IntoIterator<Item = &'b [u8]>) -> Result<()> {
    let path = path.as_ref();
    let mut file = TempFile::create(folder_of(path), name_of(path)?)?;
    let mut at = 0;
    for part in parts {
        file.write_at(at, part)?;
        at += part.len() as u64;
    }
    file.sync()?;
    file.rename(path)?;
    disk::sync_dir(folder_of(path))
}

/// A file under a temporary name, removed again unless renamed.
#[derive(Debug)]
pub(crate) struct TempFile {
    /// Locked while we live, by which others tell our file from one that a crash left behind.
    file: File,
    path: PathBuf,
    renamed: bool,
}

impl TempFile {
    /// A new file `.NAME.….tmp` in `folder`; those that crashes left there are removed.
    pub fn create(folder: &Path, name: impl AsRef<OsStr>) -> Result<Self> {
        sweep(folder);
        let path = temporary(folder, name.as_ref());
        let file = disk::create_new(&path)?;
        // A file system without locks costs only the sweeping.
        file.try_lock().ok();
        Ok(TempFile { file, path, renamed: false })
    }

    /// Writes at a byte offset.
    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        disk::write_at(&mut self.file, &self.path, offset, bytes)
    }

    /// Makes the file this long; what was not written reads as zeros.
    pub fn set_len(&self, bytes: u64) -> Result<()> {
        self.file.set_len(bytes).map_err(CheckpointError::io("write", &self.path))
    }

    /// Where it is until it is renamed.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until the bytes are on the disk.
    pub fn sync(&self) -> Result<()> {
        disk::sync(&self.file, &self.path)
    }

    /// Gives the file its name; the folder is the caller's to sync.
    pub fn rename(mut self, to: &Path) -> Result<()> {
        disk::rename(&self.path, to)?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.renamed {
            fs::remove_file(&self.path).ok();
        }
    }
}

/// A folder that replaces another as a whole: write into [`AtomicDir::path`], then
/// [`AtomicDir::commit`]. Dropped without commit, it vanishes and the old folder stays.
///
/// ```no_run
/// # fn main() -> Result<(), phyla_models::checkpoint::CheckpointError> {
/// use phyla_models::checkpoint::AtomicDir;
/// let folder = AtomicDir::create("run/checkpoint-100")?;
/// std::fs::write(folder.path().join("config.json"), "{}").ok();
/// folder.commit()?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct AtomicDir {
    target: PathBuf,
    path: PathBuf,
    /// As in [`TempFile`]; closed before the folder is moved.
    _lock: Option<File>,
    committed: bool,
}

impl AtomicDir {
    /// An empty folder beside `target`, on the same file system; missing parents are created. What
    /// a crash left behind for this target is repaired or removed first.
    ///
    /// # Errors
    /// [`CheckpointError::Io`], also when `target` is a file.
    pub fn create(target: impl AsRef<Path>) -> Result<Self> {
        let target = target.as_ref();
        let parent = folder_of(target);
        let name = name_of(target)?;
        fs::create_dir_all(parent).map_err(CheckpointError::io("create", parent))?;
        if target.exists() && !target.is_dir() {
            return Err(CheckpointError::io("replace", target)(io::ErrorKind::NotADirectory.into()));
        }
        Self::recover(target)?;
        sweep(parent);
        let path = temporary(parent, name);
        disk::create_dir(&path)?;
        let lock = File::open(&path).ok().filter(|folder| folder.try_lock().is_ok());
        Ok(AtomicDir { target: target.to_path_buf(), path, _lock: lock, committed: false })
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Syncs everything written and puts the folder in the target's place; the old one is removed
    /// only after that.
    ///
    /// # Errors
    /// [`CheckpointError::Io`]. If the failure came before the step that puts the folder in place,
    /// the old folder is intact and the new one is gone.
    pub fn commit(mut self) -> Result<()> {
        sync_tree(&self.path)?;
        let parent = folder_of(&self.target).to_path_buf();
        if !self.target.exists() {
            disk::rename(&self.path, &self.target)?;
            self.committed = true;
            return disk::sync_dir(&parent);
        }
        let old = if disk::exchange(&self.path, &self.target)? {
            self.path.clone()
        } else {
            // In two steps; a crash between them is what `recover` repairs.
            let old = backup(&self.target)?;
            disk::rename(&self.target, &old)?;
            if let Err(error) = disk::rename(&self.path, &self.target) {
                fs::rename(&old, &self.target).ok();
                return Err(error);
            }
            old
        };
        self.committed = true;
        disk::sync_dir(&parent)?;
        // The new folder is in place: an old one that cannot be removed is litter, not a failure,
        // and the next save sweeps it.
        disk::remove_dir_all(&old).ok();
        Ok(())
    }

    /// Puts back the old folder if a crash came between the two steps of a replacement, on a file
    /// system that cannot swap in one. Call it before deciding that `target` does not exist.
    ///
    /// # Errors
    /// [`CheckpointError::Io`].
    pub fn recover(target: impl AsRef<Path>) -> Result<()> {
        let target = target.as_ref();
        let old = backup(target)?;
        match (old.exists(), target.exists()) {
            (true, false) => {
                disk::rename(&old, target)?;
                disk::sync_dir(folder_of(target))
            }
            (true, true) => disk::remove_dir_all(&old),
            _ => Ok(()),
        }
    }
}

impl Drop for AtomicDir {
    fn drop(&mut self) {
        if !self.committed {
            fs::remove_dir_all(&self.path).ok();
        }
    }
}

/// Syncs every file below `folder`, and the folders after their content.
fn sync_tree(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(CheckpointError::io("list", folder))? {
        let entry = entry.map_err(CheckpointError::io("list", folder))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(CheckpointError::io("open", &path))?;
        if kind.is_dir() {
            sync_tree(&path)?;
        } else if kind.is_file() {
            let file = File::open(&path).map_err(CheckpointError::io("open", &path))?;
            disk::sync(&file, &path)?;
        }
    }
    disk::sync_dir(folder)
}

/// Removes the temporary files and folders of ours in `folder` that nobody holds locked: what crashes
/// left behind. Whatever goes wrong here only leaves litter.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_str().is_some_and(is_temporary);
        let abandoned = || File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok());
        if ours && abandoned() {
            let path = entry.path();
            if path.is_dir() {
                fs::remove_dir_all(path).ok()
            } else {
                fs::remove_file(path).ok()
            };
        }
    }
}

fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".tmp") && name.contains(".phyla-")
}

/// `.NAME.phyla-PROCESS-COUNT.tmp`: hidden, and with no ending that a loader looks for.
fn temporary(folder: &Path, name: &OsStr) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(format!(".phyla-{}-{count}.tmp", std::process::id()));
    folder.join(hidden)
}

fn backup(target: &Path) -> Result<PathBuf> {
    let mut hidden = OsString::from(".");
    hidden.push(name_of(target)?);
    hidden.push(".old");
    Ok(folder_of(target).join(hidden))
}

pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(crate) fn name_of(path: &Path) -> Result<&OsStr> {
    path.file_name().ok_or_else(|| CheckpointError::io("write to", path)(io::ErrorKind::InvalidInput.into()))
}

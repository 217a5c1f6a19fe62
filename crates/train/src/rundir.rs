//! The folder of a run: where everything lies, which checkpoints are complete, which are kept.
//!
//! ```text
//! runs/name/
//!   recipe.toml                 the resolved recipe
//!   metrics.jsonl               one row per logged step
//!   tensorboard/                event files
//!   checkpoints/step-000123/    a Hugging Face folder, the trainer's state, and complete.json
//!   latest, best                the name of a checkpoint each
//!   model/                      the final model
//!   report.html
//! ```
//!
//! A checkpoint counts only with a `complete.json` whose sizes and hashes match. That file is written
//! last, into a folder that gets its name last, so that a kill, a full disk or a power cut at any
//! moment leaves the previous checkpoints as they were.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use phyla_models::checkpoint::{AtomicDir, CheckpointError, atomic_write};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The marker of a complete checkpoint.
const MARKER: &str = "complete.json";

/// Why the folder of a run cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunDirError {
    /// The file system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process trains in the folder.
    #[error("{path} is in use by another run{}; wait for it, stop it, or choose another `output`", holder(.process))]
    Busy {
        /// The run folder.
        path: PathBuf,
        /// Its process id, if it could be read.
        process: String,
    },
    /// A new run would overwrite an old one.
    #[error("{path} already holds a run{}; continue it with --resume, or choose another `output`", reached(.step))]
    Occupied {
        /// The run folder.
        path: PathBuf,
        /// Its newest checkpoint.
        step: Option<u64>,
    },
    /// A file or folder could not be put in its place.
    #[error(transparent)]
    Write(#[from] CheckpointError),
}

fn holder(process: &str) -> String {
    if process.is_empty() { String::new() } else { format!(" (process {process})") }
}

fn reached(step: &Option<u64>) -> String {
    step.map_or_else(String::new, |step| format!(" with a checkpoint at step {step}"))
}

/// What the marker says: every other file of the checkpoint.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    step: u64,
    files: Vec<MarkedFile>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct MarkedFile {
    name: String,
    bytes: u64,
    sha256: String,
}

/// A complete checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Updates made.
    pub step: u64,
    /// Its folder.
    pub path: PathBuf,
}

/// The folder of a run, locked against a second one while this value lives.
#[derive(Debug)]
pub struct RunDir {
    root: PathBuf,
    /// Held for its lock, which the system gives back even after `kill -9`.
    lock: File,
}

impl RunDir {
    /// Begins a new run.
    ///
    /// # Errors
    /// When the folder already holds a run, is in use, or cannot be written.
    pub fn create(root: &Path) -> Result<Self, RunDirError> {
        let run = Self::open(root)?;
        let step = run.steps()?.into_iter().max();
        if step.is_some() || run.metrics().exists() || run.model().exists() {
            return Err(RunDirError::Occupied { path: root.to_owned(), step });
        }
        Ok(run)
    }

    /// Continues a run: finds the newest complete checkpoint, or none when the run was killed before
    /// its first. Half-written checkpoints are removed and damaged ones set aside, each with a warning.
    ///
    /// # Errors
    /// When the folder is in use or cannot be read or written.
    pub fn resume(root: &Path) -> Result<(Self, Option<Checkpoint>), RunDirError> {
        let run = Self::open(root)?;
        let mut steps = run.steps()?;
        steps.sort_unstable();
        let mut newest = None;
        while let Some(step) = steps.pop() {
            let path = run.checkpoint_path(step);
            AtomicDir::recover(&path)?;
            match verify(&path, step) {
                Ok(()) => {
                    newest = Some(Checkpoint { step, path });
                    break;
                }
                Err(Flaw::HalfWritten) => {
                    tracing::warn!("{} is half written; removing it", path.display());
                    fs::remove_dir_all(&path).map_err(io_error("remove", &path))?;
                }
                Err(Flaw::Damaged(what)) => {
                    // Perhaps the user's only copy of something: set aside, never deleted.
                    let aside = set_aside(&path);
                    tracing::warn!("{} is damaged ({what}); moving it to {}", path.display(), aside.display());
                    fs::rename(&path, &aside).map_err(io_error("move", &path))?;
                }
            }
        }
        if let Some(Checkpoint { step, .. }) = &newest {
            // A kill between a checkpoint and the note leaves the name of an older one.
            let latest = run.root.join("latest");
            let text = format!("{}\n", name(*step));
            if fs::read_to_string(&latest).ok().as_ref() != Some(&text) {
                atomic_write(&latest, text.as_bytes())?;
            }
        }
        Ok((run, newest))
    }

    fn open(root: &Path) -> Result<Self, RunDirError> {
        let checkpoints = root.join("checkpoints");
        fs::create_dir_all(&checkpoints).map_err(io_error("create", &checkpoints))?;
        let path = root.join(".lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io_error("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut process = String::new();
                // Only for the message: an unreadable lock file is still a held lock.
                lock.take(20).read_to_string(&mut process).ok();
                return Err(RunDirError::Busy { path: root.to_owned(), process: process.trim().to_owned() });
            }
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                tracing::warn!(
                    "{} lies on a file system without locks: make sure that no other run uses it",
                    root.display()
                );
            }
            Err(TryLockError::Error(error)) => return Err(io_error("lock", &path)(error)),
        }
        let written = lock.set_len(0).and_then(|()| write!(lock, "{}", std::process::id()));
        written.map_err(io_error("write", &path))?;
        Ok(Self { root: root.to_owned(), lock })
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The resolved recipe.
    #[must_use]
    pub fn recipe(&self) -> PathBuf {
        self.root.join("recipe.toml")
    }

    /// The metrics rows.
    #[must_use]
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.jsonl")
    }

    /// The folder of TensorBoard event files.
    #[must_use]
    pub fn tensorboard(&self) -> PathBuf {
        self.root.join("tensorboard")
    }

    /// The report.
    #[must_use]
    pub fn report(&self) -> PathBuf {
        self.root.join("report.html")
    }

    /// The final model, a Hugging Face folder.
    #[must_use]
    pub fn model(&self) -> PathBuf {
        self.root.join("model")
    }

    /// Writes a file of the run whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path, text: &str) -> Result<(), RunDirError> {
        Ok(atomic_write(path, text.as_bytes())?)
    }

    /// Begins a checkpoint after `step` updates: write its files into [`PendingCheckpoint::path`].
    ///
    /// # Errors
    /// When the folder cannot be created.
    pub fn begin_checkpoint(&self, step: u64) -> Result<PendingCheckpoint, RunDirError> {
        let folder = AtomicDir::create(self.checkpoint_path(step))?;
        Ok(PendingCheckpoint { folder, step, target: self.checkpoint_path(step), root: self.root.clone() })
    }

    /// Notes which checkpoint has the lowest validation loss; it outlives pruning.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn mark_best(&self, step: u64) -> Result<(), RunDirError> {
        self.write(&self.root.join("best"), &format!("{}\n", name(step)))
    }

    /// As [`RunDir::mark_best`], if the checkpoint is there, complete and not noted already.
    ///
    /// # Errors
    /// When the note cannot be written.
    pub fn mark_best_if_there(&self, step: u64) -> Result<(), RunDirError> {
        let there = self.checkpoint_path(step).join(MARKER).is_file();
        if there && self.best().is_none_or(|best| best.step != step) { self.mark_best(step) } else { Ok(()) }
    }

    /// The checkpoint with the lowest validation loss, if one is noted and still there.
    #[must_use]
    pub fn best(&self) -> Option<Checkpoint> {
        let step = parse_name(fs::read_to_string(self.root.join("best")).ok()?.trim())?;
        let path = self.checkpoint_path(step);
        path.join(MARKER).is_file().then_some(Checkpoint { step, path })
    }

    /// The newest complete checkpoints, at most so many, the oldest of them first.
    ///
    /// # Errors
    /// When the folder cannot be listed.
    pub fn newest(&self, count: usize) -> Result<Vec<Checkpoint>, RunDirError> {
        let mut steps = self.steps()?;
        steps.sort_unstable();
        let whole = |step| Checkpoint { step, path: self.checkpoint_path(step) };
        let mut found: Vec<Checkpoint> =
            steps.into_iter().map(whole).filter(|checkpoint| checkpoint.path.join(MARKER).is_file()).collect();
        found.drain(..found.len().saturating_sub(count));
        Ok(found)
    }

    /// Removes all checkpoints but the newest `keep_last` and, if `keep_best`, the best one.
    ///
    /// # Errors
    /// When a folder cannot be removed.
    pub fn prune(&self, keep_last: usize, keep_best: bool) -> Result<(), RunDirError> {
        let mut steps = self.steps()?;
        steps.sort_unstable_by(|a, b| b.cmp(a));
        let best = self.best().filter(|_| keep_best).map(|best| best.step);
        // At least one stays, whatever the caller says: without any a kill would cost the whole run.
        for step in steps.into_iter().skip(keep_last.max(1)).filter(|step| Some(*step) != best) {
            let path = self.checkpoint_path(step);
            // The marker first: a kill in between leaves a half-written checkpoint, not a damaged one.
            let marker = path.join(MARKER);
            match fs::remove_file(&marker) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(io_error("remove", &marker)(error));
                }
                _ => fs::remove_dir_all(&path).map_err(io_error("remove", &path))?,
            }
        }
        Ok(())
    }

    fn checkpoint_path(&self, step: u64) -> PathBuf {
        self.root.join("checkpoints").join(name(step))
    }

    /// Steps of all checkpoint folders, complete or not.
    fn steps(&self) -> Result<Vec<u64>, RunDirError> {
        let folder = self.root.join("checkpoints");
        let mut steps = Vec::new();
        for entry in fs::read_dir(&folder).map_err(io_error("list", &folder))? {
            let entry = entry.map_err(io_error("list", &folder))?;
            steps.extend(entry.file_name().to_str().and_then(parse_name));
        }
        Ok(steps)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        // Closing alone would not do while a process that another thread is just starting still has a
        // copy of the file. Should it fail, the lock ends with the process.
        self.lock.unlock().ok();
    }
}

/// A checkpoint that does not count yet. Dropped without commit, it vanishes.
#[derive(Debug)]
pub struct PendingCheckpoint {
    folder: AtomicDir,
    step: u64,
    target: PathBuf,
    root: PathBuf,
}

impl PendingCheckpoint {
    /// Where to write the files.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Marks the checkpoint complete, gives it its name and points `latest` at it.
    ///
    /// # Errors
    /// When a file cannot be read back, or the disk refuses; older checkpoints are then untouched.
    pub fn commit(self) -> Result<Checkpoint, RunDirError> {
        let mut files = Vec::new();
        for file in files_below(self.folder.path())? {
            let name = file.strip_prefix(self.folder.path()).unwrap_or(&file).to_string_lossy().into_owned();
            let (bytes, sha256) = digest(&file).map_err(io_error("read", &file))?;
            files.push(MarkedFile { name, bytes, sha256 });
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let path = self.folder.path().join(MARKER);
        let marker = serde_json::to_vec_pretty(&Marker { step: self.step, files })
            .map_err(|error| io_error("write", &path)(error.into()))?;
        atomic_write(&path, &marker)?;
        self.folder.commit()?;
        atomic_write(self.root.join("latest"), format!("{}\n", name(self.step)).as_bytes())?;
        Ok(Checkpoint { step: self.step, path: self.target })
    }
}

enum Flaw {
    HalfWritten,
    Damaged(String),
}

/// Whether the folder holds exactly what its marker says.
fn verify(path: &Path, step: u64) -> Result<(), Flaw> {
    let Ok(text) = fs::read_to_string(path.join(MARKER)) else { return Err(Flaw::HalfWritten) };
    let marker: Marker =
        serde_json::from_str(&text).map_err(|error| Flaw::Damaged(format!("{MARKER} does not parse: {error}")))?;
    if marker.step != step {
        return Err(Flaw::Damaged(format!("{MARKER} belongs to step {}", marker.step)));
    }
    // Sizes of all files before any hash: the usual flaw shows without reading gigabytes.
    for file in &marker.files {
        let found = fs::metadata(path.join(&file.name)).map(|metadata| metadata.len());
        match found {
            Ok(bytes) if bytes == file.bytes => {}
            Ok(bytes) => {
                return Err(Flaw::Damaged(format!("{} has {bytes} bytes instead of {}", file.name, file.bytes)));
            }
            Err(error) => return Err(Flaw::Damaged(format!("{}: {error}", file.name))),
        }
    }
    for file in &marker.files {
        match digest(&path.join(&file.name)) {
            Ok((_, sha256)) if sha256 == file.sha256 => {}
            Ok(_) => return Err(Flaw::Damaged(format!("{} has changed since it was written", file.name))),
            Err(error) => return Err(Flaw::Damaged(format!("{}: {error}", file.name))),
        }
    }
    Ok(())
}

/// All files below a folder.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>, RunDirError> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).map_err(io_error("list", &folder))? {
            let path = entry.map_err(io_error("list", &folder))?.path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    Ok(files)
}

/// Size and SHA-256 of a file, read in pieces: optimiser states are larger than memory should grow by.
fn digest(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        bytes += count as u64;
    }
    let text = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((bytes, text))
}

/// `step-000123`: padded, so that file listings sort by step.
fn name(step: u64) -> String {
    format!("step-{step:06}")
}

fn parse_name(text: &str) -> Option<u64> {
    let step = text.strip_prefix("step-")?.parse().ok()?;
    // Only what we would have written: no `step-7`, no `step-+00007`.
    (name(step) == text).then_some(step)
}

/// A name for a damaged checkpoint that nothing bears yet.
fn set_aside(path: &Path) -> PathBuf {
    let mut aside = path.with_extension("damaged");
    for count in 2.. {
        if !aside.exists() {
            break;
        }
        aside = path.with_extension(format!("damaged-{count}"));
    }
    aside
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RunDirError {
    move |source| RunDirError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn save(run: &RunDir, step: u64) {
        let pending = run.begin_checkpoint(step).unwrap();
        fs::write(pending.path().join("model.safetensors"), format!("weights {step}")).unwrap();
        fs::create_dir(pending.path().join("tokenizer")).unwrap();
        fs::write(pending.path().join("tokenizer/vocab.json"), "{}").unwrap();
        pending.commit().unwrap();
    }

    fn resumed(root: &Path) -> Option<u64> {
        RunDir::resume(root).unwrap().1.map(|checkpoint| checkpoint.step)
    }

    #[test]
    fn the_newest_complete_checkpoint_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("run");
        assert_eq!(resumed(&root), None);
        let run = RunDir::create(&root).unwrap();
        [5, 10, 1_000_000].iter().for_each(|step| save(&run, *step));
        assert_eq!(fs::read_to_string(root.join("latest")).unwrap(), "step-1000000\n");
        drop(run);
        assert_eq!(resumed(&root), Some(1_000_000));
    }

    #[test]
    fn a_half_written_checkpoint_is_removed_and_a_damaged_one_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let run = RunDir::create(root).unwrap();
        [1, 2, 3, 4].iter().for_each(|step| save(&run, *step));
        drop(run);
        let checkpoints = root.join("checkpoints");
        fs::remove_file(checkpoints.join("step-000004").join(MARKER)).unwrap();
        fs::write(checkpoints.join("step-000003/model.safetensors"), "weights X").unwrap(); // same size
        fs::write(checkpoints.join("step-000002/model.safetensors"), "weig").unwrap();
        assert_eq!(resumed(root), Some(1));
        assert!(!checkpoints.join("step-000004").exists());
        assert!(checkpoints.join("step-000003.damaged").exists());
        assert!(checkpoints.join("step-000002.damaged").exists());
        // The damaged ones are out of the way for good.
        assert_eq!(resumed(root), Some(1));
    }

    #[test]
    fn an_uncommitted_checkpoint_leaves_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path()).unwrap();
        save(&run, 1);
        let pending = run.begin_checkpoint(2).unwrap();
        fs::write(pending.path().join("model.safetensors"), "half").unwrap();
        drop(pending);
        drop(run);
        assert_eq!(resumed(folder.path()), Some(1));
        assert_eq!(fs::read_dir(folder.path().join("checkpoints")).unwrap().count(), 1);
    }

    #[test]
    fn saving_a_step_again_replaces_it() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path()).unwrap();
        save(&run, 1);
        save(&run, 1);
        drop(run);
        assert_eq!(resumed(folder.path()), Some(1));
    }

    #[test]
    fn pruning_keeps_the_last_and_the_best() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path()).unwrap();
        (1..=5).for_each(|step| save(&run, step));
        run.mark_best(2).unwrap();
        run.prune(2, true).unwrap();
        let mut steps = run.steps().unwrap();
        steps.sort_unstable();
        assert_eq!(steps, [2, 4, 5]);
        assert_eq!(run.best().unwrap().step, 2);
        run.prune(0, false).unwrap();
        assert_eq!(run.steps().unwrap(), [5]);
        assert_eq!(run.best(), None);
    }

    #[test]
    fn two_runs_do_not_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path()).unwrap();
        let message = RunDir::resume(folder.path()).unwrap_err().to_string();
        assert!(message.contains(&format!("in use by another run (process {})", std::process::id())), "{message}");
        save(&run, 7);
        drop(run);
        let message = RunDir::create(folder.path()).unwrap_err().to_string();
        assert!(
            message.contains("already holds a run with a checkpoint at step 7; continue it with --resume"),
            "{message}"
        );
    }

    const ROLE: &str = "PHYLA_TEST_RUNDIR";

    /// Not a test of its own: the run that the test below kills, starves and cuts off.
    #[test]
    fn child() {
        let Some(root) = std::env::var_os(ROLE) else { return };
        let work = || -> Result<(), RunDirError> {
            let run = RunDir::create(Path::new(&root))?;
            for step in 1..=3 {
                let pending = run.begin_checkpoint(step)?;
                atomic_write(pending.path().join("model.safetensors"), format!("weights {step}").as_bytes())?;
                atomic_write(pending.path().join("trainer_state.json"), b"{}")?;
                pending.commit()?;
                run.mark_best(1)?;
                run.prune(1, true)?;
            }
            Ok(())
        };
        // The harness would answer a panic with the same code; the message is for whoever looks.
        if let Err(error) = work() {
            eprintln!("{error}");
            std::process::exit(3);
        }
    }

    /// Runs the child under a fault; says whether it came to its end undisturbed.
    fn survives(root: &Path, fault: &str) -> bool {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "rundir::tests::child", "--test-threads=1"])
            .env(ROLE, root)
            .env("PHYLA_FAULT", fault)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        status.success()
    }

    #[test]
    fn a_fault_at_any_operation_leaves_only_complete_checkpoints() {
        for kind in ["abort", "error", "full"] {
            let mut newest = 0;
            let mut undisturbed = false;
            for moment in 0..2000 {
                let folder = tempfile::tempdir().unwrap();
                let root = folder.path();
                // A full disk is tried in steps of bytes, where most moments fall within one file.
                let fault = format!("{kind}:{}", if kind == "full" { moment * 37 } else { moment });
                undisturbed = survives(root, &fault);
                let (run, found) = RunDir::resume(root).unwrap();
                let step = found.as_ref().map_or(0, |checkpoint| checkpoint.step);
                // Later faults never leave less than earlier ones.
                assert!(step >= newest, "{fault}: step {step} after {newest}");
                newest = step;
                if let Some(checkpoint) = found {
                    let weights = fs::read_to_string(checkpoint.path.join("model.safetensors")).unwrap();
                    assert_eq!(weights, format!("weights {step}"), "{fault}");
                }
                // And the run goes on from there.
                save(&run, 9);
                drop(run);
                assert_eq!(resumed(root), Some(9), "{fault}");
                if undisturbed {
                    break;
                }
            }
            assert!(undisturbed && newest == 3, "{kind}: the fault never came late enough");
        }
    }

    #[test]
    fn only_our_own_names_count() {
        for (text, step) in [
            ("step-000123", Some(123)),
            ("step-1234567", Some(1_234_567)),
            ("step-7", None),
            ("step-+00007", None),
            ("step-000003.damaged", None),
            (".step-000123.tmp", None),
        ] {
            assert_eq!(parse_name(text), step, "{text}");
        }
    }
}

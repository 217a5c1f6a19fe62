//! Hugging Face's cache as it lies on disk: `models--org--name/{refs,snapshots,blobs}`. Read here, written
//! by `download.rs` or by the Python tools.

use std::fs;
use std::path::{Path, PathBuf};

use crate::checkpoint::weight_files;

use super::RepoId;

/// The folder of one model.
pub(super) fn folder(cache: &Path, repo: &RepoId) -> PathBuf {
    cache.join(format!("models--{}", repo.id.replace('/', "--")))
}

/// The snapshot folder of a model that can be loaded without the network; the error says what is not there.
pub(super) fn snapshot(cache: &Path, repo: &RepoId) -> Result<PathBuf, String> {
    let folder = folder(cache, repo);
    if !folder.is_dir() {
        return Err("it was never downloaded".into());
    }
    let commit = if is_commit(&repo.revision) {
        repo.revision.clone()
    } else {
        let text = fs::read_to_string(folder.join("refs").join(&repo.revision));
        let commit = text.map_err(|_| format!("its revision `{}` was never downloaded", repo.revision))?;
        commit.trim().to_string()
    };
    // The reference is a file of the cache, and it becomes a path.
    if !is_commit(&commit) {
        return Err(format!("its reference `{}` holds no commit", repo.revision));
    }
    let snapshot = folder.join("snapshots").join(&commit);
    if !snapshot.join("config.json").is_file() {
        return Err(format!("`config.json` of commit {commit} is missing"));
    }
    let files = weight_files(&snapshot).map_err(|error| error.to_string())?;
    match files.iter().find(|file| !file.is_file()) {
        Some(file) => Err(format!("`{}` is missing", file.file_name().unwrap_or_default().to_string_lossy())),
        None => Ok(snapshot),
    }
}

/// Whether `text` is a full commit hash.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

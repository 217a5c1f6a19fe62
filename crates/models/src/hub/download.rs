//! Filling the cache from the network: which files of a model are wanted, and what to say when one
//! cannot be had. The requests themselves are hf-hub's.

use std::path::PathBuf;

use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use super::{Hub, HubError, RepoId, cache};
use crate::checkpoint::{SINGLE, atomic_write, shard_names};

/// A connection that breaks is taken up again where it broke, so many times.
const ATTEMPTS: usize = 3;
const INDEX_END: &str = ".safetensors.index.json";

/// Downloads a model and returns its snapshot folder. All files come from the commit that the revision
/// means now, and the reference is written last: an interrupted download is never taken for a whole one.
pub(super) fn model(hub: &Hub, repo: &RepoId) -> Result<PathBuf, HubError> {
    // hf-hub links blobs by relative paths, which it can only work out between absolute ones.
    let cache_path = std::path::absolute(&hub.cache).unwrap_or_else(|_| hub.cache.clone());
    let session = Session { hub, repo };
    let api = ApiBuilder::from_cache(Cache::new(cache_path.clone()))
        .with_endpoint(hub.endpoint.clone())
        .with_token(hub.token.clone())
        .with_progress(hub.progress)
        // Its own retries lose the place in a partly downloaded file; ours start from the file's length.
        .with_retries(0)
        .build()
        .map_err(|error| session.failed("a connection", &error))?;
    let at = |revision: &str| api.repo(Repo::with_revision(repo.id.clone(), RepoType::Model, revision.to_string()));
    let info = session.attempt("the list of files", || at(&repo.revision).info())?;
    if !cache::is_commit(&info.sha) {
        return Err(session.error(
            "the list of files",
            format!("`{}` is no commit", info.sha),
            "is HF_ENDPOINT right?",
        ));
    }
    let names = info.siblings.into_iter().map(|file| file.rfilename).collect::<Vec<_>>();
    let commit = at(&info.sha);
    for name in names.iter().filter(|name| is_description(name)) {
        session.file(&commit, name)?;
    }
    for name in session.weights(&commit, &names)? {
        session.file(&commit, &name)?;
    }
    let folder = cache::folder(&cache_path, repo);
    if repo.revision != info.sha {
        let reference = folder.join("refs").join(&repo.revision);
        if let Some(parent) = reference.parent() {
            std::fs::create_dir_all(parent)
                .map_err(|error| session.error("the reference", error.to_string(), "is the cache writable?"))?;
        }
        atomic_write(&reference, info.sha.as_bytes())?;
    }
    let exact = RepoId { id: repo.id.clone(), revision: info.sha };
    cache::snapshot(&cache_path, &exact)
        .map_err(|missing| session.error("the whole model", missing, "try again; is there room on the disk?"))
}

/// What the messages of one download have in common.
struct Session<'a> {
    hub: &'a Hub,
    repo: &'a RepoId,
}

impl Session<'_> {
    /// One file into the cache, unless it is there.
    fn file(&self, commit: &ApiRepo, name: &str) -> Result<PathBuf, HubError> {
        self.attempt(&format!("`{name}`"), || commit.get(name))
    }

    /// The weight files, the index being fetched to know its shards.
    fn weights(&self, commit: &ApiRepo, names: &[String]) -> Result<Vec<String>, HubError> {
        let top =
            |end: &str| names.iter().filter(|name| !name.contains('/') && name.ends_with(end)).collect::<Vec<_>>();
        // Parts that stand in numbered folders (`2_Dense/model.safetensors`) belong to every choice.
        let mut wanted =
            names.iter().filter(|name| is_module(name) && name.ends_with(".safetensors")).cloned().collect::<Vec<_>>();
        let indices = top(INDEX_END);
        let index = indices.iter().find(|name| name.as_str() == "model.safetensors.index.json").or(indices.first());
        let files = top(".safetensors");
        match (index, files.as_slice()) {
            _ if names.iter().any(|name| name == SINGLE) => wanted.push(SINGLE.into()),
            (Some(index), _) => {
                let path = self.file(commit, index)?;
                wanted.extend(shard_names(&path)?);
            }
            (None, [one]) => wanted.push((*one).clone()),
            (None, several) => return Err(self.no_weights(names, several.len())),
        }
        Ok(wanted)
    }

    fn no_weights(&self, names: &[String], several: usize) -> HubError {
        let has = |ends: &[&str]| names.iter().any(|name| ends.iter().any(|end| name.ends_with(end)));
        let found = if several > 1 {
            format!(" that can be chosen: {several} files and no index; download the right one and give its path")
        } else if has(&[".bin", ".pt", ".pth", ".ckpt"]) {
            "; it has pickles, which run code when they are read and are never downloaded. Look for a conversion among \
             its pull requests (`@refs/pr/N`), or convert it in Python with save_pretrained(…, safe_serialization=True)"
                .into()
        } else if has(&[".gguf"]) {
            "; it has GGUF files: download one of them and give its path".into()
        } else {
            String::new()
        };
        HubError::NoSafetensors { repo: self.repo.to_string(), endpoint: self.hub.endpoint.clone(), found }
    }

    /// Runs a request until it succeeds, is refused, or has broken off too often.
    fn attempt<T>(&self, what: &str, mut request: impl FnMut() -> Result<T, ApiError>) -> Result<T, HubError> {
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            match request() {
                Ok(value) => return Ok(value),
                Err(error) if left > 0 && broke_off(&error) => {}
                Err(error) => return Err(self.failed(what, &error)),
            }
        }
    }

    fn failed(&self, what: &str, error: &ApiError) -> HubError {
        let terms = format!("{}/{}", self.hub.endpoint, self.repo.id);
        let advice = match (status(error), &self.hub.token) {
            (Some(401 | 403), None) => format!(
                "is the name right? A private or gated model needs a token: accept its terms at {terms} and set HF_TOKEN"
            ),
            (Some(401 | 403), Some(_)) => {
                format!("is the name right? The token in use is not allowed to read it: see {terms}")
            }
            (Some(404), _) => "is the name, and the revision, right?".into(),
            (Some(429), _) => "the site asks to wait; a token (HF_TOKEN) raises the limit".into(),
            (Some(_), _) => "try again later, or another site with HF_ENDPOINT".into(),
            (None, _) => {
                "is this machine offline? A folder needs no network; behind a proxy set HTTPS_PROXY, for a mirror HF_ENDPOINT".into()
            }
        };
        let reason = match status(error) {
            Some(401) => "status 401, unauthorised".into(),
            Some(403) => "status 403, forbidden".into(),
            Some(404) => "status 404, not found".into(),
            Some(code) => format!("status {code}"),
            None => error.to_string(),
        };
        self.error(what, reason, advice)
    }

    fn error(&self, what: &str, reason: String, advice: impl Into<String>) -> HubError {
        HubError::Download {
            what: format!("{what} of `{}`", self.repo),
            endpoint: self.hub.endpoint.clone(),
            reason,
            advice: advice.into(),
        }
    }
}

/// The status with which the site refused, if it answered at all.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(code) => Some(code),
            _ => None,
        },
        ApiError::TooManyRetries(error) => status(error),
        _ => None,
    }
}

/// Whether trying again may help: the answer stopped midway, or the site was briefly unwell.
fn broke_off(error: &ApiError) -> bool {
    match error {
        ApiError::IoError(error) => {
            use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Other, TimedOut, UnexpectedEof};
            matches!(error.kind(), ConnectionAborted | ConnectionReset | Other | TimedOut | UnexpectedEof)
        }
        _ => matches!(status(error), Some(500 | 502..=504)),
    }
}

/// Configuration and tokenizer files, without which weights mean little; small, all fetched.
fn is_description(name: &str) -> bool {
    const TOKENIZER: [&str; 6] = [
        "merges.txt",
        "vocab.txt",
        "tokenizer.model",
        "spiece.model",
        "sentencepiece.bpe.model",
        "chat_template.jinja",
    ];
    if name.contains('/') {
        return is_module(name) && name.ends_with(".json");
    }
    let of_other_weights = name.ends_with(".index.json");
    !name.starts_with('.') && (TOKENIZER.contains(&name) || (name.ends_with(".json") && !of_other_weights))
}

/// A file of a numbered module folder, as sentence embedders have them: `1_Pooling/config.json`.
fn is_module(name: &str) -> bool {
    let Some((folder, file)) = name.split_once('/') else { return false };
    let numbered = folder.split_once('_').is_some_and(|(number, title)| {
        number.parse::<u8>().is_ok() && title.bytes().all(|b| b.is_ascii_alphanumeric())
    });
    numbered && !file.contains(['/', '\\']) && !file.starts_with('.')
}

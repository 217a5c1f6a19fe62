//! From what a user calls a model to a folder on disk: a path as it is, a hub id from Hugging Face's
//! own cache, and only then the network. The cache is shared with the Python tools, both ways.

mod cache;
#[cfg(feature = "hub")]
mod download;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::checkpoint::CheckpointError;

/// Where models come from besides folders: the cache, the endpoint and the permission to use it.
#[derive(Clone)]
pub struct Hub {
    /// The folder of `models--org--name` folders.
    pub cache: PathBuf,
    /// The site, without a slash at its end.
    pub endpoint: String,
    /// The access token for gated and private models.
    pub token: Option<String>,
    /// Whether the network is not to be touched.
    pub offline: bool,
    /// Whether to draw progress bars on stderr while downloading.
    pub progress: bool,
}

// Written by hand so that no log ever shows a token.
impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hub { cache, endpoint, token, offline, progress } = self;
        let token = token.as_ref().map(|_| "…");
        f.debug_struct("Hub")
            .field("cache", cache)
            .field("endpoint", endpoint)
            .field("token", &token)
            .field("offline", offline)
            .field("progress", progress)
            .finish()
    }
}

/// Why a reference leads to no model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// Neither a path nor possibly a hub id.
    #[error(
        "no file or folder `{reference}`, and it is no hub id either ({reason}); a hub id reads `org/name` or `org/name@revision`"
    )]
    Unknown {
        /// As given.
        reference: String,
        /// Which rule of hub ids it breaks.
        reason: &'static str,
    },

    /// Not in the cache, and the network is not to be used.
    #[error("`{repo}` is not complete in the cache `{}` ({missing}), and {why}; give a folder, or download it once with the network allowed", cache.display())]
    NotCached {
        /// The model and revision.
        repo: String,
        /// The cache looked into.
        cache: PathBuf,
        /// What is not there.
        missing: String,
        /// Why there was no download.
        why: &'static str,
    },

    /// The site refused or could not be reached.
    #[error("cannot get {what} from `{endpoint}`: {reason}; {advice}")]
    Download {
        /// File and model.
        what: String,
        /// The site.
        endpoint: String,
        /// What happened.
        reason: String,
        /// What to do about it.
        advice: String,
    },

    /// The model has no weights in a format that is read.
    #[error("`{repo}` at `{endpoint}` has no safetensors weights{found}")]
    NoSafetensors {
        /// The model and revision.
        repo: String,
        /// The site.
        endpoint: String,
        /// What it has instead and what to do, as the end of the sentence.
        found: String,
    },

    /// A file of the cache cannot be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// A model's name on the hub, checked to be safe in paths and addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoId {
    /// `org/name`, or a bare name for the oldest models (`gpt2`).
    pub id: String,
    /// A branch, tag, pull request (`refs/pr/1`) or commit.
    pub revision: String,
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        if self.revision == "main" { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

impl RepoId {
    /// Reads `org/name[@revision]`.
    ///
    /// # Errors
    /// [`HubError::Unknown`], saying which rule is broken.
    pub fn parse(reference: &str) -> Result<Self, HubError> {
        let unknown = |reason| Err(HubError::Unknown { reference: reference.to_string(), reason });
        let (id, revision) = reference.split_once('@').unwrap_or((reference, "main"));
        let parts = id.split('/').collect::<Vec<_>>();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if parts.len() > 2 {
            return unknown("it has more than one `/`");
        }
        if parts.iter().any(|part| part.is_empty() || part.starts_with(['.', '-']) || part.ends_with(['.', '-'])) {
            return unknown("its parts must be names that neither start nor end with `.` or `-`");
        }
        if !id.chars().all(|c| plain(c) || c == '/') || id.contains("--") || id.contains("..") || id.len() > 193 {
            return unknown("a name holds letters, digits, `-`, `_` and `.`, none of `-` and `.` doubled");
        }
        if [".safetensors", ".gguf", ".bin", ".json"].iter().any(|end| id.ends_with(end)) {
            return unknown("it names a file");
        }
        let sound =
            |part: &str| !part.is_empty() && !part.starts_with('.') && part.chars().all(|c| plain(c) || c == '+');
        if revision.len() > 200 || revision.contains("..") || !revision.split('/').all(sound) {
            return unknown("its revision is no branch, tag or commit");
        }
        Ok(RepoId { id: id.to_string(), revision: revision.to_string() })
    }
}

impl Hub {
    /// The settings of the environment: `HF_HOME`, `HF_HUB_CACHE`, `HF_ENDPOINT`, `HF_TOKEN` (or the file
    /// that `hf auth login` writes) and `HF_HUB_OFFLINE`, with the meaning that they have in Python.
    pub fn from_env() -> Self {
        Hub::from_vars(|name| std::env::var_os(name))
    }

    /// As [`Hub::from_env`] with `var` for the environment.
    pub fn from_vars(var: impl Fn(&str) -> Option<OsString>) -> Self {
        let var = |name: &str| var(name).filter(|value| !value.is_empty());
        let text = |name: &str| var(name).and_then(|value| value.into_string().ok());
        let is_true = |name: &str| {
            text(name).is_some_and(|value| ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str()))
        };
        let user = var("HOME").or_else(|| var("USERPROFILE")).map(PathBuf::from).unwrap_or_default();
        let path = |name: &str| {
            let path = PathBuf::from(var(name)?);
            // A quoted `~` reaches us as it is; Python expands it, so do we.
            Some(path.strip_prefix("~").map(|rest| user.join(rest)).unwrap_or(path))
        };
        let home = path("HF_HOME")
            .or_else(|| path("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
            .unwrap_or_else(|| user.join(".cache/huggingface"));
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let token_file = path("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let token = text("HF_TOKEN")
            .or_else(|| text("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| std::fs::read_to_string(token_file).ok())
            .map(|token| token.trim().to_string())
            // A line break or a stray symbol inside would corrupt the request.
            .filter(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()));
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".into());
        Hub {
            cache: cache.unwrap_or_else(|| home.join("hub")),
            endpoint: endpoint.trim_end_matches('/').to_string(),
            token: if is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN") { None } else { token },
            offline: is_true("HF_HUB_OFFLINE") || is_true("TRANSFORMERS_OFFLINE"),
            progress: !is_true("HF_HUB_DISABLE_PROGRESS_BARS"),
        }
    }

    /// The folder or file that `reference` means: an existing path as it is, otherwise a hub id, from
    /// the cache when it is complete there, else downloaded into it.
    ///
    /// Only safetensors, JSON and tokenizer files are ever requested.
    ///
    /// # Errors
    /// [`HubError`], naming the model, the site, the reason and what to do.
    pub fn resolve(&self, reference: &str) -> Result<PathBuf, HubError> {
        if Path::new(reference).exists() {
            return Ok(PathBuf::from(reference));
        }
        let repo = RepoId::parse(reference)?;
        let missing = match cache::snapshot(&self.cache, &repo) {
            Ok(folder) => return Ok(folder),
            Err(missing) => missing,
        };
        let not_cached =
            |why| Err(HubError::NotCached { repo: repo.to_string(), cache: self.cache.clone(), missing, why });
        if self.offline {
            return not_cached("HF_HUB_OFFLINE forbids the network");
        }
        #[cfg(feature = "hub")]
        {
            download::model(self, &repo)
        }
        #[cfg(not(feature = "hub"))]
        {
            not_cached("this build cannot download (its feature `hub` is off)")
        }
    }
}

#[cfg(test)]
mod tests;

//! The chain of what a model came of, as far as the folders of its parents are still there.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Lineage, Parent, digest};
use crate::LoadError;
use crate::adapter::is_adapter;
use crate::hub::Hub;

/// A model of the chain.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Link {
    /// What its child called it; of the first one what was asked for.
    pub name: String,
    /// Where it is; none if it is gone.
    pub folder: Option<PathBuf>,
    /// SHA-256 of its weights as they are now; none if it is gone.
    pub weights: Option<String>,
    /// What they were when its child began; none for the first one.
    pub expected: Option<String>,
    /// What its own file says; none if it has none, as models that others have made.
    pub lineage: Option<Lineage>,
}

/// Whether a link holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The weights are those that the child began with, or nobody says which they were.
    Same,
    /// They are others.
    Changed,
    /// There is no such folder any more.
    Missing,
}

impl Link {
    /// Whether it is what its child knew.
    pub fn state(&self) -> State {
        match (&self.weights, &self.expected) {
            (None, _) => State::Missing,
            (Some(found), Some(expected)) if found != expected => State::Changed,
            _ => State::Same,
        }
    }

    fn new(name: &str, folder: Option<PathBuf>, expected: Option<String>) -> Result<Self, LoadError> {
        let file = |folder: &Path| match is_adapter(folder) {
            true => digest(&folder.join("adapter_model.safetensors")),
            false => digest(folder),
        };
        let weights = folder.as_deref().map(file).transpose()?;
        let lineage = folder.as_deref().map(Lineage::read).transpose()?.flatten();
        Ok(Self { name: name.to_string(), folder, weights, expected, lineage })
    }
}

/// More parents than anybody has trained one after the other.
const LONGEST: usize = 1000;

/// The model of a folder and its parents, the nearest first. A parent that is gone, whose weights are others now or that has no
/// file of its own ends the chain.
///
/// # Errors
/// A folder without weights, and files that are there and cannot be read.
pub fn chain(name: &str, folder: &Path) -> Result<Vec<Link>, LoadError> {
    let mut links = vec![Link::new(name, Some(folder.to_path_buf()), None)?];
    while let Some(last) = links.last().filter(|last| last.state() == State::Same && links.len() < LONGEST) {
        let Some(Parent { name, weights }) = last.lineage.as_ref().and_then(|lineage| lineage.parent.clone()) else {
            break;
        };
        // What has been met before is no ancestor of itself: two folders that name each other.
        if links.iter().any(|link| link.weights.as_ref() == Some(&weights)) {
            break;
        }
        links.push(Link::new(&name, found(&name, last.folder.as_deref()), Some(weights))?);
    }
    Ok(links)
}

/// Where a parent is: as it was called, then as called from where the child's run was, then in the cache of the hub.
fn found(name: &str, child: Option<&Path>) -> Option<PathBuf> {
    let path = Path::new(name);
    if path.exists() {
        return Some(path.to_path_buf());
    }
    let above =
        child.filter(|_| path.is_relative()).into_iter().flat_map(Path::ancestors).map(|folder| folder.join(path));
    let near = above.skip(1).find(|path| path.exists());
    near.or_else(|| Hub { offline: true, ..Hub::from_env() }.resolve(name).ok())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::{fresh, save};
    use candle_core::{DType, Device};
    use serde_json::json;

    fn write(folder: &Path, seed: u64, parent: Option<&Path>) {
        let config = json!({"model_type": "llama", "vocab_size": 7, "hidden_size": 4, "intermediate_size": 4,
            "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 8});
        std::fs::create_dir_all(folder).unwrap();
        save(&fresh(config.as_object().unwrap(), seed, &Device::Cpu).unwrap(), folder, DType::F32).unwrap();
        let parent = parent.map(|path| Parent::of(&path.display().to_string(), path).unwrap());
        Lineage { parent, seed: Some(seed), ..Lineage::default() }.write(folder).unwrap();
    }

    #[test]
    fn parents_are_followed_as_far_as_they_are_what_they_were() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        write(&at("a"), 1, None);
        write(&at("b"), 2, Some(&at("a")));
        write(&at("c"), 3, Some(&at("b")));
        let states = || -> Vec<State> { chain("c", &at("c")).unwrap().iter().map(Link::state).collect() };
        let links = chain("c", &at("c")).unwrap();
        assert_eq!(
            links.iter().map(|link| link.lineage.as_ref().unwrap().seed).collect::<Vec<_>>(),
            [3, 2, 1].map(Some)
        );
        assert_eq!(states(), [State::Same; 3]);
        // The grandparent is trained again: its child still knows what it was.
        write(&at("a"), 9, None);
        assert_eq!(states(), [State::Same, State::Same, State::Changed]);
        std::fs::remove_dir_all(at("a")).unwrap();
        assert_eq!(states(), [State::Same, State::Same, State::Missing]);
        std::fs::rename(at("b"), at("gone")).unwrap();
        assert_eq!(states(), [State::Same, State::Missing]);
    }

    #[test]
    fn a_parent_is_found_from_where_the_run_was_and_one_without_a_file_ends_the_chain() {
        let root = tempfile::tempdir().unwrap();
        let (base, child) = (root.path().join("models/base"), root.path().join("runs/x/model"));
        write(&base, 1, None);
        std::fs::remove_file(base.join(super::super::FILE)).unwrap();
        write(&child, 2, Some(&base));
        let mut lineage = Lineage::read(&child).unwrap().unwrap();
        lineage.parent.as_mut().unwrap().name = "models/base".into();
        lineage.write(&child).unwrap();
        let links = chain("x", &child).unwrap();
        assert_eq!(links.len(), 2);
        assert_eq!((links[1].state(), links[1].lineage.clone()), (State::Same, None));
    }
}

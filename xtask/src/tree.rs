//! The working tree as the rules see it: every text file, the Rust ones lexed, the manifests read.

use crate::manifest::Manifest;
use crate::source::{Source, mark_test_modules};
use anyhow::{Context, Result};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Larger files are data, whatever they hold; the longest source allowed is far below.
const LARGEST_TEXT: u64 = 4 << 20;

/// Hidden folders that belong to the project; all others belong to tools.
const HIDDEN: &[&str] = &[".cargo", ".ci", ".github"];

pub struct TextFile {
    /// Relative to the root, with `/` between the parts.
    pub path: String,
    pub text: String,
}

pub struct Tree {
    /// Every text file that is not Rust, sorted by path.
    pub texts: Vec<TextFile>,
    /// Every Rust file, sorted by path.
    pub sources: Vec<Source>,
}

impl Tree {
    /// Reads the tree below `root`, without build outputs, hidden folders and links.
    pub fn read(root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        walk(root, "", &mut files)?;
        Ok(Self::new(files))
    }

    /// A tree from its files.
    pub fn new(mut files: Vec<TextFile>) -> Self {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let (rust, texts): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.path.ends_with(".rs"));
        let mut sources: Vec<Source> = rust.iter().map(|file| Source::new(&file.path, &file.text)).collect();
        mark_test_modules(&mut sources);
        Self { texts, sources }
    }

    pub fn text(&self, path: &str) -> Option<&str> {
        self.texts.iter().find(|file| file.path == path).map(|file| file.text.as_str())
    }

    /// Does a file or a folder lie at `path`?
    pub fn holds(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        let mut all = self.texts.iter().map(|file| &file.path).chain(self.sources.iter().map(|source| &source.path));
        all.any(|file| file == path || file.starts_with(&folder))
    }

    /// The manifests with the name of the folder each describes; the root's is empty. A workspace of its own below the
    /// root, as the fuzz targets are, is no crate of this one.
    pub fn manifests(&self) -> Vec<(String, &TextFile, Manifest)> {
        let of = |file: &TextFile| {
            let folder = file.path.strip_suffix("Cargo.toml")?.trim_end_matches('/');
            if !folder.is_empty() && file.text.lines().any(|line| line == "[workspace]") {
                return None;
            }
            Some(folder.strip_prefix("crates/").unwrap_or(folder).to_owned())
        };
        self.texts.iter().filter_map(|file| Some((of(file)?, file, Manifest::read(&file.text)))).collect()
    }

    /// The sources of one crate: what lies below `crates/<name>/src/`.
    pub fn sources_of<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Source> + use<'a> {
        let folder = format!("crates/{name}/src/");
        self.sources.iter().filter(move |source| source.path.starts_with(&folder))
    }
}

fn walk(root: &Path, below: &str, files: &mut Vec<TextFile>) -> Result<()> {
    let folder = root.join(below);
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        let kind = entry.file_type()?;
        // Where the tree is one of several of a repository, a file says where the rest of it lies.
        if kind.is_dir() {
            let skipped = name == "target" || (name.starts_with('.') && !HIDDEN.contains(&name.as_str()));
            if !skipped {
                walk(root, &path, files)?;
            }
        } else if kind.is_file() && name != ".git" && entry.metadata().is_ok_and(|data| data.len() <= LARGEST_TEXT) {
            let bytes = match fs::read(entry.path()) {
                Ok(bytes) => bytes,
                // Written and removed again since the folder was listed, as a build or an editor does.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error).context(format!("cannot read {path}")),
            };
            if let Ok(text) = String::from_utf8(bytes) {
                files.push(TextFile { path, text });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_walk_leaves_out_what_is_not_the_projects() {
        let root = std::env::temp_dir().join(format!("xtask-tree-{}", std::process::id()));
        for path in ["crates/a/src/lib.rs", "target/x.rs", ".git/config", ".ci/run", "crates/a/Cargo.toml"] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "//! a\n").unwrap();
        }
        fs::write(root.join("binary.md"), [0xff, 0xfe]).unwrap();
        fs::write(root.join("crates/.git"), "gitdir: elsewhere").unwrap();
        let tree = Tree::read(&root);
        fs::remove_dir_all(&root).unwrap();
        let tree = tree.unwrap();
        assert_eq!(
            tree.texts.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(),
            [".ci/run", "crates/a/Cargo.toml"]
        );
        assert_eq!(tree.sources.iter().map(|s| s.path.as_str()).collect::<Vec<_>>(), ["crates/a/src/lib.rs"]);
        assert!(tree.holds("crates/a") && tree.holds(".ci/run") && !tree.holds("crates/b"));
        assert_eq!(tree.manifests()[0].0, "a");
    }
}

//! A conversion that fails, or dies, at any moment leaves the file that was there, or the new one whole.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use candle_core::{DType, Device};
use serde_json::json;

use super::super::{FileType, GgufOptions, convert};
use crate::checkpoint::fault::{Plan, thread};
use crate::{LoadError, Mix, fresh, save};

/// A small model in a folder, and the file of it that is to be replaced.
struct Scene {
    root: tempfile::TempDir,
    old: Vec<u8>,
    new: Vec<u8>,
}

impl Scene {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let config = json!({"model_type": "llama", "vocab_size": 40, "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 16});
        let model = fresh(config.as_object().unwrap(), 5, &Device::Cpu).unwrap();
        save(&model, &root.path().join("model"), DType::F32).unwrap();
        fs::create_dir(root.path().join("out")).unwrap();
        let mut scene = Self { root, old: vec![], new: vec![] };
        scene.convert(FileType::Mix(Mix::Q8_0)).unwrap();
        scene.new = fs::read(scene.file()).unwrap();
        scene.convert(FileType::F32).unwrap();
        scene.old = fs::read(scene.file()).unwrap();
        scene
    }

    fn file(&self) -> PathBuf {
        self.root.path().join("out/model.gguf")
    }

    fn convert(&self, kind: FileType) -> Result<(), LoadError> {
        into(self.root.path(), kind)
    }

    /// Whether the new file is there; nothing else may be, but the old one.
    fn is_new(&self) -> bool {
        let found = fs::read(self.file()).unwrap();
        assert!(found == self.old || found == self.new, "half a file");
        found == self.new
    }

    fn is_tidy(&self) -> bool {
        fs::read_dir(self.root.path().join("out")).unwrap().count() == 1
    }
}

fn into(root: &Path, kind: FileType) -> Result<(), LoadError> {
    // Small pieces, so that there are many moments.
    let options = GgufOptions { memory: 1 << 12, ..GgufOptions::new(kind) };
    convert(&root.join("model"), &root.join("out/model.gguf"), &options, &mut |_, _| {}).map(|_| ())
}

#[test]
fn a_failing_operation_leaves_the_old_file_or_the_new() {
    let scene = Scene::new();
    let mut seen = vec![];
    for n in 0.. {
        scene.convert(FileType::F32).unwrap();
        let (result, operations) = thread::with(Some(Plan::Error(n)), || scene.convert(FileType::Mix(Mix::Q8_0)));
        if operations <= n {
            result.unwrap();
            break;
        }
        assert!(result.is_err() && scene.is_tidy(), "operation {n}");
        seen.push(scene.is_new());
    }
    assert!(seen.len() > 15 && !seen[0] && seen.is_sorted(), "{seen:?}");
}

#[test]
fn a_full_disk_leaves_the_old_file() {
    let scene = Scene::new();
    // A little less than the file: gaps between tensors are not written.
    let written = scene.new.len() as u64 - 512;
    for room in (0..written).step_by(scene.new.len() / 23) {
        let result = thread::with(Some(Plan::Full(room)), || scene.convert(FileType::Mix(Mix::Q8_0))).0;
        let message = result.unwrap_err().to_string();
        assert!(message.starts_with("cannot write `") && message.contains("no storage space"), "{message}");
        assert!(!scene.is_new() && scene.is_tidy(), "{room}");
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let scene = Scene::new();
    let options = GgufOptions::new(FileType::F32);
    let to = scene.root.path().join("none/model.gguf");
    let message = convert(&scene.root.path().join("model"), &to, &options, &mut |_, _| {}).unwrap_err().to_string();
    assert!(message.contains("cannot create") && message.contains("none"), "{message}");
}

/// The child's part: converts once, and dies where the environment says.
#[test]
#[ignore = "run by `a_death_at_any_moment_leaves_the_old_file_or_the_new`, in a process of its own"]
fn child() {
    let root = PathBuf::from(std::env::var("PHYLA_TEST_TARGET").unwrap());
    into(&root, FileType::Mix(Mix::Q8_0)).unwrap();
}

#[test]
fn a_death_at_any_moment_leaves_the_old_file_or_the_new() {
    let scene = Scene::new();
    let mut seen = vec![];
    for n in 0.. {
        scene.convert(FileType::F32).unwrap();
        let run = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "gguf::tests::convert::child", "--ignored", "--test-threads=1"])
            .env("PHYLA_TEST_TARGET", scene.root.path())
            .env("PHYLA_FAULT", format!("abort:{n}"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&run.stdout);
        if run.status.success() {
            assert!(text.contains("1 passed"), "the child did not run: {text}");
            break;
        }
        assert!(!text.contains("FAILED"), "the child failed instead of dying: {text}");
        seen.push(scene.is_new());
        // The next one removes what the dead one left.
        scene.convert(FileType::F32).unwrap();
        assert!(scene.is_tidy(), "{n}");
    }
    assert!(seen.len() > 15 && !seen[0] && seen.is_sorted(), "{seen:?}");
}

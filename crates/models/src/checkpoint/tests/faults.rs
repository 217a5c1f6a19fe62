//! A save that fails, or dies, at each of its operations in turn leaves the old checkpoint or the new
//! one, never a part or a mixture. Deaths are real ones, of a child process that aborts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::disk::fault::{Plan, thread};
use super::super::{AtomicDir, CheckpointError, MAX_SHARD_BYTES, atomic_write};
use super::writing::{listing, save, value_of};

const TENSORS: usize = 5;

/// Ways to save, each over an old checkpoint of value 1 with a new one of value 2.
const CASES: [(&str, u64, u64); 4] = [
    ("single over single", MAX_SHARD_BYTES, MAX_SHARD_BYTES),
    ("shards over shards", 40, 40),
    ("single over shards", 40, MAX_SHARD_BYTES),
    ("shards over single", MAX_SHARD_BYTES, 40),
];

fn save_folder(target: &Path, value: f32) -> Result<(), CheckpointError> {
    let folder = AtomicDir::create(target)?;
    save(folder.path(), TENSORS, value, 40)?;
    atomic_write(folder.path().join("config.json"), format!("{value}").as_bytes())?;
    folder.commit()
}

fn has_temporaries(folder: &Path) -> bool {
    listing(folder).iter().any(|name| name.starts_with('.'))
}

#[test]
fn a_failing_operation_leaves_the_old_or_the_new() {
    for (case, before, after) in CASES {
        let mut seen = Vec::new();
        for n in 0.. {
            let folder = tempfile::tempdir().unwrap();
            save(folder.path(), TENSORS, 1.0, before).unwrap();
            let (result, operations) = thread::with(Some(Plan::Error(n)), || save(folder.path(), TENSORS, 2.0, after));
            if operations <= n {
                result.unwrap();
                break;
            }
            let value = value_of(folder.path(), TENSORS);
            // Success means the new one; a failure may strike after the new one is visible.
            assert!(result.is_err() || value == 2.0, "{case}, operation {n}");
            assert!(!has_temporaries(folder.path()), "{case}, operation {n}: {:?}", listing(folder.path()));
            seen.push(value);
        }
        assert!(seen.contains(&1.0) && seen.contains(&2.0) && seen.is_sorted(), "{case}: {seen:?}");
    }
}

#[test]
fn a_full_disk_leaves_the_old() {
    for (case, before, after) in CASES {
        let mut failures = 0;
        for room in (0..4000).step_by(41) {
            let folder = tempfile::tempdir().unwrap();
            save(folder.path(), TENSORS, 1.0, before).unwrap();
            let old = listing(folder.path());
            match thread::with(Some(Plan::Full(room)), || save(folder.path(), TENSORS, 2.0, after)).0 {
                Ok(()) => assert_eq!(value_of(folder.path(), TENSORS), 2.0),
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.starts_with("cannot write `") && text.contains("no storage space"), "{text}");
                    assert_eq!((value_of(folder.path(), TENSORS), listing(folder.path())), (1.0, old), "{case}");
                    failures += 1;
                }
            }
        }
        assert!((5..97).contains(&failures), "{case}: {failures}");
    }
}

#[test]
fn a_failing_folder_leaves_the_old_or_the_new() {
    for n in 0.. {
        let parent = tempfile::tempdir().unwrap();
        let target = parent.path().join("checkpoint");
        save_folder(&target, 1.0).unwrap();
        let (result, operations) = thread::with(Some(Plan::Error(n)), || save_folder(&target, 2.0));
        if operations <= n {
            result.unwrap();
            break;
        }
        check_folder(&target, result.is_ok().then_some(2.0));
        // What could not be removed is swept by the next save.
        save_folder(&target, 3.0).unwrap();
        check_folder(&target, Some(3.0));
        assert_eq!(listing(parent.path()), ["checkpoint"]);
    }
}

/// The folder is one that `save_folder` wrote, of one value throughout.
fn check_folder(target: &Path, expected: Option<f32>) {
    let value = value_of(target, TENSORS);
    assert_eq!(fs::read_to_string(target.join("config.json")).unwrap(), format!("{value}"));
    assert!(expected.is_none_or(|expected| expected == value) && !has_temporaries(target));
}

#[test]
fn a_folder_that_is_not_committed_vanishes() {
    let parent = tempfile::tempdir().unwrap();
    let target = parent.path().join("deep/checkpoint");
    let folder = AtomicDir::create(&target).unwrap();
    fs::create_dir(folder.path().join("inner")).unwrap();
    fs::write(folder.path().join("inner/file"), b"x").unwrap();
    drop(folder);
    assert!(listing(&parent.path().join("deep")).is_empty());
    fs::write(&target, b"a file").unwrap();
    assert!(AtomicDir::create(&target).is_err());
    assert_eq!(fs::read(&target).unwrap(), b"a file");
}

#[test]
fn writers_side_by_side_do_not_sweep_each_other() {
    let parent = tempfile::tempdir().unwrap();
    let target = parent.path().join("checkpoint");
    let first = AtomicDir::create(&target).unwrap();
    fs::write(first.path().join("from"), b"first").unwrap();
    let second = AtomicDir::create(&target).unwrap();
    fs::write(second.path().join("from"), b"second").unwrap();
    first.commit().unwrap();
    second.commit().unwrap();
    assert_eq!(fs::read(target.join("from")).unwrap(), b"second");
    assert_eq!(listing(parent.path()), ["checkpoint"]);
}

/// The child's part: saves once, as the environment says, and dies where it says.
#[test]
#[ignore = "run by `a_death_at_any_operation_leaves_the_old_or_the_new`, in a process of its own"]
fn child() {
    let target = PathBuf::from(std::env::var("PHYLA_TEST_TARGET").unwrap());
    match std::env::var("PHYLA_TEST_SHARD").unwrap().parse::<u64>() {
        Ok(max_shard) => save(&target, TENSORS, 2.0, max_shard).unwrap(),
        Err(_) => save_folder(&target, 2.0).unwrap(),
    }
}

/// Runs [`child`] so that it dies at operation `n`; false once it has fewer operations than that.
fn dies(target: &Path, shard: &str, n: u64, plain: bool) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "checkpoint::tests::faults::child", "--ignored", "--test-threads=1"])
        .env("PHYLA_TEST_TARGET", target)
        .env("PHYLA_TEST_SHARD", shard)
        .env("PHYLA_FAULT", format!("abort:{n}"));
    if plain {
        command.env("PHYLA_FAULT_PLAIN", "1");
    }
    let run = command.output().unwrap();
    let text = String::from_utf8_lossy(&run.stdout);
    if run.status.success() {
        assert!(text.contains("1 passed"), "the child did not run: {text}");
    } else {
        assert!(!text.contains("FAILED"), "the child failed instead of dying: {text}");
    }
    !run.status.success()
}

#[test]
fn a_death_at_any_operation_leaves_the_old_or_the_new() {
    for (case, before, after) in CASES {
        let mut seen = Vec::new();
        for n in 0.. {
            let folder = tempfile::tempdir().unwrap();
            save(folder.path(), TENSORS, 1.0, before).unwrap();
            if !dies(folder.path(), &after.to_string(), n, false) {
                break;
            }
            seen.push(value_of(folder.path(), TENSORS));
            // The next save removes what the dead one left.
            save(folder.path(), TENSORS, 3.0, after).unwrap();
            assert_eq!(value_of(folder.path(), TENSORS), 3.0);
            assert!(!has_temporaries(folder.path()), "{case}, {n}: {:?}", listing(folder.path()));
        }
        assert!(seen.contains(&1.0) && seen.is_sorted(), "{case}: {seen:?}");
    }
}

#[test]
fn a_death_while_a_folder_is_replaced_leaves_the_old_or_the_new() {
    for plain in [false, true] {
        let mut seen = Vec::new();
        for n in 0.. {
            let parent = tempfile::tempdir().unwrap();
            let target = parent.path().join("checkpoint");
            save_folder(&target, 1.0).unwrap();
            if !dies(&target, "folder", n, plain) {
                break;
            }
            assert!(plain || target.exists(), "operation {n}: a swap leaves no moment without a folder");
            AtomicDir::recover(&target).unwrap();
            check_folder(&target, None);
            seen.push(value_of(&target, TENSORS));
            save_folder(&target, 3.0).unwrap();
            check_folder(&target, Some(3.0));
            assert_eq!(listing(parent.path()), ["checkpoint"]);
        }
        assert!(seen.contains(&1.0) && seen.contains(&2.0) && seen.is_sorted(), "plain {plain}: {seen:?}");
    }
}

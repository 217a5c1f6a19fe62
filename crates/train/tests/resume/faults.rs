//! Whatever fails or dies while a run writes its checkpoints, the newest complete one is whole and the run goes on
//! from it to the same end; the message is one, and says what failed.

use std::process::Command;

use phyla_train::rundir::RunDir;

use crate::run::Run;

const RECIPE: &str = "output = 'ROOT/run'\nseed = 5\n\
    [model]\nmodel_type = 'llama'\nhidden_size = 16\nintermediate_size = 24\nnum_hidden_layers = 1\n\
    num_attention_heads = 2\nmax_position_embeddings = 64\n\
    [tokenizer]\nkind = 'characters'\n\
    [data]\nkind = 'jsonl'\ntrain = 'ROOT/train.jsonl'\nvalidation = 'ROOT/validation.jsonl'\nmax_len = 24\n\
    [optim]\nlr = 3e-3\n[train]\nsteps = 4\nbatch = 4\nlog_every = 1\neval_every = 2\nsave_every = 2\nkeep_last = 1\n";

/// Checks what a disturbed run has left, resumes it, and compares its end.
fn mends(run: &Run, whole: &Run, fault: &str, stderr: &[u8], died: bool) {
    let stderr = String::from_utf8_lossy(stderr);
    let errors = stderr.lines().filter(|line| line.starts_with("error: ")).count();
    assert!(!stderr.contains("panicked"), "{fault}: {stderr}");
    // A process that dies says nothing; a fault that only costs litter is no error.
    assert!(errors <= usize::from(!died), "{fault}: {stderr}");
    if run.root().exists() {
        // Verifies sizes and hashes, and holds back what is not whole.
        let (_, checkpoint) = RunDir::resume(&run.root()).unwrap();
        let names = run.kept().0;
        let damaged: Vec<&String> = names.iter().filter(|name| name.contains("damaged")).collect();
        assert!(damaged.is_empty(), "{fault}: {damaged:?}");
        let complete = names.iter().any(|name| name.starts_with("step-"));
        assert_eq!(complete, checkpoint.is_some(), "{fault}: {names:?}");
    }
    run.finish(true);
    assert_eq!(whole.weights(), run.weights(), "{fault}");
    assert_eq!(whole.rows(), run.rows(), "{fault}");
    assert_eq!(whole.kept(), run.kept(), "{fault}");
}

/// Every `stride`-th file operation fails in this way; the number of runs tried.
fn faults(kind: &str, first: u64, stride: u64) -> usize {
    let whole = Run::new(RECIPE);
    whole.finish(false);
    for count in 0.. {
        let run = Run::new(RECIPE);
        let fault = format!("{kind}:{}", first + stride * count as u64);
        let output = run.command(false).env("PHYLA_FAULT", &fault).output().unwrap();
        if output.status.success() && kind != "error" {
            return count;
        }
        mends(&run, &whole, &fault, &output.stderr, kind == "abort");
        // An error in removing what is replaced is no failure, so a success is the end only far beyond.
        if output.status.success() && count as u64 * stride > 400 {
            return count;
        }
    }
    0
}

/// How densely moments are tried: all of them when `PHYLA_TEST_ALL` is set, a part in the usual run of tests.
fn stride(usual: u64) -> u64 {
    if std::env::var_os("PHYLA_TEST_ALL").is_some() { 1 } else { usual }
}

#[test]
fn dying_at_any_file_operation_costs_no_checkpoint() {
    println!("abort: {} runs", faults("abort", 0, stride(5)));
}

#[test]
fn a_failing_file_operation_is_one_message_and_costs_no_checkpoint() {
    println!("error: {} runs", faults("error", 3, stride(13)));
}

#[test]
fn a_full_disk_costs_no_checkpoint() {
    println!("full: {} runs", faults("full", 0, 211 * stride(41)));
}

/// A file system of so many KiB at a folder, taken away again on drop.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(path: &std::path::Path, kib: usize) -> Option<Self> {
        std::fs::create_dir_all(path).unwrap();
        let size = format!("size={kib}k");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).output().ok()?;
        done.status.success().then(|| Small(path.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        Command::new("umount").arg(&self.0).status().ok();
    }
}

#[test]
fn a_disk_that_is_really_full_costs_no_checkpoint() {
    let whole = Run::new(RECIPE);
    whole.finish(false);
    let mut full = 0;
    for kib in [16, 40, 80, 120, 160, 200, 260] {
        let run = Run::new(RECIPE);
        let Some(mount) = Small::mount(&run.root(), kib) else {
            println!("skipped: mounting a small file system takes rights that this user has not");
            return;
        };
        let output = run.command(false).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            full += 1;
            let errors: Vec<&str> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
            assert_eq!(errors.len(), 1, "{kib} KiB: {stderr}");
            assert!(errors[0].contains("No space left") && errors[0].contains("run/"), "{kib} KiB: {stderr}");
        }
        // Room is made, and the run goes on.
        let grown = Command::new("mount").args(["-o", "remount,size=20m"]).arg(run.root()).status().unwrap();
        assert!(grown.success());
        mends(&run, &whole, &format!("{kib} KiB"), &output.stderr, false);
        drop(mount);
    }
    println!("{full} runs met a full disk");
    assert!(full >= 3, "only {full} runs met a full disk");
}

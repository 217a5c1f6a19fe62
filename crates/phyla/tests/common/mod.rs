//! The program as tests run it, and the texts in `snapshots/`; `PHYLA_UPDATE_SNAPSHOTS=1` writes these anew.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs the program in `folder`, with no terminal and no hub.
pub fn phyla(folder: &Path, args: &[&str]) -> Output {
    command(folder, args).stdin(Stdio::null()).output().unwrap()
}

/// The program, to be given its standard input.
pub fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_phyla"));
    command
        .args(args)
        .current_dir(folder)
        .env_remove("COLUMNS")
        .env_remove("RUST_BACKTRACE")
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HOME", folder.join("hub"));
    command
}

/// Standard output of a run that succeeds without a word on standard error.
pub fn said(folder: &Path, args: &[&str]) -> String {
    let output = phyla(folder, args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && stderr.is_empty(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a run prints, with its command line and exit code.
pub fn transcript(folder: &Path, args: &[&str]) -> String {
    let output = phyla(folder, args);
    let (stdout, stderr) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    format!("$ phyla {}\n{stdout}{stderr}exit code {}\n", args.join(" "), output.status.code().unwrap())
}

#[track_caller]
pub fn matches_snapshot(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(format!("{name}.txt"));
    if std::env::var_os("PHYLA_UPDATE_SNAPSHOTS").is_some() {
        fs::write(&path, text).unwrap();
        return;
    }
    let expected = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if text != expected {
        panic!("{} differs (PHYLA_UPDATE_SNAPSHOTS=1 writes it anew); found:\n{text}", path.display());
    }
}

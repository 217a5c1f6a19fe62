//! The developers' commands: `cargo xtask` followed by `test`, `check`, `tidy` or `size`.

mod check;
mod lex;
mod manifest;
mod size;
mod source;
mod test;
mod tidy;
mod tree;

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const HELP: &str = "\
The developers' commands of Phyla.

Usage: cargo xtask <command>

  test [filter]   the whole suite, documentation tests too; with a filter, the tests whose name holds it
  check [--fix]   what a change must pass, cheapest first: format, tidy, clippy, tests; --fix formats
  tidy [--list]   the invariants that neither rustc nor clippy knows; --list prints them with their reasons
  size            lines of code, comments, documentation and tests by crate; the longest files and forwards
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match dispatch(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(arguments: &[&str]) -> Result<()> {
    let root = root()?;
    match arguments {
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        ["test"] => test::run(&root, None),
        ["test", filter] if !filter.starts_with('-') => test::run(&root, Some(filter)),
        ["check"] => check::run(&root, check::Format::Verify),
        ["check", "--fix"] => check::run(&root, check::Format::Apply),
        ["tidy"] => tidy::run(&root),
        ["tidy", "--list"] => {
            tidy::list();
            Ok(())
        }
        ["size"] => size::run(&root),
        other => bail!("no command `{}`\n\n{HELP}", other.join(" ")),
    }
}

/// The root of the workspace: the folder above this package's.
fn root() -> Result<PathBuf> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = package.parent().context("xtask lies at the root of the file system")?;
    // The binary may have been built in a copy that has moved since.
    let here = std::env::current_dir().context("cannot tell the current folder")?;
    let found = here.ancestors().find(|folder| folder.join("xtask/Cargo.toml").is_file());
    Ok(found.unwrap_or(root).to_path_buf())
}

/// A call of the cargo that runs this command, at the root of the workspace.
fn cargo(root: &Path, arguments: &[&str]) -> std::process::Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = std::process::Command::new(program);
    command.args(arguments).current_dir(root);
    command
}

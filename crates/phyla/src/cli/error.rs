//! From an error to messages on standard error and an exit status: 2 for what the user can mend, 1 otherwise.

use std::fmt;
use std::io;
use std::process::ExitCode;

use phyla_models::checkpoint::CheckpointError;
use phyla_models::hub::HubError;
use phyla_models::{ConfigError, LoadError};

/// A mistake in what the user gave that no library has an error for, with the way out.
#[derive(Debug)]
struct Usage {
    message: String,
    help: String,
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Usage {}

/// A run that a signal has ended as it should: everything is saved and told, only the status is not that of success.
#[derive(Debug)]
pub struct Interrupted(pub i32);

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interrupted by signal {}", self.0)
    }
}

impl std::error::Error for Interrupted {}

/// A mistake of the user's: what is wrong, and what to do.
pub fn usage(message: impl Into<String>, help: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Usage { message: message.into(), help: help.into() })
}

/// Ends the program: prints what went wrong, if anything did, and gives the exit status.
pub fn finish(done: anyhow::Result<()>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // The reader (`head`, a closed pager) has seen enough; that is no failure of ours.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        // As a shell reports a program that a signal has ended.
        Err(error) if error.is::<Interrupted>() => {
            error.downcast_ref().map_or(ExitCode::FAILURE, |Interrupted(signal)| ExitCode::from(128 + *signal as u8))
        }
        Err(error) => {
            // Not `eprintln!`, which panics when standard error is closed too.
            let _ = io::Write::write_all(&mut io::stderr(), report(&error).as_bytes());
            ExitCode::from(if is_users(&error) { 2 } else { 1 })
        }
    }
}

/// `error:` with the message, a `cause:` line for each cause, `help:` with the way out.
fn report(error: &anyhow::Error) -> String {
    let mut said = error.to_string();
    let mut lines = format!("error: {said}\n");
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Many errors quote their cause in their own message; once is enough.
        if !said.contains(&cause) {
            lines += &format!("cause: {cause}\n");
            said = cause;
        }
    }
    if let Some(usage) = error.chain().find_map(|cause| cause.downcast_ref::<Usage>()) {
        lines += &format!("help: {}\n", usage.help);
    }
    lines
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe))
}

/// Whether arguments or files of the user are at fault, by the types in the chain of causes.
fn is_users(error: &anyhow::Error) -> bool {
    fn of<E: std::error::Error + 'static>(cause: &(dyn std::error::Error + 'static), users: fn(&E) -> bool) -> bool {
        cause.downcast_ref::<E>().is_some_and(users)
    }
    error.chain().any(|cause| {
        cause.is::<Usage>()
            || cause.is::<ConfigError>()
            || of(cause, checkpoint)
            || of(cause, load)
            || of(cause, hub)
            || of(cause, session)
            || of(cause, data)
            || of(cause, phyla_generate::Error::is_users)
            || of(cause, phyla_train::TrainError::is_users)
            || cause.is::<phyla_train::recipe::RecipeError>()
    })
}

fn session(error: &phyla::Error) -> bool {
    match error {
        phyla::Error::Hub(error) => hub(error),
        phyla::Error::Load(error) => load(error),
        phyla::Error::Data(error) => data(error),
        phyla::Error::Generate(error) => error.is_users(),
        phyla::Error::Tensor(_) => false,
        phyla::Error::Metric(_) | phyla::Error::Task(_) | phyla::Error::NoTokenizer => true,
    }
}

fn load(error: &LoadError) -> bool {
    match error {
        LoadError::Config(_) | LoadError::Weights(_) | LoadError::Adapter(_) => true,
        LoadError::Checkpoint(error) => checkpoint(error),
        LoadError::Tensor(_) => false,
    }
}

fn hub(error: &HubError) -> bool {
    match error {
        // A site that does not answer is nobody's mistake here.
        HubError::Download { .. } => false,
        HubError::Checkpoint(error) => checkpoint(error),
        _ => true,
    }
}

fn checkpoint(error: &CheckpointError) -> bool {
    match error {
        CheckpointError::Io { source, .. } | CheckpointError::Map(source) => given_wrongly(source),
        // What a writer was handed came from us.
        CheckpointError::InvalidTensor { .. } => false,
        _ => true,
    }
}

fn data(error: &phyla_data::Error) -> bool {
    match error {
        phyla_data::Error::Io { source, .. } => given_wrongly(source),
        _ => true,
    }
}

/// A path that is not there or not what it should be, and not a full disk or a failing one.
fn given_wrongly(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::NotFound
            | Kind::IsADirectory
            | Kind::NotADirectory
            | Kind::PermissionDenied
            | Kind::InvalidData
            | Kind::InvalidInput
    )
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use anyhow::Context;

    #[test]
    fn causes_are_told_once_and_help_last() {
        let usage = Usage { message: "no text".into(), help: "give one".into() };
        let error = anyhow::Error::new(usage).context("tokenize: no text");
        assert_eq!(report(&error), "error: tokenize: no text\nhelp: give one\n");
        let error = Err::<(), _>(io::Error::other("the disk is full")).context("cannot write").unwrap_err();
        assert_eq!(report(&error), "error: cannot write\ncause: the disk is full\n");
    }

    #[test]
    fn the_users_mistakes_are_told_from_failures() {
        let missing = CheckpointError::Map(io::ErrorKind::NotFound.into());
        let failing = CheckpointError::Map(io::Error::other("the disk fails"));
        assert!(is_users(&anyhow::Error::new(missing).context("cannot open the model")));
        assert!(!is_users(&failing.into()));
        assert!(!is_users(&io::Error::from(io::ErrorKind::NotFound).into()), "a file of our own");
    }

    #[test]
    fn a_broken_pipe_is_quiet() {
        let error = anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe)).context("cannot write");
        assert!(is_broken_pipe(&error));
    }
}

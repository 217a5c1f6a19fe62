//! The subcommands, one file each, and what they share: global options, errors and output.

pub mod error;
pub mod forward;
pub mod global;
pub mod init;
pub mod inspect;
mod model;
mod output;
pub mod quickstart;
pub mod tokenize;
pub mod train;

//! The subcommands, one file each, and what they share: global options, errors and output.

pub mod bench;
pub mod chat;
pub mod error;
pub mod forward;
pub mod generate;
pub mod global;
pub mod init;
pub mod inspect;
mod model;
mod output;
pub mod quickstart;
mod sampling;
pub mod tokenize;
pub mod train;

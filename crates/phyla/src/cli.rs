//! The subcommands, one file each, and what they share: global options, errors and output.

pub mod error;
pub mod global;
pub mod inspect;
mod output;

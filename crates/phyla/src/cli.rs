//! The subcommands, one file each, and what they share: global options, errors and output.

pub mod bench;
mod cache;
pub mod chat;
pub mod embed;
pub mod error;
pub mod eval;
pub mod fill_mask;
pub mod forward;
pub mod generate;
pub mod global;
pub mod init;
pub mod inspect;
mod model;
mod ngrams;
mod output;
mod outputs;
pub mod predict;
mod progress;
pub mod quantize;
pub mod quickstart;
mod sampling;
pub mod shared;
mod sink;
mod source;
pub mod tokenize;
pub mod train;
pub mod translate;

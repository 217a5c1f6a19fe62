//! Everything between files of text and batches of ids: tokenizers, chat templates, data sets, packing.

pub mod batch;
pub mod dataset;
mod error;
mod guard;
pub mod pretrain;
pub mod stories;
pub mod stream;
pub mod supervised;
pub mod tasks;
pub mod template;
pub mod tokenizer;
pub mod tokens;

pub use error::{Error, Result};

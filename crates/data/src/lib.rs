//! Everything between files of text and batches of ids.

pub mod stories;

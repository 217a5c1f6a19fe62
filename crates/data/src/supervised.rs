//! Labelled data: records in the formats that users have, and batches for each objective that learns from labels.
//!
//! A [`Table`](table::Table) gives rows of named fields out of files of any kind; a [`Record`](records::Record) is such
//! a row with its parts known (a text and its label, words and tags, a question and its answers); an objective
//! ([`classify`], [`token_classify`], [`qa`], [`multiple_choice`], [`seq2seq`]) turns records into token ids once; and a
//! [`Loader`](loader::Loader) gives them out as batches, in an order that a seed decides.

pub mod classify;
pub mod dialogue;
pub mod graded;
pub mod labels;
pub mod lengths;
pub mod loader;
pub mod multiple_choice;
pub mod preference;
pub mod prompts;
pub mod qa;
pub mod records;
mod rows;
pub mod seq2seq;
pub mod sft;
pub mod table;
#[cfg(test)]
mod testing;
pub mod token_classify;

pub use rows::encode;

//! Decoding: from prompts to sequences of ids and text.
//!
//! [`Generator`] runs a model; [`GenerationConfig`] says how (the keys of `generation_config.json`); [`processor`]
//! reshapes the logits of a step and [`sampler`] picks an id from them.
//!
//! What a prompt is answered depends on the prompt, the settings and the seed alone: not on what else is in the batch,
//! nor on the number of threads.

mod config;
mod engine;
mod error;
pub mod processor;
pub mod sampler;
mod sequence;
mod stop;

pub use config::{DEFAULT_MAX_NEW_TOKENS, DEFAULT_TOP_K, GenerationConfig, Settings};
pub use engine::{Generation, Generator, Timings};
pub use error::{Error, Result};
pub use sequence::{Event, FinishReason, Sequence};
pub use stop::StopStrings;

//! Decoding: from prompts to sequences of ids and text.
//!
//! [`Generator`] runs a model, a decoder or an encoder with one, greedily, by drawing or with beams; [`GenerationConfig`]
//! says how (the keys of `generation_config.json`); [`processor`] reshapes the logits of a step and [`sampler`] picks an
//! id from them. [`Engine`] answers many requests at once, which come and go at any time.
//!
//! ```
//! use phyla_generate::{Event, GenerationConfig, Generator};
//!
//! // A model with fresh weights; `phyla_models::load` reads one from a folder.
//! let config = serde_json::json!({
//!     "model_type": "llama", "vocab_size": 100, "hidden_size": 16, "intermediate_size": 32,
//!     "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64
//! });
//! let config = config.as_object().ok_or("not an object")?;
//! let model = phyla_models::fresh(config, 1, &candle_core::Device::Cpu)?;
//!
//! let settings = GenerationConfig { max_new_tokens: Some(8), temperature: Some(0.7), ..Default::default() };
//! let settings = GenerationConfig::default().merge(settings);
//! let prompts = [vec![3, 14, 15], vec![92]];
//! let answer = Generator::new(&model, None).generate(&prompts, &settings, 42, &mut |event| {
//!     if let Event::Token { sequence, id, .. } = event {
//!         println!("{sequence}: {id}");
//!     }
//! })?;
//! assert_eq!(answer.sequences[1].ids.len(), 8);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What a prompt is answered depends on the prompt, the settings and the seed alone (over quantised weights where
//! [`GenerationConfig::deterministic`] is set, since that costs speed there): not on what else is in the batch,
//! nor on the number of threads.

mod config;
mod constraint;
mod engine;
mod error;
mod ngrams;
mod outputs;
mod prefixes;
pub mod processor;
pub mod sampler;
mod sequence;
mod serving;
mod session;
mod stop;
mod watch;
mod watermark;

pub use config::{
    CacheConfig, CacheDtype, CacheImplementation, CacheSettings, Contrastive, DEFAULT_MAX_NEW_TOKENS, DEFAULT_TOP_K,
    DolaLayers, EarlyStopping, ForcedWords, GenerationConfig, KEYS, Key, Sampling, Settings,
};
pub use constraint::{CONSTRAINTS, Constraint};
pub use engine::{Assistant, Generation, Generator, Timings};
pub use error::{Error, Result};
pub use ngrams::Ngrams;
pub use outputs::{Array, Layers, Logprob, Outputs, Wanted};
pub use prefixes::PrefixCache;
pub use processor::PrefixAllowed;
pub use sequence::{Event, FinishReason, Sequence};
pub use serving::{
    Answer, BlockStats, Engine, EngineConfig, Handle, Memory, NamedAdapter, Request, RequestId, RequestTimings, Served,
    Stats, Update,
};
pub use session::Session;
pub use stop::StopStrings;
pub use watch::{At, BeamCandidate, Fate, Moment, Stage, Watch, Weighed, Why};
pub use watermark::{Detection, SeedingScheme, WatermarkDetector, WatermarkingConfig};

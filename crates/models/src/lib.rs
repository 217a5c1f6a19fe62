//! Architectures, checkpoints and the families of models.
//!
//! A family is a file of data: its `config.json`, the names of its weights, and the architecture they describe.

pub mod adapter;
pub mod arch;
pub mod checkpoint;
mod config;
mod cut;
pub mod family;
mod fresh;
pub mod gguf;
pub mod hub;
mod input;
pub mod lineage;
mod load;
mod model;
pub mod names;
mod naming;
mod quantize;
pub mod registry;
mod run;
mod save;
mod survey;
mod task;
mod windows;

mod bart;
mod bert;
mod deberta;
mod deberta_v2;
mod deepseek_v2;
mod distilbert;
mod gpt2;
mod llama;
mod marian;
mod mbart;
mod mistral;
mod mixtral;
mod mt5;
mod qwen2;
mod qwen2_moe;
mod qwen3;
mod qwen3_moe;
mod roberta;
mod t5;
mod transformer;
mod umt5;
mod xlm_roberta;

pub use arch::{Arch, Dropouts, Towers};
pub use config::ConfigError;
pub use fresh::{fresh, fresh_as, fresh_with};
pub use input::Input;
pub use load::{LoadError, LoadOptions, LoadReport, NewHead, load, read_config};
pub use model::{Balance, Model, Named};
pub use quantize::{Mix, Quantize, quantised_bytes};
pub use save::save;
pub use survey::{Found, Slot, Survey, hollow, survey};
pub use task::{Task, Wanted};

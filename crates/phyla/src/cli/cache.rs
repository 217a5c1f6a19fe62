//! The options of `bench` and `eval` that say what a cache is like; those of `generate` and `chat` are settings among others.

use clap::Args;
use phyla_generate::{CacheSettings, GenerationConfig};
use phyla_models::Model;
use serde_json::{Map, Value};

use super::error::usage;

#[derive(Args, Clone, Debug)]
pub struct CacheArgs {
    /// What keys and values are kept as: f32, bf16, f16, q8_0, q4_0 or another kind of blocks of 32
    #[arg(long, value_name = "KIND")]
    cache_dtype: Option<String>,

    /// dynamic, sliding_window, dynamic_full, static, quantized, offloaded, offloaded_static or sink
    #[arg(long, value_name = "NAME")]
    cache_implementation: Option<String>,

    /// nbits and residual_length of a quantised cache, window_length and num_sink_tokens of a sink cache
    #[arg(long, value_name = "JSON")]
    cache_config: Option<String>,
}

impl CacheArgs {
    /// Whether anything is said.
    pub fn given(&self) -> bool {
        self.cache_dtype.is_some() || self.cache_implementation.is_some() || self.cache_config.is_some()
    }

    /// What they come to.
    pub fn settings(&self, model: &Model) -> anyhow::Result<CacheSettings> {
        Ok(CacheSettings::of(&self.config()?, &model.arch)?)
    }

    /// Themselves, and nothing else.
    pub fn config(&self) -> anyhow::Result<GenerationConfig> {
        let text = |text: &Option<String>| text.clone().map(Value::from);
        let parse = |config: &String| {
            serde_json::from_str::<Value>(config)
                .map_err(|error| usage(format!("--cache-config: {error}"), "give JSON, such as {\"nbits\":8}"))
        };
        let said = [
            ("cache_dtype", text(&self.cache_dtype)),
            ("cache_implementation", text(&self.cache_implementation)),
            ("cache_config", self.cache_config.as_ref().map(parse).transpose()?),
        ];
        let map: Map<String, Value> =
            said.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        Ok(GenerationConfig::of_user(&map)?.0)
    }
}

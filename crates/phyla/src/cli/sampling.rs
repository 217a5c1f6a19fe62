//! The options of `generate` and `chat` that say how to decode; what is not given comes from the model's
//! `generation_config.json`.

use phyla_generate::{CacheDtype, CacheImplementation, GenerationConfig};

#[derive(clap::Args, Clone, Debug)]
pub struct Sampling {
    /// Most new tokens
    #[arg(long, value_name = "N")]
    pub max_new_tokens: Option<usize>,

    /// Divisor of the logits: 0 is greedy, 1 the model's own distribution
    #[arg(long, value_name = "T")]
    pub temperature: Option<f32>,

    /// Draw among this many likeliest tokens; 0 is all
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,

    /// Draw among the likeliest tokens that hold this much probability together
    #[arg(long, value_name = "P")]
    pub top_p: Option<f32>,

    /// Drop tokens less likely than this fraction of the likeliest
    #[arg(long, value_name = "P")]
    pub min_p: Option<f32>,

    /// Make tokens that have occurred less likely by this factor
    #[arg(long, value_name = "F")]
    pub repetition_penalty: Option<f32>,

    /// End before this text; repeatable
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,

    /// How the memory of keys and values is managed: dynamic (it grows), static (taken at once), quantized (4 bits)
    #[arg(long, value_name = "NAME")]
    pub cache_implementation: Option<CacheImplementation>,

    /// What keys and values are kept as: f32, bf16, f16, q8_0, q5_1, q5_0, q4_1, q4_0, iq4_nl; without it bf16 beside
    /// weights in bf16 and quantised ones, else f32
    #[arg(long, value_name = "KIND")]
    pub cache_dtype: Option<CacheDtype>,

    /// Let no answer depend on what else is in the call, over quantised weights too: slower there for several answers
    #[arg(long)]
    pub deterministic: bool,

    /// Seed of every draw: the same one gives the same text
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

impl Sampling {
    /// What the user said, and nothing else.
    pub fn config(&self) -> GenerationConfig {
        GenerationConfig {
            max_new_tokens: self.max_new_tokens,
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            cache_implementation: self.cache_implementation,
            cache_dtype: self.cache_dtype,
            deterministic: self.deterministic.then_some(true),
            stop_strings: (!self.stop.is_empty()).then(|| self.stop.clone()),
            ..GenerationConfig::default()
        }
    }
}

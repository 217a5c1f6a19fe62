//! The options of commands that answer many requests at once: how many at a time, and in how much memory.

use phyla_generate::{CacheDtype, CacheSettings, EngineConfig, GenerationConfig, Memory};

use phyla_models::Model;

use super::shared::count;

#[derive(clap::Args, Clone, Debug)]
pub struct EngineArgs {
    /// Sequences that are written at a time, at most [default: 32]
    #[arg(long, value_name = "N", value_parser = count())]
    pub max_num_seqs: Option<usize>,

    /// Tokens that a step reads and writes, at most: long prompts are read in pieces between the steps of others [default: 512]
    #[arg(long, value_name = "N", value_parser = count())]
    pub max_num_batched_tokens: Option<usize>,

    /// Memory for keys and values, in blocks of 64 positions [default: as many as 1 GiB holds]
    #[arg(long, value_name = "N", value_parser = count())]
    pub cache_blocks: Option<usize>,
}

impl EngineArgs {
    /// For requests that are answered with these settings, unless they say otherwise.
    pub fn config(&self, settings: &GenerationConfig, model: &Model) -> anyhow::Result<EngineConfig> {
        let (default, cache) = (EngineConfig::default(), CacheSettings::of(settings, &model.arch)?);
        Ok(EngineConfig {
            max_num_seqs: self.max_num_seqs.unwrap_or(default.max_num_seqs),
            max_num_batched_tokens: self.max_num_batched_tokens.unwrap_or(default.max_num_batched_tokens),
            memory: self.cache_blocks.map_or(default.memory, Memory::Blocks),
            cache_dtype: cache.kept.map(CacheDtype),
            offloaded: cache.spec(0).offloaded,
            ..default
        })
    }

    /// One of the options that was given.
    pub fn given(&self) -> Option<&'static str> {
        let options = [
            ("--max-num-seqs", self.max_num_seqs),
            ("--max-num-batched-tokens", self.max_num_batched_tokens),
            ("--cache-blocks", self.cache_blocks),
        ];
        options.into_iter().find_map(|(name, value)| value.map(|_| name))
    }
}

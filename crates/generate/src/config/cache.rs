//! What keys and values of earlier tokens are kept as, and in how much memory.

use std::str::FromStr;

use phyla_kernels::page::NAMES;
use phyla_nn::{CacheSpec, Kept};

use super::GenerationConfig;

/// How the memory of keys and values is managed; texts are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheImplementation {
    /// `"dynamic"`: it grows as texts do. So do `"sliding_window"`, `"hybrid"` and `"offloaded"`: what differs in them is
    /// where transformers keeps what.
    #[default]
    Dynamic,
    /// `"static"`, `"offloaded_static"`: it is taken at once and never grows.
    Static,
    /// `"quantized"`: it grows, and is kept in blocks of 4 bits unless `cache_config` says 8.
    Quantized,
}

impl CacheImplementation {
    /// By its name in transformers.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "dynamic" | "dynamic_full" | "sliding_window" | "hybrid" | "hybrid_chunked" | "offloaded" => {
                Some(CacheImplementation::Dynamic)
            }
            "static" | "offloaded_static" => Some(CacheImplementation::Static),
            "quantized" => Some(CacheImplementation::Quantized),
            _ => None,
        }
    }
}

impl FromStr for CacheImplementation {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::from_name(name).ok_or_else(|| "expected dynamic, static or quantized".into())
    }
}

/// What keys and values are kept as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheDtype(pub Kept);

impl FromStr for CacheDtype {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Kept::from_name(name).map(CacheDtype).ok_or_else(|| format!("expected one of {}", NAMES.join(", ")))
    }
}

/// What a [`GenerationConfig`] says about the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheSettings {
    /// As what; without it as exactly as attention multiplies.
    pub kept: Option<Kept>,
    /// The positions of a cache that never grows, at least.
    pub fixed: Option<usize>,
}

impl From<&GenerationConfig> for CacheSettings {
    fn from(config: &GenerationConfig) -> Self {
        let implementation = config.cache_implementation.unwrap_or_default();
        let quantized = (implementation == CacheImplementation::Quantized).then_some(FOUR_BITS);
        let fixed = implementation == CacheImplementation::Static;
        Self {
            kept: config.cache_dtype.map(|CacheDtype(kept)| kept).or(quantized),
            fixed: fixed.then_some(config.max_cache_len.unwrap_or(0)),
        }
    }
}

/// What transformers' quantised caches have unless something else is said.
pub(super) const FOUR_BITS: Kept = Kept::Blocks(phyla_kernels::quant::Quant::Q4_0);
/// The other thing that can be said.
pub(super) const EIGHT_BITS: Kept = Kept::Blocks(phyla_kernels::quant::Quant::Q8_0);

impl CacheSettings {
    /// The cache of rows that come to so many positions.
    pub fn spec(&self, positions: usize) -> CacheSpec {
        CacheSpec { kept: self.kept, positions: self.fixed.map(|fixed| fixed.max(positions)) }
    }
}

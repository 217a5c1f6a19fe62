//! What keys and values of earlier tokens are kept as, and in how much memory.

use std::str::FromStr;

use phyla_kernels::page::NAMES;
use phyla_models::Arch;
use phyla_nn::{CacheSpec, Kept, SinkSpec, SublayerSpec};

use super::GenerationConfig;
use crate::{Error, Result};

/// How the memory of keys and values is managed. But for quantised caches and sinks, texts are the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheImplementation {
    /// `"dynamic"`, `"hybrid"`, `"hybrid_chunked"`: it grows as texts do; layers that look back over a window keep the window.
    #[default]
    Dynamic,
    /// `"sliding_window"`: the same, and the model has layers with a window.
    Sliding,
    /// `"dynamic_full"`: it grows, and keeps what lies before windows, so that a session can go back to any place.
    Full,
    /// `"static"`: it is taken at once and never grows.
    Static,
    /// `"quantized"`: it grows, and is kept in blocks of 4 bits unless `cache_config` says 8, the newest positions as they are.
    Quantized,
    /// `"offloaded"`: it lies in a temporary file, which the system may write out when memory is short.
    Offloaded,
    /// `"offloaded_static"`: both.
    OffloadedStatic,
    /// `"sink"`: the first tokens and the last ones are kept, without end (Xiao et al. 2023).
    Sink,
}

impl CacheImplementation {
    /// By its name in transformers.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "dynamic" | "hybrid" | "hybrid_chunked" => Some(CacheImplementation::Dynamic),
            "sliding_window" => Some(CacheImplementation::Sliding),
            "dynamic_full" => Some(CacheImplementation::Full),
            "static" => Some(CacheImplementation::Static),
            "quantized" => Some(CacheImplementation::Quantized),
            "offloaded" => Some(CacheImplementation::Offloaded),
            "offloaded_static" => Some(CacheImplementation::OffloadedStatic),
            "sink" => Some(CacheImplementation::Sink),
            _ => None,
        }
    }
}

impl FromStr for CacheImplementation {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        Self::from_name(name).ok_or_else(|| {
            "expected dynamic, sliding_window, hybrid, dynamic_full, static, quantized, offloaded, offloaded_static or sink"
                .into()
        })
    }
}

/// What `cache_config` says besides the bits of a quantised cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheConfig {
    /// So many of the newest positions of a quantised cache stay as they are. Default: 128, as in transformers; 0 beside
    /// `cache_dtype` alone, and where ids are guessed.
    pub residual_length: Option<usize>,
    /// Tokens of a sink cache, those at the beginning included.
    pub window_length: Option<usize>,
    /// Tokens at the beginning that a sink cache keeps. Default: 4.
    pub num_sink_tokens: Option<usize>,
}

/// What keys and values are kept as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheDtype(pub Kept);

impl FromStr for CacheDtype {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        Kept::from_name(name).map(CacheDtype).ok_or_else(|| format!("expected one of {}", NAMES.join(", ")))
    }
}

/// What a [`GenerationConfig`] says about the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheSettings {
    /// How its memory is managed.
    pub implementation: CacheImplementation,
    /// As what; without it as exactly as attention multiplies.
    pub kept: Option<Kept>,
    /// The newest positions that are kept exactly whatever `kept` is; `None` if nothing was said of them.
    pub residual: Option<usize>,
    /// The positions of a cache that never grows, at least.
    pub fixed: Option<usize>,
    /// The tokens that are kept, where not all are.
    pub sink: Option<SinkSpec>,
}

impl TryFrom<&GenerationConfig> for CacheSettings {
    type Error = Error;

    fn try_from(config: &GenerationConfig) -> Result<Self> {
        use CacheImplementation::{OffloadedStatic, Quantized, Sink, Static};
        let implementation = config.cache_implementation.unwrap_or_default();
        let quantized = (implementation == Quantized).then_some(FOUR_BITS);
        let fixed = matches!(implementation, Static | OffloadedStatic);
        let more = config.cache_config.unwrap_or_default();
        let kept = config.cache_dtype.map(|CacheDtype(kept)| kept).or(quantized);
        let wrong = |what: &str| Err(Error::Settings(format!("cache_config: {what}")));
        if more.residual_length.is_some_and(|length| length > 0) && kept.is_none() {
            return wrong(
                "residual_length is of a cache that rounds the others; set cache_dtype, or cache_implementation \
                          quantized",
            );
        }
        let sink = match (implementation, more.window_length, more.num_sink_tokens) {
            (Sink, None, _) => {
                return wrong(
                    "a sink cache needs a window_length, such as {\"window_length\":1024,\"num_sink_tokens\":4}",
                );
            }
            (Sink, Some(window), first) => {
                let first = first.unwrap_or(SINKS);
                if window <= first {
                    return Err(Error::Settings(format!(
                        "cache_config: window_length must be above num_sink_tokens {first}, found {window}"
                    )));
                }
                Some(SinkSpec { window, first })
            }
            (_, None, None) => None,
            _ => return wrong("window_length and num_sink_tokens are of cache_implementation sink"),
        };
        Ok(Self {
            implementation,
            kept,
            residual: more.residual_length,
            fixed: fixed.then_some(config.max_cache_len.unwrap_or(0)),
            sink,
        })
    }
}

/// Tokens at the beginning that hold enough of the attention (Xiao et al. 2023, table 2).
const SINKS: usize = 4;
/// Positions that transformers' quantised caches leave as they are.
const RESIDUAL: usize = 128;
/// What transformers' quantised caches have unless something else is said.
pub(super) const FOUR_BITS: Kept = Kept::Blocks(phyla_kernels::quant::Quant::Q4_0);
/// The other thing that can be said.
pub(super) const EIGHT_BITS: Kept = Kept::Blocks(phyla_kernels::quant::Quant::Q8_0);

impl CacheSettings {
    /// The cache of rows that come to so many positions.
    pub fn spec(&self, positions: usize) -> CacheSpec {
        use CacheImplementation::{Full, Offloaded, OffloadedStatic};
        CacheSpec {
            kept: self.kept,
            positions: self.fixed.map(|fixed| fixed.max(positions)),
            residual: self.residual.unwrap_or(0),
            whole: self.implementation == Full,
            sink: self.sink,
            offloaded: matches!(self.implementation, Offloaded | OffloadedStatic),
        }
    }

    /// What a configuration says, for a model.
    ///
    /// # Errors
    /// A setting out of range, or one that this model cannot honour.
    pub fn of(config: &GenerationConfig, arch: &Arch) -> Result<Self> {
        let mut settings = Self::try_from(config)?;
        settings.settle(arch, false)?;
        Ok(settings)
    }

    /// Settles what was left open, for a model and for sequences whose ids are guessed, perhaps.
    ///
    /// # Errors
    /// When the model, or guessing, and the settings do not go together.
    pub(crate) fn settle(&mut self, arch: &Arch, speculates: bool) -> Result<()> {
        let wrong = |what: String| Err(Error::Settings(what));
        if speculates && self.residual.is_some_and(|length| length > 0) {
            return wrong(
                "cache_config: residual_length: what is rounded when would depend on how many ids are guessed; leave one of the \
                 two away"
                    .into(),
            );
        }
        if speculates && self.sink.is_some() {
            return wrong(
                "cache_implementation: a sink cache drops a token for each that it reads, right guesses and wrong ones; leave \
                 speculation away"
                    .into(),
            );
        }
        if self.residual.is_none() && self.implementation == CacheImplementation::Quantized && !speculates {
            self.residual = Some(RESIDUAL);
        }
        let layers = || arch.main().layers.iter().flat_map(|layer| &layer.sublayers);
        let windows = || {
            layers().filter_map(|layer| match layer {
                SublayerSpec::Attention(attention) => attention.window,
                _ => None,
            })
        };
        if self.implementation == CacheImplementation::Sliding && windows().next().is_none() {
            return wrong(
                "cache_implementation: sliding_window is for models with layers that look back over a window, and this one's look \
                 back all the way; use dynamic or, to keep only the last tokens, sink"
                    .into(),
            );
        }
        let Some(sink) = self.sink else { return Ok(()) };
        let turned = |layer: &SublayerSpec| match layer {
            SublayerSpec::Attention(attention) => attention.rope.is_some() && attention.relative.is_none(),
            SublayerSpec::Mla(_) => true,
            SublayerSpec::Cross(_) | SublayerSpec::Disentangled(_) => false,
            SublayerSpec::Mlp(_) | SublayerSpec::Moe(_) => true,
        };
        if arch.source().is_some() || !layers().all(turned) {
            return wrong(
                "cache_implementation: sink moves tokens to other positions, which decoders with rotary positions allow, and this \
                 model is none"
                    .into(),
            );
        }
        if sink.window > arch.context {
            return wrong(format!(
                "cache_config: window_length is {}, and this model has been trained on {} positions; give at most that",
                sink.window, arch.context
            ));
        }
        if let Some(window) = windows().find(|&window| window < sink.window) {
            return wrong(format!(
                "cache_config: window_length is {}, and layers of this model look back over {window} tokens; give at most that",
                sink.window
            ));
        }
        Ok(())
    }
}

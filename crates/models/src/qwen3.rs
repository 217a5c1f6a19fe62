//! Qwen3: Qwen2 with a norm over each head of q and k in place of their biases (Yang et al. 2025).

use serde::{Deserialize, Serialize};

use crate::Arch;
use crate::config::ConfigError;
use crate::family::Family;
use crate::llama::{Decoder, NAMES};
use crate::names::Rule;
use crate::qwen2;

/// `config.json`, field for field: Qwen2's and one more.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Config {
    #[serde(flatten)]
    base: qwen2::Config,
    #[serde(default)]
    attention_bias: bool,
}

/// Size of a head where the file states none: not `hidden_size / num_attention_heads`.
const HEAD_DIM: usize = 128;

impl Family for Config {
    const MODEL_TYPE: &'static str = "qwen3";
    const ARCHITECTURE: &'static str = "Qwen3ForCausalLM";
    const NAMES: &'static [Rule] = NAMES;
    const PREFIX: &'static str = "model.";
    const BUFFERS: &'static [&'static str] = &[".rotary_emb.inv_freq"];
    const IGNORED: &'static [&'static str] = &["mlp_bias"];

    fn arch(&self) -> Result<Arch, ConfigError> {
        let head_dim = self.base.stated_head_dim().unwrap_or(HEAD_DIM);
        let base = self.base.decoder(head_dim)?;
        Decoder { qkv_bias: self.attention_bias, o_bias: self.attention_bias, qk_norm: true, ..base }.arch()
    }
}

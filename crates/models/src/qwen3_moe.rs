//! Qwen3-MoE: Qwen3 with mixtures of experts, none of them for all tokens (Yang et al. 2025).

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::ConfigError;
use crate::family::Family;
use crate::llama::Decoder;
use crate::names::Rule;
use crate::qwen2_moe::{Mixture, NAMES};
use crate::{Arch, Task, Wanted, qwen2};

/// `config.json`, field for field: Qwen2's and those of a mixture.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    #[serde(flatten)]
    base: qwen2::Config,
    #[serde(flatten)]
    mixture: Mixture,
    attention_bias: bool,
}

impl Family for Config {
    const MODEL_TYPE: &'static str = "qwen3_moe";
    const ARCHITECTURES: &'static [(Task, &'static str)] = &[
        (Task::CausalLm, "Qwen3MoeForCausalLM"),
        (Task::SequenceClassification, "Qwen3MoeForSequenceClassification"),
        (Task::TokenClassification, "Qwen3MoeForTokenClassification"),
        (Task::Base, "Qwen3MoeModel"),
    ];
    const NAMES: &'static [Rule] = NAMES;
    const PREFIX: &'static str = "model.";
    const BUFFERS: &'static [&'static str] = &[".rotary_emb.inv_freq"];
    const ALIASES: &'static [(&'static str, &'static str)] = &[("num_local_experts", "num_experts")];
    const IGNORED: &'static [&'static str] = &["mlp_bias", "max_window_layers", "shared_expert_intermediate_size"];

    fn defaults() -> Value {
        json!({
            "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 24, "num_attention_heads": 32,
            "num_key_value_heads": 4, "moe_intermediate_size": 768, "num_experts_per_tok": 8, "num_experts": 128,
            "norm_topk_prob": false, "decoder_sparse_step": 1, "mlp_only_layers": [], "output_router_logits": false,
            "router_aux_loss_coef": 0.001, "attention_bias": false,
        })
    }

    fn arch(&self, wanted: &Wanted) -> Result<Arch, ConfigError> {
        let base = Decoder { windows: self.base.equal_windows(), ..self.base.decoder(self.base.head_dim()?)? };
        let bias = self.attention_bias;
        let mut arch = Decoder { qkv_bias: bias, o_bias: bias, qk_norm: true, ..base }.arch(wanted)?;
        self.mixture.put_into(&mut arch, &self.base, None)?;
        Ok(arch)
    }
}

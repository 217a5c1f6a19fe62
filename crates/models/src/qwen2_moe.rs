//! Qwen2-MoE: Qwen2 with mixtures of experts, one expert for all tokens behind a gate (Qwen team 2024).

use phyla_nn::{MlpSpec, MoeSpec, Routing, SharedSpec};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::{self, ConfigError, count};
use crate::family::Family;
use crate::llama;
use crate::names::{Rule, join, whole};
use crate::windows::is_last_of;
use crate::{Arch, Task, Wanted, qwen2};

/// `config.json`, field for field: Qwen2's and these.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    #[serde(flatten)]
    base: qwen2::Config,
    #[serde(flatten)]
    mixture: Mixture,
    shared_expert_intermediate_size: usize,
    qkv_bias: bool,
}

/// The fields of Qwen's mixtures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Mixture {
    moe_intermediate_size: usize,
    num_experts: usize,
    num_experts_per_tok: usize,
    norm_topk_prob: bool,
    decoder_sparse_step: usize,
    mlp_only_layers: Option<Vec<usize>>,
    output_router_logits: bool,
    router_aux_loss_coef: f64,
}

/// Ours, theirs: Llama's and the mixture's.
pub(crate) const NAMES: &[Rule] = &join::<24>(
    llama::NAMES,
    &[
        whole("decoder.layers.{}.mlp.router", "model.layers.{}.mlp.gate"),
        whole("decoder.layers.{}.mlp.experts.{}.gate", "model.layers.{}.mlp.experts.{}.gate_proj"),
        whole("decoder.layers.{}.mlp.experts.{}.up", "model.layers.{}.mlp.experts.{}.up_proj"),
        whole("decoder.layers.{}.mlp.experts.{}.down", "model.layers.{}.mlp.experts.{}.down_proj"),
        whole("decoder.layers.{}.mlp.shared.gate", "model.layers.{}.mlp.shared_expert.gate_proj"),
        whole("decoder.layers.{}.mlp.shared.up", "model.layers.{}.mlp.shared_expert.up_proj"),
        whole("decoder.layers.{}.mlp.shared.down", "model.layers.{}.mlp.shared_expert.down_proj"),
        whole("decoder.layers.{}.mlp.shared_gate", "model.layers.{}.mlp.shared_expert_gate"),
    ],
);

impl Family for Config {
    const MODEL_TYPE: &'static str = "qwen2_moe";
    const ARCHITECTURES: &'static [(Task, &'static str)] = &[
        (Task::CausalLm, "Qwen2MoeForCausalLM"),
        (Task::SequenceClassification, "Qwen2MoeForSequenceClassification"),
        (Task::TokenClassification, "Qwen2MoeForTokenClassification"),
        (Task::Base, "Qwen2MoeModel"),
    ];
    const NAMES: &'static [Rule] = NAMES;
    const PREFIX: &'static str = "model.";
    const BUFFERS: &'static [&'static str] = &[".rotary_emb.inv_freq"];
    const IGNORED: &'static [&'static str] = &["attention_bias", "mlp_bias"];

    fn defaults() -> Value {
        json!({
            "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 24, "num_attention_heads": 16,
            "num_key_value_heads": 16, "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632,
            "num_experts_per_tok": 4, "num_experts": 60, "norm_topk_prob": false, "decoder_sparse_step": 1,
            "mlp_only_layers": [], "output_router_logits": false, "router_aux_loss_coef": 0.001, "qkv_bias": true,
        })
    }

    fn arch(&self, wanted: &Wanted) -> Result<Arch, ConfigError> {
        let base = self.base.decoder(self.base.head_dim()?)?;
        let mut arch = llama::Decoder { qkv_bias: self.qkv_bias, windows: self.base.alternating_windows()?, ..base }
            .arch(wanted)?;
        let inner = count("shared_expert_intermediate_size", self.shared_expert_intermediate_size, "size")?;
        let mlp = MlpSpec::gated(arch.hidden(), inner, self.base.act()?, arch.tokens.std);
        self.mixture.put_into(&mut arch, &self.base, Some(SharedSpec { mlp, gated: true }))?;
        Ok(arch)
    }
}

impl Mixture {
    /// Mixes experts into the layers that have them.
    pub fn put_into(
        &self,
        arch: &mut Arch,
        base: &qwen2::Config,
        shared: Option<SharedSpec>,
    ) -> Result<(), ConfigError> {
        let std = arch.tokens.std;
        let step = count("decoder_sparse_step", self.decoder_sparse_step, "layers")?;
        config::at_most("num_experts_per_tok", self.num_experts_per_tok, "num_experts", self.num_experts)?;
        let inner = count("moe_intermediate_size", self.moe_intermediate_size, "size")?;
        let moe = MoeSpec {
            experts: self.num_experts,
            expert: MlpSpec::gated(arch.hidden(), inner, base.act()?, std),
            routing: Routing {
                top_k: self.num_experts_per_tok,
                renormalise: self.norm_topk_prob,
                scale: 1.,
                groups: None,
            },
            shared,
            balance: None,
            jitter: 0.,
            std,
        };
        let dense = self.mlp_only_layers.as_deref().unwrap_or_default();
        arch.mix(|index| (is_last_of(step, index) && !dense.contains(&index)).then(|| moe.clone()));
        arch.router_loss = self.output_router_logits.then_some(self.router_aux_loss_coef as f32);
        Ok(())
    }
}

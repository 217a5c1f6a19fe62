//! Mixtral: Mistral with a mixture of experts in every layer (Jiang et al. 2024).

use phyla_nn::{MlpSpec, MoeSpec, Routing};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::{self, ConfigError, count};
use crate::family::Family;
use crate::llama;
use crate::names::{Rule, join, whole};
use crate::{Arch, Task, Wanted, mistral};

/// `config.json`, field for field: Mistral's and these.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    #[serde(flatten)]
    base: mistral::Config,
    num_experts_per_tok: usize,
    num_local_experts: usize,
    output_router_logits: bool,
    router_aux_loss_coef: f64,
    router_jitter_noise: f64,
}

impl Family for Config {
    const MODEL_TYPE: &'static str = "mixtral";
    const ARCHITECTURES: &'static [(Task, &'static str)] = &[
        (Task::CausalLm, "MixtralForCausalLM"),
        (Task::SequenceClassification, "MixtralForSequenceClassification"),
        (Task::TokenClassification, "MixtralForTokenClassification"),
        (Task::Base, "MixtralModel"),
    ];
    const NAMES: &'static [Rule] = &join::<20>(
        llama::NAMES,
        &[
            whole("decoder.layers.{}.mlp.router", "model.layers.{}.block_sparse_moe.gate"),
            whole("decoder.layers.{}.mlp.experts.{}.gate", "model.layers.{}.block_sparse_moe.experts.{}.w1"),
            whole("decoder.layers.{}.mlp.experts.{}.up", "model.layers.{}.block_sparse_moe.experts.{}.w3"),
            whole("decoder.layers.{}.mlp.experts.{}.down", "model.layers.{}.block_sparse_moe.experts.{}.w2"),
        ],
    );
    const PREFIX: &'static str = "model.";
    const BUFFERS: &'static [&'static str] = &[".rotary_emb.inv_freq"];
    const IGNORED: &'static [&'static str] = &["attention_bias", "mlp_bias"];

    fn defaults() -> Value {
        json!({
            "rope_theta": 1e6, "rms_norm_eps": 1e-5, "sliding_window": null, "num_experts_per_tok": 2, "num_local_experts": 8,
            "output_router_logits": false, "router_aux_loss_coef": 0.001, "router_jitter_noise": 0.0,
        })
    }

    fn arch(&self, wanted: &Wanted) -> Result<Arch, ConfigError> {
        let mut arch = self.base.arch(wanted)?;
        let experts = count("num_local_experts", self.num_local_experts, "layers")?;
        config::at_most("num_experts_per_tok", self.num_experts_per_tok, "num_local_experts", experts)?;
        let jitter = config::probability("router_jitter_noise", self.router_jitter_noise)?;
        let std = arch.tokens.std;
        let expert = MlpSpec::gated(arch.hidden(), self.base.intermediate_size, self.base.act()?, std);
        let routing = Routing { top_k: self.num_experts_per_tok, renormalise: true, scale: 1., groups: None };
        arch.mix(|_| Some(MoeSpec { experts, expert, routing, shared: None, balance: None, jitter, std }));
        arch.router_loss = self.output_router_logits.then_some(self.router_aux_loss_coef as f32);
        Ok(arch)
    }
}

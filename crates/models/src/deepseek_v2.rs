//! DeepSeek-V2: Llama with latent attention, and above the first layers mixtures of many small experts, some of them for
//! all tokens (DeepSeek-AI 2024).
//!
//! `norm_topk_prob` is read and, as in transformers, has no effect: no published checkpoint sets it.

use phyla_nn::{BalanceSpec, Groups, LayerSpec, MlaSpec, MlpSpec, MoeSpec, NormSpec, Routing, SharedSpec, Style};
use serde::{Deserialize, Serialize};

use crate::arch::decoder_heads;
use crate::config::{self, ConfigError, RopeFields, count, invalid, refused};
use crate::family::Family;
use crate::gguf::table::{self, Field, Fixed, Table};
use crate::names::{Rule, folded, stacked, whole};
use crate::{Arch, Task, Wanted};

/// `config.json`, field for field.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    moe_intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    n_shared_experts: Option<usize>,
    n_routed_experts: Option<usize>,
    routed_scaling_factor: f64,
    kv_lora_rank: usize,
    q_lora_rank: Option<usize>,
    qk_rope_head_dim: usize,
    qk_nope_head_dim: usize,
    v_head_dim: usize,
    topk_method: Option<String>,
    n_group: Option<usize>,
    topk_group: Option<usize>,
    num_experts_per_tok: Option<usize>,
    moe_layer_freq: usize,
    first_k_dense_replace: usize,
    scoring_func: String,
    aux_loss_alpha: f64,
    seq_aux: bool,
    hidden_act: String,
    max_position_embeddings: usize,
    initializer_range: f64,
    rms_norm_eps: f64,
    #[serde(flatten)]
    rope: RopeFields,
    attention_bias: bool,
    attention_dropout: f64,
    mlp_bias: bool,
    tie_word_embeddings: bool,
    pad_token_id: Option<i64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            vocab_size: 102_400,
            hidden_size: 4096,
            intermediate_size: 11_008,
            moe_intermediate_size: 1407,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            n_shared_experts: Some(2),
            n_routed_experts: Some(64),
            routed_scaling_factor: 1.,
            kv_lora_rank: 512,
            q_lora_rank: Some(1536),
            qk_rope_head_dim: 64,
            qk_nope_head_dim: 128,
            v_head_dim: 128,
            topk_method: Some("greedy".into()),
            n_group: None,
            topk_group: None,
            num_experts_per_tok: None,
            moe_layer_freq: 1,
            first_k_dense_replace: 0,
            scoring_func: "softmax".into(),
            aux_loss_alpha: 0.,
            seq_aux: true,
            hidden_act: "silu".into(),
            max_position_embeddings: 2048,
            initializer_range: 0.02,
            rms_norm_eps: 1e-6,
            rope: RopeFields::default(),
            attention_bias: false,
            attention_dropout: 0.,
            mlp_bias: false,
            tie_word_embeddings: false,
            pad_token_id: None,
        }
    }
}

/// `config.json` by the keys of GGUF files, beyond those of all decoders. Files whose heads are folded into one state
/// their own sizes under names that end in `_mla`.
const GGUF_FIELDS: &[Field] = &[
    Field::Need("kv_lora_rank", &["attention.kv_lora_rank"]),
    Field::OrNull("q_lora_rank", &["attention.q_lora_rank"]),
    Field::Need("qk_rope_head_dim", &["rope.dimension_count"]),
    Field::Less("qk_nope_head_dim", &["attention.key_length_mla", "attention.key_length"], "rope.dimension_count"),
    Field::Need("v_head_dim", &["attention.value_length_mla", "attention.value_length"]),
    Field::Unread("attention.head_count_kv"),
    Field::YarnLog,
    Field::Need("first_k_dense_replace", &["leading_dense_block_count"]),
    Field::Need("moe_intermediate_size", &["expert_feed_forward_length"]),
    Field::Need("n_routed_experts", &["expert_count"]),
    Field::Need("num_experts_per_tok", &["expert_used_count"]),
    Field::OrNull("n_shared_experts", &["expert_shared_count"]),
    Field::Need("routed_scaling_factor", &["expert_weights_scale"]),
    Field::Only("expert_weights_norm", Fixed::Flag(false)),
    Field::Only("expert_gating_func", Fixed::Number(1.)),
    Field::May("n_group", &["expert_group_count"]),
    Field::May("topk_group", &["expert_group_used_count"]),
    Field::Groups,
];

/// Ours, theirs in GGUF files.
const GGUF_NAMES: &[Rule] = &[
    whole("tokens", "token_embd"),
    whole("decoder.layers.{}.attn_norm", "blk.{}.attn_norm"),
    whole("decoder.layers.{}.attn.q", "blk.{}.attn_q"),
    whole("decoder.layers.{}.attn.q_down", "blk.{}.attn_q_a"),
    whole("decoder.layers.{}.attn.q_norm", "blk.{}.attn_q_a_norm"),
    whole("decoder.layers.{}.attn.q_up", "blk.{}.attn_q_b"),
    whole("decoder.layers.{}.attn.kv_down", "blk.{}.attn_kv_a_mqa"),
    whole("decoder.layers.{}.attn.kv_norm", "blk.{}.attn_kv_a_norm"),
    whole("decoder.layers.{}.attn.kv_up", "blk.{}.attn_kv_b"),
    folded("decoder.layers.{}.attn.kv_up", "blk.{}.attn_k_b", "blk.{}.attn_v_b"),
    whole("decoder.layers.{}.attn.o", "blk.{}.attn_output"),
    whole("decoder.layers.{}.mlp_norm", "blk.{}.ffn_norm"),
    whole("decoder.layers.{}.mlp.gate", "blk.{}.ffn_gate"),
    whole("decoder.layers.{}.mlp.up", "blk.{}.ffn_up"),
    whole("decoder.layers.{}.mlp.down", "blk.{}.ffn_down"),
    whole("decoder.layers.{}.mlp.router", "blk.{}.ffn_gate_inp"),
    stacked("decoder.layers.{}.mlp.experts.{}.gate", "blk.{}.ffn_gate_exps"),
    stacked("decoder.layers.{}.mlp.experts.{}.up", "blk.{}.ffn_up_exps"),
    stacked("decoder.layers.{}.mlp.experts.{}.down", "blk.{}.ffn_down_exps"),
    whole("decoder.layers.{}.mlp.shared.gate", "blk.{}.ffn_gate_shexp"),
    whole("decoder.layers.{}.mlp.shared.up", "blk.{}.ffn_up_shexp"),
    whole("decoder.layers.{}.mlp.shared.down", "blk.{}.ffn_down_shexp"),
    whole("decoder.norm", "output_norm"),
    whole("head", "output"),
];

impl Family for Config {
    const MODEL_TYPE: &'static str = "deepseek_v2";
    const ARCHITECTURES: &'static [(Task, &'static str)] = &[
        (Task::CausalLm, "DeepseekV2ForCausalLM"),
        (Task::SequenceClassification, "DeepseekV2ForSequenceClassification"),
        (Task::Base, "DeepseekV2Model"),
    ];
    const NAMES: &'static [Rule] = &[
        whole("tokens", "model.embed_tokens"),
        whole("decoder.layers.{}.attn_norm", "model.layers.{}.input_layernorm"),
        whole("decoder.layers.{}.attn.q", "model.layers.{}.self_attn.q_proj"),
        whole("decoder.layers.{}.attn.q_down", "model.layers.{}.self_attn.q_a_proj"),
        whole("decoder.layers.{}.attn.q_norm", "model.layers.{}.self_attn.q_a_layernorm"),
        whole("decoder.layers.{}.attn.q_up", "model.layers.{}.self_attn.q_b_proj"),
        whole("decoder.layers.{}.attn.kv_down", "model.layers.{}.self_attn.kv_a_proj_with_mqa"),
        whole("decoder.layers.{}.attn.kv_norm", "model.layers.{}.self_attn.kv_a_layernorm"),
        whole("decoder.layers.{}.attn.kv_up", "model.layers.{}.self_attn.kv_b_proj"),
        whole("decoder.layers.{}.attn.o", "model.layers.{}.self_attn.o_proj"),
        whole("decoder.layers.{}.mlp_norm", "model.layers.{}.post_attention_layernorm"),
        whole("decoder.layers.{}.mlp.gate", "model.layers.{}.mlp.gate_proj"),
        whole("decoder.layers.{}.mlp.up", "model.layers.{}.mlp.up_proj"),
        whole("decoder.layers.{}.mlp.down", "model.layers.{}.mlp.down_proj"),
        whole("decoder.layers.{}.mlp.router", "model.layers.{}.mlp.gate"),
        whole("decoder.layers.{}.mlp.experts.{}.gate", "model.layers.{}.mlp.experts.{}.gate_proj"),
        whole("decoder.layers.{}.mlp.experts.{}.up", "model.layers.{}.mlp.experts.{}.up_proj"),
        whole("decoder.layers.{}.mlp.experts.{}.down", "model.layers.{}.mlp.experts.{}.down_proj"),
        whole("decoder.layers.{}.mlp.shared.gate", "model.layers.{}.mlp.shared_experts.gate_proj"),
        whole("decoder.layers.{}.mlp.shared.up", "model.layers.{}.mlp.shared_experts.up_proj"),
        whole("decoder.layers.{}.mlp.shared.down", "model.layers.{}.mlp.shared_experts.down_proj"),
        whole("decoder.norm", "model.norm"),
        whole("head", "lm_head"),
        whole("score", "score"),
    ];
    const PREFIX: &'static str = "model.";
    const BUFFERS: &'static [&'static str] = &[".rotary_emb.inv_freq"];
    const IGNORED: &'static [&'static str] = &[
        "ep_size",
        "head_dim",
        "norm_topk_prob",
        "num_key_value_heads",
        "output_router_logits",
        "qk_head_dim",
        "router_aux_loss_coef",
    ];
    const ALIASES: &'static [(&'static str, &'static str)] =
        &[("num_experts", "n_routed_experts"), ("num_local_experts", "n_routed_experts")];

    const GGUF: Option<Table> = Some(Table {
        arch: "deepseek2",
        marked_by: None,
        fields: &[table::COMMON, table::DECODER, GGUF_FIELDS],
        names: GGUF_NAMES,
    });

    fn arch(&self, wanted: &Wanted) -> Result<Arch, ConfigError> {
        self.check()?;
        let (std, norm) = (config::std(self.initializer_range)?, NormSpec::Rms { eps: self.rms_norm_eps });
        let act = config::activation("hidden_act", &self.hidden_act)?;
        let mlp = |inner| MlpSpec { bias: self.mlp_bias, ..MlpSpec::gated(self.hidden_size, inner, act, std) };
        let attention = self.attention(std)?;
        let layer = LayerSpec::pre_norm(self.hidden_size, norm, [attention.into(), mlp(self.intermediate_size).into()]);
        let mut arch = Arch::decoder(self.vocab_size, self.hidden_size, self.max_position_embeddings, std);
        arch.tokens.padding = config::padding(self.pad_token_id, self.vocab_size)?;
        arch.heads = decoder_heads(&arch, wanted, self.tie_word_embeddings, arch.tokens.padding);
        let tower = arch.main_mut();
        tower.layers = vec![layer; self.num_hidden_layers];
        tower.final_norm = Some(norm);
        let Some(experts) = self.n_routed_experts else { return Ok(arch) };
        let shared = config::times("n_shared_experts", self.n_shared_experts.unwrap_or(0), self.moe_intermediate_size)?;
        let alpha = self.aux_loss_alpha as f32;
        let moe = MoeSpec {
            experts,
            expert: MlpSpec { bias: false, ..mlp(self.moe_intermediate_size) },
            routing: self.routing(experts)?,
            shared: (shared > 0).then(|| SharedSpec { mlp: mlp(shared), gated: false }),
            balance: (alpha > 0.).then_some(BalanceSpec { alpha, by_sequence: self.seq_aux }),
            jitter: 0.,
            std,
        };
        arch.mix(|index| (index >= self.first_k_dense_replace).then(|| moe.clone()));
        Ok(arch)
    }
}

impl Config {
    fn attention(&self, std: f32) -> Result<MlaSpec, ConfigError> {
        let rope = self.rope.styled(Style::Interleaved, self.qk_rope_head_dim, self.max_position_embeddings)?;
        Ok(MlaSpec {
            hidden: self.hidden_size,
            heads: self.num_attention_heads,
            q_rank: self.q_lora_rank,
            kv_rank: self.kv_lora_rank,
            nope: self.qk_nope_head_dim,
            rotary: self.qk_rope_head_dim,
            v_dim: self.v_head_dim,
            scale: self.rope.score_scale(config::sum(self.qk_nope_head_dim, self.qk_rope_head_dim))?,
            rope,
            bias: self.attention_bias,
            // The reference leaves these norms at their own epsilon.
            norm: NormSpec::Rms { eps: 1e-6 },
            dropout: config::probability("attention_dropout", self.attention_dropout)?,
            std,
        })
    }

    fn routing(&self, experts: usize) -> Result<Routing, ConfigError> {
        let groups = match self.topk_method.as_deref() {
            None | Some("greedy") => None,
            Some("group_limited_greedy") => {
                let (Some(n), Some(top)) = (self.n_group, self.topk_group) else {
                    return Err(invalid("n_group", "group_limited_greedy needs n_group and topk_group"));
                };
                config::divides("n_group", n, "n_routed_experts", experts)?;
                config::at_most("topk_group", top, "n_group", n)?;
                Some(Groups { count: n, top })
            }
            Some(other) => {
                return Err(refused("topk_method", format!("{other:?}; known are greedy and group_limited_greedy")));
            }
        };
        let asked = self.num_experts_per_tok.unwrap_or(0);
        config::at_most("num_experts_per_tok", asked, "n_routed_experts", experts)?;
        // Experts outside the groups weigh nothing: there is no need to choose them.
        let within = groups.map_or(experts, |groups| config::share(experts, groups.count, groups.top));
        let top_k = asked.min(within);
        let scale = config::positive("routed_scaling_factor", self.routed_scaling_factor)? as f32;
        Ok(Routing { top_k, renormalise: false, scale, groups })
    }

    fn check(&self) -> Result<(), ConfigError> {
        count("vocab_size", self.vocab_size, "vocabulary")?;
        count("max_position_embeddings", self.max_position_embeddings, "positions")?;
        count("num_hidden_layers", self.num_hidden_layers, "layers")?;
        for (field, value) in [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("moe_intermediate_size", self.moe_intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("kv_lora_rank", self.kv_lora_rank),
            ("q_lora_rank", self.q_lora_rank.unwrap_or(1)),
            ("qk_rope_head_dim", self.qk_rope_head_dim),
            ("qk_nope_head_dim", self.qk_nope_head_dim),
            ("v_head_dim", self.v_head_dim),
            ("n_routed_experts", self.n_routed_experts.unwrap_or(1)),
        ] {
            count(field, value, "size")?;
        }
        if self.moe_layer_freq != 1 {
            return Err(refused(
                "moe_layer_freq",
                "every layer from first_k_dense_replace on is a mixture; set it to 1",
            ));
        }
        match self.scoring_func.as_str() {
            "softmax" => Ok(()),
            other => Err(refused("scoring_func", format!("{other:?}; DeepSeek-V2 scores by softmax"))),
        }
    }
}

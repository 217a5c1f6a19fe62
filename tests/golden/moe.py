"""Writes the parity fixtures of the decoders with routed experts: tests/golden/<family>/<case>/.

As decoder.py. The weights are drawn again until a change in their fifth digit sends no token to another expert, so that
a difference is a mistake and not a tie.

    python moe.py [family ...]
"""

import sys

import torch
from cases import Case, write
from common import EXPERTS

DEEPSEEK, MIXTRAL, QWEN2, QWEN3 = (
    "DeepseekV2ForCausalLM",
    "MixtralForCausalLM",
    "Qwen2MoeForCausalLM",
    "Qwen3MoeForCausalLM",
)
# As the hub's folders write it; `moe_layer_freq`, `scoring_func`, `seq_aux` and others change nothing in a forward pass.
HUB = {
    "aux_loss_alpha": 0.001,
    "ep_size": 1,
    "moe_layer_freq": 1,
    "n_group": 1,
    "norm_topk_prob": False,
    "pretraining_tp": 1,
    "rope_theta": 10000,
    "routed_scaling_factor": 1.0,
    "scoring_func": "softmax",
    "seq_aux": True,
    "topk_group": 1,
    "topk_method": "greedy",
}
YARN = {"type": "yarn", "factor": 40, "mscale": 0.707, "mscale_all_dim": 0.707, "beta_fast": 32, "beta_slow": 1}
YARN |= {"original_max_position_embeddings": 16}
WIDE = {"qk_rope_head_dim": 16, "num_attention_heads": 2, "num_key_value_heads": 2}
GROUPS = {"topk_method": "group_limited_greedy", "n_routed_experts": 6, "n_group": 3}
TWO, THREE = {"num_hidden_layers": 2}, {"num_hidden_layers": 3}


def yarn(**more) -> dict:
    return {"rope_parameters": {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, **more}}


CASES = {
    "deepseek_v2": [
        Case("query_rank", DEEPSEEK, "left"),
        Case("full_query", DEEPSEEK, "right", {"q_lora_rank": None, "first_k_dense_replace": 0}),
        Case("wide_values", DEEPSEEK, "left_positions",
             {"v_head_dim": 7, "hidden_size": 16, "first_k_dense_replace": 0}),
        Case("groups", DEEPSEEK, "right", GROUPS | {"topk_group": 2, "num_experts_per_tok": 3}),
        Case("groups_too_few", DEEPSEEK, "plain", GROUPS | {"topk_group": 1, "num_experts_per_tok": 3}),
        Case("scaled_routes", DEEPSEEK, "left", {"routed_scaling_factor": 2.5, "num_experts_per_tok": 3}),
        Case("one_expert_normed", DEEPSEEK, "right",
             {"num_experts_per_tok": 1, "norm_topk_prob": True, "routed_scaling_factor": 1.7}),
        Case("three_shared", DEEPSEEK, "holes", {"n_shared_experts": 3, "hidden_act": "gelu"}),
        Case("dense_first", DEEPSEEK, "right", THREE | {"first_k_dense_replace": 2, "tie_word_embeddings": True}),
        Case("dense_only", DEEPSEEK, "left", {"first_k_dense_replace": 5}),
        Case("biases", DEEPSEEK, "left", {"attention_bias": True, "mlp_bias": True}),
        Case("eps", DEEPSEEK, "right", {"rms_norm_eps": 0.1}),
        Case("yarn_hub", DEEPSEEK, "long", HUB | {"rope_scaling": YARN, "num_hidden_layers": 2}, raw=True),
        Case("yarn_mscales", DEEPSEEK, "left",
             yarn(mscale=0.7, mscale_all_dim=1.3, original_max_position_embeddings=16) | WIDE),
        Case("yarn_one_mscale", DEEPSEEK, "right", yarn(mscale_all_dim=1.0, original_max_position_embeddings=16)),
        Case("yarn_plain", DEEPSEEK, "long", yarn(original_max_position_embeddings=8, attention_factor=0.9) | WIDE),
        Case("linear", DEEPSEEK, "left", {"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 100.0},
             raw=True),
        Case("hub_config", DEEPSEEK, "left", HUB, raw=True),
        Case("positions", DEEPSEEK, "positions"),
        Case("packed", DEEPSEEK, "packed"),
        Case("one_token", DEEPSEEK, "one", {"num_attention_heads": 2, "num_key_value_heads": 2}),
        Case("bf16", DEEPSEEK, "right", {"torch_dtype": "bfloat16"}, raw=True, dtype=torch.bfloat16),
        Case("model", "DeepseekV2Model", "left"),
    ],
    "mixtral": [
        Case("two_experts", MIXTRAL, "left", TWO),
        Case("one_expert", MIXTRAL, "right", {"num_experts_per_tok": 1, "num_key_value_heads": 4}),
        Case("three_experts", MIXTRAL, "holes", {"num_experts_per_tok": 3, "num_key_value_heads": 1}),
        Case("all_experts", MIXTRAL, "plain", {"num_experts_per_tok": 3, "num_local_experts": 3}),
        Case("window", MIXTRAL, "left", TWO | {"sliding_window": 3, "router_jitter_noise": 0.1}),
        Case("window_packed", MIXTRAL, "packed", {"sliding_window": 2}),
        Case("head_dim", MIXTRAL, "left_positions", {"head_dim": 6, "hidden_size": 14, "hidden_act": "gelu"}),
        Case("tied", MIXTRAL, "right", {"tie_word_embeddings": True, "rms_norm_eps": 0.01}),
        Case("theta_absent", MIXTRAL, "long", {"output_router_logits": False, "sliding_window": None}, raw=True),
        Case("theta", MIXTRAL, "right", {"rope_theta": 50.0, "sliding_window": 4096}, raw=True),
        Case("one_token", MIXTRAL, "one"),
        Case("f16", MIXTRAL, "right", {"torch_dtype": "float16"}, raw=True, dtype=torch.float16),
    ],
    "qwen2_moe": [
        Case("shared", QWEN2, "left", TWO),
        Case("normed", QWEN2, "right", {"norm_topk_prob": True, "num_experts_per_tok": 3, "num_key_value_heads": 4}),
        Case("sparse_step", QWEN2, "left_positions", TWO | {"decoder_sparse_step": 2}),
        Case("dense_layers", QWEN2, "holes", THREE | {"mlp_only_layers": [0, 2]}),
        Case("no_biases", QWEN2, "right", {"qkv_bias": False, "num_key_value_heads": 1, "num_experts_per_tok": 1}),
        Case("window", QWEN2, "left", THREE | {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 2},
             raw=True),
        Case("layer_types", QWEN2, "right", {"use_sliding_window": True, "sliding_window": 2,
             "num_hidden_layers": 2, "layer_types": ["full_attention", "sliding_attention"]}),
        Case("window_unused", QWEN2, "plain", {"use_sliding_window": False, "sliding_window": 2}, raw=True),
        Case("tied_head_dim", QWEN2, "right", {"tie_word_embeddings": True, "head_dim": 6, "rope_theta": 1e6}, raw=True),
        Case("one_token", QWEN2, "one", {"hidden_act": "gelu_new"}),
        Case("packed", QWEN2, "packed"),
    ],
    "qwen3_moe": [
        Case("grouped", QWEN3, "left", TWO),
        Case("normed", QWEN3, "right", {"norm_topk_prob": True, "num_experts_per_tok": 3, "num_key_value_heads": 4}),
        Case("sparse_step", QWEN3, "left_positions", TWO | {"decoder_sparse_step": 2}),
        Case("dense_layers", QWEN3, "holes", TWO | {"mlp_only_layers": [1]}),
        Case("biases", QWEN3, "right", {"attention_bias": True, "num_key_value_heads": 1, "hidden_size": 14}),
        Case("window", QWEN3, "left", TWO | {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1},
             raw=True),
        Case("tied", QWEN3, "plain", {"tie_word_embeddings": True, "rms_norm_eps": 0.01, "hidden_act": "relu"}),
        Case("head_dim_absent", QWEN3, "right", {"norm_topk_prob": True}, raw=True, drop=("head_dim",)),
        Case("one_token", QWEN3, "one", {"num_experts_per_tok": 1}),
        Case("packed", QWEN3, "packed"),
    ],
}  # fmt: skip

if __name__ == "__main__":
    for chosen in sys.argv[1:] or EXPERTS:
        for case in CASES[chosen]:
            write(chosen, case)

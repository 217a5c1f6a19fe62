"""Writes the parity fixtures of the decoder families: tests/golden/<family>/<case>/.

Each case holds config.json, model.safetensors, inputs.json and expected.safetensors, which is what transformers
answers when it loads exactly that folder (f32, eager attention). Masked positions are stored as they come;
compare only those whose mask is 1. Packed cases add `document_ids`: no attention between different ones of a row.

    python decoder.py [family ...]
"""

import json
import random
import sys
from dataclasses import dataclass, field

import torch
from common import FAMILIES, HERE, base_config, load_file, make_inputs, new_model, reference, save, save_file, seed_of

LINEAR = {"rope_type": "linear", "factor": 2.5}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 48,
}
# Eight frequencies, slow ones among them: yarn's ramp and llama3's middle band are empty on a head of 4.
WIDE = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}


def longrope(half: int, **more) -> dict:
    """Factors for a head of 2 * half."""
    short, long = [1.0 + 0.1 * i for i in range(half)], [1.5 + 2.0 * i for i in range(half)]
    return {"rope_type": "longrope", "short_factor": short, "long_factor": long, **more}


@dataclass
class Case:
    """One folder. `raw` keeps the config as written here, otherwise transformers writes it."""

    name: str
    inputs: str
    config: dict = field(default_factory=dict)
    raw: bool = False
    drop: tuple = ()
    edit: str | None = None  # a change of the weights file, see `edit_weights`
    dtype: torch.dtype | None = None


def new(**rope) -> dict:
    return {"rope_parameters": {"rope_theta": 500.0, **rope}}


def old(theta: float = 500.0, **scaling) -> dict:
    return {"rope_theta": theta, "rope_scaling": scaling or None}


CASES = {
    "gpt2": [
        Case("left_padding", "left", {"n_positions": 80, "n_inner": None}),
        Case("left_padding_with_positions", "left_positions", {"n_layer": 3}),
        Case("n_inner_relu", "right", {"n_inner": 20, "activation_function": "relu"}),
        Case("unscaled_attention", "plain", {"scale_attn_weights": False, "activation_function": "gelu"}),
        Case("inverse_layer_scale", "bare", {"scale_attn_by_inverse_layer_idx": True, "n_layer": 3}),
        Case(
            "inverse_layer_scale_only",
            "right",
            {"scale_attn_by_inverse_layer_idx": True, "scale_attn_weights": False, "n_layer": 3},
        ),  # fmt: skip
        Case("reorder_and_upcast", "left", {"reorder_and_upcast_attn": True, "scale_attn_by_inverse_layer_idx": True}),
        Case("own_head", "positions", {"tie_word_embeddings": False, "activation_function": "gelu_pytorch_tanh"}),
        Case("one_token", "one", {"activation_function": "quick_gelu", "n_head": 1}),
        Case("packed", "packed", {"activation_function": "silu", "layer_norm_epsilon": 0.01}),
        Case("hub_names", "left", {"n_ctx": 24, "n_inner": None}, raw=True, edit="base_names"),
        Case(
            "aliases_bf16",
            "right",
            {
                "hidden_size": 16,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "max_position_embeddings": 24,
                "torch_dtype": "bfloat16",
            },
            raw=True,
            drop=("n_embd", "n_layer", "n_head", "n_positions"),
            dtype=torch.bfloat16,
        ),  # fmt: skip
        Case("token_types", "left", {"tie_word_embeddings": True}),
        Case("tied_but_different_head", "plain", {}, edit="add_head"),
    ],
    "llama": [
        Case("multi_head", "left", {"num_key_value_heads": 4}),
        Case("grouped_biases", "right", {"attention_bias": True, "mlp_bias": True}),
        Case("multi_query_head_dim", "plain", {"num_key_value_heads": 1, "head_dim": 6, "hidden_act": "gelu"}),
        Case("tied", "left_positions", {"tie_word_embeddings": True, "hidden_act": "relu"}),
        Case("tied_in_head_only", "bare", {"tie_word_embeddings": True}, edit="head_only"),
        Case(
            "old_theta_eps", "right", {**old(500000.0), "rms_norm_eps": 0.001, "partial_rotary_factor": 0.5}, raw=True
        ),
        Case("kv_heads_absent", "left", {"rms_norm_eps": 1e-5}, raw=True, drop=("num_key_value_heads",)),
        Case("packed", "packed", {"hidden_act": "quick_gelu"}),
        Case("one_token", "one", {"hidden_act": "gelu_new"}),
        Case("positions_restart", "restart", {"num_key_value_heads": 1}),
        Case("positions", "positions", new(rope_type="default") | {"num_hidden_layers": 3}),
        Case("linear_old", "left", old(type="linear", factor=2), raw=True),
        Case("linear_new", "right", new(**LINEAR)),
        Case("dynamic_old_long", "long", old(type="dynamic", factor=3.0) | {"max_position_embeddings": 16}, raw=True),
        Case("dynamic_new_short", "left", new(rope_type="dynamic", factor=3.0)),
        Case("yarn_new", "long", new(**YARN) | WIDE),
        Case("yarn_old_without_original", "left", old(type="yarn", factor=4.0), raw=True),
        Case(
            "yarn_attention_factor",
            "left",
            new(rope_theta=100.0, **YARN, attention_factor=0.8, beta_fast=4, beta_slow=0.1, truncate=False) | WIDE,
        ),  # fmt: skip
        Case(
            "yarn_mscale",
            "right",
            old(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, mscale=0.7, mscale_all_dim=1.3)
            | WIDE,
            raw=True,
        ),  # fmt: skip
        Case("yarn_factor_null", "plain", new(**{**YARN, "factor": None}) | WIDE),
        Case("longrope_short", "left", new(**longrope(2, factor=4.0, original_max_position_embeddings=16))),
        Case("longrope_long", "long", new(**longrope(2, original_max_position_embeddings=16))),
        Case(
            "longrope_top_level_original",
            "long",
            old(**longrope(2)) | {"original_max_position_embeddings": 20},
            raw=True,
        ),  # fmt: skip
        Case(
            "longrope_attention_factor", "right", new(**longrope(4, factor=2.0, attention_factor=1.4)) | {"head_dim": 8}
        ),  # fmt: skip
        Case("llama3_old", "left", old(100.0, **LLAMA3) | WIDE, raw=True),
        Case(
            "llama3_new", "long", new(rope_theta=100.0, **LLAMA3) | {"head_dim": 10, "hidden_act": "gelu_pytorch_tanh"}
        ),
        Case("sharded", "left", {}, edit="sharded"),
        Case("f16", "right", {"torch_dtype": "float16"}, raw=True, dtype=torch.float16),
    ],
    "mistral": [
        Case("window_left", "left", {"sliding_window": 3, "num_hidden_layers": 3}),
        Case("window_right", "right", {"sliding_window": 4, "num_key_value_heads": 4}),
        Case("window_one", "plain", {"sliding_window": 1}),
        Case("window_long", "long", {"sliding_window": 7, "hidden_act": "gelu_new"} | new(rope_type="default")),
        Case("window_packed", "packed", {"sliding_window": 3}),
        Case("no_window", "left_positions", {"sliding_window": None, "num_key_value_heads": 1}, raw=True),
        Case("window_absent", "bare", old(1000.0), raw=True),
        Case("uneven_head_dim", "right", {"hidden_size": 14, "head_dim": 6, "num_attention_heads": 4}),
        Case(
            "tied_yarn",
            "long",
            {"tie_word_embeddings": True, "sliding_window": 9} | old(**{**YARN, "factor": 2.0}),
            raw=True,
        ),  # fmt: skip
        Case("llama3", "left", {"sliding_window": 5} | new(**LLAMA3) | WIDE),
        Case("longrope", "long", {"sliding_window": None} | new(**longrope(2, original_max_position_embeddings=16))),
        Case(
            "dynamic",
            "long",
            {"sliding_window": 6, "max_position_embeddings": 12} | new(rope_type="dynamic", factor=2.0),
        ),  # fmt: skip
        Case("one_token", "one", {"sliding_window": 2, "hidden_act": "relu2"}),
    ],
    "qwen2": [
        Case("grouped", "left", {}),
        Case(
            "window_unused",
            "right",
            {"use_sliding_window": False, "sliding_window": 2, "max_window_layers": 0},
            raw=True,
        ),  # fmt: skip
        Case(
            "window_upper_layers",
            "left",
            {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1, "num_hidden_layers": 3},
            raw=True,
        ),  # fmt: skip
        Case(
            "layer_types",
            "right",
            {
                "use_sliding_window": True,
                "sliding_window": 4,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
                "num_hidden_layers": 3,
            },
        ),  # fmt: skip
        Case("window_packed", "packed", {"use_sliding_window": True, "sliding_window": 2, "max_window_layers": 0}),
        Case("tied", "left_positions", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
        Case("kv_heads_null", "bare", {"num_key_value_heads": None, "hidden_act": "quick_gelu"}, raw=True),
        Case("head_dim", "plain", {"head_dim": 6, "hidden_size": 14, "hidden_act": "gelu"}),
        Case(
            "yarn_old", "long", old(1e6, type="yarn", factor=4.0, original_max_position_embeddings=16) | WIDE, raw=True
        ),
        Case("dynamic_old", "long", old(type="dynamic", factor=2.0) | {"max_position_embeddings": 10}, raw=True),
        Case("linear", "one", new(**LINEAR)),
        Case("longrope", "left", new(**longrope(2, original_max_position_embeddings=8))),
        Case("llama3", "right", new(**LLAMA3) | WIDE),
    ],
    "qwen3": [
        Case("grouped", "left", {}),
        Case("attention_bias", "right", {"attention_bias": True, "num_key_value_heads": 4}),
        Case(
            "multi_query_uneven",
            "plain",
            {"num_key_value_heads": 1, "hidden_size": 14, "head_dim": 6, "num_attention_heads": 3},
        ),  # fmt: skip
        Case("tied_eps", "left_positions", {"tie_word_embeddings": True, "rms_norm_eps": 0.01, "hidden_act": "gelu"}),
        Case(
            "window_upper_layers",
            "left",
            {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1, "head_dim": 4},
            raw=True,
        ),  # fmt: skip
        Case(
            "layer_types",
            "right",
            {
                "use_sliding_window": True,
                "sliding_window": 2,
                "layer_types": ["sliding_attention", "full_attention"],
                "head_dim": 4,
            },
        ),  # fmt: skip
        Case("packed", "packed", {"head_dim": 4}),
        Case(
            "yarn_old",
            "long",
            old(1e6, rope_type="yarn", factor=4.0, original_max_position_embeddings=16) | WIDE,
            raw=True,
        ),
        Case("dynamic", "long", new(rope_type="dynamic", factor=2.0) | {"max_position_embeddings": 10, "head_dim": 4}),
        Case("longrope", "long", new(**longrope(2, original_max_position_embeddings=16)) | {"head_dim": 4}),
        Case("llama3", "left", new(**LLAMA3) | WIDE),
        Case("linear_old", "one", old(type="linear", factor=2.0) | {"head_dim": 2}, raw=True),
    ],
}


def edit_weights(folder, edit: str, seed: int):
    """Checkpoints as they are met in the wild, all of which transformers reads."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    if edit == "base_names":  # openai's own upload: no prefix, causal masks stored as buffers
        tensors = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
        for layer in range(2):
            tensors[f"h.{layer}.attn.bias"] = torch.ones(24, 24).tril().view(1, 1, 24, 24)
            tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    elif edit == "add_head":  # tied by the config, yet another matrix in the file: the file wins
        rng = torch.Generator().manual_seed(seed)
        tensors["lm_head.weight"] = torch.randn(tensors["transformer.wte.weight"].shape, generator=rng)
    elif edit == "head_only":  # tied, stored under the head's name
        tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, path, metadata={"format": "pt"})


def write(family: str, case: Case):
    name = f"{family}/{case.name}"
    folder, rng = HERE / family / case.name, random.Random(seed_of(name))
    config = {key: value for key, value in (base_config(family) | case.config).items() if key not in case.drop}
    model = new_model(config, seed_of(name)).to(case.dtype or torch.float32)
    shards = {"max_shard_size": "8kB"} if case.edit == "sharded" else {}
    save(model, folder, config if case.raw else None, **shards)
    if case.edit and case.edit != "sharded":
        edit_weights(folder, case.edit, seed_of(name))
    inputs = make_inputs(case.inputs, config["vocab_size"], rng)
    if case.name == "token_types":
        inputs["token_type_ids"] = [[rng.randrange(37) for _ in row] for row in inputs["input_ids"]]
    (folder / "inputs.json").write_text(json.dumps(inputs) + "\n")
    expected = reference(folder, inputs)
    assert all(torch.isfinite(tensor).all() for tensor in expected.values()), name
    save_file(expected, folder / "expected.safetensors")
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{name:45} {size / 1e3:6.1f} kB  max |logit| {expected['logits'].abs().max():.2f}")
    assert size <= 60_000, f"{name} is too large: {size}"


if __name__ == "__main__":
    for chosen in sys.argv[1:] or FAMILIES:
        for case in CASES[chosen]:
            write(chosen, case)

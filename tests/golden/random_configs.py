"""Random configs of the decoder families, in either spelling, as `random_compare.py` tries them."""

import random

ACTIVATIONS = [
    "silu",
    "gelu",
    "gelu_new",
    "gelu_pytorch_tanh",
    "relu",
    "quick_gelu",
    "tanh",
    "relu2",
    "mish",
    "gelu_fast",
]
KINDS = ["plain", "one", "left", "left_positions", "right", "bare", "positions", "restart", "long", "holes"]


def rope(rng: random.Random, head_dim: int, positions: int, long_context: bool) -> dict:
    """`rope_parameters`, or `rope_theta` with `rope_scaling`, of a random type.

    `long_context` keeps dynamic and longrope on one side of their limit: there transformers turns new keys
    otherwise than those in its cache, so that decoding is no longer a function of the tokens alone.
    """
    original = rng.choice([8, 16, 40]) if not long_context else 512
    factor = rng.choice([1.0, 1.5, 2, 4.0, 8])
    half = head_dim // 2
    kind = rng.choice(["default", "linear", "dynamic", "yarn", "longrope", "llama3"])
    if kind == "dynamic" and head_dim == 2:
        kind = "linear"  # its exponent d/(d-2) has no value there
    scaling, outside = {}, {}
    if kind != "default":
        scaling["factor"] = factor
    if kind in ("yarn", "longrope", "llama3"):
        place = rng.choice(["inside", "outside", "absent"])
        if place != "absent":
            (scaling if place == "inside" else outside)["original_max_position_embeddings"] = original
    if kind == "yarn":
        options = dict(
            attention_factor=rng.uniform(0.5, 1.5),
            beta_fast=rng.choice([2, 8.0, 32]),
            beta_slow=rng.choice([0.1, 0.5, 1]),
            truncate=rng.random() < 0.5,
            mscale=rng.choice([0, 0.707, 1.0]),
            mscale_all_dim=rng.choice([0.0, 0.5, 1.0]),
        )
        scaling |= {key: value for key, value in options.items() if rng.random() < 0.4}
    if kind == "longrope":
        scaling["short_factor"] = [rng.uniform(1.0, 2.0) for _ in range(half)]
        scaling["long_factor"] = [rng.uniform(1.0, 20.0) for _ in range(half)]
        if rng.random() < 0.5:
            del scaling["factor"]
        if rng.random() < 0.3:
            scaling["attention_factor"] = rng.uniform(0.8, 1.5)
    if kind == "llama3":
        scaling |= dict(low_freq_factor=rng.choice([1, 0.5]), high_freq_factor=rng.choice([4.0, 2]))
    theta = rng.choice([10000.0, 1000000, 100.0, 500000.0])
    spelling = rng.choice(["new", "old", "older"])
    if spelling == "new":
        both = {"rope_type": kind, **scaling}
        return {"rope_parameters": both if rng.random() < 0.2 else {"rope_theta": theta, **both}} | outside
    if kind == "default":
        return {"rope_theta": theta} | rng.choice([{}, {"rope_scaling": None}])
    key = "rope_type" if spelling == "old" else "type"
    return {"rope_theta": theta, "rope_scaling": {key: kind, **scaling}} | outside


def gpt2(rng: random.Random, longest: int) -> dict:
    heads = rng.choice([1, 2, 3, 4])
    config = dict(
        n_embd=heads * rng.choice([4, 5, 8]),
        n_head=heads,
        n_positions=longest + rng.choice([0, 7]),
        n_inner=rng.choice([None, 11, 40]),
        activation_function=rng.choice(["gelu_new", *ACTIVATIONS]),
        layer_norm_epsilon=rng.choice([1e-5, 1e-3]),
        scale_attn_weights=rng.random() < 0.7,
        scale_attn_by_inverse_layer_idx=rng.random() < 0.4,
        reorder_and_upcast_attn=rng.random() < 0.3,
        tie_word_embeddings=rng.random() < 0.6,
        n_layer=rng.choice([1, 2, 3, 4]),
    )
    return config


def rotary(family: str, rng: random.Random, longest: int, long_context: bool) -> dict:
    kv_heads = rng.choice([1, 2, 3])
    heads = kv_heads * rng.choice([1, 2, 3])
    head_dim = rng.choice([2, 4, 6, 8, 16])
    hidden = heads * head_dim
    config = dict(
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        num_hidden_layers=rng.choice([1, 2, 3, 4]),
        intermediate_size=rng.choice([9, 24, 50]),
        hidden_act=rng.choice(["silu", *ACTIVATIONS]),
        rms_norm_eps=rng.choice([1e-6, 1e-5, 1e-2]),
        max_position_embeddings=rng.choice([8, 16, 64]) if not long_context else 1024,
        tie_word_embeddings=rng.random() < 0.4,
    )
    if family == "qwen3" or rng.random() < 0.5:  # a hidden size of its own; llama wants it divisible by the heads
        config["head_dim"] = head_dim
        hidden = heads * rng.choice([3, 4, 7]) if family == "llama" else rng.choice([10, 15, 24, 33])
    config["hidden_size"] = hidden
    config |= rope(rng, head_dim, longest, long_context)
    if family == "llama" and kv_heads == heads and rng.random() < 0.5:
        del config["num_key_value_heads"]
    if family in ("llama", "qwen3"):
        config["attention_bias"] = rng.random() < 0.5
    if family == "llama":
        config["mlp_bias"] = rng.random() < 0.5
    window = rng.choice([1, 2, 5, 9, 100])
    if long_context:
        window = max(window, 2)  # transformers' cache keeps every key of a window of 1
    if family == "mistral" and rng.random() < 0.8:
        config["sliding_window"] = rng.choice([None, window, window])
    if family in ("qwen2", "qwen3") and rng.random() < 0.7:
        config |= dict(
            use_sliding_window=rng.random() < 0.7, sliding_window=window, max_window_layers=rng.choice([0, 1, 2])
        )
        if config["use_sliding_window"] and rng.random() < 0.5:
            kinds = ["full_attention", "sliding_attention"]
            config["layer_types"] = [rng.choice(kinds) for _ in range(config["num_hidden_layers"])]
    return config


def random_config(family: str, rng: random.Random, longest: int, long_context: bool = False) -> dict:
    """A config.json that transformers accepts; rows of up to `longest` ids fit."""
    sizes = gpt2(rng, longest) if family == "gpt2" else rotary(family, rng, longest, long_context)
    special = dict(bos_token_id=None, eos_token_id=None, pad_token_id=None)
    return dict(model_type=family, vocab_size=rng.choice([33, 64, 101]), **special, **sizes)

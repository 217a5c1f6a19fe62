"""Random configs of all families, in either spelling, as `random_compare.py` tries them."""

import random

from cases import Case
from common import ENCODERS, EXPERTS, base_config
from encoder import labels
from seq2seq import own_head

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
    if (
        family in ("qwen3", "qwen3_moe") or rng.random() < 0.5
    ):  # a hidden size of its own; llama wants it divisible by the heads
        config["head_dim"] = head_dim
        hidden = heads * rng.choice([3, 4, 7]) if family == "llama" else rng.choice([10, 15, 24, 33])
    config["hidden_size"] = hidden
    config |= rope(rng, head_dim, longest, long_context)
    if family == "mixtral":  # without it the reference turns by default only
        config["head_dim"] = head_dim
    if family == "llama" and kv_heads == heads and rng.random() < 0.5:
        del config["num_key_value_heads"]
    if family in ("llama", "qwen3", "qwen3_moe"):
        config["attention_bias"] = rng.random() < 0.5
    if family == "llama":
        config["mlp_bias"] = rng.random() < 0.5
    window = rng.choice([1, 2, 5, 9, 100])
    if long_context:
        window = max(window, 2)  # transformers' cache keeps every key of a window of 1
    if family in ("mistral", "mixtral") and rng.random() < 0.8:
        config["sliding_window"] = rng.choice([None, window, window])
    if family.startswith("qwen") and rng.random() < 0.7:
        config |= dict(
            use_sliding_window=rng.random() < 0.7, sliding_window=window, max_window_layers=rng.choice([0, 1, 2])
        )
        if family != "qwen3_moe" and config["use_sliding_window"] and rng.random() < 0.5:
            kinds = ["full_attention", "sliding_attention"]
            config["layer_types"] = [rng.choice(kinds) for _ in range(config["num_hidden_layers"])]
    return config


def experts(family: str, rng: random.Random) -> dict:
    count = rng.choice([2, 3, 4, 6])
    config = dict(num_experts_per_tok=rng.randrange(1, min(count, 3) + 1))
    if family == "mixtral":
        return config | dict(num_local_experts=count)
    config["moe_intermediate_size"] = rng.choice([3, 8, 11])
    if family == "deepseek_v2":
        config |= dict(
            n_routed_experts=count,
            n_shared_experts=rng.choice([1, 2, 3]),
            first_k_dense_replace=rng.choice([0, 1, 2]),
            routed_scaling_factor=rng.choice([1.0, 2.5, 16.0]),
        )
        if rng.random() < 0.5 and count % 2 == 0:
            groups = rng.choice([n for n in (1, 2, 3) if count % n == 0])
            config |= dict(topk_method="group_limited_greedy", n_group=groups, topk_group=rng.randrange(1, groups + 1))
        return config
    config |= dict(num_experts=count, norm_topk_prob=rng.random() < 0.5, decoder_sparse_step=rng.choice([1, 1, 2]))
    if rng.random() < 0.3:
        config["mlp_only_layers"] = [rng.randrange(3)]
    if family == "qwen2_moe":
        config |= dict(shared_expert_intermediate_size=rng.choice([5, 9]), qkv_bias=rng.random() < 0.7)
    return config


def latent(rng: random.Random) -> dict:
    """DeepSeek-V2's attention. The reference wants an even `qk_nope_head_dim` and `kv_lora_rank`."""
    heads, rotated = rng.choice([1, 2, 3, 5]), rng.choice([2, 4, 8])
    config = dict(
        num_attention_heads=heads,
        num_key_value_heads=heads,
        hidden_size=heads * rng.choice([4, 5, 9]),
        num_hidden_layers=rng.choice([1, 2, 3]),
        intermediate_size=rng.choice([9, 24]),
        hidden_act=rng.choice(["silu", *ACTIVATIONS]),
        rms_norm_eps=rng.choice([1e-6, 1e-2]),
        tie_word_embeddings=rng.random() < 0.4,
        attention_bias=rng.random() < 0.3,
        mlp_bias=rng.random() < 0.3,
        q_lora_rank=rng.choice([None, 3, 8]),
        kv_lora_rank=rng.choice([2, 6, 12]),
        qk_nope_head_dim=rng.choice([2, 6, 8]),
        qk_rope_head_dim=rotated,
        v_head_dim=rng.choice([3, 6, 8]),
        max_position_embeddings=rng.choice([16, 64]),
    )
    while (kind := (turned := rope(rng, rotated, 0, True)).get("rope_parameters") or turned.get("rope_scaling")) and (
        kind.get("rope_type", kind.get("type")) not in ("default", "linear", "yarn")
    ):
        pass
    return config | turned


def width(rng: random.Random) -> tuple[int, int]:
    heads = rng.choice([1, 2, 3, 5])
    return heads, heads * rng.choice([2, 3, 4, 8])


def head_labels(head: str, rng: random.Random) -> dict:
    return labels(rng.choice([1, 2, 3, 5])) if "SequenceC" in head or "TokenC" in head else {}


def disentangled(family: str, rng: random.Random, config: dict):
    terms = rng.choice([["c2p"], ["p2c"], ["c2p", "p2c"], "p2c|c2p"])
    config |= dict(relative_attention=rng.random() < 0.85, pos_att_type=terms)
    config |= dict(position_biased_input=rng.random() < 0.5, type_vocab_size=rng.choice([0, 2, 3]))
    config["max_relative_positions"] = rng.choice([-1, 3, 8, 40])
    config["pooler_hidden_act"] = rng.choice(["gelu", "tanh"])
    config["legacy"] = rng.random() < 0.5
    if config["legacy"] and rng.random() < 0.3:
        config["embedding_size"] = rng.choice([5, 14])
    if family == "deberta":
        config["talking_head"] = rng.random() < 0.2
        return
    config |= dict(share_att_key=rng.random() < 0.5, norm_rel_ebd=rng.choice(["none", "layer_norm"]))
    config["position_buckets"] = rng.choice([-1, 2, 4, 7])
    if config["position_buckets"] > 0 and 0 < config["max_relative_positions"] < 8:
        config["max_relative_positions"] = 8  # the farthest must lie beyond the exact ones
    if rng.random() < 0.5:
        groups = rng.choice([1, config["num_attention_heads"]])
        config |= dict(
            conv_kernel_size=rng.choice([1, 3, 5]), conv_groups=groups, conv_act=rng.choice(["tanh", "gelu"])
        )


PREFIX = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "distilbert": "DistilBert",
    "deberta": "Deberta",
    "deberta-v2": "DebertaV2",
}


def encoder_case(family: str, rng: random.Random, longest: int) -> Case:
    heads, hidden = width(rng)
    pad = rng.choice([0, 1, 5])
    config = base_config(family) | dict(pad_token_id=pad, max_position_embeddings=longest + pad + rng.choice([2, 9]))
    layers, inner, act = rng.choice([1, 2, 3]), rng.choice([7, 20]), rng.choice(["gelu", *ACTIVATIONS])
    kinds = ["Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"]
    if family != "deberta":
        kinds.append("ForMultipleChoice")
    if family == "bert":
        kinds += ["ForPreTraining", "ForNextSentencePrediction", "LMHeadModel"]
    head = PREFIX[family] + rng.choice(kinds)
    if family == "distilbert":
        config |= dict(n_heads=heads, dim=hidden, hidden_dim=inner, n_layers=layers, activation=act)
    else:
        config |= dict(num_attention_heads=heads, hidden_size=hidden, intermediate_size=inner)
        config |= dict(num_hidden_layers=layers, hidden_act=act, layer_norm_eps=rng.choice([1e-12, 1e-5, 1e-2]))
        config["type_vocab_size"] = rng.choice([1, 2, 3])
    if family.startswith("deberta"):
        disentangled(family, rng, config)
    config["tie_word_embeddings"] = rng.random() < 0.8 or not config.get("legacy", True)
    if head == "BertLMHeadModel":
        config["is_decoder"] = True
    config |= head_labels(head, rng)
    choose = rng.choice([2, 3]) if head.endswith("MultipleChoice") else 0
    tokens = head.endswith(("ForMaskedLM", "ForTokenClassification", "LMHeadModel"))  # nothing looks at the first
    kind = rng.choice(["plain", "one", "right", "bare", "holes", *(["left", "positions"] if tokens else [])])
    types = config.get("type_vocab_size", 0) > 0 and family != "distilbert" and rng.random() < 0.6
    pooler = head not in ("BertModel", "RobertaModel", "XLMRobertaModel") or rng.random() < 0.5
    length = rng.randrange(3, 15)
    return Case(
        head, head, kind, config, length=length, types=types, pads=rng.random() < 0.5, choices=choose, pooler=pooler
    )


SEQ2SEQ_HEADS = {
    "t5": ["T5ForConditionalGeneration", "T5Model", "T5EncoderModel"],
    "mt5": ["MT5ForConditionalGeneration", "MT5EncoderModel"],
    "umt5": ["UMT5ForConditionalGeneration", "UMT5EncoderModel"],
    "bart": ["BartForConditionalGeneration", "BartModel", "BartForSequenceClassification"],
    "mbart": ["MBartForConditionalGeneration", "MBartModel"],
    "marian": ["MarianMTModel", "MarianModel"],
    "transformer": [None],
}


def seq2seq_case(family: str, rng: random.Random, longest: int) -> Case:
    heads, hidden = width(rng)
    config = base_config(family) | dict(d_model=hidden)
    head, change = rng.choice(SEQ2SEQ_HEADS[family]), None
    layers, others = rng.choice([1, 2, 3]), rng.choice([1, 2, 3])
    if family.endswith("t5"):
        config |= dict(num_heads=heads, d_kv=rng.choice([2, 3, 6]), d_ff=rng.choice([7, 20]), num_layers=layers)
        config["feed_forward_proj"] = rng.choice(["relu", "gated-gelu", "gated-silu", "gelu"])
        buckets = rng.choice([4, 7, 12, 32])
        config["relative_attention_num_buckets"] = buckets
        config["relative_attention_max_distance"] = buckets // 2 + rng.choice([1, 4, 30, 100])
        config["num_decoder_layers"] = rng.choice([None, others])
        config["layer_norm_epsilon"] = rng.choice([1e-6, 1e-2])
        if head.endswith("Generation") and family != "umt5" and rng.random() < 0.5:
            config["tie_word_embeddings"] = False
            change = own_head
    elif family == "transformer":
        share = rng.choice(["all", "decoder", "none"])
        config |= dict(heads=heads, encoder_layers=layers, decoder_layers=others, d_ff=rng.choice([7, 20]))
        config |= dict(norm=rng.choice(["post", "pre"]), share_embeddings=share, attention_bias=rng.random() < 0.5)
        config |= dict(max_position_embeddings=longest, layer_norm_eps=rng.choice([1e-6, 1e-2]), dropout=0.1)
        if share != "all" and rng.random() < 0.5:
            config["target_vocab_size"] = 23
    else:
        config |= dict(encoder_layers=layers, decoder_layers=others, max_position_embeddings=longest)
        config |= dict(encoder_attention_heads=heads, decoder_attention_heads=rng.choice([1, heads]))
        config |= dict(encoder_ffn_dim=rng.choice([7, 20]), decoder_ffn_dim=rng.choice([6, 20]))
        config |= dict(activation_function=rng.choice(["gelu", *ACTIVATIONS]), scale_embedding=rng.random() < 0.5)
        config["tie_word_embeddings"] = rng.random() < 0.8
        if family == "mbart":
            config["decoder_start_token_id"] = 5
        if family == "marian" and rng.random() < 0.4:
            small = dict(decoder_vocab_size=27, pad_token_id=26, decoder_start_token_id=26)
            config |= dict(share_encoder_decoder_embeddings=False) | rng.choice([{}, small])
    kinds = ["left", "right", "plain", "bare", "one", "holes"]
    encoder_only, classify = "Encoder" in (head or ""), head == "BartForSequenceClassification"
    kind = "right" if classify else rng.choice(kinds)
    decoder = (
        None
        if encoder_only or classify
        else kind
        if kind in ("plain", "one")
        else rng.choice(["left", "right", "bare", "holes"])
    )
    sizes = dict(length=rng.randrange(3, 15), target=rng.randrange(3, 15))
    return Case(head or family, head, kind, config, decoder, **sizes, pads=classify, ends=classify, change=change)


def random_case(family: str, rng: random.Random, longest: int) -> Case:
    """A model with a head, and the kind of its inputs, for the families that are not plain decoders."""
    return (encoder_case if family in ENCODERS else seq2seq_case)(family, rng, longest)


def random_config(family: str, rng: random.Random, longest: int, long_context: bool = False) -> dict:
    """A decoder's config.json that transformers accepts; rows of up to `longest` ids fit."""
    if family == "gpt2":
        sizes = gpt2(rng, longest)
    else:
        sizes = latent(rng) if family == "deepseek_v2" else rotary(family, rng, longest, long_context)
    if family in EXPERTS:
        sizes |= experts(family, rng)
    special = dict(bos_token_id=None, eos_token_id=None, pad_token_id=None)
    return dict(model_type=family, vocab_size=rng.choice([33, 64, 101]), **special, **sizes)

"""Writes GGUF files of models that have golden folders, with llama.cpp's own package: tests/golden/gguf/*.gguf.

Names of tensors come from that package's table, keys and the order of rows from its converter; so the numbers in
<family>/<case>/expected.safetensors are the answers for gguf/<family>-<case>.gguf, too. `llama-quantised` has no folder:
its weights are in blocks, and its answers (of transformers, on the numbers that the package makes of the blocks again)
lie beside it.

    python gguf_files.py
"""

import random
import shutil

import gguf
import numpy as np
import torch
from common import HERE, base_config, load_file, make_inputs, new_model, save_file, seed_of
from gguf import GGMLQuantizationType as Type
from transformers import AutoConfig

ARCHS = {"deepseek_v2": "deepseek2", "mistral": "llama"}
CASES = {
    "llama": ["grouped_biases", "linear_new", "yarn_new", "llama3_old", "f16"],
    "mistral": ["no_window"],
    "qwen2": ["tied", "yarn_old"],
    "qwen3": ["grouped"],
    "gpt2": ["left_padding"],
    "bert": ["model_three_types"],
    "deepseek_v2": ["yarn_hub", "full_query", "dense_first", "scaled_routes", "query_rank"],
}
# Written as newer converters do: keys and values are unfolded into parts that queries and outputs can take up.
FOLDED = {"query_rank"}
# Every kind that the package can make, where it is read: whole rows, heads in another order, the table of tokens.
KINDS = {
    "attn_q.": Type.Q8_0,
    "attn_k.": Type.Q4_0,
    "attn_v.": Type.Q4_1,
    "attn_output.": Type.Q5_0,
    "ffn_gate.": Type.Q5_1,
    "ffn_up.": Type.BF16,
    "ffn_down.": Type.F16,
    "token_embd.": Type.Q8_0,
    "output.": Type.Q4_0,
}


def in_pairs(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows that rotary positions turn together, half a head apart, become neighbours."""
    rows = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return rows.swapaxes(1, 2).reshape(weight.shape)


def tensors_of(weights: dict, config, arch: str) -> dict[str, torch.Tensor]:
    """The tensors of a file under its names."""
    layers = config.num_hidden_layers
    table = gguf.get_tensor_name_map(next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == arch), layers)
    found, experts = {}, {}
    for name, weight in weights.items():
        if name.startswith(("pooler.", "bert.pooler.")):
            continue  # the converter leaves it out
        if ".experts." in name:
            start, end = name.split(".experts.")
            number, end = end.split(".", 1)
            experts.setdefault(f"{start}.experts.{end}", {})[int(number)] = weight
            continue
        if arch == "gpt2" and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight")):
            weight = weight.T
        if arch == "llama" and ".q_proj." in name:
            weight = in_pairs(weight, config.num_attention_heads)
        if arch == "llama" and ".k_proj." in name:
            weight = in_pairs(weight, config.num_key_value_heads)
        found[table.get_name(name, try_suffixes=(".weight", ".bias"))] = weight
    for name, parts in experts.items():
        stack = torch.stack([parts[number] for number in sorted(parts)])
        found[table.get_name(name, try_suffixes=(".weight",))] = stack
    assert None not in found, list(weights)
    return found


def rope(writer, config, arch: str) -> torch.Tensor | None:
    """The keys that say how positions turn; where they cannot say it, the factors of a tensor."""
    fields = config.rope_parameters
    writer.add_rope_freq_base(fields["rope_theta"])
    kind = fields.get("rope_type", "default")
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(kind))
        writer.add_rope_scaling_factor(fields["factor"])
    if kind == "yarn":
        original = fields.get("original_max_position_embeddings") or config.max_position_embeddings
        writer.add_rope_scaling_orig_ctx_len(original)
        if fields.get("mscale_all_dim"):
            writer.add_rope_scaling_yarn_log_mul(0.1 * fields["mscale_all_dim"])
    if kind != "llama3":
        return None
    low, high, factor, original = (
        fields[key] for key in ("low_freq_factor", "high_freq_factor", "factor", "original_max_position_embeddings")
    )
    dim, factors = config.head_dim, []
    for i in range(0, dim, 2):
        length = 2 * torch.pi * fields["rope_theta"] ** (i / dim)
        smooth = (original / length - low) / (high - low)
        inside = original / high <= length <= original / low
        factors.append(1 / ((1 - smooth) / factor + smooth) if inside else 1.0 if length < original / high else factor)
    return torch.tensor(factors)


def metadata(writer, config, arch: str, folded: bool):
    """What the converter writes for these architectures."""
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    if arch == "gpt2":
        writer.add_feed_forward_length(config.n_inner or 4 * config.n_embd)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
        return
    writer.add_feed_forward_length(config.intermediate_size)
    if arch == "bert":
        writer.add_layer_norm_eps(config.layer_norm_eps)
        writer.add_causal_attention(False)
        writer.add_token_type_count(config.type_vocab_size)
        return
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    if arch != "deepseek2":
        writer.add_head_count_kv(config.num_key_value_heads)
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
        if arch == "llama":
            writer.add_rope_dimension_count(head_dim)
        return
    key, value = config.qk_nope_head_dim + config.qk_rope_head_dim, config.v_head_dim
    if folded:
        writer.add_head_count_kv(1)
        writer.add_key_length(config.kv_lora_rank + config.qk_rope_head_dim)
        writer.add_value_length(config.kv_lora_rank)
        writer.add_key_length_mla(key)
        writer.add_value_length_mla(value)
    else:
        writer.add_head_count_kv(config.num_attention_heads)
        writer.add_key_length(key)
        writer.add_value_length(value)
    writer.add_leading_dense_block_count(config.first_k_dense_replace)
    if config.q_lora_rank:
        writer.add_q_lora_rank(config.q_lora_rank)
    writer.add_kv_lora_rank(config.kv_lora_rank)
    writer.add_rope_dimension_count(config.qk_rope_head_dim)
    writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    writer.add_expert_count(config.n_routed_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)
    writer.add_expert_shared_count(config.n_shared_experts)
    writer.add_expert_weights_scale(config.routed_scaling_factor)
    writer.add_expert_weights_norm(False)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SOFTMAX)


def write(path, config, weights: dict, arch: str, kinds: dict | None = None, folded: bool = False):
    writer = gguf.GGUFWriter(path, arch)
    metadata(writer, config, arch, folded)
    tensors = tensors_of(weights, config, arch)
    if arch not in ("gpt2", "bert"):
        factors = rope(writer, config, arch)
        if factors is not None:
            tensors["rope_freqs.weight"] = factors
    for name in [name for name in tensors if folded and ".attn_kv_b." in name]:
        heads = tensors.pop(name).view(config.num_attention_heads, -1, config.kv_lora_rank)
        keys, values = heads.split([config.qk_nope_head_dim, config.v_head_dim], dim=1)
        tensors[name.replace("_kv_b", "_k_b")] = keys.transpose(1, 2)
        tensors[name.replace("_kv_b", "_v_b")] = values
    for name, tensor in sorted(tensors.items()):
        # Vectors are always f32.
        data = tensor.float() if tensor.dim() < 2 else tensor
        kind = next((kind for start, kind in (kinds or {}).items() if start in f".{name}" and tensor.dim() > 1), None)
        if kind is None:
            writer.add_tensor(name, np.ascontiguousarray(data.numpy()))
        else:
            blocks = gguf.quants.quantize(np.ascontiguousarray(data.numpy()), kind)
            writer.add_tensor(name, blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@torch.no_grad()
def quantised(path):
    """A Llama whose rows are whole blocks, and what it answers once its numbers are those of the blocks."""
    sizes = dict(hidden_size=32, intermediate_size=64, head_dim=8, vocab_size=48, num_hidden_layers=1)
    model = new_model(base_config("llama") | sizes, seed_of("llama-quantised"))
    write(path, model.config, model.state_dict(), "llama", KINDS)
    read = {t.name: torch.tensor(gguf.quants.dequantize(t.data, t.tensor_type)) for t in gguf.GGUFReader(path).tensors}
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 1)
    for name, param in model.state_dict().items():
        weight = read[table.get_name(name, try_suffixes=(".weight",))].reshape(param.shape)
        heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])
        if heads:
            weight = weight.reshape(heads, -1, 2, param.shape[1]).swapaxes(1, 2).reshape(param.shape)
        param.copy_(weight)
    ids = torch.tensor(make_inputs("plain", 48, random.Random(7))["input_ids"])
    save_file({"input_ids": ids, "logits": model(ids).logits.contiguous()}, path.with_suffix(".safetensors"))


def main():
    folder = HERE / "gguf"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for family, cases in CASES.items():
        for case in cases:
            source = HERE / family / case
            config = AutoConfig.from_pretrained(source)
            arch = ARCHS.get(family, family)
            weights = load_file(source / "model.safetensors")
            write(folder / f"{family}-{case}.gguf", config, weights, arch, folded=case in FOLDED)
    quantised(folder / "llama-quantised.gguf")


if __name__ == "__main__":
    main()

"""Asks llama.cpp which kind of blocks each tensor of a model gets in each of its mixtures: tests/golden/gguf_kinds.json.

    python gguf_kinds.py PHYLA

PHYLA is the program, which draws the models and writes them in f32; llama.cpp (through llama-cpp-python 0.3.36) quantises
them. Where both quantise, their tensors are compared to the byte.
"""

import ctypes
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import gguf
import llama_cpp
import numpy as np
from common import HERE

MIXES = {
    "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "q2_k": 10, "q3_k_s": 11, "q3_k_m": 12, "q3_k_l": 13,
    "q4_k_s": 14, "q4_k_m": 15, "q5_k_s": 16, "q5_k_m": 17, "q6_k": 18, "iq4_nl": 25, "iq4_xs": 30,
}  # fmt: skip
DECODER = {
    "vocab_size": 32, "hidden_size": 256, "intermediate_size": 96, "num_hidden_layers": 17, "num_attention_heads": 8,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 32,
}  # fmt: skip
LATENT = {
    "model_type": "deepseek_v2", "vocab_size": 32, "hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 3,
    "num_attention_heads": 4, "max_position_embeddings": 32, "moe_intermediate_size": 32, "n_shared_experts": 1,
    "num_experts_per_tok": 2, "kv_lora_rank": 256, "q_lora_rank": 32, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 8, "first_k_dense_replace": 1,
}  # fmt: skip
CASES = {
    "grouped": {"model_type": "llama", **DECODER},
    "tied": {"model_type": "qwen2", **DECODER, "num_key_value_heads": 4, "tie_word_embeddings": True},
    "fused": {"model_type": "gpt2", "vocab_size": 32, "n_embd": 256, "n_head": 4, "n_layer": 9, "n_positions": 32},
    "eight_experts": {**LATENT, "n_routed_experts": 8},
    "four_experts": {**LATENT, "n_routed_experts": 4},
}


def main(phyla: str):
    answers = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        ours, theirs = root / "ours.gguf", root / "theirs.gguf"

        def run(*args):
            subprocess.run([phyla, "-q", *map(str, args)], check=True, stdout=subprocess.DEVNULL)

        for case, config in CASES.items():
            (root / "config.json").write_text(json.dumps(config))
            run("init", "--config", root / "config.json", "--output", root / case)
            run("quantize", root / case, root / "f32.gguf", "--type", "f32")
            kinds = answers.setdefault(case, {"config": config, "kinds": {}})["kinds"]
            for mix, number in MIXES.items():
                params = llama_cpp.llama_model_quantize_default_params()
                params.ftype, params.nthread = number, 1
                done = llama_cpp.llama_model_quantize(
                    str(root / "f32.gguf").encode(), str(theirs).encode(), ctypes.byref(params)
                )
                assert done == 0, f"llama.cpp does not quantise {case} to {mix}"
                found = {tensor.name: tensor for tensor in gguf.GGUFReader(theirs).tensors}
                kinds[mix] = {}
                for name, tensor in found.items():
                    kinds[mix].setdefault(tensor.tensor_type.name, []).append(name)
                run("quantize", root / "f32.gguf", ours, "--type", mix)
                for tensor in gguf.GGUFReader(ours).tensors:
                    same = found[tensor.name].tensor_type == tensor.tensor_type
                    if not same or not np.array_equal(found[tensor.name].data, tensor.data):
                        print(f"{case}, {mix}: {tensor.name} is {tensor.tensor_type.name}, not as llama.cpp makes it")
                # The usual ones need not be named.
                most = max(kinds[mix], key=lambda kind: (kind != "F32") * len(kinds[mix][kind]))
                kinds[mix] = {most: "others", **{k: v for k, v in kinds[mix].items() if k not in (most, "F32")}}
    (HERE / "gguf_kinds.json").write_text(json.dumps(answers, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])

"""NF4 with doubly quantised scales, by bitsandbytes, and LoRA over a base in it.

`nf4.safetensors`: values of every temper in rows of 512, what they become, and what that stands for. `nf4/`: a tiny Llama, a
LoRA adapter of peft's, and ten losses of training it over weights that stand for what bitsandbytes makes of them.

Its library for CPUs looks bytes of scales up in a coarse table, and about one in a thousand is the neighbour of the nearest;
on GPUs and in its plain code, which is asked here, each is the nearest.

    python nf4.py
"""

import random

import bitsandbytes.functional as bnb
import torch
from adapters import answer, disturb, losses, tidy_config
from common import HERE, base_config, load, new_model, save, seed_of
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

BLOCK = 64


def quantize(w: torch.Tensor) -> dict[str, torch.Tensor]:
    packed, state = bnb.quantize_4bit(w, blocksize=BLOCK, quant_type="nf4")
    mean = state.absmax.mean()
    # In f64, for which there is plain code alone; it computes in f32.
    dynamic = bnb.create_dynamic_map()
    scales, spans = torch.ops.bitsandbytes.quantize_blockwise.default((state.absmax - mean).double(), dynamic, 256)
    codes = torch.stack([packed.flatten() >> 4, packed.flatten() & 15], dim=1).flatten()
    state.absmax = bnb.dequantize_blockwise(scales, absmax=spans, code=dynamic, blocksize=256) + mean
    values = bnb.dequantize_4bit(packed, state)
    table = bnb.get_4bit_type("nf4", device="cpu")
    assert torch.equal(values.flatten(), table[codes.long()] * state.absmax.repeat_interleave(BLOCK))
    found = dict(codes=codes, scales=scales, spans=spans, mean=mean.reshape(1), absmax=state.absmax)
    return found | dict(values=values)


def tempers() -> torch.Tensor:
    """256 blocks share a span, so there are three spans, the last one of few."""
    rng = torch.Generator().manual_seed(seed_of("nf4"))
    w = torch.randn(68, 512, generator=rng) * 0.02
    w[3] = 0.0
    w[4, :64] = 0.25
    w[5] *= 1e-6
    w[6, ::97] *= 40
    w[7] = torch.rand(512, generator=rng) - 0.5
    w[40:] *= torch.rand(28, 1, generator=rng) * 3
    return w.half().float()


def kinds():
    w = tempers()
    found = quantize(w)
    found["values"] = found["values"][:16].contiguous()
    found["codes"] = found["codes"][0::2] << 4 | found["codes"][1::2]  # two in a byte, the first in its high half
    found["dynamic"] = bnb.create_dynamic_map()
    save_file(found | dict(weights=w.half()), HERE / "nf4.safetensors")


@torch.no_grad()
def qlora():
    folder = HERE / "nf4"
    sizes = dict(hidden_size=64, intermediate_size=64, num_hidden_layers=1)
    config = base_config("llama") | sizes | dict(architectures=["LlamaForCausalLM"])
    model = new_model(config, seed_of("nf4 llama"))
    save(model.bfloat16(), folder)
    rng = random.Random("nf4 llama")
    inputs = dict(input_ids=[[rng.randrange(config["vocab_size"]) for _ in range(7)] for _ in range(4)])
    model = load(folder)
    for name, module in model.named_modules():
        if ".layers." in name and isinstance(module, torch.nn.Linear):
            module.weight.copy_(quantize(module.weight.data)["values"])
    torch.manual_seed(seed_of("nf4 lora"))
    maps = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(model, LoraConfig(r=3, lora_alpha=5, target_modules=maps)).eval()
    disturb(model, seed_of("nf4 lora"))
    model.save_pretrained(folder / "lora")
    (folder / "lora" / "README.md").unlink(missing_ok=True)
    tidy_config(folder / "lora")
    found = dict(input_ids=torch.tensor(inputs["input_ids"], dtype=torch.int32), logits=answer(model, inputs))
    with torch.enable_grad():
        found["losses"] = torch.tensor(losses(model.train(), inputs), dtype=torch.float64)
    save_file(found, folder / "lora" / "expected.safetensors")


if __name__ == "__main__":
    kinds()
    qlora()

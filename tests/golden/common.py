"""What the fixture scripts share: weights that show mistakes, inputs of every shape, the reference itself.

Everything is seeded by name, so a script run twice writes the same bytes.
"""

import json
import os
import random
import shutil
import zlib
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # noqa: E402
import transformers  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402, F401  (load_file is for the scripts)
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

HERE = Path(__file__).parent
FAMILIES = ["gpt2", "llama", "mistral", "qwen2", "qwen3"]

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)


def seed_of(name: str) -> int:
    return zlib.crc32(name.encode())


def base_config(family: str) -> dict:
    """The smallest config in which no two sizes are equal by accident."""
    if family == "gpt2":
        sizes = dict(vocab_size=37, n_embd=16, n_layer=2, n_head=2, n_positions=24, n_inner=12)
    else:
        sizes = dict(
            vocab_size=37,
            hidden_size=16,
            intermediate_size=12,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
        )
        if family == "qwen3":
            sizes["head_dim"] = 8  # its default is 128, whatever the hidden size
    # No special ids: a random model would stop at once.
    return dict(model_type=family, bos_token_id=None, eos_token_id=None, pad_token_id=None, **sizes)


@torch.no_grad()
def fill(model, seed: int):
    """Random weights under which every term counts: norms away from 1, biases away from 0, spread attention."""
    rng = torch.Generator().manual_seed(seed)
    for name, param in model.named_parameters():
        noise = torch.randn(param.shape, generator=rng)
        if "norm" in name or ".ln_" in name:
            param.copy_(0.3 * noise + (1.0 if name.endswith("weight") else 0.0))
        elif param.dim() == 1:
            param.copy_(0.3 * noise)
        elif any(key in name for key in ("embed_tokens", "wte", "wpe")):
            param.copy_(0.7 * noise)
        else:
            fan_in = param.shape[0] if ".c_" in name else param.shape[1]  # Conv1D is [in, out]
            param.copy_(1.3 * noise / fan_in**0.5)


def new_model(config: dict, seed: int):
    """A model of `config` (a config.json as a dict) with random weights, in f32."""
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"golden-{os.getpid()}"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    model = AutoModelForCausalLM.from_config(
        AutoConfig.from_pretrained(folder), attn_implementation="eager", dtype=torch.float32
    )
    shutil.rmtree(folder)
    fill(model, seed)
    return model.eval()


def save(model, folder: Path, config: dict | None = None, **options):
    """Write a model folder; `config` replaces the config.json that transformers writes (to keep an old spelling)."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model.save_pretrained(folder, **options)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def load(folder: Path):
    """The reference: transformers, eager attention, f32, with nothing missing and nothing left over."""
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
    )
    missing = set(info["missing_keys"]) - {"lm_head.weight"}  # absent where it is tied
    assert not missing and not info["mismatched_keys"], info
    return model.eval()


@torch.no_grad()
def reference(folder: Path, inputs: dict) -> dict[str, torch.Tensor]:
    """`logits`, `last_hidden_state`, `hidden_states.N` of a fresh model: dynamic rope remembers earlier calls.

    With `document_ids` the row is packed. transformers has no such input: it takes restarting positions for
    document borders, but only without a mask and with `use_cache=False`. Its plain call is causal over the whole row.
    """
    tensors = {name: torch.tensor(value) for name, value in inputs.items() if name != "document_ids"}
    packed = {"use_cache": False} if "document_ids" in inputs else {}
    out = load(folder)(**tensors, output_hidden_states=True, **packed)
    found = {"logits": out.logits, "last_hidden_state": out.hidden_states[-1]}
    found |= {f"hidden_states.{n}": state for n, state in enumerate(out.hidden_states)}
    return {name: tensor.contiguous().clone() for name, tensor in found.items()}


def make_inputs(kind: str, vocab: int, rng: random.Random, length: int = 8) -> dict:
    """Nested lists. Padding holds random ids, not zeros: whoever reads it gets caught."""
    rows = {"plain": 1, "one": 1, "positions": 1, "packed": 2, "restart": 2, "long": 1}.get(kind, 3)
    length = {"one": 1, "long": max(length, 21)}.get(kind, length)
    inputs = {"input_ids": [[rng.randrange(vocab) for _ in range(length)] for _ in range(rows)]}
    mask = [[1] * length for _ in range(rows)]
    if kind in ("left", "left_positions", "right"):
        for row, pads in zip(mask, (length // 2, 0, length - 2)):
            cut = slice(0, pads) if kind != "right" else slice(length - pads, length)
            row[cut] = [0] * pads
    if kind not in ("packed", "restart", "bare", "positions"):
        inputs["attention_mask"] = mask
    if kind == "left_positions":  # what transformers' generate passes
        inputs["position_ids"] = [[max(sum(row[: t + 1]) - 1, 0) for t in range(length)] for row in mask]
    if kind == "positions":  # one document that does not start at 0
        inputs["position_ids"] = [[t + 3 for t in range(length)] for _ in range(rows)]
    if kind in ("packed", "restart"):  # positions start again; documents see each other in "restart" only
        cuts = (length // 3, length // 2)
        inputs["position_ids"] = [[t if t < cut else t - cut for t in range(length)] for cut in cuts]
        if kind == "packed":
            inputs["document_ids"] = [[int(t >= cut) for t in range(length)] for cut in cuts]
    return inputs


def relative_error(ours: torch.Tensor, theirs: torch.Tensor, mask: list | None = None) -> float:
    """max|a-b| / max|b| over unmasked positions; infinite where the shapes differ or a value is not finite."""
    if ours.shape != theirs.shape:
        return float("inf")
    if mask is not None:
        keep = torch.tensor(mask).bool()
        ours, theirs = ours[keep], theirs[keep]
    if not (torch.isfinite(ours).all() and torch.isfinite(theirs).all()):
        return float("inf")
    return float((ours.double() - theirs.double()).abs().max() / theirs.double().abs().max())

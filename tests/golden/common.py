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
EAGER = dict(attn_implementation="eager", experts_implementation="eager", dtype=torch.float32)
FAMILIES = ["gpt2", "llama", "mistral", "qwen2", "qwen3"]
EXPERTS = ["deepseek_v2", "mixtral", "qwen2_moe", "qwen3_moe"]
ENCODERS = ["bert", "roberta", "xlm-roberta", "distilbert", "deberta", "deberta-v2"]
SEQ2SEQ = ["t5", "mt5", "umt5", "bart", "mbart", "marian", "transformer"]

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)


def seed_of(name: str) -> int:
    return zlib.crc32(name.encode())


def base_config(family: str) -> dict:
    """The smallest config in which no two sizes are equal by accident."""
    if family in ENCODERS:
        return encoder_config(family)
    if family in SEQ2SEQ:
        return seq2seq_config(family)
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
        if family in EXPERTS:
            sizes |= dict(vocab_size=23, num_hidden_layers=1) | EXPERT_SIZES[family]
    # No special ids: a random model would stop at once.
    return dict(model_type=family, bos_token_id=None, eos_token_id=None, pad_token_id=None, **sizes)


EXPERT_SIZES = {
    "deepseek_v2": dict(
        hidden_size=12,
        num_hidden_layers=2,
        num_key_value_heads=4,  # as many as heads, or the reference fails
        moe_intermediate_size=6,
        n_routed_experts=5,
        num_experts_per_tok=2,
        n_shared_experts=1,
        first_k_dense_replace=1,
        q_lora_rank=7,
        kv_lora_rank=10,  # even, as is qk_nope_head_dim, or the reference fails
        qk_nope_head_dim=6,
        qk_rope_head_dim=4,
        v_head_dim=3,
    ),
    "mixtral": dict(num_local_experts=5, num_experts_per_tok=2, intermediate_size=7),
    "qwen2_moe": dict(num_experts=5, num_experts_per_tok=2, moe_intermediate_size=6, shared_expert_intermediate_size=7),
    "qwen3_moe": dict(num_experts=5, num_experts_per_tok=2, moe_intermediate_size=6, head_dim=6),
}


def encoder_config(family: str) -> dict:
    if family == "distilbert":
        sizes = dict(dim=12, hidden_dim=14, n_layers=2, n_heads=3, seq_classif_dropout=0.2)
    else:
        sizes = dict(hidden_size=12, intermediate_size=14, num_hidden_layers=2, num_attention_heads=3)
    pad = 1 if "roberta" in family else 0
    return dict(model_type=family, vocab_size=31, max_position_embeddings=24, pad_token_id=pad, **sizes)


def seq2seq_config(family: str) -> dict:
    """Six rows of special ids at most; the first one decodes from the pad or the end."""
    if family.endswith("t5"):
        sizes = dict(d_model=12, d_kv=5, d_ff=14, num_layers=1, num_decoder_layers=1, num_heads=3)
        return dict(model_type=family, vocab_size=31, decoder_start_token_id=0, **sizes)
    if family == "transformer":
        sizes = dict(d_model=12, heads=3, encoder_layers=1, decoder_layers=1, d_ff=14, max_position_embeddings=24)
        special = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0, decoder_start_token_id=1)
        return dict(model_type=family, vocab_size=31, **sizes, **special)
    sizes = dict(d_model=12, encoder_layers=1, decoder_layers=1, encoder_attention_heads=3, decoder_attention_heads=2)
    sizes |= dict(encoder_ffn_dim=14, decoder_ffn_dim=10, max_position_embeddings=24)
    special = dict(bos_token_id=0, eos_token_id=2, pad_token_id=1, decoder_start_token_id=2, forced_eos_token_id=2)
    if family == "marian":
        special = dict(bos_token_id=None, eos_token_id=0, pad_token_id=30, decoder_start_token_id=30)
        special["forced_eos_token_id"] = 0
    return dict(model_type=family, vocab_size=31, **sizes, **special)


@torch.no_grad()
def fill(model, seed: int):
    """Random weights under which every term counts: norms away from 1, biases away from 0, spread attention."""
    rng = torch.Generator().manual_seed(seed)
    for name, param in model.named_parameters():
        if not param.requires_grad:  # a table of sines is what it is
            continue
        noise = torch.randn(param.shape, generator=rng)
        if "norm" in name.lower() or ".ln_" in name:
            param.copy_(0.3 * noise + (1.0 if name.endswith("weight") else 0.0))
        elif param.dim() == 1:
            param.copy_(0.3 * noise)
        elif any(key in name for key in ("embed_tokens", "wte", "wpe", "embeddings", "shared.", "embed_positions")):
            param.copy_(0.7 * noise)
        elif "relative_attention_bias" in name:
            param.copy_(noise)
        elif name.endswith("Attention.q.weight"):  # t5 does not divide its scores by the root of the head's size
            param.copy_(1.3 * noise / (param.shape[1] * model.config.d_kv) ** 0.5)
        elif param.dim() == 3:  # experts [expert, out, in], or a convolution [out, in, width]
            fan_in = param.shape[1] * param.shape[2] if "conv" in name else param.shape[2]
            param.copy_(1.3 * noise / fan_in**0.5)
        else:
            fan_in = param.shape[0] if ".c_" in name else param.shape[1]  # Conv1D is [in, out]
            param.copy_(1.3 * noise / fan_in**0.5)
    for name, buffer in model.named_buffers():
        if name == "final_logits_bias":
            buffer.copy_(0.5 * torch.randn(buffer.shape, generator=rng))


def model_class(config: dict):
    """The class that `architectures` names; without it, that of a decoder."""
    if config["model_type"] == "transformer":
        import transformer2017

        return transformer2017.Transformer
    names = config.get("architectures")
    return getattr(transformers, names[0]) if names else AutoModelForCausalLM


def new_model(config: dict, seed: int, **options):
    """A model of `config` (a config.json as a dict) with random weights, in f32."""
    kind = model_class(config)
    if config["model_type"] == "transformer":
        model = kind(config)
    else:
        folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"golden-{os.getpid()}"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        build = AutoModelForCausalLM.from_config if kind is AutoModelForCausalLM else kind._from_config
        loaded = AutoConfig.from_pretrained(folder)
        model = build(loaded, **EAGER, **options)
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
    config, options = json.loads((folder / "config.json").read_text()), {}
    kind = model_class(config)
    if config["model_type"] == "transformer":
        return kind.from_pretrained(folder)
    if kind.__name__ in ("BertModel", "RobertaModel", "XLMRobertaModel"):
        options["add_pooling_layer"] = "pooler.dense.weight" in load_file(folder / "model.safetensors")
    model, info = kind.from_pretrained(folder, output_loading_info=True, **EAGER, **options)
    missing = set(info["missing_keys"]) - {"lm_head.weight"}  # absent where it is tied
    assert not missing and not info["mismatched_keys"], info
    return model.eval()


def to_tensors(inputs: dict) -> dict[str, torch.Tensor]:
    """What `forward` takes: rows of choices are stored one under the other, transformers wants them as a dimension."""
    tensors = {
        name: torch.tensor(value) for name, value in inputs.items() if name not in ("document_ids", "num_choices")
    }
    if choices := inputs.get("num_choices"):
        tensors = {name: rows.view(-1, choices, rows.shape[-1]) for name, rows in tensors.items()}
    return tensors


@torch.no_grad()
def outputs(model, inputs: dict) -> dict[str, torch.Tensor]:
    """Every tensor of the answer under its name there; tuples of states as `hidden_states.N`. A decoder's also
    `last_hidden_state`, which transformers itself gives without a head only.

    With `document_ids` the row is packed. transformers has no such input: it takes restarting positions for
    document borders, but only without a mask and with `use_cache=False`. Its plain call is causal over the whole row.
    """
    packed = {"use_cache": False} if "document_ids" in inputs else {}
    out, found = model(**to_tensors(inputs), output_hidden_states=True, **packed), {}
    for name, value in out.items():
        if name.endswith("hidden_states") and value is not None:
            found |= {f"{name}.{n}": state for n, state in enumerate(value)}
        elif isinstance(value, torch.Tensor):
            found[name] = value
    if model.config.model_type in FAMILIES + EXPERTS and "logits" in found:
        found["last_hidden_state"] = out.hidden_states[-1]
    return {name: tensor.contiguous().clone() for name, tensor in found.items()}


def reference(folder: Path, inputs: dict) -> dict[str, torch.Tensor]:
    """What a fresh model answers: dynamic rope remembers earlier calls."""
    return outputs(load(folder), inputs)


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

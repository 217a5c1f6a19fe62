"""Writes the training fixtures: tests/golden/train/<family>/.

Ten steps of PyTorch in f32 on one fixed batch: AdamW with decoupled decay on matrices only, clipping at 1.0.
    config.json, model.safetensors    the weights before the first step (no dropout)
    batch.json                        input_ids, attention_mask, labels; labels[t] is the id at t itself, so the
                                      target of position t is labels[t+1]; -100 is ignored; positions are 0..T-1
    train.json                        the optimiser's settings, the loss before each step, the norm before clipping
    final.safetensors                 two tensors after the tenth step
    gradients.safetensors             (gpt2, llama) every gradient of the first step, before clipping

    python train_losses.py
"""

import json
import random

import torch
from common import FAMILIES, HERE, base_config, load, new_model, save, save_file, seed_of

STEPS = 10
OPTIMISER = dict(lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
CLIP = 1.0
EXTRA = {
    "gpt2": dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),  # tied head
    "llama": dict(attention_bias=True, mlp_bias=True),
    "mistral": dict(sliding_window=4, num_key_value_heads=1),
    "qwen2": dict(tie_word_embeddings=True, use_sliding_window=True, sliding_window=3, max_window_layers=1),
    "qwen3": dict(head_dim=6, attention_bias=True),
}
FINAL = {"gpt2": ["transformer.wte.weight", "transformer.h.0.attn.c_attn.weight"]}
FINAL |= {family: ["model.embed_tokens.weight", "model.layers.0.self_attn.k_proj.weight"] for family in FAMILIES[1:]}


def make_batch(vocab: int, rng: random.Random) -> dict:
    """Three rows: a prompt without loss, right padding, and a full one."""
    ids = [[rng.randrange(vocab) for _ in range(12)] for _ in range(3)]
    mask = [[1] * 12, [1] * 8 + [0] * 4, [1] * 12]
    labels = [[token if keep else -100 for token, keep in zip(*row)] for row in zip(ids, mask)]
    labels[0][:5] = [-100] * 5
    return dict(input_ids=ids, attention_mask=mask, labels=labels)


def write(family: str):
    folder, rng = HERE / "train" / family, random.Random(seed_of(f"train/{family}"))
    config = base_config(family) | EXTRA[family]
    save(new_model(config, seed_of(f"train/{family}")), folder)
    batch = make_batch(config["vocab_size"], rng)
    (folder / "batch.json").write_text(json.dumps(batch) + "\n")
    tensors = {name: torch.tensor(rows) for name, rows in batch.items()}

    model = load(folder).train()
    params = dict(model.named_parameters())
    matrices = [p for p in params.values() if p.dim() >= 2]
    vectors = [p for p in params.values() if p.dim() < 2]
    groups = [dict(params=matrices), dict(params=vectors, weight_decay=0.0)]
    optimiser = torch.optim.AdamW(groups, **OPTIMISER)
    losses, norms = [], []
    for step in range(STEPS):
        optimiser.zero_grad()
        loss = model(**tensors, use_cache=False).loss
        loss.backward()
        if step == 0 and family in ("gpt2", "llama"):
            save_file(
                {name: p.grad.contiguous().clone() for name, p in params.items()}, folder / "gradients.safetensors"
            )
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)))
        losses.append(loss.item())
        optimiser.step()
    settings = OPTIMISER | dict(decay="parameters of two dimensions", clip=CLIP, losses=losses, gradient_norms=norms)
    (folder / "train.json").write_text(json.dumps(settings, indent=1) + "\n")
    save_file({name: params[name].detach().clone() for name in FINAL[family]}, folder / "final.safetensors")
    print(family, [round(loss, 4) for loss in losses], "norms", round(min(norms), 2), round(max(norms), 2))


if __name__ == "__main__":
    for family in FAMILIES:
        write(family)

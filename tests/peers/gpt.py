"""GPT-2 in plain PyTorch, as the benchmarks of this folder train it: pre-norm, fused qkv, exact GELU, tied head."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F


@dataclass
class Size:
    layers: int
    heads: int
    width: int
    context: int
    vocab: int
    bias: bool


SMALL = Size(layers=12, heads=12, width=768, context=1024, vocab=50257, bias=True)  # GPT-2 small
CHAR = Size(layers=6, heads=6, width=384, context=256, vocab=65, bias=False)  # nanoGPT's GPU recipe
CPU = Size(layers=4, heads=4, width=128, context=64, vocab=65, bias=False)  # nanoGPT's CPU recipe


class Block(nn.Module):
    def __init__(self, size: Size):
        super().__init__()
        self.heads = size.heads
        self.norm1 = nn.LayerNorm(size.width, bias=size.bias)
        self.qkv = nn.Linear(size.width, 3 * size.width, bias=size.bias)
        self.out = nn.Linear(size.width, size.width, bias=size.bias)
        self.norm2 = nn.LayerNorm(size.width, bias=size.bias)
        self.up = nn.Linear(size.width, 4 * size.width, bias=size.bias)
        self.down = nn.Linear(4 * size.width, size.width, bias=size.bias)

    def forward(self, x):
        batch, time, width = x.shape
        q, k, v = (
            part.view(batch, time, self.heads, -1).transpose(1, 2) for part in self.qkv(self.norm1(x)).split(width, 2)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, time, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Gpt(nn.Module):
    def __init__(self, size: Size):
        super().__init__()
        self.tokens = nn.Embedding(size.vocab, size.width)
        self.positions = nn.Embedding(size.context, size.width)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.layers))
        self.norm = nn.LayerNorm(size.width, bias=size.bias)
        self.head = nn.Linear(size.width, size.vocab, bias=False)
        self.head.weight = self.tokens.weight
        for name, param in self.named_parameters():
            if param.dim() == 2:
                residual = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(param, std=0.02 / (2 * size.layers) ** 0.5 if residual else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(param)

    def forward(self, ids, targets):
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def adamw(model: nn.Module, lr: float, betas: tuple, decay: float, kind: str) -> torch.optim.AdamW:
    """Decay on matrices only. `kind`: loop (PyTorch's default on the CPU), foreach or fused."""
    params = list(model.parameters())
    groups = [
        dict(params=[p for p in params if p.dim() >= 2], weight_decay=decay),
        dict(params=[p for p in params if p.dim() < 2], weight_decay=0.0),
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=betas, foreach=kind == "foreach", fused=kind == "fused")

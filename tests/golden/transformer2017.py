"""The Transformer of 2017, written from the paper ("Attention Is All You Need", arXiv 1706.03762), and its fixtures:
tests/golden/transformer/<case>/.

Only linear maps, softmax and layer norms of PyTorch, so that it can be read beside the paper:

    section 3.1   post-norm, LayerNorm(x + Sublayer(x)); with `norm` = "pre" (tensor2tensor's later choice)
                  x + Sublayer(LayerNorm(x)), and a norm at the end of either stack
    section 3.2   softmax(q k^T / sqrt(d_k)) v, heads side by side; the projections have no biases unless
                  `attention_bias` (the paper writes plain matrices, tensor2tensor has none): then all four have one
    section 3.3   max(0, x W1 + b1) W2 + b2, always with biases
    section 3.4   embeddings times sqrt(d_model), on both sides; logits are products with the target's table, without a
                  scale or a bias. `share_embeddings`: "all" = one table for source, target and head;
                  "decoder" = a table for the source, one for target and head; "none" = three matrices
    section 3.5   sines at even dimensions, cosines at odd ones, of position / 10000^(2i / d_model), computed in f64 and
                  rounded; positions are 0..T-1 in every row, under padding too
    section 5.4   dropout on each sublayer's output and on embedding + position (`dropout`); tensor2tensor's own two, on
                  the attention's weights and inside the feed-forward layer, default to 0

A masked key is given the lowest finite score, as in transformers. Hidden states are what enters the first layer and
what each layer gives, the last one after the final norm of a pre-norm stack.

    python transformer2017.py
"""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import torch
from cases import Case, write
from safetensors.torch import load_file, save_file
from torch import nn

DEFAULTS = dict(
    dropout=0.1,
    attention_dropout=0.0,
    activation_dropout=0.0,
    norm="post",
    layer_norm_eps=1e-6,
    share_embeddings="all",
    max_position_embeddings=512,
    attention_bias=False,
    target_vocab_size=None,
)


def sines(length: int, width: int) -> torch.Tensor:
    """Section 3.5. An odd width has one sine more than cosines."""
    position = torch.arange(length, dtype=torch.float64)[:, None]
    angles = position / 10000 ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    table = torch.empty(length, width, dtype=torch.float64)
    table[:, 0::2], table[:, 1::2] = angles.sin(), angles.cos()[:, : width // 2]
    return table.float()


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.dropout = c.heads, nn.Dropout(c.attention_dropout)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(self, name, nn.Linear(c.d_model, c.d_model, bias=c.attention_bias))

    def forward(self, x, memory, mask):
        """x [batch, time, width], memory [batch, keys, width], mask [batch, 1, time or 1, keys]: true is seen."""
        q, k, v = (
            proj(y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for proj, y in ((self.q_proj, x), (self.k_proj, memory), (self.v_proj, memory))
        )
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        seen = self.dropout(scores.softmax(dim=-1)) @ v
        return self.o_proj(seen.transpose(1, 2).flatten(-2))


class FeedForward(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.up, self.down = nn.Linear(c.d_model, c.d_ff), nn.Linear(c.d_ff, c.d_model)
        self.dropout = nn.Dropout(c.activation_dropout)

    def forward(self, x):
        return self.down(self.dropout(torch.relu(self.up(x))))


class Layer(nn.Module):
    def __init__(self, c, cross: bool):
        super().__init__()
        self.pre, self.dropout = c.norm == "pre", nn.Dropout(c.dropout)
        self.self_attn, self.self_attn_norm = Attention(c), nn.LayerNorm(c.d_model, eps=c.layer_norm_eps)
        if cross:
            self.cross_attn, self.cross_attn_norm = Attention(c), nn.LayerNorm(c.d_model, eps=c.layer_norm_eps)
        self.ffn, self.ffn_norm = FeedForward(c), nn.LayerNorm(c.d_model, eps=c.layer_norm_eps)

    def add(self, x, norm, sublayer):
        if self.pre:
            return x + self.dropout(sublayer(norm(x)))
        return norm(x + self.dropout(sublayer(x)))

    def forward(self, x, mask, memory=None, memory_mask=None):
        x = self.add(x, self.self_attn_norm, lambda y: self.self_attn(y, y, mask))
        if memory is not None:
            x = self.add(x, self.cross_attn_norm, lambda y: self.cross_attn(y, memory, memory_mask))
        return self.add(x, self.ffn_norm, self.ffn)


class Stack(nn.Module):
    def __init__(self, c, layers: int, cross: bool):
        super().__init__()
        self.layers = nn.ModuleList(Layer(c, cross) for _ in range(layers))
        self.norm = nn.LayerNorm(c.d_model, eps=c.layer_norm_eps) if c.norm == "pre" else None

    def forward(self, x, *context):
        states = [x]
        for layer in self.layers:
            states.append(layer(states[-1], *context))
        if self.norm:
            states[-1] = self.norm(states[-1])
        return states


class Transformer(nn.Module):
    def __init__(self, config: dict):
        super().__init__()
        self.config = c = SimpleNamespace(**DEFAULTS | config)
        self.encoder, self.decoder = Stack(c, c.encoder_layers, False), Stack(c, c.decoder_layers, True)
        target = c.target_vocab_size or c.vocab_size
        if c.share_embeddings == "all":
            assert target == c.vocab_size, "one table for all has one vocabulary"
            self.embed_tokens = nn.Embedding(c.vocab_size, c.d_model)
        else:
            self.encoder.embed_tokens = nn.Embedding(c.vocab_size, c.d_model)
            self.decoder.embed_tokens = nn.Embedding(target, c.d_model)
        if c.share_embeddings == "none":
            self.lm_head = nn.Linear(c.d_model, target, bias=False)
        self.dropout, self.raw = nn.Dropout(c.dropout), config

    def embed(self, ids, table):
        assert ids.shape[1] <= self.config.max_position_embeddings
        return self.dropout(table(ids) * self.config.d_model**0.5 + sines(ids.shape[1], self.config.d_model))

    def forward(self, input_ids, decoder_input_ids, attention_mask=None, decoder_attention_mask=None, **_):
        sides = [self, self] if self.config.share_embeddings == "all" else [self.encoder, self.decoder]
        source, target = (side.embed_tokens for side in sides)
        ones = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        memory_mask = ones[:, None, None, :].bool()
        encoded = self.encoder(self.embed(input_ids, source), memory_mask)
        time = decoder_input_ids.shape[1]
        mask = torch.ones(time, time).tril().bool()[None, None]
        if decoder_attention_mask is not None:
            mask = mask & decoder_attention_mask[:, None, None, :].bool()
        decoded = self.decoder(self.embed(decoder_input_ids, target), mask, encoded[-1], memory_mask)
        head = self.lm_head.weight if self.config.share_embeddings == "none" else target.weight
        return dict(
            logits=decoded[-1] @ head.T,
            encoder_last_hidden_state=encoded[-1],
            encoder_hidden_states=encoded,
            decoder_hidden_states=decoded,
        )

    def save_pretrained(self, folder: Path, **_):
        (folder / "config.json").write_text(json.dumps(self.raw, indent=2) + "\n")
        save_file({name: p.detach().clone() for name, p in self.named_parameters()}, folder / "model.safetensors")

    @classmethod
    def from_pretrained(cls, folder: Path):
        model = cls(json.loads((folder / "config.json").read_text()))
        tensors = load_file(folder / "model.safetensors")
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        return model.eval()


PRE, TWO = {"norm": "pre"}, {"encoder_layers": 2, "decoder_layers": 2}
CASES = [
    Case("post_norm", None, "left", TWO, decoder="right"),
    Case("pre_norm", None, "right", PRE | TWO, decoder="left"),
    Case("no_masks", None, "bare", {"attention_bias": True, "heads": 4}, decoder="bare"),
    Case("pre_norm_biases", None, "holes", PRE | {"attention_bias": True, "layer_norm_eps": 1e-3}, decoder="holes"),
    Case("two_tables", None, "right", {"share_embeddings": "decoder", "target_vocab_size": 23}, decoder="right"),
    Case("two_tables_one_size", None, "left", PRE | {"share_embeddings": "decoder"}, decoder="bare"),
    Case("three_tables", None, "right", {"share_embeddings": "none", "target_vocab_size": 37}, decoder="holes"),
    Case("layers", None, "left", {"encoder_layers": 3, "decoder_layers": 1}, decoder="left"),
    Case("odd_width", None, "plain", PRE | {"d_model": 15, "encoder_layers": 1, "decoder_layers": 3}, decoder="plain"),
    Case("one_token", None, "one", {"heads": 1}, decoder="one"),
    Case("long", None, "long", {"layer_norm_eps": 1e-5, "max_position_embeddings": 21}, decoder="long"),
    Case("dropouts", None, "right", PRE | {"attention_dropout": 0.1, "activation_dropout": 0.2}, decoder="right"),
]

if __name__ == "__main__":
    for case in CASES:
        case.config = DEFAULTS | {"max_position_embeddings": 24} | case.config
        write("transformer", case)

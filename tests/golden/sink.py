"""Writes sink.json: texts that go on beyond what a cache of sinks keeps (Xiao et al. 2023).

Each entry: a model folder, the window, the sinks, prompts, and the ids with which the model goes on. The arithmetic is
the paper's, as plain as it can be: keys are kept as they are before their rotation; before `n` tokens are read, what
does not fit beside them goes, from behind the sinks; what is left stands at positions 0, 1, 2, ... . Prompts are read
half a window's room at a time. transformers had this as `SinkCache` until 4.52, which turned rotated keys back by one
position a token: the same numbers but for rounding, and for the token with which the window fills, for which it turned
keys one position too far.

    python sink.py
"""

import importlib
import json
import random

import torch
from common import HERE, load, seed_of
from transformers import DynamicCache

NEW = 48
CASES = [
    ("llama", "multi_head", 12, 4),
    ("llama", "llama3_new", 23, 3),
    ("qwen3", "tied_eps", 16, 1),
    ("mistral", "no_window", 9, 0),
    ("qwen2", "grouped", 17, 5),
]


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


class Sink(DynamicCache):
    """Keeps raw keys, gives those that are seen, turned by their places."""

    def __init__(self, model, window: int, sinks: int):
        super().__init__()
        self.model, self.window, self.sinks, self.kept = model, window, sinks, {}

    def table(self, count: int):
        like = torch.zeros(1, 1, 1, dtype=torch.float64)
        cos, sin = self.model.model.rotary_emb(like, torch.arange(count)[None])
        return cos.double(), sin.double()

    def room(self, new: int) -> int:
        """Earlier tokens that `new` ones see."""
        held = self.kept[0][0].shape[2] if self.kept else 0
        return min(held, self.window - new)

    def update(self, k, v, layer, *args, **kwargs):
        if layer in self.kept:
            old_k, old_v = self.kept[layer]
            left = min(old_k.shape[2], self.window - k.shape[2])
            if left < old_k.shape[2]:
                tail = left - self.sinks
                pick = lambda x: torch.cat([x[:, :, : self.sinks], x[:, :, x.shape[2] - tail :]], 2)
                old_k, old_v = pick(old_k), pick(old_v)
            k, v = torch.cat([old_k, k], 2), torch.cat([old_v, v], 2)
        self.kept[layer] = k, v
        cos, sin = self.table(k.shape[2])
        return rotate(k, cos[:, None], sin[:, None]), v


@torch.no_grad()
def forward(model, cache: Sink, ids: list) -> torch.Tensor:
    past, new = cache.room(len(ids)), len(ids)
    mask = torch.full((new, past + new), torch.finfo(torch.float64).min, dtype=torch.float64).triu(past + 1)
    out = model(
        torch.tensor([ids]),
        attention_mask=mask[None, None],
        position_ids=torch.arange(past, past + new)[None],
        past_key_values=cache,
        use_cache=True,
    )
    return out.logits[0, -1]


def go_on(model, window: int, sinks: int, prompt: list) -> tuple[list, float]:
    cache, piece = Sink(model, window, sinks), max((window - sinks) // 2, 1)
    for at in range(0, len(prompt), piece):
        logits = forward(model, cache, prompt[at : at + piece])
    ids, margin = [], float("inf")
    while True:
        best = logits.topk(2)
        margin = min(margin, float(best.values[0] - best.values[1]))
        ids.append(int(best.indices[0]))
        if len(ids) == NEW:
            return ids, margin
        logits = forward(model, cache, ids[-1:])


def main():
    entries = []
    for family, case, window, sinks in CASES:
        module = importlib.import_module(f"transformers.models.{family}.modeling_{family}")
        # Queries are turned by their place in the cache, keys when they are read.
        module.apply_rotary_pos_emb = lambda q, k, cos, sin, *_, **__: (rotate(q, cos[:, None], sin[:, None]), k)
        model = load(HERE / family / case).double()
        rng = random.Random(seed_of(f"sink/{family}/{case}"))
        prompts, rows = [], []
        # Below the window, at it, and far beyond it.
        for length in (1, window - 1, window, window + 1, 3 * window + 2):
            while True:  # until no near tie and no row that repeats one id
                prompt = [rng.randrange(model.config.vocab_size) for _ in range(length)]
                ids, margin = go_on(model, window, sinks, prompt)
                if margin > 1e-3 and len(set(ids)) >= 4:
                    break
            prompts.append(prompt)
            rows.append(ids)
        entries.append(
            dict(case=f"{family}/{case}", window=window, sinks=sinks, prompts=prompts, continuations=rows)
        )
        print(family, case, [len(set(row)) for row in rows])
    (HERE / "sink.json").write_text("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()

"""Writes the greedy fixtures: tests/golden/greedy/<family>.json.

Each entry: a model folder of ../<family>/, the prompts one by one, the same prompts left-padded into one batch with
its mask (padding ids are random), and the 64 ids with which transformers continues each row. `margin` is the smallest
lead of the best logit over the second at any step: far above rounding, so a different id is a mistake, not a tie.

    python greedy.py
"""

import json
import random

import torch
from common import FAMILIES, HERE, load, seed_of

NEW = 64
CASES = {
    "gpt2": ["left_padding"],  # the one with 80 positions
    "llama": ["multi_head", "tied", "yarn_attention_factor", "llama3_new"],
    "mistral": ["window_left", "no_window"],
    "qwen2": ["grouped", "window_upper_layers"],
    "qwen3": ["attention_bias", "tied_eps"],
}


@torch.no_grad()
def continue_greedily(model, ids: list, mask: list) -> tuple[list, float]:
    out = model.generate(
        torch.tensor(ids),
        attention_mask=torch.tensor(mask),
        max_new_tokens=NEW,
        do_sample=False,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    best = torch.stack(out.logits).topk(2, dim=-1).values
    return out.sequences[:, len(ids[0]) :].tolist(), float((best[..., 0] - best[..., 1]).min())


def write(family: str):
    entries = []
    for case in CASES[family]:
        rng, model = random.Random(seed_of(f"greedy/{family}/{case}")), load(HERE / family / case)
        vocab = model.config.vocab_size
        while True:  # until no near tie and no row that repeats one id
            prompts = [[rng.randrange(vocab) for _ in range(length)] for length in (4, 9, 1)]
            width = max(map(len, prompts))
            ids = [[rng.randrange(vocab) for _ in range(width - len(row))] + row for row in prompts]
            mask = [[0] * (width - len(row)) + [1] * len(row) for row in prompts]
            rows, margin = continue_greedily(model, ids, mask)
            if margin > 2e-3 and min(len(set(row)) for row in rows) >= 4:
                break
        for prompt, row in zip(prompts, rows):  # a row alone says the same
            assert continue_greedily(model, [prompt], [[1] * len(prompt)])[0] == [row], case
        entries.append(
            dict(
                case=f"{family}/{case}",
                prompts=prompts,
                input_ids=ids,
                attention_mask=mask,
                continuations=rows,
                margin=margin,
            )
        )
        print(family, case, f"margin {margin:.4f}", [len(set(row)) for row in rows])
    path = HERE / "greedy" / f"{family}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n")


if __name__ == "__main__":
    for family in FAMILIES:
        write(family)

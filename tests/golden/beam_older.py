"""Writes tests/golden/beam/groups.json and tests/golden/beam/words.json: group (diverse) and constrained beam search of
transformers 4.28.1, the last version that has both in its tree, over those models of beam.py that it computes as later
versions do. Same form as beam.json, a prompt an entry: in a batch this version ends later prompts later.

Ends are one id, since this version writes the first of several whichever came, and there is no `encoder_repetition_penalty`,
which it lets the first beam alone have.

    python -m venv old && old/bin/pip install transformers==4.28.1 torch && old/bin/python beam_older.py
"""

import json
import random
from pathlib import Path

import torch
from transformers import BartForConditionalGeneration, GenerationConfig, GPT2LMHeadModel, __version__

HERE = Path(__file__).parent
MODELS = {"gpt2": GPT2LMHeadModel, "bart": BartForConditionalGeneration}
IDS = {
    "gpt2": dict(eos_token_id=2, pad_token_id=3),
    "bart": dict(eos_token_id=2, pad_token_id=1, decoder_start_token_id=2),
}
VOCAB = 23


def draw(rng: random.Random, kind: str, name: str) -> tuple[list, dict]:
    """A prompt and settings."""
    ids = [rng.randrange(VOCAB) for _ in range(rng.choice([1, 2, 4, 7, 11]))]
    # The first model has 24 positions.
    new = rng.choice([1, 3, 6, 10, 12])
    options = IDS[name] | dict(max_new_tokens=new, length_penalty=rng.choice([1.0, 1.0, 0.0, 0.6, 2.0, -1.0]))
    options["early_stopping"] = rng.choice([False, False, True, "never"])
    if kind == "groups":
        groups, each = rng.choice([2, 2, 3, 4]), rng.choice([1, 2, 3])
        options |= dict(num_beams=groups * each, num_beam_groups=groups)
        options["diversity_penalty"] = rng.choice([0.1, 0.5, 1.0, 2.5, 10.0])
    else:
        options["num_beams"] = rng.choice([2, 3, 4, 5, 7])
        options["force_words_ids"] = words(rng, new)
    options["num_return_sequences"] = rng.randrange(1, options["num_beams"] + 1)
    often = lambda share: rng.random() < share
    if often(0.1):
        options["eos_token_id"] = None
    if often(0.3):
        options["repetition_penalty"] = rng.choice([0.7, 1.3, 2.0])
    if often(0.2):
        options["no_repeat_ngram_size"] = rng.choice([2, 3])
    if often(0.2):
        options["min_new_tokens"] = rng.randrange(1, new + 1)
    if often(0.15):
        options["bad_words_ids"] = [[rng.randrange(VOCAB) for _ in range(rng.choice([1, 2]))] for _ in range(2)]
    if often(0.15):
        options["renormalize_logits"] = True
    if often(0.1) and name == "bart" and kind == "groups" and new > 1:
        options["forced_bos_token_id"] = rng.randrange(3, VOCAB)
    return ids, options


def words(rng: random.Random, new: int) -> list:
    """Runs of ids, some of them one of several that begin alike; not more than fit."""
    found, room = [], new
    pool = rng.sample(range(3, VOCAB), rng.choice([4, 8, 16]))
    run = lambda: [rng.choice(pool) for _ in range(rng.choice([1, 1, 2, 2, 3]))]
    for _ in range(rng.choice([1, 2, 3])):
        runs = [run()]
        for _ in range(rng.choice([0, 0, 1, 2, 3])):
            more = runs[0][: rng.randrange(len(runs[0]) + 1)] + run()
            if all(a[: len(more)] != more and more[: len(a)] != a for a in runs):
                runs.append(more)
        if (shortest := min(map(len, runs))) <= room:
            found.append(runs if len(runs) > 1 else runs[0])
            room -= shortest
    return found or [[pool[0]]]


@torch.no_grad()
def search(model, ids: list, options: dict) -> tuple[list, list]:
    model.generation_config = GenerationConfig()
    out = model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        generation_config=GenerationConfig(**options),
        return_dict_in_generate=True,
        output_scores=True,
    )
    end, skip = options["eos_token_id"], 1 if model.config.is_encoder_decoder else len(ids)
    rows = [row[: row.index(end) + 1] if end in row else row for row in out.sequences[:, skip:].tolist()]
    return rows, out.sequences_scores.tolist()


@torch.no_grad()
def is_stable(model, ids: list, options: dict, found: list) -> bool:
    kept, rng = {name: param.clone() for name, param in model.named_parameters()}, torch.Generator().manual_seed(2)
    same = True
    for _ in range(3):
        for param in model.parameters():
            param.mul_(1 + 1e-5 * torch.randn(param.shape, generator=rng))
        same &= search(model, ids, options)[0] == found
        for name, param in model.named_parameters():
            param.copy_(kept[name])
    return same


def main():
    assert __version__ == "4.28.1"
    torch.set_num_threads(1)
    models = {name: kind.from_pretrained(HERE / "beam" / name).eval() for name, kind in MODELS.items()}
    for kind in ("groups", "words"):
        rng, lines = random.Random(f"beam/{kind}"), []
        while len(lines) < 40:
            name = list(MODELS)[len(lines) % 2]
            ids, options = draw(rng, kind, name)
            try:
                rows, scores = search(models[name], ids, options)
            except ValueError:  # more ends among the likeliest than this version can do with
                continue
            if min(scores) < -1e6 or not is_stable(models[name], ids, options, rows):
                continue
            entry = dict(model=name, input_ids=[ids], attention_mask=[[1] * len(ids)], options=options)
            lines.append(json.dumps(entry | dict(sequences=rows, scores=scores)))
        (HERE / "beam" / f"{kind}.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")
        print(kind, len(lines))


if __name__ == "__main__":
    main()

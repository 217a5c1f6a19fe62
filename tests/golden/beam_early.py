"""Writes tests/golden/beam/early.json: prompts over the models of `beam.py` for which a search that ends early, in either of
the reference's ways, finds something else than one that does not. Same form as beam.json.

    python beam_early.py
"""

import json
import random

from beam import HERE, IDS, MODELS, is_stable, search
from common import load, seed_of

# Where the end of a search matters: short answers are worth less than long ones, or more.
SETTINGS = [
    dict(num_beams=2, length_penalty=1.0),
    dict(num_beams=2, length_penalty=2.0),
    dict(num_beams=3, length_penalty=1.5),
]


def write():
    lines = []
    for name in MODELS:
        model = load(HERE / "beam" / name)
        rng = random.Random(seed_of(f"beam/early/{name}"))
        for settings in SETTINGS:
            for attempt in range(300):
                ids = [rng.randrange(23) for _ in range(rng.randrange(1, 7))]
                inputs = {"input_ids": [ids], "attention_mask": [[1] * len(ids)]}
                modes = [
                    IDS[name] | dict(max_new_tokens=16, early_stopping=early) | settings
                    for early in (False, True, "never")
                ]
                found = [search(model, inputs, options) for options in modes]
                rows = [rows for rows, _ in found]
                if rows[0] != rows[1] and rows[0] != rows[2] and all(
                    is_stable(model, inputs, options, ids) for options, ids in zip(modes, rows)
                ):
                    for options, (rows, scores) in zip(modes, found):
                        lines.append(json.dumps(dict(model=name) | inputs | dict(options=options, sequences=rows, scores=scores)))
                    print(name, settings, attempt)
                    break
            else:
                print(name, settings, "none")
    (HERE / "beam" / "early.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    write()

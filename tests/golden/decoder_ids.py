"""Writes decoder_ids.json: what the encoder-decoders of beam.py say behind given decoder_input_ids. One entry a line: `model`, `source`,
`decoder` (with or without the start), `options`, `ids` behind them.

    python decoder_ids.py
"""

import json
import random

import torch
from beam import IDS
from common import HERE, load
from transformers import GenerationConfig


@torch.no_grad()
def main():
    lines = []
    for name in ("bart", "marian", "t5"):
        model = load(HERE / "beam" / name)
        model.generation_config = GenerationConfig()
        for number in range(8):
            rng = random.Random(f"{name}/{number}")
            source = [rng.randrange(4, 22) for _ in range(rng.choice([2, 7]))]
            start = [IDS[name]["decoder_start_token_id"]]
            decoder = start * (number % 2) + [rng.randrange(4, 22) for _ in range(rng.choice([1, 3]))]
            options = IDS[name] | dict(max_new_tokens=7, num_beams=rng.choice([1, 3]))
            given = decoder if number % 2 else start + decoder
            out = model.generate(
                torch.tensor([source]),
                decoder_input_ids=torch.tensor([given]),
                generation_config=GenerationConfig(**options, do_sample=False),
            )
            ids = out[0, len(given) :].tolist()
            end = options["eos_token_id"]
            ids = ids[: ids.index(end) + 1] if end in ids else ids
            lines.append(json.dumps(dict(model=name, source=source, decoder=decoder, options=options, ids=ids)))
            print(lines[-1], flush=True)
    (HERE / "decoder_ids.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()

"""Writes contrastive.json: what contrastive search of transformers 4.28.1, the last version that has it in its tree, makes of
those models of beam.py that it computes as later versions do (not T5, whose results it scales, nor Marian with a head of
its own, nor grouped queries). One entry a line: `model`, `input_ids`, `options`, `ids` (no prompt, no start).

    python -m venv old && old/bin/pip install transformers==4.28.1 torch && old/bin/python contrastive.py
"""

import json
import random
from pathlib import Path

import torch
from transformers import (
    BartForConditionalGeneration,
    GPT2LMHeadModel,
    __version__,
)

HERE = Path(__file__).parent
MODELS = {
    "gpt2": GPT2LMHeadModel,
    "bart": BartForConditionalGeneration,
}


def main():
    assert __version__ == "4.28.1"
    entries = []
    for name, kind in MODELS.items():
        model = kind.from_pretrained(HERE / "beam" / name).eval()
        rng = random.Random(name)
        for case in range(40):
            ids = [rng.randrange(4, 22) for _ in range(rng.choice([1, 3, 7, 12]))]
            # Of 23 ids: with more to weigh the reference also takes some that are ruled out.
            alpha, k = rng.choice([0.1, 0.3, 0.6, 0.9]), rng.choice([2, 4, 8, 14])
            options = dict(penalty_alpha=alpha, top_k=k, max_new_tokens=12)
            if case % 3 == 0:
                options["repetition_penalty"] = 1.3
            if case % 5 == 1:
                options["no_repeat_ngram_size"] = 2
            # Most run on to the limit.
            if case % 4:
                options["min_new_tokens"] = 12
            with torch.no_grad():
                out = model.generate(torch.tensor([ids]), **options)[0].tolist()
            new = out[1:] if model.config.is_encoder_decoder else out[len(ids) :]
            entries.append(dict(model=name, input_ids=ids, options=options, ids=new))
            print(name, options, new)
    (HERE / "contrastive.json").write_text("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n")


if __name__ == "__main__":
    main()

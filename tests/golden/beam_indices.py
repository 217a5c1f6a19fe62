"""Writes tests/golden/beam/indices.json: `beam_indices` of transformers for the searches of beam.json, a list for each, `null`
without beams; for each sequence one index an id, counted within its prompt's beams.

    python beam_indices.py
"""

import json

import torch
from beam import HERE
from common import load
from transformers import GenerationConfig


@torch.no_grad()
def main():
    entries, models, found = json.loads((HERE / "beam" / "beam.json").read_text()), {}, []
    for entry in entries:
        name, options = entry["model"], entry["options"]
        models[name] = model = models.get(name) or load(HERE / "beam" / name)
        if options["num_beams"] == 1:
            found.append(None)
            continue
        model.generation_config = GenerationConfig()
        out = model.generate(
            torch.tensor(entry["input_ids"]),
            attention_mask=torch.tensor(entry["attention_mask"]),
            generation_config=GenerationConfig(**options, do_sample=False),
            return_dict_in_generate=True,
            output_scores=True,
        )
        found.append([[index % options["num_beams"] for index in row if index >= 0] for row in out.beam_indices.tolist()])
    (HERE / "beam" / "indices.json").write_text("[\n" + ",\n".join(map(json.dumps, found)) + "\n]\n")


if __name__ == "__main__":
    main()

"""Writes outputs.json: what `generate(return_dict_in_generate=True)` of transformers returns besides ids, for the models of
beam.py and one with latent attention. One case a line:

    model, input_ids, options
    sequences      the generated ids, and what was known of each of them, along the beams that it came from:
        ids, scores, logits [ids][vocabulary]; transitions: compute_transition_scores of the ids
        hidden_states [ids][layers + 1] and attentions, cross_attentions [ids][layers]: [shape, numbers]
        encoder_hidden_states [layers + 1], encoder_attentions [layers]

Numbers are rounded to six digits; scores that are ruled out are null.

    python outputs.py
"""

import json
import math
import random

import torch
from common import HERE, load, seed_of
from transformers import GenerationConfig

IDS = {
    "beam/t5": dict(eos_token_id=1, pad_token_id=0, decoder_start_token_id=0),
    "beam/bart": dict(eos_token_id=2, pad_token_id=1, decoder_start_token_id=2),
    "beam/marian": dict(eos_token_id=0, pad_token_id=22, decoder_start_token_id=22),
    "beam/gpt2": dict(eos_token_id=2, pad_token_id=3),
    "beam/llama": dict(eos_token_id=2, pad_token_id=3),
    "deepseek_v2/query_rank": dict(eos_token_id=None, pad_token_id=3),
}
CASES = [
    ("beam/gpt2", 5, dict(num_beams=1, repetition_penalty=1.3)),
    ("beam/llama", 1, dict(num_beams=1)),
    ("beam/t5", 3, dict(num_beams=1, no_repeat_ngram_size=2)),
    ("deepseek_v2/query_rank", 4, dict(num_beams=1)),
    ("beam/llama", 3, dict(num_beams=3, num_return_sequences=2)),
    ("beam/gpt2", 2, dict(num_beams=2, repetition_penalty=1.3)),
    ("beam/bart", 4, dict(num_beams=3)),
    ("beam/marian", 2, dict(num_beams=2, num_return_sequences=2, min_new_tokens=2)),
]


def number(x: float):
    return float(f"{x:.6g}") if math.isfinite(x) else None


def row(values: torch.Tensor) -> list:
    return [number(x) for x in values.tolist()]


def array(values: torch.Tensor) -> list:
    return [list(values.shape), row(values.flatten())]


@torch.no_grad()
def main():
    lines = []
    for case, (name, length, options) in enumerate(CASES):
        model, rng = load(HERE / name), random.Random(seed_of(f"outputs/{case}"))
        model.generation_config = GenerationConfig()
        ids = [rng.randrange(4, model.config.vocab_size - 1) for _ in range(length)]
        out = model.generate(
            torch.tensor([ids]),
            generation_config=GenerationConfig(**options, **IDS[name], max_new_tokens=3, do_sample=False),
            return_dict_in_generate=True,
            output_scores=True,
            output_logits=True,
            output_hidden_states=True,
            output_attentions=True,
        )
        encodes, beams = model.config.is_encoder_decoder, options["num_beams"] > 1
        paths = out.beam_indices if beams else torch.zeros(1, len(out.scores), dtype=torch.long)
        moves = model.compute_transition_scores(
            out.sequences, out.scores, out.beam_indices if beams else None, normalize_logits=not beams
        )
        states = out.decoder_hidden_states if encodes else out.hidden_states
        weights = out.decoder_attentions if encodes else out.attentions
        sequences = []
        for i, path in enumerate(paths.tolist()):
            path = path[: next((t for t, beam in enumerate(path) if beam < 0), len(path))]
            said = out.sequences[i, 1 if encodes else length :].tolist()[: len(path)]
            along = lambda steps: [[array(layer[beam]) for layer in steps[t]] for t, beam in enumerate(path)]
            entry = dict(
                ids=said,
                scores=[row(out.scores[t][beam]) for t, beam in enumerate(path)],
                logits=[row(out.logits[t][beam]) for t, beam in enumerate(path)],
                transitions=row(moves[i])[: len(path)],
                hidden_states=along(states),
                attentions=along(weights),
            )
            if encodes:
                entry["cross_attentions"] = along(out.cross_attentions)
                entry["encoder_hidden_states"] = [array(layer[0]) for layer in out.encoder_hidden_states]
                entry["encoder_attentions"] = [array(layer[0]) for layer in out.encoder_attentions]
            sequences.append(entry)
        settings = {key: value for key, value in (options | IDS[name]).items() if value is not None}
        settings |= dict(max_new_tokens=3)
        lines.append(json.dumps(dict(model=name, input_ids=ids, options=settings, sequences=sequences)))
        print(name, options, [entry["ids"] for entry in sequences])
    (HERE / "outputs.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()

"""Writes the fixtures of beam search: tests/golden/beam/.

    <model>/       tiny random models, t5 bart marian gpt2 llama, whose end is likelier than other ids
    beam.json      one entry a line: `model`; `input_ids` and `attention_mask` (decoders: padded on the left, the others
                   on the right; masked ids are random); `options`, all that `generate` was given, over the defaults of
                   GenerationConfig() alone; `sequences`, the generated ids (no prompt, no start, no filling; the end is
                   kept), num_return_sequences of them to each row, best first; `scores`, each one's sum of log p divided
                   by length^length_penalty (null: greedy)

Every entry stays what it is when the weights change in their fifth digit.

    python beam.py
"""

import json
import random

import torch
from common import HERE, base_config, load, make_inputs, new_model, save, seed_of
from transformers import GenerationConfig

MODELS = {
    "t5": dict(
        architectures=["T5ForConditionalGeneration"],
        vocab_size=23,
        feed_forward_proj="gated-gelu",
        num_layers=2,
        num_decoder_layers=2,
        scale_decoder_outputs=False,
    ),  # as many layers on either side, or the reference's cache is too short
    "bart": dict(architectures=["BartForConditionalGeneration"], vocab_size=23, forced_eos_token_id=None),
    "marian": dict(
        architectures=["MarianMTModel"],
        vocab_size=23,
        tie_word_embeddings=False,
        pad_token_id=22,
        decoder_start_token_id=22,
        forced_eos_token_id=None,
    ),
    "gpt2": dict(architectures=["GPT2LMHeadModel"], vocab_size=23, eos_token_id=2, tie_word_embeddings=False),
    "llama": dict(architectures=["LlamaForCausalLM"], vocab_size=23, eos_token_id=2),
}
# What each model ends, pads and starts with.
IDS = {
    "t5": dict(eos_token_id=1, pad_token_id=0, decoder_start_token_id=0),
    "bart": dict(eos_token_id=2, pad_token_id=1, decoder_start_token_id=2),
    "marian": dict(eos_token_id=0, pad_token_id=22, decoder_start_token_id=22),
    "gpt2": dict(eos_token_id=2, pad_token_id=3),
    "llama": dict(eos_token_id=2, pad_token_id=3),
}
TEN = dict(max_new_tokens=10)


def beams(count: int, **more) -> dict:
    return dict(num_beams=count) | TEN | more


# (model, kind of input, options, does an end come)
CASES = [
    *[(model, "right", beams(3), True) for model in ("t5", "bart", "marian")],
    *[(model, "left", beams(3), True) for model in ("gpt2", "llama")],
    *[(model, "right", TEN | dict(num_beams=1), None) for model in ("t5", "bart", "marian")],
    ("bart", "right", beams(1, repetition_penalty=1.7, no_repeat_ngram_size=2), None),
    ("marian", "plain", beams(1, forced_bos_token_id=5, forced_eos_token_id=0), None),
    *[("t5", "right", beams(4, length_penalty=p), None) for p in (0.0, 0.6, 2.0, -1.0)],
    *[("gpt2", "left", beams(4, length_penalty=p), None) for p in (0.0, 0.6, 2.0, -0.5)],
    *[("bart", "right", beams(3, early_stopping=early), True) for early in (True, "never")],
    *[("llama", "left", beams(5, early_stopping=early, length_penalty=0.6), True) for early in (False, True, "never")],
    *[("marian", "right", beams(2, early_stopping="never", length_penalty=p), None) for p in (0.0, 1.0, -1.0)],
    ("t5", "right", beams(4, num_return_sequences=4), True),
    ("bart", "plain", beams(5, num_return_sequences=3, early_stopping=True), True),
    ("llama", "left", beams(3, num_return_sequences=2, length_penalty=2.0, early_stopping="never"), True),
    ("marian", "right", beams(3, num_return_sequences=3), None),
    ("gpt2", "plain", beams(4, num_return_sequences=4, early_stopping=True, length_penalty=0.0), True),
    ("t5", "right", beams(3, min_new_tokens=5), True),
    ("bart", "right", beams(2, min_new_tokens=6, length_penalty=0.0), None),
    ("llama", "left", beams(4, min_new_tokens=4, early_stopping=True), None),
    ("gpt2", "left", beams(3, max_new_tokens=1), None),
    ("t5", "right", beams(3, max_new_tokens=2, num_return_sequences=2), None),
    ("llama", "left", beams(3, eos_token_id=None), False),
    ("bart", "right", beams(4, eos_token_id=None, num_return_sequences=2), False),
    ("gpt2", "left", beams(3, eos_token_id=[2, 7, 11]), True),
    ("marian", "right", beams(2, eos_token_id=[0, 5], num_return_sequences=2), True),
    ("bart", "right", beams(4, forced_bos_token_id=7, forced_eos_token_id=2, min_new_tokens=3), None),
    ("marian", "right", beams(4, forced_eos_token_id=0, max_new_tokens=5), None),
    ("t5", "right", beams(3, no_repeat_ngram_size=2, eos_token_id=None), False),
    ("llama", "left", beams(3, no_repeat_ngram_size=1), None),
    ("bart", "right", beams(3, repetition_penalty=1.4), None),
    ("gpt2", "left", beams(4, repetition_penalty=0.7, num_return_sequences=2), None),
    ("marian", "right", beams(5, repetition_penalty=2.0, no_repeat_ngram_size=3, length_penalty=0.6), None),
    ("t5", "one", beams(2), None),
    ("llama", "one", beams(5, num_return_sequences=5), None),
    ("gpt2", "left", beams(2, max_new_tokens=14, early_stopping=True), None),
]


@torch.no_grad()
def make_model(name: str):
    """Drawn again until of thirty prompts some end within ten ids, others do not, and some say many ids."""
    config, end = base_config(name) | MODELS[name], IDS[name]["eos_token_id"]
    rng, prompts = torch.Generator().manual_seed(seed_of(name)), random.Random(seed_of(name))
    options = IDS[name] | TEN | dict(num_beams=1)
    inputs = {"input_ids": [[prompts.randrange(23) for _ in range(6)] for _ in range(30)]}
    inputs["attention_mask"] = [[1] * 6] * 30
    for attempt in range(500):
        model = new_model(config, seed_of(f"beam/{name}/{attempt}"))
        if name == "t5":  # a head of its own: a tied one mostly repeats what it reads
            model.lm_head.weight = torch.nn.Parameter(torch.randn(model.lm_head.weight.shape, generator=rng) * 0.5)
        if name == "bart":  # its tied one would too, were the positions not louder than the ids
            model.model.shared.weight.mul_(0.4)
            model.model.decoder.layers[-1].final_layer_norm.weight.mul_(3.0)
        model.get_output_embeddings().weight[end] *= 1.4
        rows = search(model, inputs, options)[0]
        if 6 <= sum(row[-1] == end for row in rows) <= 20 and sum(len(set(row)) > 4 for row in rows) >= 8:
            print(f"{name}: model {attempt}")
            return save(model, HERE / "beam" / name)
    raise RuntimeError(f"{name}: no end to be had")


@torch.no_grad()
def search(model, inputs: dict, options: dict) -> tuple[list, list | None]:
    """The generated ids, cut to each one's own length, and their scores."""
    tensors = {name: torch.tensor(rows) for name, rows in inputs.items()}
    model.generation_config = GenerationConfig()  # what the options leave out would come from here
    out = model.generate(
        **tensors,
        generation_config=GenerationConfig(**options, do_sample=False),
        return_dict_in_generate=True,
        output_scores=True,
    )
    prompt = 1 if model.config.is_encoder_decoder else tensors["input_ids"].shape[1]
    rows = out.sequences[:, prompt:].tolist()
    ends = options["eos_token_id"]
    ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
    if options["num_beams"] > 1:
        lengths = (out.beam_indices >= 0).sum(dim=1).tolist()
        return [row[:length] for row, length in zip(rows, lengths)], out.sequences_scores.tolist()
    cuts = [next((t + 1 for t, token in enumerate(row) if token in ends), len(row)) for row in rows]
    return [row[:cut] for row, cut in zip(rows, cuts)], None


@torch.no_grad()
def is_stable(model, inputs: dict, options: dict, found: list) -> bool:
    kept, rng = {name: param.clone() for name, param in model.named_parameters()}, torch.Generator().manual_seed(2)
    same = True
    for _ in range(4):
        for param in model.parameters():
            param.mul_(1 + 1e-5 * torch.randn(param.shape, generator=rng))
        same &= search(model, inputs, options)[0] == found
        for name, param in model.named_parameters():
            param.copy_(kept[name])
    return same


def write():
    for name in MODELS:
        make_model(name)
    models, lines = {name: load(HERE / "beam" / name) for name in MODELS}, []
    for number, (name, kind, options, ending) in enumerate(CASES):
        model, options = models[name], IDS[name] | options
        rng = random.Random(seed_of(f"beam/{number}"))
        ends = options["eos_token_id"]
        ends = ends if isinstance(ends, list) else [ends]
        for attempt in range(400):
            inputs = make_inputs(kind, 23, rng, 6)
            rows, scores = search(model, inputs, options)
            ended = [row[-1] in ends for row in rows]
            varied = max(len(set(row)) for row in rows) >= min(4, options["max_new_tokens"])
            wanted = ending is None or any(ended) == ending
            if wanted and varied and is_stable(model, inputs, options, rows):
                break
        else:
            raise RuntimeError(f"no input for case {number}: {name} {options}")
        if options["num_beams"] > 1:
            greedy = search(model, inputs, options | dict(num_beams=1, num_return_sequences=1))[0]
            differs = sum(a != b for a, b in zip(greedy, rows[:: options.get("num_return_sequences", 1)]))
        entry = dict(model=name) | inputs | dict(options=options, sequences=rows, scores=scores)
        lines.append(json.dumps(entry))
        note = f"{differs} of {len(greedy)} rows differ from greedy" if options["num_beams"] > 1 else "greedy"
        print(
            f"{number:2} {name:7} {kind:6} ended {sum(ended)}/{len(rows)} {note}; {attempt} tries; {sorted(map(len, rows))}"
        )
    (HERE / "beam" / "beam.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    write()

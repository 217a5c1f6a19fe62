"""Writes samplers.json: logits before and after those samplers of llama.cpp that transformers has no processor for, in the form of
processors.json. XTC always acts here (its probability is 1); `then` is what comes of mirostat 2 in further steps: each
with the id that llama.cpp drew in the step before.

    python samplers.py

Needs llama-cpp-python 0.3.36.
"""

import ctypes
import json
import random
from pathlib import Path

from llama_cpp import llama_cpp as lib

HERE = Path(__file__).parent
VOCAB = 24
PROMPT, NEW = [3, 7, 7, 21, 0], [11, 3]


def f32(x: float) -> float:
    return ctypes.c_float(x).value


def apply(sampler, logits: list) -> tuple[list, int | None]:
    """The logits that remain, null where an id is ruled out, and the id that was drawn, if one was."""
    data = (lib.llama_token_data * len(logits))(*[(i, x, 0.0) for i, x in enumerate(logits)])
    array = lib.llama_token_data_array(data=data, size=len(logits), selected=-1, sorted=False)
    lib.llama_sampler_apply(sampler, ctypes.byref(array))
    after = [None] * len(logits)
    for i in range(array.size):
        after[array.data[i].id] = array.data[i].logit
    return after, array.data[array.selected].id if array.selected >= 0 else None


def make(kind: str, s: dict, ids: list):
    if kind == "xtc":
        return lib.llama_sampler_init_xtc(s["xtc_probability"], s["xtc_threshold"], 1, 1)
    if kind == "dynatemp":
        return lib.llama_sampler_init_temp_ext(s["temperature"], s["dynatemp_range"], s["dynatemp_exponent"])
    if kind == "mirostat":
        return lib.llama_sampler_init_mirostat_v2(7, s["mirostat_tau"], s["mirostat_eta"])
    sampler = lib.llama_sampler_init_dry(
        None, s["dry_multiplier"], s["dry_base"], s["dry_allowed_length"], s["dry_penalty_last_n"], None, 0
    )
    for token in ids:
        lib.llama_sampler_accept(sampler, token)
    return sampler


def draw(kind: str, rng: random.Random) -> dict:
    drawn = dict(do_sample=True, top_k=0)
    if kind == "xtc":
        return drawn | dict(xtc_probability=1.0, xtc_threshold=rng.choice([0.0, 0.01, 0.03, 0.1, 0.3, 0.6]))
    if kind == "dynatemp":
        settings = dict(temperature=rng.choice([0.4, 1.0, 1.5]), dynatemp_range=rng.choice([0.2, 0.5, 1.2]))
        return drawn | settings | dict(dynatemp_exponent=rng.choice([0.5, 1.0, 2.0]))
    if kind == "mirostat":
        return drawn | dict(mirostat=2, mirostat_tau=rng.choice([1.0, 2.0, 3.0]), mirostat_eta=rng.choice([0.1, 0.5]))
    return dict(
        dry_multiplier=rng.choice([0.8, 2.0]),
        dry_base=rng.choice([1.0, 1.75, 3.0]),
        dry_allowed_length=rng.choice([0, 1, 2, 3]),
        dry_penalty_last_n=rng.choice([1000, 1000, 12, 3]),
    )


def main():
    entries = []
    for kind in ("xtc", "dynatemp", "mirostat", "dry"):
        for number in range(12 if kind == "dry" else 6):
            rng = random.Random(f"{kind}/{number}")
            settings = draw(kind, rng)
            new = [rng.randrange(3) for _ in range(rng.choice([0, 1, 9, 40]))] if kind == "dry" else NEW
            if kind == "dry" and number == 1:
                new = [5] * 200  # so long a run that the power is as large as it may become
            logits = [f32(rng.gauss(0, 2.5)) for _ in range(VOCAB)]
            if kind == "dry" and number == 1:
                settings |= dict(dry_base=1.75, dry_penalty_last_n=1000)
            sampler = make(kind, settings, PROMPT + new)
            expected, drawn = apply(sampler, logits)
            entry = dict(name=f"{kind}_{number}", settings=settings, prompt=PROMPT, new=new, source=None)
            entry |= dict(logits=logits, expected=expected)
            if kind == "mirostat":
                entry["then"] = []
                for _ in range(5):
                    logits = [f32(rng.gauss(0, 2.5)) for _ in range(VOCAB)]
                    step = dict(drawn=drawn, logits=logits)
                    step["expected"], drawn = apply(sampler, logits)
                    entry["then"].append(step)
            entries.append(entry)
            lib.llama_sampler_free(sampler)
            print(entry["name"], settings, sum(x is not None for x in expected))
    (HERE / "samplers.json").write_text("[\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]\n")


if __name__ == "__main__":
    main()

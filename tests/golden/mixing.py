"""Writes tests/golden/mixing/: continuations whose logits are mixed from more than one distribution.

    untied/, tied/, small/  tiny random decoders of 23 ids; the first two have 7 layers
    mixing.json             one entry a line: `kind`, `model`, `prompt`, `settings`, `negative` (guidance; null: none given), `ids`

Guidance is `generate` with guidance_scale. DoLa is transformers 4.49.0, the last version whose tree has it: its choice of a layer and
its filter are taken from its wheel, the states from this version's models. Contrastive decoding has no implementation in
transformers; it is computed from the papers' equations in f64.

    pip download --no-deps transformers==4.49.0 && python mixing.py transformers-4.49.0-py3-none-any.whl
"""

import ast
import json
import random
import sys
import zipfile

import numpy
import torch
from common import HERE, base_config, load, new_model, save, seed_of
from transformers import GenerationConfig

FOLDER = HERE / "mixing"
MODELS = {
    "untied": ("llama", dict(num_hidden_layers=7, hidden_size=16, intermediate_size=24, tie_word_embeddings=False)),
    "tied": ("qwen2", dict(num_hidden_layers=7, hidden_size=16, intermediate_size=24, tie_word_embeddings=True)),
    "small": ("llama", dict(num_hidden_layers=1, hidden_size=16, intermediate_size=16, tie_word_embeddings=False)),
}
SMALL = dict(vocab_size=23, num_attention_heads=2, num_key_value_heads=1, head_dim=8, eos_token_id=2, max_position_embeddings=64)
NEW = 10


def functions_of(wheel: str) -> dict:
    """_dola_select_contrast and what it calls."""
    tree = ast.parse(zipfile.ZipFile(wheel).read("transformers/generation/utils.py"))
    wanted = ("_relative_top_filter", "_dola_select_contrast")
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in wanted]
    names = dict(torch=torch, np=numpy, F=torch.nn.functional, List=list, Dict=dict)
    exec(compile(tree, wheel, "exec"), names)
    return names


def candidates(layers, count: int, tied: bool) -> list:
    if isinstance(layers, list):
        return layers
    first = 0 if not tied else 2 if count > 2 else 1 if count == 2 else 0
    if layers == "low":
        return [first] if first == count // 2 else list(range(first, count // 2, 2))
    return list(range(count // 2, count, 2))


def continued(ids: list, scores) -> list:
    """Greedily, by a function from ids to scores."""
    new = []
    while len(new) < NEW and (not new or new[-1] != 2):
        new.append(int(scores(ids + new).argmax()))
    return new


def dola(model, functions: dict, layers, ids: list) -> torch.Tensor:
    out = model(torch.tensor([ids]), output_hidden_states=True)
    early = candidates(layers, model.config.num_hidden_layers, model.config.tie_word_embeddings)
    head = model.get_output_embeddings()
    early = {i: head(out.hidden_states[i][:, -1]) for i in early}
    return functions["_dola_select_contrast"](list(early), early, out.logits[:, -1].clone())[0]


def contrastive(model, amateur, alpha: float, beta: float | None, temperature: float, ids: list) -> torch.Tensor:
    def log_probabilities(model, temperature):
        return (model(torch.tensor([ids])).logits[0, -1].double() / temperature).log_softmax(-1)

    p, q = log_probabilities(model, 1.0), log_probabilities(amateur, temperature)
    score = p - q if beta is None else (1 + beta) * p - beta * q
    return score.masked_fill(p < p.max() + numpy.log(alpha), -torch.inf)


@torch.no_grad()
def is_stable(models: dict, answer, found: list) -> bool:
    """Whether the ids stay what they are when the weights change in their fifth digit."""
    rng, same = torch.Generator().manual_seed(2), True
    kept = [(param, param.clone()) for model in models.values() for param in model.parameters()]
    for _ in range(2):
        for param, _ in kept:
            param.mul_(1 + 1e-5 * torch.randn(param.shape, generator=rng))
        same &= answer() == found
        for param, before in kept:
            param.copy_(before)
    return same


@torch.no_grad()
def main():
    functions, lines = functions_of(sys.argv[1]), []
    for name, (family, config) in MODELS.items():
        model = new_model(base_config(family) | SMALL | config, seed_of(f"mixing/{name}"))
        save(model, FOLDER / name)
    models = {name: load(FOLDER / name) for name in MODELS}
    for model in models.values():
        model.generation_config = GenerationConfig()
    for number in range(60):
        rng = random.Random(seed_of(f"mixing/{number}"))
        kind, name = ("guidance", "dola", "contrast")[number % 3], ("untied", "tied")[number // 3 % 2]
        model = models[name]
        for _ in range(50):
            ids = [rng.randrange(3, 23) for _ in range(rng.choice([1, 3, 9]))]
            settings, negative = dict(max_new_tokens=NEW, eos_token_id=2), None
            if kind == "guidance":
                settings["guidance_scale"] = rng.choice([0.0, 0.5, 1.5, 3.0, -1.0])
                if rng.random() < 0.7:
                    negative = [rng.randrange(3, 23) for _ in range(rng.choice([1, 2, 6]))]
                if rng.random() < 0.4:
                    settings["repetition_penalty"] = 1.3
                options = GenerationConfig(**settings, pad_token_id=1, do_sample=False)

                def answer():
                    given = None if negative is None else torch.tensor([negative])
                    out = model.generate(torch.tensor([ids]), generation_config=options, negative_prompt_ids=given)
                    return out[0, len(ids) :].tolist()
            elif kind == "dola":
                settings["dola_layers"] = rng.choice(["low", "high", [1, 3], [4], [0, 2, 5]])

                def answer():
                    return continued(ids, lambda text: dola(model, functions, settings["dola_layers"], text))
            else:
                settings |= dict(contrastive_alpha=rng.choice([0.01, 0.1, 0.4]), amateur_temperature=rng.choice([0.5, 1.0]))
                if rng.random() < 0.5:
                    settings["contrastive_beta"] = rng.choice([0.25, 0.5, 2.0])

                def answer():
                    said = (settings["contrastive_alpha"], settings.get("contrastive_beta"), settings["amateur_temperature"])
                    return continued(ids, lambda text: contrastive(model, models["small"], *said, text))

            found = answer()
            if len(set(found)) >= 3 and is_stable(models, answer, found):
                break
        else:
            raise RuntimeError(f"no prompt for case {number}: {kind} {settings}")
        entry = dict(kind=kind, model=name, prompt=ids, settings=settings, negative=negative, ids=found)
        lines.append(json.dumps(entry))
        print(lines[-1], flush=True)
    (FOLDER / "mixing.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()

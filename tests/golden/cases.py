"""Fixtures of the families that are not plain decoders: one case, its inputs and how it is written.

encoder.py, seq2seq.py, moe.py and transformer2017.py hold tables of these cases. Each folder is checked once written:
what transformers answers after loading it must be what the model answered before it was saved.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from common import (
    ENCODERS,
    EXPERTS,
    HERE,
    base_config,
    load_file,
    make_inputs,
    new_model,
    outputs,
    reference,
    relative_error,
    save,
    save_file,
    seed_of,
)


@dataclass
class Case:
    """One folder. `raw` keeps the config as written here, otherwise transformers writes it."""

    name: str
    head: str | None  # the class, as `architectures` names it
    inputs: str  # a kind of `make_inputs`
    config: dict = field(default_factory=dict)
    decoder: str | None = None  # a kind for the decoder's rows; None: there are no decoder_input_ids
    length: int = 7
    target: int = 5  # ids in a decoder's row
    types: bool = False  # token_type_ids
    pads: bool = False  # masked ids are the pad id; otherwise they are random
    ends: bool = False  # the last id that counts in each row is the end
    choices: int = 0
    pooler: bool = True
    raw: bool = False
    drop: tuple = ()
    edit: Callable[[dict], dict] | None = None  # a change of the tensors in the file that changes no value
    change: Callable | None = None  # a change of the model before it is saved
    dtype: torch.dtype | None = None


def choose_types(rows: list, count: int, rng: random.Random) -> list:
    """Two texts in a row: types rise along it. The last type occurs in the first row."""
    cuts = [sorted(rng.randrange(1, len(row) + 1) for _ in range(count - 1)) for row in rows]
    if len(rows[0]) > 1:
        cuts[0] = [len(rows[0]) - count + 1 + n for n in range(count - 1)]
    return [[sum(t >= at for at in cut) for t in range(len(row))] for row, cut in zip(rows, cuts)]


def holes(rows: list, rng: random.Random) -> list:
    """A mask with ids left out anywhere but first."""
    mask = [[1] + [int(rng.random() < 0.7) for _ in row[1:]] for row in rows]
    mask[0][len(mask[0]) // 2] = 0
    return mask


def case_inputs(case: Case, config: dict, rng: random.Random) -> dict:
    vocab, pad = config["vocab_size"], config.get("pad_token_id")
    kind = "right" if case.inputs == "holes" else case.inputs
    if case.choices:
        inputs = {"input_ids": [[rng.randrange(vocab) for _ in range(case.length)] for _ in range(2 * case.choices)]}
        if kind != "bare":
            lengths = [max(case.length - rng.randrange(4), 1) for _ in inputs["input_ids"]]
            inputs["attention_mask"] = [[int(t < n) for t in range(case.length)] for n in lengths]
        inputs["num_choices"] = case.choices
    else:
        inputs = make_inputs(kind, vocab, rng, case.length)
    rows = inputs["input_ids"]
    if case.inputs == "holes":
        inputs["attention_mask"] = holes(rows, rng)
    mask = inputs.get("attention_mask", [[1] * len(row) for row in rows])
    if case.ends:  # one end in each row
        end = config["eos_token_id"]
        for row, keep in zip(rows, mask):
            row[:] = [token if token != end else end + 1 for token in row]
            row[max(t for t, kept in enumerate(keep) if kept)] = end
    if case.pads:
        rows[:] = [[token if kept else pad for token, kept in zip(*pair)] for pair in zip(rows, mask)]
    if case.types:
        inputs["token_type_ids"] = choose_types(rows, config.get("type_vocab_size", 2), rng)
    if case.decoder:
        kind = "right" if case.decoder == "holes" else case.decoder
        vocab = config.get("target_vocab_size") or config.get("decoder_vocab_size") or vocab
        targets = make_inputs(kind, vocab, rng, case.target)
        ids, count = targets["input_ids"], len(rows)
        while len(ids) < count:
            ids.append([rng.randrange(vocab) for _ in ids[0]])
        inputs["decoder_input_ids"] = ids[:count]
        for row in inputs["decoder_input_ids"]:
            row[0] = config["decoder_start_token_id"]
        keep = targets.get("attention_mask")
        if case.decoder == "holes":
            keep = holes(ids[:count], rng)
        if keep:
            inputs["decoder_attention_mask"] = (keep + [[1] * len(ids[0])] * count)[:count]
    return inputs


def row_mask(name: str, inputs: dict) -> list | None:
    """Which positions of an output count: those of its own side that are not masked. None: it has no positions."""
    encoder = name.startswith("encoder_") or "decoder_input_ids" not in inputs
    if name in ("pooler_output", "seq_relationship_logits"):
        return None
    return inputs.get("attention_mask" if encoder else "decoder_attention_mask")


def largest_error(ours: dict, theirs: dict, inputs: dict) -> tuple[float, str]:
    """Over all outputs, and the name of the worst. Outputs without a time dimension are compared whole."""
    assert ours.keys() == theirs.keys(), (sorted(ours), sorted(theirs))
    worst = (0.0, "")
    for name, tensor in theirs.items():
        mask = row_mask(name, inputs)
        if mask is not None and list(tensor.shape[:2]) != [len(mask), len(mask[0])]:
            mask = None
        worst = max(worst, (relative_error(ours[name].float(), tensor.float(), mask), name))
    return worst


@torch.no_grad()
def is_stable(model, inputs: dict) -> bool:
    """No router is near a tie: a change of the weights in the fifth digit sends no token elsewhere."""
    before, kept = outputs(model, inputs), {name: param.clone() for name, param in model.named_parameters()}
    rng, worst = torch.Generator().manual_seed(1), 0.0
    for _ in range(4):
        for param in model.parameters():
            param.mul_(1 + 1e-5 * torch.randn(param.shape, generator=rng))
        worst = max(worst, largest_error(outputs(model, inputs), before, inputs)[0])
        for name, param in model.named_parameters():
            param.copy_(kept[name])
    return worst < 1e-3


def write(family: str, case: Case):
    name = f"{family}/{case.name}"
    folder, rng = HERE / family / case.name, random.Random(seed_of(name))
    config = {key: value for key, value in (base_config(family) | case.config).items() if key not in case.drop}
    if case.head:
        config["architectures"] = [case.head]
    inputs = case_inputs(case, config, rng)
    options = {} if case.pooler else {"add_pooling_layer": False}
    for seed in range(seed_of(name), seed_of(name) + 50):
        model = new_model(config, seed, **options)
        if case.change:
            case.change(model, seed)
        if case.dtype:
            model.load_state_dict({name: tensor.to(case.dtype).float() for name, tensor in model.state_dict().items()})
        if family not in EXPERTS or is_stable(model, inputs):
            break
    before = outputs(model, inputs)
    save(model.to(case.dtype or torch.float32), folder, config if case.raw else None)
    if case.edit:
        path = folder / "model.safetensors"
        save_file(case.edit(load_file(path)), path, metadata={"format": "pt"})
    (folder / "inputs.json").write_text(json.dumps(inputs) + "\n")
    expected = reference(folder, inputs)
    assert all(torch.isfinite(tensor).all() for tensor in expected.values()), name
    save_file(expected, folder / "expected.safetensors")
    error, worst = largest_error(before, expected, inputs)
    assert error < 1e-5, (name, worst, error)
    if family in ENCODERS and "attention_mask" in inputs:  # what is pooled must count
        assert "left" not in case.inputs or not {"pooler_output", "start_logits"} & expected.keys(), name
    size = sum(path.stat().st_size for path in folder.iterdir())
    spread = " ".join(f"{key} {expected[key].std():.2f}" for key in expected if "logits" in key)
    print(f"{name:45} {size / 1e3:6.1f} kB  {case.head or '':35} {spread}")
    assert size <= 60_000, f"{name} is too large: {size}"

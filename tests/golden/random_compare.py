"""Compares a `phyla` binary with transformers on random tiny models (not a fixture: needs torch and a build).

    python random_compare.py llama --phyla target/release/phyla --count 50      logits and hidden states
    python random_compare.py llama --phyla … --greedy                           64 greedy ids, left-padded batch
    python random_compare.py llama --phyla … --round-trip                       `phyla init` opened by transformers
    python random_compare.py deberta-v2 --phyla …                               any other family, with any of its heads
    python random_compare.py --phyla … --folder DIR                             any folder that phyla has saved

inputs.json goes to `phyla forward --ids`; it writes every output under transformers' name (README.md). A family without
decoder has no --greedy; with an encoder, `phyla generate --ids` is given the source.

Prints the largest relative error (max|a-b| / max|b| over unmasked positions) of each case and of all; exits with 1 when
one is above 2e-5. Folders of failed cases are kept.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from cases import case_inputs, is_stable, row_mask
from common import (
    ENCODERS,
    EXPERTS,
    FAMILIES,
    SEQ2SEQ,
    load,
    load_file,
    make_inputs,
    new_model,
    reference,
    relative_error,
    save,
)
from random_configs import KINDS, random_case, random_config

LIMIT = 2e-5
NEW = 64
TIE = 1e-4  # two logits closer than this may swap by rounding


def phyla(binary: str, *args) -> str:
    done = subprocess.run([binary, *map(str, args)], capture_output=True, text=True)
    if done.returncode != 0:
        lines = (done.stderr.strip() or "no message").splitlines()
        raise RuntimeError(f"phyla {args[0]} exits with {done.returncode}: {' | '.join(lines[-3:])}")
    return done.stdout


def random_inputs(vocab: int, rng: random.Random, kinds=KINDS) -> tuple[str, dict]:
    kind, length = rng.choice(kinds), rng.randrange(3, 15)
    inputs = make_inputs("right" if kind == "holes" else kind, vocab, rng, length)
    if kind == "holes":  # masked ids anywhere but first
        inputs["attention_mask"] = [[1] + [int(rng.random() < 0.7) for _ in row[1:]] for row in inputs["input_ids"]]
    return kind, inputs


def compare_forward(binary: str, folder: Path, inputs: dict) -> tuple[float, str]:
    """The largest error of one `phyla forward`, and the tensor that has it."""
    (folder / "inputs.json").write_text(json.dumps(inputs))
    out = folder / "out.safetensors"
    paths = ("--model", folder, "--ids", folder / "inputs.json", "--output", out)
    phyla(binary, "forward", *paths, "--dtype", "f32", "--hidden-states")
    ours, theirs = load_file(out), reference(folder, inputs)
    if missing := sorted(theirs.keys() - ours.keys()):
        raise RuntimeError(f"phyla forward wrote no {missing}, only {sorted(ours)}")
    errors = []
    for name, tensor in theirs.items():
        mask = row_mask(name, inputs)
        if mask is not None and list(tensor.shape[:2]) != [len(mask), len(mask[0])]:
            mask = None
        errors.append((relative_error(ours[name].float(), tensor, mask), name))
    return max(errors)


def draw(family: str, rng: random.Random, **sizes):
    """A config, inputs for it, what is said about them, options of the class, and a change of the new model."""
    if family in ENCODERS + SEQ2SEQ:
        case = random_case(family, rng, longest=32)
        config = case.config | ({"architectures": [case.head]} if case.head else {})
        kind = f"{case.inputs}/{case.decoder}" if case.decoder else case.inputs
        options = {} if case.pooler else {"add_pooling_layer": False}
        return config, case_inputs(case, config, rng), kind, options, case.change
    config = random_config(family, rng, longest=32, **sizes)
    kind, inputs = random_inputs(config["vocab_size"], rng)
    return config, inputs, kind, {}, None


def forward_case(args, rng: random.Random, folder: Path) -> tuple[float, str]:
    config, inputs, kind, options, change = draw(args.family, rng)
    for _ in range(20):
        seed = rng.randrange(2**31)
        model = new_model(config, seed, **options)
        if change:
            change(model, seed)
        if args.family not in EXPERTS or is_stable(model, inputs):
            break
    keep_spelling = rng.random() < 0.7
    save(model, folder, config if keep_spelling else None)
    error, name = compare_forward(args.phyla, folder, inputs)
    return error, f"{kind:15} {name:20} {summary(config)}"


def round_trip_case(args, rng: random.Random, folder: Path) -> tuple[float, str]:
    config, inputs, kind, _, _ = draw(args.family, rng)
    source = folder.with_suffix(".json")
    source.write_text(json.dumps(config))
    shutil.rmtree(folder, ignore_errors=True)
    dtype = rng.choice(["f32", "bf16"])
    phyla(args.phyla, "init", "--config", source, "--output", folder, "--seed", rng.randrange(1000), "--dtype", dtype)
    source.unlink()
    error, name = compare_forward(args.phyla, folder, inputs)  # `load` insists on every weight
    return error, f"{kind:15} {name:20} {dtype} {summary(config)}"


@torch.no_grad()
def greedy_case(args, rng: random.Random, folder: Path) -> tuple[float, str]:
    """0 when each row of a padded batch of transformers equals what phyla says to that prompt alone."""
    encoded, special = args.family in SEQ2SEQ, {}
    if encoded:
        case = random_case(args.family, rng, longest=NEW + 16)
        while not (case.head or "").endswith(("Generation", "MTModel")):
            case = random_case(args.family, rng, longest=NEW + 16)
        config = case.config | dict(architectures=[case.head], eos_token_id=None, forced_eos_token_id=None)
        if args.family.endswith("t5"):
            config["num_decoder_layers"] = None  # the reference's cache counts the encoder's layers
        special = dict(decoder_start_token_id=config["decoder_start_token_id"])
    else:
        config = random_config(args.family, rng, longest=NEW + 16, long_context=True)
    model = new_model(config, rng.randrange(2**31))
    if encoded and case.change:
        case.change(model, rng.randrange(2**31))
    save(model, folder, config)
    # Positions of an encoder count from the row's first id, padding or not.
    _, inputs = random_inputs(config["vocab_size"], rng, ["right" if encoded else "left"])
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    out = load(folder).generate(
        torch.tensor(ids),
        attention_mask=torch.tensor(mask),
        max_new_tokens=NEW,
        do_sample=False,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
        **special,
    )
    theirs = out.sequences[:, 1 if encoded else len(ids[0]) :].tolist()
    top = torch.stack(out.logits, dim=1).topk(2, dim=-1).values
    leads = (top[..., 0] - top[..., 1]) / top[..., 0].abs()
    for row, (tokens, keep) in enumerate(zip(ids, mask)):
        prompt = ",".join(str(token) for token, kept in zip(tokens, keep) if kept)
        options = ("--temperature", 0, "--max-new-tokens", NEW, "--dtype", "f32", "--json")
        said = phyla(args.phyla, "generate", "--model", folder, "--ids", prompt, *options)
        ours = json.loads(said)["sequences"][0]["ids"]
        if ours != theirs[row]:
            at = next((n for n, (a, b) in enumerate(zip(ours, theirs[row])) if a != b), min(len(ours), NEW))
            alone = load(folder).generate(
                torch.tensor([[token for token, kept in zip(tokens, keep) if kept]]),
                attention_mask=torch.ones(1, sum(keep), dtype=torch.long),
                max_new_tokens=NEW,
                do_sample=False,
                pad_token_id=0,
                **special,
            )
            if alone[0, -NEW:].tolist() != theirs[row]:  # a router near a tie
                return 0.0, f"the reference itself says otherwise to row {row} alone; {summary(config)}"
            if len(ours) == NEW and leads[row, at] < TIE:
                return 0.0, f"a tie at id {at} of row {row} ({leads[row, at]:.1e}); {summary(config)}"
            return 1.0, f"row {row} differs from id {at} on (lead {leads[row, at]:.1e}); {summary(config)}"
    return 0.0, summary(config)


def folder_case(args, rng: random.Random, folder: Path) -> tuple[float, str]:
    shutil.copytree(args.folder, folder, dirs_exist_ok=True)
    vocab = json.loads((folder / "config.json").read_text())["vocab_size"]
    kind, inputs = random_inputs(vocab, rng)
    error, name = compare_forward(args.phyla, folder, inputs)
    return error, f"{kind:15} {name}"


def summary(config: dict) -> str:
    dull = {"model_type", "bos_token_id", "eos_token_id", "pad_token_id"}
    return " ".join(f"{key}={value}" for key, value in config.items() if key not in dull)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", nargs="?", choices=FAMILIES + EXPERTS + ENCODERS + SEQ2SEQ)
    parser.add_argument("--phyla", required=True, help="path of the binary")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this case number alone")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--greedy", action="store_true")
    mode.add_argument("--round-trip", action="store_true")
    mode.add_argument("--folder", type=Path)
    args = parser.parse_args()
    if not args.family and not args.folder:
        parser.error("name a family or a --folder")
    if args.greedy and args.family in [*ENCODERS, "transformer"]:
        parser.error(f"the reference does not generate with {args.family}")
    run = (
        greedy_case
        if args.greedy
        else round_trip_case
        if args.round_trip
        else folder_case
        if args.folder
        else forward_case
    )
    root, worst, failed = Path(tempfile.mkdtemp(prefix="phyla-compare-")), 0.0, 0
    for number in range(args.count) if args.only is None else [args.only]:
        rng = random.Random(f"{args.seed}/{args.family}/{number}")
        folder = root / str(number)
        try:
            error, text = run(args, rng, folder)
        except (RuntimeError, OSError, ValueError, KeyError) as problem:
            error, text = float("inf"), str(problem)
        worst = max(worst, error)
        if error <= LIMIT:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            failed += 1
            text += f"  [{folder}]"
        print(f"{number:3} {'ok  ' if error <= LIMIT else 'FAIL'} {error:8.1e}  {text}", flush=True)
    print(f"worst {worst:.1e}, {failed} above {LIMIT:g}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

"""Fixtures of prompts and prefixes: what peft 0.21 computes behind random ones, and ten losses of training them.

    python prompts.py            # writes prompts/; the models are those of adapters/, of classifiers those named below
    python prompts.py FOLDER     # opens what Phyla wrote into FOLDER in peft, and compares the answers
"""

import json
import shutil
import sys
import warnings
from pathlib import Path

import torch
from adapters import answer, losses, tidy_config
from common import HERE, load, seed_of
from peft import PeftModel, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file

warnings.filterwarnings("ignore")

COMMON = dict(task_type="CAUSAL_LM", num_virtual_tokens=3)
METHODS = {
    "prompt": lambda: PromptTuningConfig(**COMMON),
    "p_tuning_mlp": lambda: PromptEncoderConfig(encoder_hidden_size=5, **COMMON),
    "p_tuning_lstm": lambda: PromptEncoderConfig(
        encoder_hidden_size=5, encoder_reparameterization_type="LSTM", encoder_num_layers=2, **COMMON
    ),
    "prefix": lambda: PrefixTuningConfig(**COMMON),
    "prefix_projection": lambda: PrefixTuningConfig(prefix_projection=True, encoder_hidden_size=6, **COMMON),
}


CLASSIFIERS = {"bert": "tasks/bert_classify", "roberta": "roberta/classify"}
METHODS_OF_CLASSIFIERS = {
    "prompt": lambda: PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3),
    "p_tuning_mlp": lambda: PromptEncoderConfig(task_type="SEQ_CLS", num_virtual_tokens=3, encoder_hidden_size=5),
    "prefix": lambda: PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3),
}


def write_classifier(family: str, name: str):
    """Of an encoder: logits over classes of padded rows, and ten losses of training prompt and head together."""
    base, out = HERE / CLASSIFIERS[family], HERE / "prompts" / f"{family}_classify" / name
    torch.manual_seed(seed_of(f"prompts {family} classify {name}"))
    bare = load(base)
    for module in bare.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model = get_peft_model(bare, METHODS_OF_CLASSIFIERS[name]()).eval()
    model.save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)
    tidy_config(out)
    vocab, classes = bare.config.vocab_size, bare.config.num_labels
    ids = torch.randint(3, vocab, (3, 9))
    mask = (torch.arange(9) < torch.tensor([[9], [6], [8]])).long()
    ids = torch.where(mask == 1, ids, bare.config.pad_token_id or 0)
    inputs = dict(input_ids=ids, attention_mask=mask)
    if family == "bert":
        inputs["token_type_ids"] = (torch.arange(9) > 3).long().expand(3, 9)
    labels = torch.tensor([1, 0, classes - 1])
    batch = {key: value.tolist() for key, value in inputs.items()} | dict(labels=labels.tolist())
    (out / "batch.json").write_text(json.dumps(batch) + "\n")
    with torch.no_grad():
        expected = dict(logits=model(**inputs).logits.contiguous())
    learned = [param for param in model.parameters() if param.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=1e-2, weight_decay=0.0)
    found = []
    for _ in range(10):
        loss = torch.nn.functional.cross_entropy(model(**inputs).logits, labels)
        found.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    expected["losses"] = torch.tensor(found, dtype=torch.float64)
    save_file(expected, out / "expected.safetensors")
    print(family, name, [round(loss, 4) for loss in found])


def compare_classifiers(written: Path):
    for folder in sorted(written.glob("*_classify/*/adapter_config.json")):
        family, name = folder.parent.parts[-2:]
        source = HERE / "prompts" / family / name
        model = PeftModel.from_pretrained(load(HERE / CLASSIFIERS[family.removesuffix("_classify")]), folder.parent).eval()
        batch = json.loads((source / "batch.json").read_text())
        batch.pop("labels")
        with torch.no_grad():
            found = model(**{key: torch.tensor(value) for key, value in batch.items()}).logits
        expected = load_file(source / "expected.safetensors")["logits"]
        print(f"{family} {name}: {(found - expected).abs().max() / expected.abs().max():.1e}")


def write(family: str, name: str):
    base, out = HERE / "adapters" / family, HERE / "prompts" / family / name
    torch.manual_seed(seed_of(f"prompts {family} {name}"))
    model = get_peft_model(load(base), METHODS[name]()).eval()
    encoder = model.prompt_encoder["default"]
    if name == "prefix":  # as large as keys are
        encoder.embedding.weight.data *= 0.5
    model.save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)
    tidy_config(out)
    if len(list(encoder.parameters())) > 1:
        tensors = {key: value.detach().clone() for key, value in encoder.named_parameters()}
        save_file(tensors, out / "encoder.safetensors")
    inputs = json.loads((base / "inputs.json").read_text())
    logits = answer(model, inputs)
    text = len(inputs["input_ids"][0])
    expected = {"logits": logits[:, -text:].contiguous()}
    ids = torch.tensor(inputs["input_ids"])
    with torch.no_grad():
        written = model.generate(input_ids=ids, max_new_tokens=6, do_sample=False, pad_token_id=0, eos_token_id=None)
    expected["written"] = written[:, -6:].contiguous()
    # Of a text's first token, which the prompt alone would have to tell, nothing is learned.
    expected["losses"] = torch.tensor(losses(model.train(), inputs, first=1), dtype=torch.float64)
    save_file(expected, out / "expected.safetensors")


def compare(written: Path):
    for folder in sorted(written.glob("[!_]*/*/adapter_config.json")):
        if folder.parts[-3].endswith("_classify"):
            continue
        family, name = folder.parent.parts[-2:]
        base = HERE / "adapters" / family
        model = PeftModel.from_pretrained(load(base), folder.parent).eval()
        inputs = json.loads((base / "inputs.json").read_text())
        expected = load_file(HERE / "prompts" / family / name / "expected.safetensors")["logits"]
        found = answer(model, inputs)[:, -expected.shape[1] :]
        print(f"{family} {name}: {(found - expected).abs().max() / expected.abs().max():.1e}")


if __name__ == "__main__":
    if sys.argv[1:]:
        compare(Path(sys.argv[1]))
        compare_classifiers(Path(sys.argv[1]))
    else:
        shutil.rmtree(HERE / "prompts", ignore_errors=True)
        for family in ("llama", "gpt2"):
            for name in METHODS:
                write(family, name)
        for family in CLASSIFIERS:
            for name in METHODS_OF_CLASSIFIERS:
                write_classifier(family, name)

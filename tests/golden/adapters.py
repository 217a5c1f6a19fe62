"""Fixtures of adapters: what peft 0.21 computes with random ones, and ten losses of training them.

    python adapters.py           # writes adapters/
    python adapters.py FOLDER    # reads what Phyla wrote into FOLDER, and compares peft's answers with the fixtures'
"""

import json
import random
import shutil
import sys
import warnings
from pathlib import Path

import torch
from common import HERE, base_config, load, make_inputs, new_model, save, seed_of
from peft import (
    AdaLoraConfig,
    EvaConfig,
    IA3Config,
    LoraConfig,
    PeftModel,
    VeraConfig,
    get_peft_model,
    initialize_lora_eva_weights,
)
from safetensors.torch import load_file, save_file

warnings.filterwarnings("ignore")

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "deepseek_v2": "DeepseekV2ForCausalLM",
    "bert": "BertForSequenceClassification",
    "deberta-v2": "DebertaV2ForSequenceClassification",
    "t5": "T5ForConditionalGeneration",
}
TARGETS = {
    "llama": (["q_proj", "v_proj", "down_proj"], ["k_proj", "v_proj", "down_proj"], ["down_proj"]),
    "gpt2": (["c_attn", "c_fc"], ["c_attn", "mlp.c_proj"], ["mlp.c_proj"]),
    "deepseek_v2": (["q_b_proj", "kv_b_proj", "o_proj"], ["kv_b_proj"], []),
    "bert": (["query", "value", "output.dense"], ["key", "value", "output.dense"], ["output.dense"]),
    "deberta-v2": (["query_proj", "value_proj"], ["key_proj", "value_proj"], []),
    "t5": (["q", "v", "wo"], ["k", "v", "wo"], ["wo"]),
}


def methods(family: str) -> dict:
    targets, scaled, feedforward = TARGETS[family]
    first = targets[0]
    task = "SEQ_CLS" if "bert" in family else None
    common = dict(target_modules=targets, task_type=task)
    lora = dict(**common, lora_dropout=0.0)
    found = {
        "lora": LoraConfig(r=3, lora_alpha=5, rank_pattern={first: 2}, alpha_pattern={first: 7}, **lora),
        "rslora": LoraConfig(r=4, lora_alpha=3, use_rslora=True, **lora),
        "dora": LoraConfig(r=3, lora_alpha=4, use_dora=True, **lora),
        "ia3": IA3Config(target_modules=scaled, feedforward_modules=feedforward, task_type=task),
        "adalora": AdaLoraConfig(init_r=4, target_r=2, lora_alpha=6, total_step=100, **common),
    }
    if family != "deepseek_v2":  # maps of many sizes share one matrix: the largest decides
        found["vera"] = VeraConfig(r=5, **common)
    return found


@torch.no_grad()
def disturb(model, seed: int):
    """Every adapted number away from where it began."""
    rng = torch.Generator().manual_seed(seed)
    for name, param in model.named_parameters():
        if param.requires_grad:
            noise = torch.randn(param.shape, generator=rng)
            fan_in = param.shape[-1] if param.dim() > 1 else 1
            if any(key in name for key in ("ia3", "vera_lambda", "magnitude")):
                param.add_(0.3 * noise)
            else:
                param.add_(0.5 * noise / fan_in**0.5)


def inputs_of(family: str) -> dict:
    rng = random.Random(f"adapters {family}")
    vocab = base_config(family)["vocab_size"]
    inputs = make_inputs("right" if "bert" in family else "plain", vocab, rng, 7)
    if family == "t5":
        inputs["decoder_input_ids"] = [[rng.randrange(vocab) for _ in range(5)] for _ in inputs["input_ids"]]
    return inputs


def answer(model, inputs: dict) -> torch.Tensor:
    tensors = {name: torch.tensor(value) for name, value in inputs.items()}
    with torch.no_grad():
        return model(**tensors).logits.contiguous().clone()


def losses(model, inputs: dict, first: int = 0) -> list[float]:
    """Next-token losses of ten steps of AdamW on all targets from the text's token `first` on."""
    ids = torch.tensor(inputs["input_ids"])
    labels = ids.clone()
    labels[:, :first] = -100
    learned = [param for param in model.parameters() if param.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=1e-2, weight_decay=0.0)
    found = []
    for _ in range(10):
        loss = model(input_ids=ids, labels=labels).loss
        found.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return found


def start(family: str, name: str) -> LoraConfig:
    targets = TARGETS[family][0]
    eva = EvaConfig(rho=2.0) if name == "eva" else None
    return LoraConfig(r=3, lora_alpha=5, target_modules=targets, init_lora_weights=name, eva_config=eva)


def write_start(family: str, name: str, inputs: dict):
    """An adapter that begins with what the weights or their inputs are like: ten losses, and what is saved then."""
    folder = HERE / "adapters" / family
    out = folder / name
    model = get_peft_model(load(folder), start(family, name)).eval()
    if name == "eva":
        ids = torch.tensor(inputs["input_ids"])
        batch = {"input_ids": ids, "labels": ids, "attention_mask": torch.ones_like(ids)}
        initialize_lora_eva_weights(model, dataloader=[batch], show_progress_bar=False)
        found = {}
    else:  # what the base gives up is given back on saving
        model.peft_config["default"].init_lora_weights = True
        model.save_pretrained(out / "begun")
        model.peft_config["default"].init_lora_weights = name
        found = {"path_initial_model_for_weight_conversion": str(out / "begun")}
    expected = {"losses": torch.tensor(losses(model.train(), inputs), dtype=torch.float64)}
    expected["logits"] = answer(model.eval(), inputs)
    model.save_pretrained(out, **found)
    (out / "README.md").unlink(missing_ok=True)
    shutil.rmtree(out / "begun", ignore_errors=True)
    save_file(expected, out / "expected.safetensors")
    tidy_config(out)


COMBINATIONS = {
    "linear": {},
    "cat": {},
    "svd": dict(svd_rank=4),
    "ties": dict(density=0.6),
    "ties_svd": dict(density=0.6, majority_sign_method="frequency"),
    "magnitude_prune": dict(density=0.4),
    "magnitude_prune_svd": dict(density=0.7),
    "dare_linear": dict(density=1.0),  # what is left out otherwise is random
    "dare_ties": dict(density=1.0),
    "dare_linear_svd": dict(density=1.0),
    "dare_ties_svd": dict(density=1.0),
}


def write_combined(family: str, inputs: dict):
    """What two adapters answer, combined in every way: names of the ways, and logits of each."""
    folder = HERE / "adapters" / family
    out = HERE / "combined" / family
    targets = TARGETS[family][0]
    model = None
    for at, (name, alpha) in enumerate([("a", 5), ("b", 4)]):
        settings = LoraConfig(r=3, lora_alpha=alpha, target_modules=targets[at:], use_rslora=name == "b")
        torch.manual_seed(seed_of(f"{family} combined {name}"))
        if model is None:
            model = get_peft_model(load(folder), settings, adapter_name=name)
        else:
            model.add_adapter(name, settings)
        model.set_adapter(name)
        disturb(model, seed_of(f"{family} combined {name}"))
    model.eval().save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)
    for name in ("a", "b"):
        (out / name / "README.md").unlink(missing_ok=True)
        tidy_config(out / name)
    model.base_model.set_adapter(["a", "b"])
    expected = {"several": answer(model, inputs)}
    for name, settings in COMBINATIONS.items():
        model.add_weighted_adapter(["a", "b"], [0.7, -0.4], f"by_{name}", combination_type=name, **settings)
        model.set_adapter(f"by_{name}")
        expected[name] = answer(model, inputs)
    save_file(expected, out / "expected.safetensors")


def tidy_config(folder: Path):
    stored = json.loads((folder / "adapter_config.json").read_text())
    stored["base_model_name_or_path"] = None
    if isinstance(stored.get("target_modules"), list):  # a set: in another order every time
        stored["target_modules"].sort()
    (folder / "adapter_config.json").write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")


def write(family: str):
    folder = HERE / "adapters" / family
    config = base_config(family) | dict(architectures=[ARCHITECTURES[family]])
    if "bert" in family:
        config |= dict(num_labels=3)
    if family == "gpt2":  # its own random numbers are nobody else's
        config |= dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    save(new_model(config, seed_of(f"adapters {family}")), folder)
    inputs = inputs_of(family)
    (folder / "inputs.json").write_text(json.dumps(inputs) + "\n")
    for name, settings in methods(family).items():
        torch.manual_seed(seed_of(f"{family} {name}"))
        model = get_peft_model(load(folder), settings).eval()
        disturb(model, seed_of(f"{family} {name}"))
        out = folder / name
        model.save_pretrained(out)
        (out / "README.md").unlink(missing_ok=True)
        found = {"logits": answer(model, inputs)}
        if family in ("llama", "gpt2") and name != "adalora":  # whose loss has a term of its own
            found["losses"] = torch.tensor(losses(model.train(), inputs), dtype=torch.float64)
        save_file(found, out / "expected.safetensors")
        tidy_config(out)
    if family in ("llama", "gpt2"):
        for name in ("pissa", "eva") if family == "gpt2" else ("pissa", "olora", "eva"):  # whose weights it mistakes
            write_start(family, name, inputs)
        write_combined(family, inputs)


def compare(written: Path):
    """Adapters that Phyla wrote, in peft: FOLDER/<family>/<method>."""
    for folder in sorted(written.glob("*/*/adapter_config.json")):
        family, name = folder.parent.parts[-2:]
        base = HERE / "adapters" / family
        if family == "t5":  # this peft's class for that task asks transformers 5 for a method that has gone
            settings = json.loads(folder.read_text()) | dict(task_type=None)
            folder.write_text(json.dumps(settings))
        model = PeftModel.from_pretrained(load(base), folder.parent).eval()
        expected = load_file(folder.parent / "expected.safetensors")["logits"]
        found = answer(model, json.loads((base / "inputs.json").read_text()))
        print(f"{family} {name}: {(found - expected).abs().max() / expected.abs().max():.1e}")


if __name__ == "__main__":
    if sys.argv[1:]:
        compare(Path(sys.argv[1]))
    else:
        for folder in ("adapters", "combined"):
            shutil.rmtree(HERE / folder, ignore_errors=True)
        for family in ARCHITECTURES:
            write(family)

"""AdaLoRA as peft trains it: losses with the regulariser, what is masked and when, the ranks that are left.

    python adalora.py           # writes adalora/
    python adalora.py FOLDER    # reads what Phyla wrote into FOLDER/<family>, and compares peft's answers with Phyla's
"""

import json
import shutil
import sys
import warnings
from pathlib import Path

import torch
from adapters import TARGETS, answer, disturb, inputs_of, tidy_config
from common import HERE, load, seed_of
from peft import AdaLoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

warnings.filterwarnings("ignore")

STEPS = 26
SETTINGS = dict(init_r=4, target_r=2, lora_alpha=6, tinit=4, tfinal=6, deltaT=3, total_step=STEPS, orth_reg_weight=0.3)


def write(family: str):
    out = HERE / "adalora" / family
    base = HERE / "adapters" / family
    inputs = inputs_of(family)
    torch.manual_seed(seed_of(f"{family} adalora run"))
    # Without a task peft passes its own model by, which adds the regulariser.
    task = dict(task_type="CAUSAL_LM", target_modules=TARGETS[family][0])
    settings = AdaLoraConfig(beta1=0.8, beta2=0.7, **task, **SETTINGS)
    model = get_peft_model(load(base), settings)
    disturb(model, seed_of(f"{family} adalora run"))
    model.save_pretrained(out / "begun")
    tidy_config(out / "begun")
    model.train()
    ids = torch.tensor(inputs["input_ids"])
    learned = [param for param in model.parameters() if param.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=1e-2, weight_decay=0.0)
    losses, budgets, masks = [], [], {}
    for step in range(1, STEPS + 1):
        loss = model(input_ids=ids, labels=ids.clone()).loss
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        # Clipped in place, as a trainer does it: the allocator sees what is left.
        torch.nn.utils.clip_grad_norm_(learned, 0.7)
        optimizer.step()
        model.base_model.update_and_allocate(step)
        budgets.append(model.base_model.rankallocator.budget_schedule(step)[0])
        for name, param in model.named_parameters():
            if "lora_E" in name:
                masks.setdefault(name.split("lora_E")[0] + "lora_E", []).append((param.flatten() != 0).int())
    found = {name: torch.stack(rows).to(torch.uint8) for name, rows in masks.items()}
    found |= dict(losses=torch.tensor(losses, dtype=torch.float64), budgets=torch.tensor(budgets, dtype=torch.int64))
    model.eval()
    found["logits"] = answer(model, inputs)
    model.save_pretrained(out / "trained")
    tidy_config(out / "trained")
    save_file(found, out / "expected.safetensors")
    for folder in ("begun", "trained"):
        (out / folder / "README.md").unlink(missing_ok=True)
    again = PeftModel.from_pretrained(load(base), out / "trained").eval()
    assert (answer(again, inputs) - found["logits"]).abs().max() < 1e-5


def compare(written: Path):
    """Adapters that Phyla trained and saved, in peft: FOLDER/<family>, with its logits in expected.safetensors."""
    for folder in sorted(written.glob("*/adapter_config.json")):
        family = folder.parent.name
        model = PeftModel.from_pretrained(load(HERE / "adapters" / family), folder.parent).eval()
        ours = load_file(folder.parent / "expected.safetensors")["logits"]
        theirs = answer(model, inputs_of(family))
        print(f"{family}: {(ours.reshape(theirs.shape) - theirs).abs().max() / theirs.abs().max():.1e}")
        pattern = json.loads(folder.read_text())["rank_pattern"]
        print({name: sum(kept) for name, kept in pattern.items()})


if __name__ == "__main__":
    if sys.argv[1:]:
        compare(Path(sys.argv[1]))
    else:
        shutil.rmtree(HERE / "adalora", ignore_errors=True)
        for family in ("llama", "gpt2"):
            write(family)

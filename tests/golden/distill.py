"""Writes the fixtures of distillation: tests/golden/distill/<case>/.

Ten steps of AdamW in f32, as train_losses.py and tasks_losses.py, from the student and the batch of one of their fixtures.
    config.json, model.safetensors    the teacher
    train.json                        `student` (the other fixture), `distill` (the settings in our spelling), the optimiser's
                                      settings, the loss before each step, the norm before clipping

The divergence is that of trl's `GKDTrainer.generalized_jsd_loss` over the classes that both have, times T²; hidden states are
compared as in DistilBERT, by `CosineEmbeddingLoss` over tokens that are not filling.

    python distill.py
"""

import json

import torch
from common import HERE, load, new_model, save, seed_of, to_tensors
from torch.nn.functional import cosine_embedding_loss, cross_entropy
from train_losses import CLIP, OPTIMISER, STEPS
from trl.experimental.gkd import GKDTrainer

WIDER = dict(hidden_size=40, intermediate_size=56, num_attention_heads=5, num_key_value_heads=5)
CASES = {
    "forward": ("train/llama", dict(temperature=2.0, beta=0.0, alpha=0.5), WIDER | dict(head_dim=8), 7),
    "reverse": ("train/llama", dict(temperature=1.0, beta=1.0, alpha=1.0), WIDER | dict(head_dim=8), 0),
    "between": ("train/gpt2", dict(temperature=0.9, beta=0.3, alpha=0.7), dict(n_embd=48, n_head=4), 0),
    "encoder": ("tasks/deberta_masked_lm", dict(temperature=3.0, beta=0.5, alpha=0.6, hidden_weight=0.8), dict(num_hidden_layers=3), 0),
    "hidden_alone": ("train/llama", dict(temperature=1.0, beta=0.0, alpha=0.0, hidden_weight=2.0), dict(num_hidden_layers=3), 0),
    "classes": ("tasks/bert_classify", dict(temperature=4.0, beta=0.0, alpha=0.9), dict(hidden_size=48, num_attention_heads=4), 0),
    "tags": ("tasks/bert_tag", dict(temperature=2.0, beta=0.0, alpha=0.5), dict(hidden_size=48, num_attention_heads=4), 0),
    "translation": ("tasks/t5", dict(temperature=2.0, beta=0.2, alpha=0.5), dict(d_model=40, num_heads=4), 0),
}


def loss_of(student, teacher, batch, settings):
    causal = type(student).__name__.endswith("CausalLM") or type(student).__name__.startswith("GPT2")
    inputs = {name: rows for name, rows in batch.items() if name != "labels"}
    own = student(**inputs, output_hidden_states=True)
    with torch.no_grad():
        theirs = teacher(**inputs, output_hidden_states=True)
    labels, ours, other = batch["labels"], own.logits, theirs.logits
    if causal:
        labels, ours, other = labels[:, 1:], ours[:, :-1], other[:, :-1]
    counts = labels != -100
    labels, ours, other = labels[counts], ours[counts], other[counts]
    common = min(ours.shape[-1], other.shape[-1])
    temperature, alpha = settings["temperature"], settings["alpha"]
    soft = GKDTrainer.generalized_jsd_loss(
        ours[None, :, :common], other[None, :, :common], beta=settings["beta"], temperature=temperature, reduction="sum"
    )
    loss = (1 - alpha) * cross_entropy(ours, labels) + alpha * temperature**2 * soft / len(labels)
    if weight := settings.get("hidden_weight"):
        mask = batch["attention_mask"].bool()
        last = [out.hidden_states[-1][mask] for out in (own, theirs)]
        loss = loss + weight * cosine_embedding_loss(*last, torch.ones(len(last[0])))
    return loss


def write(name):
    student_of, settings, other, more = CASES[name]
    folder, source = HERE / "distill" / name, HERE / student_of
    student = load(source).train()
    config = json.loads((source / "config.json").read_text()) | other
    config["vocab_size"] += more
    save(new_model(config, seed_of(f"distill/{name}")), folder)
    teacher = load(folder).eval()
    batch = to_tensors(json.loads((source / "batch.json").read_text()))
    params = dict(student.named_parameters())
    matrices = [p for p in params.values() if p.dim() >= 2]
    vectors = [p for p in params.values() if p.dim() < 2]
    groups = [dict(params=matrices), dict(params=vectors, weight_decay=0.0)]
    optimiser = torch.optim.AdamW(groups, **OPTIMISER)
    losses, norms = [], []
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss = loss_of(student, teacher, batch, settings)
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(student.parameters(), CLIP)))
        losses.append(loss.item())
        optimiser.step()
    told = dict(student=student_of, distill=settings) | OPTIMISER
    told |= dict(decay="parameters of two dimensions", clip=CLIP, losses=losses, gradient_norms=norms)
    (folder / "train.json").write_text(json.dumps(told, indent=1) + "\n")
    print(name, [round(loss, 4) for loss in losses], "norms", round(min(norms), 3), round(max(norms), 3))


if __name__ == "__main__":
    for case in CASES:
        write(case)
